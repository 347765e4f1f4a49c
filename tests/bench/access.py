"""What access control and audit cost over HTTP: `python -m tests.bench.access [SECONDS] [ROUNDS]`.

Three exchanges (open; smart with audit off; smart with audit on), one after the other, each with one worker and a database of its own (else one would
seal what another writes), 16 connections; the floor for reads. Rates, and CPU microseconds a request of server and database, which depend less on
what else the machine does.
"""

import base64
import json
import statistics
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from conformance import codec
from tests.bench import processes
from tests.bench.audit import entries
from tests.bench.core import CONNECTIONS, _copy_to_floor, observation, running_database
from tests.bench.processes import ROOT, http_request, load

CLIENT, SECRET = "bench", "b" * 40
MODES = {"open": ("open", "off"), "smart": ("smart", "off"), "audited": ("smart", "on")}
KINDS = ("read", "search", "create", "bundle of 10", "bundle of 100")


@dataclass(frozen=True)
class Side:
    """One server: how it is reached and what its requests carry."""

    port: int
    pids: list[int]
    headers: str


@contextmanager
def side(mode: str, uri: str, folder: Path) -> Iterator[Side]:
    """A running exchange of a mode, with a token where it asks for one."""
    auth, audit = MODES[mode]
    port = processes.free_port()
    environment = {"FHIR_AUDIT": audit, "FHIR_RATE": "0", "FHIR_DATA_DIR": str(folder), "FHIR_SECRET": "s" * 40}
    arguments = ["--auth", auth, "--workers", "1", "--mongodb-uri", uri, "--mllp-port", "-1"]
    with processes.exchange(arguments, port, environment, folder / f"{mode}.log") as server:
        headers = "" if auth == "open" else f"Authorization: Bearer {_token(port)}\r\n"
        yield Side(port, processes.family(server.pid)[1:], headers)


def _register(uri: str, folder: Path) -> None:
    secret = folder / "client.secret"
    secret.write_text(SECRET)
    command = [sys.executable, "-m", "fhir_server.cli", "client", "add", CLIENT, "--kind", "symmetric", "--scope", "system/*.cruds"]
    subprocess.run(
        [*command, "--secret-file", str(secret), "--mongodb-uri", uri, "--data-dir", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=60,
    )


def _token(port: int) -> str:
    form = urllib.parse.urlencode({"grant_type": "client_credentials", "scope": "system/*.cruds"}).encode()
    credentials = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/auth/token", form, {"Authorization": f"Basic {credentials}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(json.load(answer)["access_token"])


def _requests(kind: str, at: Side, ids: list[str], turn: int) -> list[bytes]:
    if kind == "read":
        return [http_request("GET", f"/fhir/Observation/{rid}", headers=at.headers) for rid in ids]
    if kind == "search":
        return [http_request("GET", f"/fhir/Observation?patient=p{n}&code=2823-3&_sort=-date&_count=20", headers=at.headers) for n in range(500)]
    if kind == "create":
        return [http_request("POST", "/fhir/Observation", json.dumps(observation(n)).encode(), at.headers) for n in range(2000)]
    many = int(kind.split()[-1])
    bundles = (entries(turn * 1000 + n, many, f"Patient/p{n}" if many == 10 else "") for n in range(300))
    return [http_request("POST", "/fhir", codec.encode(one), at.headers) for one in bundles]


def measured(at: Side, mongod: int, requests: list[bytes], seconds: float, folder: Path) -> tuple[float, float, float]:
    """(rate, microseconds of the server, of the database)."""
    before = processes.cpu_seconds(at.pids), processes.cpu_seconds([mongod])
    result = load(at.port, CONNECTIONS, seconds, requests, folder)
    if not set(result["statuses"]) <= {"200", "201"}:
        raise RuntimeError(f"unexpected answers: {result['statuses']}")
    after = processes.cpu_seconds(at.pids), processes.cpu_seconds([mongod])
    return result["rate"], *((now - then) / result["requests"] * 1e6 for now, then in zip(after, before, strict=True))


def main(seconds: float, rounds: int) -> None:
    """Measure and print."""
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for _ in range(rounds):
        for mode in MODES:
            with tempfile.TemporaryDirectory(prefix="bench") as name:
                for kind, row in _alone(mode, seconds, Path(name)):
                    found.setdefault((kind, mode if kind != "floor" else ""), []).append(row)
    for (kind, mode), rows in sorted(found.items()):
        rate, server, mongod = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{kind:14} {mode:8} {rate:7.0f}/s   server {server:6.0f} us   database {mongod:6.0f} us   together {server + mongod:6.0f} us")


def _alone(mode: str, seconds: float, folder: Path) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Each kind of request on a fresh exchange of this mode; in open mode the floor too."""
    with ExitStack() as stack:
        database = stack.enter_context(running_database(folder / "db"))
        _register(database.uri, folder)
        at = stack.enter_context(side(mode, database.uri, folder))
        load(at.port, CONNECTIONS, 0, _requests("create", at, [], 0), folder)
        ids = _copy_to_floor(database.uri)
        for kind in KINDS:
            yield kind, measured(at, database.pid, _requests(kind, at, ids, 1), seconds, folder)
        if mode == "open":
            port, pids = stack.enter_context(processes.floor(database.uri, 1))
            reads = [http_request("GET", f"/{rid}") for rid in ids]
            yield "floor", measured(Side(port, pids, ""), database.pid, reads, seconds, folder)


if __name__ == "__main__":
    given = [float(text) for text in sys.argv[1:]]
    main(given[0] if given else 3.0, int(given[1]) if len(given) > 1 else 3)
