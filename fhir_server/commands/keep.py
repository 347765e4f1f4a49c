"""`load`, `backup`, `restore`, `verify`, `reindex`: bulk work on a store, with progress."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from fhir_server.commands import opened
from fhir_server.commands.opened import DataDir, MongoUri, TenantName
from fhir_server.context import Context
from fhir_server.interactions.indexing import index_of
from fhir_server.jobs import seal
from fhir_server.jobs.load import Report, Target, load
from fhir_server.settings import public_base
from fhir_server.store.mongo import archive
from fhir_server.store.mongo.reindex import reindex
from fhir_server.store.mongo.store import MongoStore
from fhir_server.store.mongo.verify import Fault, verify

SHOWN_ERRORS = 20
REINDEX_STEP = 500
console = Console(stderr=True)


def load_command(
    paths: Annotated[list[Path], typer.Argument(help="NDJSON files, or JSON files with a Bundle or a resource.")],
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
    tenant: TenantName = "",
    processes: Annotated[int, typer.Option(help="Loading processes.")] = 2,
    state: Annotated[Path | None, typer.Option(help="File that remembers what is done, so that a stopped load goes on where it was.")] = None,
) -> None:
    """Load resources in bulk: validated and indexed; errors are listed by file and line.

    Quickest while no server runs on the data directory: the indexes of what is new are then made at the end, in one go.
    """
    where = opened.at(data_dir, mongodb_uri, tenant)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[done]}"), TaskProgressColumn(), TimeRemainingColumn())
    with opened.reached(where.settings) as (uri, alone), Progress(*columns, console=console) as bar:
        loading, indexing = bar.add_task("loading", total=None, done=""), bar.add_task("indexing", total=None, done="", visible=False)

        def show(now: Report) -> None:
            done, parts = now.indexed
            bar.update(loading, total=now.total_bytes, completed=now.done_bytes, done=f"{now.done_bytes / 1e6:.1f} of {now.total_bytes / 1e6:.1f} MB")
            bar.update(indexing, total=parts, completed=done, visible=parts > 0, done=f"{done} of {parts}")

        settings, name = asyncio.run(opened.settings_of(where, uri))
        target = Target(uri, name, settings, public_base(settings), alone)
        report = load(paths, target, processes=processes, state=state, progress=show)
    _tell(report)


def _tell(report: Report) -> None:
    for path, line, text in report.errors[:SHOWN_ERRORS]:
        console.print(f"{path}:{line}: {text}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"{report.loaded} loaded, {report.skipped} unchanged, {report.failed} failed", highlight=False)
    if report.failed:
        raise typer.Exit(1)


def backup_command(
    target: Annotated[Path, typer.Argument(help="File to write.")], data_dir: DataDir = None, mongodb_uri: MongoUri = None, tenant: TenantName = ""
) -> None:
    """Write a consistent backup of the whole store to one file."""
    where = opened.at(data_dir, mongodb_uri, tenant)
    counts = _with_store(where, partial(archive.backup, target=target))
    console.print(f"{sum(counts.values())} documents of {len(counts)} collections are in {target}", highlight=False)


def restore_command(
    source: Annotated[Path, typer.Argument(help="A backup.")], data_dir: DataDir = None, mongodb_uri: MongoUri = None, tenant: TenantName = ""
) -> None:
    """Fill an empty store from a backup. Its audit trail can be verified with the secret it was sealed with (FHIR_SECRET, or the file `secret`)."""
    where = opened.at(data_dir, mongodb_uri, tenant)
    opened.refuse_if_served(where)
    counts = _with_store(where, partial(archive.restore, source=source))
    console.print(f"{sum(counts.values())} documents of {len(counts)} collections are restored", highlight=False)


def _with_store(where: opened.Where, act: Callable[[MongoStore], Awaitable[dict[str, int]]]) -> dict[str, int]:
    return opened.on_place(where, lambda store, _: act(store))


def _say(fault: Fault) -> None:
    console.print(f"{fault.place}: {fault.rule}", highlight=False, soft_wrap=True, markup=False)


def verify_command(data_dir: DataDir = None, mongodb_uri: MongoUri = None, tenant: TenantName = "") -> None:
    """Check that index and content agree, that versions are whole, and that the audit trail is as it was sealed; exit code 1 if anything is not."""
    where = opened.at(data_dir, mongodb_uri, tenant)
    where = replace(where, settings=opened.with_secret(where.settings))

    async def judged(store: MongoStore, ctx: Context) -> int:
        faults = 0
        async for fault in verify(store, partial(index_of, ctx)):
            faults += 1
            _say(fault)
        async for fault in seal.check(ctx, store.database):
            faults += 1
            _say(fault)
        return faults

    faults = opened.on_store(where, judged)
    console.print("nothing is wrong" if not faults else f"{faults} faults", highlight=False)
    if faults:
        raise typer.Exit(1)


def reindex_command(
    rtypes: Annotated[list[str] | None, typer.Argument(help="Resource types; all stored ones by default.")] = None,
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
    tenant: TenantName = "",
) -> None:
    """Make the index documents anew, while the server runs."""
    where = opened.at(data_dir, mongodb_uri, tenant)

    async def renewed(store: MongoStore, ctx: Context) -> None:
        for rtype in rtypes or sorted(await store.types()):
            after, seen, changed = "", 0, 0
            while True:
                after, looked, made = await reindex(store, rtype, partial(index_of, ctx), after=after, limit=REINDEX_STEP)
                seen, changed = seen + looked, changed + made
                if not after:
                    break
            console.print(f"{rtype}: {seen} looked at, {changed} changed", highlight=False)

    opened.on_store(where, renewed)
