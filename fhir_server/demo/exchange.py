"""The demo: a FHIR transaction over HTTP and HL7 v2 messages over MLLP, sent to the running server as a partner would send them."""

import asyncio
from dataclasses import dataclass
from importlib.resources import files

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

START, END = b"\x0b", b"\x1c\r"
READY_SECONDS = 60.0
STEP_SECONDS = 30.0
COUNTED = ("Patient", "Encounter", "Condition", "MedicationStatement", "Observation", "DiagnosticReport", "Practitioner", "Organization")


class DemoFailed(RuntimeError):
    """A demo step was refused; the text says which and how the server answered."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the running server listens."""

    base: str
    mllp_port: int


async def run_demo(target: Target, console: Console) -> None:
    """Wait until the server is ready; on an empty store exchange the demo data in; print what is stored and what to try."""
    async with httpx.AsyncClient(timeout=STEP_SECONDS, headers={"Accept": "application/fhir+json"}) as client:
        await _ready(client, target)
        if await _total(client, target, "Patient") == 0:
            await _exchange(client, target, console)
        totals = {rtype: await _total(client, target, rtype) for rtype in COUNTED}
    _tell(target, totals, console)


async def _ready(client: httpx.AsyncClient, target: Target) -> None:
    async with asyncio.timeout(READY_SECONDS):
        while True:
            try:
                if (await client.get(target.base.removesuffix("/fhir") + "/health/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.05)


async def _total(client: httpx.AsyncClient, target: Target, rtype: str) -> int:
    answer = await client.get(f"{target.base}/{rtype}", params={"_summary": "count"})
    if answer.status_code != 200:
        raise DemoFailed(f"counting {rtype} was answered with {answer.status_code}")
    return int(answer.json()["total"])


async def _exchange(client: httpx.AsyncClient, target: Target, console: Console) -> None:
    folder = files("fhir_server.demo")
    messages = sorted(item for item in folder.iterdir() if item.name.endswith(".hl7")) if target.mllp_port > 0 else []  # type: ignore[type-var]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=False) as progress:
        task = progress.add_task("FHIR transaction over HTTP", total=1 + len(messages))
        bundle = folder.joinpath("transaction.json").read_bytes()
        answer = await client.post(target.base, content=bundle, headers={"Content-Type": "application/fhir+json"})
        if answer.status_code != 200:
            raise DemoFailed(f"the transaction was answered with {answer.status_code}: {answer.text[:500]}")
        progress.advance(task)
        for message in messages:
            progress.update(task, description=f"HL7 v2 over MLLP: {message.name}")
            await _send(target.mllp_port, message.read_bytes(), message.name)
            progress.advance(task)


async def _send(port: int, message: bytes, name: str) -> None:
    async with asyncio.timeout(STEP_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(START + message.replace(b"\n", b"\r") + END)
        await writer.drain()
        ack = await reader.readuntil(END)
        writer.close()
        await writer.wait_closed()
    code = next((line.split(b"|")[1] for line in ack.strip(START + END).split(b"\r") if line.startswith(b"MSA|")), b"")
    if code not in (b"AA", b"CA"):
        raise DemoFailed(f"{name} was acknowledged with {code.decode('ascii', 'replace') or 'nothing'}")


def _tell(target: Target, totals: dict[str, int], console: Console) -> None:
    console.print("\n[bold]Stored:[/bold] " + ", ".join(f"{count} {rtype}" for rtype, count in totals.items()))
    console.print(f"[bold]FHIR:[/bold] {target.base}   [bold]MLLP:[/bold] 127.0.0.1:{target.mllp_port}\n[bold]Try:[/bold]")
    tries = (
        f"curl -s '{target.base}/metadata?_pretty=true' | head -40",
        f"curl -s '{target.base}/Patient?family=lindqvist&_pretty=true'",
        f"curl -s '{target.base}/Observation?patient.identifier=NG-2001&code=http://loinc.org|2823-3&_pretty=true'",
        f"curl -s '{target.base}/Encounter?_include=Encounter:patient&_sort=-date&_count=5&_pretty=true'",
        f"curl -s '{target.base}/Observation/_history?_count=5&_pretty=true'",
    )
    for line in tries:
        console.print("  " + line, highlight=False, soft_wrap=True, markup=False)
    console.print("\nStop with Ctrl-C.", highlight=False)
