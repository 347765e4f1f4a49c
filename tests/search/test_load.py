"""Bulk load: validated, indexed, resumable, errors by line."""

import pytest

from fhir_server.jobs.load import Target, load
from fhir_server.settings import Settings
from fhir_server.store.mongo.store import open_store
from tests.bench.synthetic import write
from tests.search.world import BASE, ask, context, found


@pytest.fixture
def target(mongod, database_name):
    return Target(mongod.uri, database_name, Settings(secret="s" * 32), BASE)


async def test_a_file_is_loaded_once_and_its_errors_are_listed(target, tmp_path, database_name):
    path = tmp_path / "a.ndjson"
    lines = write(3, path)
    with path.open("ab") as out:
        out.write(b'{"resourceType":"Patient","id":"bad","birthDate":"1980-13-45"}\n{"resourceType":"Patient"}\nnonsense\n\n')
    seen = []
    report = load([path], target, processes=1, state=tmp_path / "state", progress=lambda now: seen.append(now.loaded))
    assert (report.loaded, report.failed) == (lines, 3)
    assert [line for _, line, _ in report.errors] == [lines + 1, lines + 2, lines + 3]
    assert "1980-13-45" not in str(report.errors)
    assert seen
    again = load([path], target, processes=1, state=tmp_path / "state")
    assert (again.loaded, again.skipped, again.done_bytes) == (0, 0, path.stat().st_size)
    afresh = load([path], target, processes=1)
    assert (afresh.loaded, afresh.skipped) == (0, lines)
    store = await open_store(target.uri, name=database_name)
    bundle = await ask(context(store), "Observation?code=33914-3&patient=planted0&_count=3")
    assert bundle["total"] == 30
    assert len(found(bundle)) == 3
    await store.client.drop_database(database_name)
    await store.close()
