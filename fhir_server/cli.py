"""The `fhir-exchange` command. Each sub-command is a thin shell over a function that tests call directly."""

import asyncio
import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from conformance.outcome import Refusal
from fhir_server import logs, main, supervisor
from fhir_server.commands import access, hl7v2, keep, package, tenant, terminology
from fhir_server.demo.exchange import DemoFailed, Target, run_demo
from fhir_server.metrics import fresh_folder
from fhir_server.security.secret import kept_secret
from fhir_server.settings import Settings, from_environment
from fhir_server.store import bundled, embedded
from fhir_server.store.mongo.archive import BadArchive
from fhir_server.store.mongo.client import WrongDatabase

app = typer.Typer(help="A health information exchange server: FHIR R4 on MongoDB.", no_args_is_help=True, pretty_exceptions_enable=False)
console = Console(stderr=True)
log = logging.getLogger("fhir.cli")
DEMO = -1  # the number of the one-off child that plays the demo


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address of the HTTP door (FHIR_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the HTTP door (FHIR_PORT).")] = None,
    mllp_port: Annotated[int | None, typer.Option(help="Port of the MLLP door, -1 closes it (FHIR_MLLP_PORT).")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the embedded database and keys (FHIR_DATA_DIR).")] = None,
    mongodb_uri: Annotated[str | None, typer.Option(help="An external MongoDB instead of the embedded one (FHIR_MONGODB_URI).")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of server processes (FHIR_WORKERS).")] = None,
    auth: Annotated[str | None, typer.Option(help="smart: bearer tokens; open: none, loopback only (FHIR_AUTH).")] = None,
    demo: Annotated[bool, typer.Option(help="Exchange demo data into an empty store.")] = False,
) -> None:
    """Start the exchange: HTTP, MLLP, embedded database unless one is named."""
    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "mllp_port": mllp_port,
        "data_dir": data_dir,
        "mongodb_uri": mongodb_uri,
        "workers": workers,
        "auth": auth,
    }
    settings = from_environment(**given)
    supervisor.check(settings)
    logs.configure(settings.log_level)
    _serve(settings, demo)


def _serve(settings: Settings, demo: bool) -> None:
    listener = supervisor.listen(settings.host, settings.port)
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = settings if settings.secret else replace(settings, secret=kept_secret(settings.data_dir))
    settings = replace(settings, port=listener.getsockname()[1])  # port 0: public addresses name the one that was free
    database = None if settings.mongodb_uri else _start_database(settings)
    family = supervisor.Family()
    measured = fresh_folder(settings.data_dir)
    try:
        loaded = main.load(settings)
        uri = database.uri if database else settings.mongodb_uri
        if demo:
            target = Target(f"http://127.0.0.1:{listener.getsockname()[1]}/fhir", settings.mllp_port)
            supervisor.spawn(family, DEMO, partial(_demo, target))
        supervisor.supervise(family, partial(main.work, loaded, uri, listener, measured), settings.workers, database.watch if database else _nothing)
    finally:
        supervisor.stop_all(family)
        shutil.rmtree(measured, ignore_errors=True)
        if database:
            database.stop()


def _start_database(settings: Settings) -> embedded.Embedded:
    console.print("Starting the embedded database ...", highlight=False)
    return embedded.start(settings.data_dir, mongod=settings.mongod, transaction_seconds=settings.transaction_seconds)


def _nothing() -> None:
    """An external database is watched by those who run it."""


def _demo(target: Target, number: int) -> int:
    try:
        asyncio.run(run_demo(target, Console()))
    except (DemoFailed, TimeoutError) as error:
        console.print(f"[red]The demo did not work:[/red] {error}")
        return 1
    return 0


app.command(name="load")(keep.load_command)
app.command(name="backup")(keep.backup_command)
app.command(name="restore")(keep.restore_command)
app.command(name="verify")(keep.verify_command)
app.command(name="reindex")(keep.reindex_command)
app.add_typer(access.client_app, name="client")
app.add_typer(access.user_app, name="user")
app.add_typer(access.key_app, name="key")
app.add_typer(hl7v2.app, name="hl7v2")
app.add_typer(package.app, name="package")
app.add_typer(tenant.app, name="tenant")
app.add_typer(terminology.app, name="terminology")


@app.command()
def doctor() -> None:
    """Check that this machine can run the embedded database; name the package that is missing."""
    done = subprocess.run([str(bundled.find_mongod()), "--version"], capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise bundled.NoDatabase(bundled.missing_library(done.stderr) or f"mongod does not start: {done.stderr.strip()[-300:]}")
    console.print("The embedded database can run here.", highlight=False)


def run() -> None:
    """The entry point: what a command refuses is told in one line, exit code 2."""
    try:
        app()
    except (ValueError, OSError, EOFError, bundled.NoDatabase, WrongDatabase, BadArchive, Refusal) as error:
        console.print(f"fhir-exchange: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)


if __name__ == "__main__":
    run()
