"""Which database a command works on: the external one, that of the running server, or the data directory's own, started for the while."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from conformance.shelf import installed
from conformance.spec import load_spec
from fhir_server.context import DEFAULT, Context, Grant, Right
from fhir_server.operations import TABLE
from fhir_server.query.indexes import BULK
from fhir_server.security import tenants
from fhir_server.security.secret import kept_secret
from fhir_server.settings import Settings, from_environment, public_base
from fhir_server.store import embedded
from fhir_server.store.mongo.records import MongoRecords
from fhir_server.store.mongo.store import MongoStore, open_beside, open_store
from fhir_server.terms import terms_of

T = TypeVar("T")
DataDir = Annotated[Path | None, typer.Option(help="Folder of the embedded database (FHIR_DATA_DIR).")]
MongoUri = Annotated[str | None, typer.Option(help="An external MongoDB (FHIR_MONGODB_URI).")]
TenantName = Annotated[str, typer.Option("--tenant", help="The organisation it concerns, as `tenant add` named it; without it the exchange's own.")]
OPERATOR = Grant("operator", "operator", (Right("*", frozenset("cruds")),), admin=True)


@contextmanager
def database(settings: Settings) -> Iterator[str]:
    """The URI to connect to. Raises NoDatabase."""
    with reached(settings) as (uri, _):
        yield uri


@contextmanager
def reached(settings: Settings) -> Iterator[tuple[str, bool]]:
    """The URI to connect to, and whether the database was started for this command: then no server has it open, nor can one before it ends. Raises NoDatabase."""
    running = settings.mongodb_uri or embedded.attach(settings.data_dir)
    if running:
        yield running, False
        return
    own = embedded.start(settings.data_dir, mongod=settings.mongod, transaction_seconds=settings.transaction_seconds)
    try:
        yield own.uri, True
    finally:
        own.stop()


@dataclass(frozen=True, slots=True)
class Where:
    """What a command works on: the exchange's settings, and the name of one of its tenants ('' for the exchange itself)."""

    settings: Settings
    tenant: str = ""


def at(data_dir: Path | None, mongodb_uri: str | None, tenant: str = "") -> Where:
    """The place that the options of a command name."""
    return Where(from_environment(data_dir=data_dir, mongodb_uri=mongodb_uri), tenant)


def with_secret(settings: Settings) -> Settings:
    """The settings with the exchange's secret, as the server has it."""
    return settings if settings.secret else replace(settings, secret=kept_secret(settings.data_dir))


@asynccontextmanager
async def place(where: Where, uri: str, later: frozenset[str] = frozenset()) -> AsyncIterator[tuple[MongoStore, Settings]]:
    """The open store of the exchange or of a tenant, and its settings. Raises ValueError for a tenant that is not registered.

    later: types whose indexes are left as they are, see `open_store`.
    """
    own = await open_store(uri, transaction_seconds=where.settings.transaction_seconds, later=later)
    try:
        if not where.tenant:
            yield own, where.settings
            return
        row = await tenants.get(MongoRecords(own.database), where.tenant)
        if row is None:
            raise ValueError(f"tenant {where.tenant}: not known")
        its = await open_beside(own, uri, row.database, later)
        try:
            yield its, row.settings(with_secret(where.settings))
        finally:
            await its.close()
    finally:
        await own.close()


def refuse_if_served(where: Where) -> None:
    """ValueError where a running exchange serves this store: what it holds in memory would not be what is stored then.

    Of an external database nobody here can tell whether an exchange runs on it; of its tenants the register says whether they are served.
    """
    running = where.settings.mongodb_uri or embedded.attach(where.settings.data_dir)
    if not running:
        return
    if where.tenant:
        row = on_place(Where(where.settings), lambda store, _: tenants.get(MongoRecords(store.database), where.tenant))
        if row is not None and not row.disabled:
            raise ValueError(f"tenant {where.tenant}: disable it first, so that no worker serves it meanwhile")
    elif not where.settings.mongodb_uri:
        raise ValueError("an exchange is running on this store: stop it first")


def on_place(where: Where, act: Callable[[MongoStore, Settings], Awaitable[T]]) -> T:
    """What `act` answers of the open store and its settings; the database runs for as long as that takes."""
    return _on(where, place, act)


def on_store(where: Where, act: Callable[[MongoStore, Context], Awaitable[T]]) -> T:
    """As `on_place`, with a context that may do everything: it takes longer to make, so only for what judges or indexes resources."""
    return _on(where, store, act)


def _on(where: Where, begun: Callable[[Where, str], AbstractAsyncContextManager[tuple[MongoStore, Any]]], act: Callable[..., Awaitable[T]]) -> T:
    async def run(uri: str) -> T:
        async with begun(where, uri) as two:
            return await act(*two)

    with database(where.settings) as uri:
        return asyncio.run(run(uri))


async def settings_of(where: Where, uri: str) -> tuple[Settings, str]:
    """The settings of the exchange or of a tenant, and the name of its database; makes no index that a load left for its end. Raises ValueError for a
    tenant that is not registered."""
    async with place(where, uri, BULK) as (store, settings):
        return settings, store.database.name


@asynccontextmanager
async def store(where: Where, uri: str) -> AsyncIterator[tuple[MongoStore, Context]]:
    """The open store, and a context that may do everything, as the operator of this machine."""
    async with place(where, uri) as (opened, settings):
        yield opened, context(settings, opened, where.tenant)


def context(settings: Settings, opened: MongoStore, tenant: str = "") -> Context:
    """A context that may do everything."""
    spec = load_spec(installed(settings.data_dir / "packages"))
    return Context(
        request_id="command",
        grant=OPERATOR,
        store=opened,
        spec=spec,
        terms=terms_of(settings, spec),
        settings=settings,
        base=public_base(settings),
        source="operator",
        now=datetime.now(UTC),
        tenant=tenant or DEFAULT,
        operations=TABLE,
    )
