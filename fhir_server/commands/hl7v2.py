"""`hl7v2 send`, `list`, `show`, `trace`, `resubmit`, `replay`, `sources`, `unmapped`, `merges`, `undo`: HL7 v2 messages from the command line."""

import asyncio
import json
import re
import ssl
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from conformance.outcome import Refusal
from fhir_server.commands import opened
from fhir_server.commands.opened import DataDir, MongoUri, TenantName
from fhir_server.context import Context
from fhir_server.feed import desk
from fhir_server.feed import unmapped as codes
from fhir_server.feed.admin import filters_of
from fhir_server.feed.assembly import open_feed
from fhir_server.feed.intake import Feed
from fhir_server.feed.outgoing import message_of
from fhir_server.feed.statistics import alerts
from fhir_server.mllp.delivery import Delivery, deliver
from fhir_server.mllp.sender import trusting
from fhir_server.sources import load_registry
from fhir_server.store.inbox import ACCEPTED
from fhir_server.store.mongo import inbox as mongo_inbox
from fhir_server.store.mongo.store import MongoStore
from mappers.v2 import batch
from mappers.v2.message import parse
from mappers.v2.tables import load_tables

app = typer.Typer(help="Send HL7 v2 messages, look into the inbox, replay.", no_args_is_help=True)
console = Console(stderr=True)
RESOURCE = re.compile(r"[A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64}")
ANSWER_SECONDS = 60.0


@app.command()
def send(
    what: Annotated[
        list[str],
        typer.Argument(help="Files with messages (ER7), one or many each, or stored resources: DiagnosticReport/1, Encounter/1, Patient/1."),
    ],
    host: Annotated[str, typer.Option(help="Where the MLLP door is.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Its port.")] = 2575,
    event: Annotated[str, typer.Option(help="What to send of a resource: ORU^R01, ADT^A01 or ADT^A08; else what fits its type.")] = "",
    sending: Annotated[str, typer.Option(help="MSH-3|MSH-4 of a message made of a resource.")] = "FHIR-EXCHANGE|",
    receiving: Annotated[str, typer.Option(help="MSH-5|MSH-6 of a message made of a resource.")] = "|",
    attempts: Annotated[int, typer.Option(help="How often to send a message that is not acknowledged, or whose answer asks for it (AR).")] = 3,
    seconds: Annotated[float, typer.Option(help="How long to wait for each answer.")] = ANSWER_SECONDS,
    tls_ca: Annotated[Path | None, typer.Option(help="Speak TLS: PEM file of the authorities that the door's certificate must come from.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file with our own certificate and key (mutual TLS); needs --tls-ca.")] = None,
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
    tenant: TenantName = "",
) -> None:
    """Send messages over MLLP and print what each was answered; exit code 1 unless all were accepted."""
    files = [one for one in what if not RESOURCE.fullmatch(one)]
    messages = [(Path(one).name, message) for one in files for message in _messages_in(one)]
    ends = (tuple(sending.partition("|")[::2]), tuple(receiving.partition("|")[::2]))
    for one in what:
        if RESOURCE.fullmatch(one):
            messages.append((one, _with_store(opened.at(data_dir, mongodb_uri, tenant), partial(_outgoing, one, event, ends))))
    context = _tls(tls_ca, tls_cert)
    if not asyncio.run(_send(messages, partial(deliver, host, port, attempts=attempts, seconds=seconds, context=context))):
        raise typer.Exit(1)


def _tls(authorities: Path | None, own: Path | None) -> ssl.SSLContext | None:
    if authorities is None:
        if own is not None:
            raise typer.BadParameter("--tls-cert needs --tls-ca")
        return None
    try:
        return trusting(str(authorities), str(own) if own else "")
    except OSError as error:
        raise typer.BadParameter(f"TLS: {error.strerror or type(error).__name__}") from error


def _messages_in(path: str) -> list[bytes]:
    try:
        found = list(batch.split(Path(path).read_bytes()).messages)
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}") from error
    if not found:
        raise typer.BadParameter(f"{path}: holds no HL7 v2 message")
    return found


async def _outgoing(ref: str, event: str, ends: Any, ctx: Context) -> bytes:
    site = Path(ctx.settings.v2_tables) if ctx.settings.v2_tables else None
    try:
        return await message_of(ctx.store, ctx.base, ref, load_tables(site), event=event, sending=ends[0], receiving=ends[1])
    except Refusal as refusal:
        raise typer.BadParameter(f"{ref}: {refusal.issues[0].text}") from refusal


async def _send(messages: Sequence[tuple[str, bytes]], delivered: Callable[[bytes], Awaitable[Delivery]]) -> bool:
    accepted = bool(messages)
    for name, message in messages:
        done = await delivered(message)
        told = f"{done.code} {done.text}".strip()
        again = f" ({done.attempts} attempts)" if done.attempts > 1 else ""
        console.print(f"{name}: {parse(message).control_id} {told}{again}", highlight=False, markup=False)
        accepted = accepted and done.accepted
    return accepted


@app.command(name="list")
def list_entries(
    source: Annotated[str | None, typer.Option(help="Only this source.")] = None,
    status: Annotated[str | None, typer.Option(help="Only this status (received, processed, warning, mapping-error, deferred ...).")] = None,
    event: Annotated[str | None, typer.Option(help="Only this event (ORU^R01).")] = None,
    control_id: Annotated[str | None, typer.Option(help="Only this MSH-10.")] = None,
    resource: Annotated[str | None, typer.Option(help="Only what wrote this resource (Patient/1).")] = None,
    since: Annotated[str | None, typer.Option(help="Received then or later (2026-01-31T08:00:00+01:00).")] = None,
    before: Annotated[str | None, typer.Option(help="Received before then.")] = None,
    after: Annotated[str, typer.Option(help="Go on behind this id, the last of the page before.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
    tenant: TenantName = "",
) -> None:
    """List messages of the inbox, newest first."""
    given = {
        "source": source,
        "status": status,
        "event": event,
        "control_id": control_id,
        "ref": resource,
        "received_ge": since,
        "received_lt": before,
    }
    query = {name: value for name, value in given.items() if value}
    _print(_with_feed(opened.at(data_dir, mongodb_uri, tenant), lambda feed: desk.listed(feed, filters_of(query), after=after, limit=limit)))


@app.command()
def trace(
    resource: Annotated[str, typer.Argument(help="Patient/1")], data_dir: DataDir = None, mongodb_uri: MongoUri = None, tenant: TenantName = ""
) -> None:
    """The messages that wrote a resource, newest first, each with everything that it wrote."""
    _print(_with_feed(opened.at(data_dir, mongodb_uri, tenant), lambda feed: desk.messages_of(feed, resource)))


@app.command()
def sources(data_dir: DataDir = None, mongodb_uri: MongoUri = None, tenant: TenantName = "") -> None:
    """What an operator should see of every source: when it was heard last, what waits, how much fails."""
    _print(_with_feed(opened.at(data_dir, mongodb_uri, tenant), lambda feed: alerts(feed.inbox, feed.registry)))


@app.command()
def unmapped(
    source: Annotated[str, typer.Argument(help="Only what this source sent.")] = "",
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
    tenant: TenantName = "",
) -> None:
    """List codes that no map knows, for mapping: source, map, system, code, text, and a message that has it."""
    _print(_with_feed(opened.at(data_dir, mongodb_uri, tenant), lambda feed: codes.listed(feed.inbox, source)))


@app.command()
def merges(
    resource: Annotated[str, typer.Argument(help="Those that concern this resource (Patient/1); else the open ones.")] = "",
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
    tenant: TenantName = "",
) -> None:
    """List merges."""
    _print(_with_feed(opened.at(data_dir, mongodb_uri, tenant), lambda feed: desk.merges(feed, resource)))


@app.command()
def undo(
    merge: Annotated[str, typer.Argument(help="The _id that `merges` shows.")],
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
    tenant: TenantName = "",
) -> None:
    """Undo a merge from its recorded list."""
    _print(_with_feed(opened.at(data_dir, mongodb_uri, tenant), lambda feed: desk.undo_merge(feed, merge, "operator")))


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
    resource: Annotated[str | None, typer.Option(help="Only the messages that wrote this resource (Patient/1).")] = None,
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
    tenant: TenantName = "",
) -> None:
    """Derive resources again from accepted messages, oldest first, with the mapping tables of today; prints how many, and those that failed."""
    filters = {name: value for name, value in (("source", source), ("event", event), ("ref", resource)) if value}

    async def all_pages(feed: Feed) -> dict[str, Any]:
        after, count, failed = "", 0, list[str]()
        while page := await desk.replay(feed, filters, after=after):
            after, count = page[-1]["id"], count + len(page)
            failed += [row["id"] for row in page if row["status"] not in ACCEPTED]
        return {"replayed": count, "failed": failed}

    _print(_with_feed(opened.at(data_dir, mongodb_uri, tenant), all_pages))


def _with_store(where: opened.Where, act: Callable[[Context], Awaitable[Any]]) -> Any:
    return opened.on_store(where, lambda _, ctx: act(ctx))


def _with_feed(where: opened.Where, act: Callable[[Feed], Awaitable[Any]]) -> Any:
    async def fed(store: MongoStore, ctx: Context) -> Any:
        await mongo_inbox.prepare(store.database)
        return await act(open_feed(ctx, mongo_inbox.MongoInbox(store.database), load_registry(ctx.settings.sources)))

    try:
        return opened.on_store(where, fed)
    except Refusal as refusal:
        raise typer.BadParameter("; ".join(issue.text for issue in refusal.issues)) from refusal


def _print(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")
