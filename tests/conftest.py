"""Fixtures that every folder may use: a real embedded database per test session, a fresh store per test."""

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from fhir_server.store import embedded
from fhir_server.store.embedded import Embedded
from fhir_server.store.mongo.store import MongoStore, open_store

SLOW_SECONDS, FUZZ_SECONDS = 1200, 7200
# how long an example takes is the machine's affair: a loaded one must not turn a property red
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests may take longer before they count as hanging."""
    for item in items:
        for marker, seconds in (("slow", SLOW_SECONDS), ("fuzz", FUZZ_SECONDS)):
            if item.get_closest_marker(marker) and not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(seconds))


@pytest.fixture(scope="session")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """One embedded database for the session (for each process of pytest-xdist); `.uri` for clients."""
    running = embedded.start(tmp_path_factory.mktemp("data"), cache_gb=0.25, transaction_seconds=10)
    yield running
    running.stop()


@pytest.fixture
def database_name() -> str:
    """A database of this test's own."""
    return f"test_{uuid.uuid4().hex[:16]}"


@pytest.fixture
async def store(mongod: Embedded, database_name: str) -> AsyncIterator[MongoStore]:
    """An empty store, dropped afterwards."""
    opened = await open_store(mongod.uri, name=database_name, transaction_seconds=10)
    yield opened
    await opened.client.drop_database(database_name)
    await opened.close()
