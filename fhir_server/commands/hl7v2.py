"""`hl7v2 send`, `list`, `show`, `resubmit`, `replay`: HL7 v2 messages from the command line."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from fhir_server.commands import opened
from fhir_server.commands.opened import DataDir, MongoUri, TenantName
from fhir_server.feed import desk
from fhir_server.feed.assembly import open_feed
from fhir_server.feed.intake import Feed
from fhir_server.feed.sources import load_registry
from fhir_server.store.mongo import inbox as mongo_inbox
from mappers.v2 import batch
from mappers.v2.message import parse

app = typer.Typer(help="Send HL7 v2 messages, look into the inbox, replay.", no_args_is_help=True)
console = Console(stderr=True)
START, END = b"\x0b", b"\x1c\r"
ANSWER_SECONDS = 60.0


@app.command()
def send(
    paths: Annotated[list[Path], typer.Argument(help="Files with messages (ER7), one or many each.")],
    host: Annotated[str, typer.Option(help="Where the MLLP door is.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Its port.")] = 2575,
) -> None:
    """Send messages over MLLP and print what each was answered; exit code 1 unless all were accepted."""
    if not asyncio.run(_send(paths, host, port)):
        raise typer.Exit(1)


async def _send(paths: list[Path], host: str, port: int) -> bool:
    accepted = True
    reader, writer = await asyncio.open_connection(host, port)
    for path in paths:
        for message in batch.split(await asyncio.to_thread(path.read_bytes)).messages:
            writer.write(START + message + END)
            await writer.drain()
            answer = parse((await asyncio.wait_for(reader.readuntil(END), ANSWER_SECONDS)).strip(START + END))
            code = answer.get("MSA-1")
            console.print(
                f"{path.name}: {answer.get('MSA-2')} {code} {answer.get('ERR-8') or answer.get('MSA-3')}".rstrip(), highlight=False, markup=False
            )
            accepted = accepted and code in ("AA", "CA")
    writer.close()
    await writer.wait_closed()
    return accepted


@app.command(name="list")
def list_entries(
    source: Annotated[str | None, typer.Option(help="Only this source.")] = None,
    status: Annotated[str | None, typer.Option(help="Only this status (received, processed, warning, mapping-error, deferred ...).")] = None,
    limit: int = 50,
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
    tenant: TenantName = "",
) -> None:
    """List messages of the inbox, newest first."""
    filters = {name: value for name, value in (("source", source), ("status", status)) if value}
    _print(_with_feed(opened.at(data_dir, mongodb_uri, tenant), lambda feed: desk.listed(feed, filters, limit=limit)))


@app.command()
def show(id: str, data_dir: DataDir = None, mongodb_uri: MongoUri = None, tenant: TenantName = "") -> None:
    """Show one message with its answer (this prints patient data)."""
    _print(_with_feed(opened.at(data_dir, mongodb_uri, tenant), lambda feed: desk.show(feed, id)))


@app.command()
def resubmit(
    id: str,
    edited: Annotated[Path | None, typer.Option(help="A corrected copy of the message, which takes its place.")] = None,
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
    tenant: TenantName = "",
) -> None:
    """Process a failed or deferred message again."""
    where = opened.at(data_dir, mongodb_uri, tenant)
    text = edited.read_bytes() if edited else None
    _print(_with_feed(where, lambda feed: desk.resubmit(feed, id, text, "operator")))


@app.command()
def replay(
    source: Annotated[str | None, typer.Option(help="Only messages of this source.")] = None,
    event: Annotated[str | None, typer.Option(help="Only this event (ORU^R01).")] = None,
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
    tenant: TenantName = "",
) -> None:
    """Derive resources again from accepted messages, oldest first, with the mapping tables of today."""
    filters = {name: value for name, value in (("source", source), ("event", event)) if value}

    async def all_pages(feed: Feed) -> dict[str, int]:
        after, count = "", 0
        while page := await desk.replay(feed, filters, after=after):
            after, count = page[-1]["id"], count + len(page)
        return {"replayed": count}

    _print(_with_feed(opened.at(data_dir, mongodb_uri, tenant), all_pages))


def _with_feed(where: opened.Where, act: Callable[[Feed], Awaitable[Any]]) -> Any:
    async def run(uri: str) -> Any:
        async with opened.store(where, uri) as (store, ctx):
            await mongo_inbox.prepare(store.database)
            return await act(open_feed(ctx, mongo_inbox.MongoInbox(store.database), load_registry(ctx.settings.sources)))

    with opened.database(where.settings) as uri:
        return asyncio.run(run(uri))


def _print(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")
