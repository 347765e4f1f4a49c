"""`terminology load | list | drop | unknown | forget`: releases of code systems, and the local codes that wait to be mapped.

A load goes into the data directory and the database: running workers, and the other servers of a cluster, take it up by themselves.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from fhir_server.commands import opened
from fhir_server.commands.opened import DataDir, MongoUri, TenantName
from fhir_server.store.mongo import shelf, unknown_codes
from fhir_server.store.mongo.client import Database
from terminology.load import FORMATS, draft

app = typer.Typer(help="Load code systems, value sets and concept maps; list local codes that nothing maps.", no_args_is_help=True)
console = Console(stderr=True)
T = TypeVar("T")
SourceName = Annotated[str, typer.Option(help="Only codes of this source.")]
SystemUrl = Annotated[str, typer.Option(help="Only codes of this code system.")]


def _with_database(where: opened.Where, act: Callable[[Database], Awaitable[T]]) -> T:
    return opened.on_place(where, lambda store, _: act(store.database))


@app.command(name="load")
def load_release(
    kind: Annotated[str, typer.Argument(help="The release's format: " + ", ".join(FORMATS))],
    paths: Annotated[list[Path], typer.Argument(help="The release: folder, archive or files.")],
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
) -> None:
    """Load one release; versions stand side by side, the same version again replaces itself."""
    if kind not in FORMATS:
        raise ValueError(f"'{kind}' is no release format: " + ", ".join(FORMATS))
    settings = opened.at(data_dir, mongodb_uri).settings
    folder = settings.shelf
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(f"loading {kind}", total=1.0)

        def show(step: str, share: float) -> None:
            bar.update(task, description=step, completed=share)

        async def bring(database: Database) -> None:
            await shelf.fetch(database, folder)  # a shelf that was never published is not forgotten
            await shelf.publish(database, folder, systems, resources, show)
            await shelf.fetch(database, folder)

        systems, resources = draft(kind, paths, folder, show)
        _with_database(opened.Where(settings), bring)
        show("in force", 1.0)
    console.print("in force: " + ", ".join([*systems, *resources]), highlight=False)


@app.command(name="list")
def list_loaded(data_dir: DataDir = None, mongodb_uri: MongoUri = None) -> None:
    """List what is in force."""
    found = _with_database(opened.at(data_dir, mongodb_uri), shelf.current) or {}
    for name in [*found.get("systems", ()), *found.get("resources", ())]:
        typer.echo(name)


@app.command()
def drop(
    name: Annotated[str, typer.Argument(help="A name as `list` shows it; what stands behind '~' may be left out.")],
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
) -> None:
    """Take a release out of force."""
    settings = opened.at(data_dir, mongodb_uri).settings

    async def act(database: Database) -> None:
        await shelf.withdraw(database, name)
        await shelf.fetch(database, settings.shelf)

    _with_database(opened.Where(settings), act)


@app.command()
def unknown(
    source: SourceName = "",
    system: SystemUrl = "",
    limit: Annotated[int, typer.Option(help="Most rows to show.")] = 100,
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
    tenant: TenantName = "",
) -> None:
    """List the codes that nothing here knows, the most frequent first: count, source, system, code, display."""
    where = opened.at(data_dir, mongodb_uri, tenant)
    given = {name: value for name, value in (("source", source), ("system", system)) if value}
    for row in _with_database(where, lambda database: unknown_codes.listed(database, given, limit)):
        typer.echo("\t".join((str(row["count"]), row["source"], row["system"], row["code"], row.get("display", ""))))


@app.command()
def forget(
    source: SourceName = "",
    system: SystemUrl = "",
    code: Annotated[str, typer.Option(help="Only this code.")] = "",
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
    tenant: TenantName = "",
) -> None:
    """Remove rows of that list, once their codes are mapped."""
    if not (source or system or code):
        raise ValueError("name a --source, --system or --code")
    where = opened.at(data_dir, mongodb_uri, tenant)
    given = {"source": source, "system": system, "code": code}
    console.print(f"{_with_database(where, lambda database: unknown_codes.forget(database, given))} removed", highlight=False)
