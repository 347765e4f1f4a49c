"""Which database a command works on: the external one, that of the running server, or the data directory's own, started for the while."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime

from conformance.shelf import installed
from conformance.spec import load_spec
from fhir_server.context import Context, Grant, Right
from fhir_server.operations import TABLE
from fhir_server.settings import Settings, public_base
from fhir_server.store import embedded
from fhir_server.store.mongo.store import MongoStore, open_store
from fhir_server.terms import terms_of

OPERATOR = Grant("operator", "operator", (Right("*", frozenset("cruds")),), admin=True)


@contextmanager
def database(settings: Settings) -> Iterator[str]:
    """The URI to connect to. Raises NoDatabase."""
    running = settings.mongodb_uri or embedded.attach(settings.data_dir)
    if running:
        yield running
        return
    own = embedded.start(settings.data_dir, mongod=settings.mongod, transaction_seconds=settings.transaction_seconds)
    try:
        yield own.uri
    finally:
        own.stop()


@asynccontextmanager
async def store(settings: Settings, uri: str) -> AsyncIterator[tuple[MongoStore, Context]]:
    """The open store, and a context that may do everything, as the operator of this machine."""
    opened = await open_store(uri, transaction_seconds=settings.transaction_seconds)
    spec = load_spec(installed(settings.data_dir / "packages"))
    try:
        yield (
            opened,
            Context(
                request_id="command",
                grant=OPERATOR,
                store=opened,
                spec=spec,
                terms=terms_of(settings, spec),
                settings=settings,
                base=public_base(settings),
                source="operator",
                now=datetime.now(UTC),
                operations=TABLE,
            ),
        )
    finally:
        await opened.close()
