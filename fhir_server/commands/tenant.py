"""`tenant add | list | set | disable | enable | erase`: the organisations that the exchange serves apart from each other."""

import json
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from conformance.spec import load_spec
from fhir_server.commands import opened
from fhir_server.commands.opened import DataDir, MongoUri
from fhir_server.interactions.validity import check_settings
from fhir_server.security import tenants
from fhir_server.security.authserver.outside import read_provider
from fhir_server.security.tenants import Tenant
from fhir_server.security.tokens import read_issuers
from fhir_server.settings import Settings
from fhir_server.sources import load_registry
from fhir_server.store.mongo.records import MongoRecords
from fhir_server.store.mongo.store import MongoStore
from fhir_server.supervisor import check

app = typer.Typer(help="Serve several organisations apart from each other, each below /t/NAME.", no_args_is_help=True)
console = Console(stderr=True)
T = TypeVar("T")
Own = Annotated[
    list[str] | None, typer.Option("--set", help="A setting of its own, VARIABLE=VALUE (docs/settings.md says which); several may be given.")
]


def _with_store(where: opened.Where, act: Callable[[MongoStore], Awaitable[T]]) -> T:
    return opened.on_place(where, lambda store, _: act(store))


def _pairs(texts: Iterable[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if any(not mark or not name for name, mark, _ in pairs):
        raise ValueError("a setting is VARIABLE=VALUE")
    return {name: value for name, _, value in pairs}


def _checked(tenant: Tenant, exchange: Settings) -> Tenant:
    """The tenant, if a worker could serve it. Raises ValueError naming the setting that is wrong."""
    settings = tenant.settings(opened.with_secret(exchange))
    check(settings)
    check_settings(settings, load_spec().types)
    load_registry(settings.sources)
    read_issuers(settings.issuers)
    read_provider(settings.oidc_provider)
    return tenant


def _told(done: bool, name: str) -> None:
    if not done:
        raise ValueError(f"tenant {name}: not known")
    console.print("done", highlight=False)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="In its addresses: a small letter, then small letters, digits and '-'.")],
    title: Annotated[str, typer.Option(help="The organisation's name, for people.")] = "",
    values: Own = None,
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
) -> None:
    """Register an organisation: a running exchange serves it within seconds, from a database of its own."""
    where = opened.at(data_dir, mongodb_uri)
    where.settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    tenant = _checked(Tenant(name, title, _pairs(values or ())), where.settings)
    _with_store(where, lambda store: tenants.add(MongoRecords(store.database), tenant))
    _print([_shown(tenant, where.settings)])


@app.command(name="list")
def list_tenants(data_dir: DataDir = None, mongodb_uri: MongoUri = None) -> None:
    """List them, disabled ones too."""
    where = opened.at(data_dir, mongodb_uri)
    rows = _with_store(where, lambda store: tenants.listed(MongoRecords(store.database)))
    _print([_shown(one, where.settings) for one in rows])


def _shown(one: Tenant, exchange: Settings) -> dict[str, object]:
    base = one.settings(exchange).base_url
    return {"tenant": one.name, "title": one.title, "base": base, "database": one.database, "settings": dict(one.values), "disabled": one.disabled}


def _print(rows: list[dict[str, object]]) -> None:
    sys.stdout.write(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")


@app.command(name="set")
def give(
    name: str,
    values: Annotated[list[str], typer.Argument(help="VARIABLE=VALUE; VARIABLE= takes it back.")],
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
) -> None:
    """Give it settings of its own; a running exchange opens it anew with them."""
    where = opened.at(data_dir, mongodb_uri)

    async def act(store: MongoStore) -> bool:
        records = MongoRecords(store.database)
        row = await tenants.get(records, name)
        if row is None:
            return False
        kept = {variable: value for variable, value in {**row.values, **_pairs(values)}.items() if value}
        return await tenants.give(records, name, _checked(Tenant(name, row.title, kept), where.settings).values)

    _told(_with_store(where, act), name)


@app.command()
def disable(name: str, data_dir: DataDir = None, mongodb_uri: MongoUri = None) -> None:
    """Serve it no more, within seconds; what it stored stays."""
    _told(_with_store(opened.at(data_dir, mongodb_uri), lambda store: tenants.let_in(MongoRecords(store.database), name, disabled=True)), name)


@app.command()
def enable(name: str, data_dir: DataDir = None, mongodb_uri: MongoUri = None) -> None:
    """Serve it again."""
    _told(_with_store(opened.at(data_dir, mongodb_uri), lambda store: tenants.let_in(MongoRecords(store.database), name, disabled=False)), name)


@app.command()
def erase(
    name: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
) -> None:
    """Remove a disabled organisation with all it stored: its database, its folder, its registration. Its backups are files of yours."""
    where = opened.at(data_dir, mongodb_uri)

    async def known(store: MongoStore) -> Tenant | None:
        return await tenants.get(MongoRecords(store.database), name)

    row = _with_store(where, known)
    if row is None:
        raise ValueError(f"tenant {name}: not known")
    if not row.disabled:
        raise ValueError(f"tenant {name}: disable it first, so that no worker serves it any more")
    if not yes:
        typer.confirm(f"Remove everything of {row.title or name}?", abort=True, err=True)

    async def act(store: MongoStore) -> bool:
        await store.client.drop_database(row.database)
        return await tenants.forget(MongoRecords(store.database), name)

    done = _with_store(where, act)
    shutil.rmtree(row.settings(where.settings).data_dir, ignore_errors=True)
    _told(done, name)
