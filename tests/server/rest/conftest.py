"""Fixtures of the REST tests: an exchange on a database of the module, emptied before each test."""

import uuid
from collections.abc import AsyncIterator

import pytest_asyncio

from fhir_server.store.embedded import Embedded
from fhir_server.store.mongo.store import MongoStore, open_store
from tests.server.rest.calls import Exchange, exchange_on


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_store(mongod: Embedded) -> AsyncIterator[MongoStore]:
    """One store for the tests of a module: creating collections and indexes for every test would take longer than the tests."""
    name = f"rest_{uuid.uuid4().hex[:16]}"
    opened = await open_store(mongod.uri, name=name, transaction_seconds=10)
    yield opened
    await opened.client.drop_database(name)
    await opened.close()


@pytest_asyncio.fixture(loop_scope="module")
async def rest(module_store: MongoStore) -> Exchange:
    """An exchange whose caller may do everything, with nothing stored."""
    names = await module_store.database.list_collection_names()
    for name in (one for one in names if one in ("history", "guards") or one[0].isupper()):
        await module_store.database[name].delete_many({})
    return exchange_on(module_store)
