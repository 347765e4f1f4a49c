"""Fixtures of the security tests: one exchange per module, in smart mode, with people, apps and two patients."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fhir_server.store.embedded import Embedded
from fhir_server.store.mongo.store import MongoStore, open_store
from tests.security.app import Exchange, people_and_apps, worker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_store(mongod: Embedded) -> AsyncIterator[MongoStore]:
    """A store for the tests of a module."""
    name = f"security_{uuid.uuid4().hex[:16]}"
    opened = await open_store(mongod.uri, name=name, transaction_seconds=10)
    yield opened
    await opened.client.drop_database(name)
    await opened.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exchange(module_store: MongoStore, tmp_path_factory: pytest.TempPathFactory) -> Exchange:
    """A worker with people, apps, and patients pat1 and pat2 (with an encounter each)."""
    folder: Path = tmp_path_factory.mktemp("smart")
    made = await worker(module_store, folder)
    await people_and_apps(made)
    reply = await made.token(grant_type="client_credentials", client_id="ehr", client_secret="e" * 40, scope="system/*.cruds")
    assert reply.status_code == 200, reply.text
    headers = {"Authorization": "Bearer " + reply.json()["access_token"], "Content-Type": "application/fhir+json"}
    for number, family in ((1, "Adler"), (2, "Berg")):
        patient = {"resourceType": "Patient", "id": f"pat{number}", "name": [{"family": family, "given": ["Kim"]}], "birthDate": "1970-02-03"}
        visit = {"resourceType": "Encounter", "id": f"enc{number}", "status": "finished", "class": {"code": "AMB"}}
        visit["subject"] = {"reference": f"Patient/pat{number}"}
        for res in (patient, visit):
            stored = await made.http.put(f"/fhir/{res['resourceType']}/{res['id']}", json=res, headers=headers)
            assert stored.status_code == 201, stored.text
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def second(exchange: Exchange, module_store: MongoStore, tmp_path_factory: pytest.TempPathFactory) -> Exchange:
    """Another worker on the same store."""
    return await worker(module_store, tmp_path_factory.mktemp("second"))
