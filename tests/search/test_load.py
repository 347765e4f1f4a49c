"""Bulk load: validated, indexed, resumable, errors by line; the indexes of a store that is new are made at the end, or by whoever opens it next."""

import asyncio
from dataclasses import replace

import pytest

from fhir_server.jobs import load as loading
from fhir_server.jobs.load import Target, load
from fhir_server.query.indexes import BULK, indexes
from fhir_server.settings import Settings
from fhir_server.store.mongo import store as opening
from fhir_server.store.mongo.indexes import is_type, strip
from fhir_server.store.mongo.store import open_store
from tests.bench.synthetic import patients, write
from tests.search.world import BASE, ask, context, fill, found


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


async def lacking(database):
    """Types whose collections lack an index."""
    found = set()
    for rtype in await database.list_collection_names():
        if is_type(rtype):
            names = {row["name"] async for row in await database[rtype].list_indexes()} - {"_id_"}
            found |= {rtype} if names != {spec.name for spec in indexes(rtype)} else set()
    return found


async def test_a_load_that_is_alone_makes_the_indexes_at_its_end(target, tmp_path, database_name):
    path, steps = tmp_path / "a.ndjson", []
    lines = write(3, path)
    report = await asyncio.to_thread(load, [path], replace(target, alone=True), progress=lambda now: steps.append(now.indexed))
    assert report.loaded == lines
    assert report.indexed[0] == report.indexed[1] > 0
    assert [step for step in steps if step[1]] == [(done + 1, report.indexed[1]) for done in range(report.indexed[1])]
    store = await open_store(target.uri, name=database_name, later=BULK)
    try:
        assert await lacking(store.database) == set()
        assert (await ask(context(store), "Observation?code=33914-3&patient=planted0&_count=3"))["total"] == 30
        again = await asyncio.to_thread(load, [path], replace(target, alone=True))  # into collections that have their indexes
        assert (again.loaded, again.skipped) == (0, lines)
        assert await lacking(store.database) == set()
    finally:
        await store.client.drop_database(database_name)
        await store.close()


@pytest.mark.parametrize(("stored_bytes", "kept"), [(1, True), (100, False)])
async def test_a_large_load_drops_the_indexes_of_what_it_doubles_and_makes_them_again(
    target, tmp_path, database_name, monkeypatch, stored_bytes, kept
):
    path, dropped = tmp_path / "a.ndjson", []
    lines = write(2, path)
    store = await open_store(target.uri, name=database_name)
    await fill(store, list(patients(2))[: lines // 2])
    held = await store.types() & BULK

    async def noted(*given):
        await strip(*given)
        dropped.append(await lacking(given[0]))

    monkeypatch.setattr(loading, "LARGE_BYTES", 1)
    monkeypatch.setattr(loading, "STORED_BYTES", stored_bytes)
    monkeypatch.setattr(loading, "strip", noted)
    try:
        report = await asyncio.to_thread(load, [path], replace(target, alone=True), processes=1)
        assert (report.loaded, report.skipped) == (lines - lines // 2, lines // 2)
        assert dropped == [set() if kept else held]
        assert await lacking(store.database) == set()
        assert (await ask(context(store), "Observation?code=33914-3&patient=planted0&_count=3"))["total"] == 30
    finally:
        await store.client.drop_database(database_name)
        await store.close()


async def test_who_opens_the_store_after_a_load_that_was_interrupted_makes_its_indexes(mongod, database_name, monkeypatch, caplog):
    monkeypatch.setattr(opening, "SILENT_SECONDS", 0.0)
    begun = await open_store(mongod.uri, name=database_name, later=BULK)
    await fill(begun, list(patients(2)))
    bare = await lacking(begun.database)
    assert bare >= {"Patient", "Observation", "Encounter"}
    assert bare <= BULK
    stores = await asyncio.gather(*(open_store(mongod.uri, name=database_name) for _ in range(2)))  # two workers of a server
    try:
        assert await lacking(stores[0].database) == set()
        assert "indexes are being made" in caplog.text
        assert (await ask(context(stores[1]), "Observation?code=33914-3&patient=planted0&_count=3"))["total"] == 30
    finally:
        await begun.client.drop_database(database_name)
        for store in (begun, *stores):
            await store.close()


async def test_a_load_goes_on_where_one_was_interrupted_before_its_indexes(target, tmp_path, database_name):
    path = tmp_path / "a.ndjson"
    lines = write(2, path)
    resources = list(patients(2))
    begun = await open_store(target.uri, name=database_name, later=BULK)
    try:
        await fill(begun, resources[: lines // 2])
        report = await asyncio.to_thread(load, [path], replace(target, alone=True), processes=1)
        assert (report.loaded, report.skipped) == (lines - lines // 2, lines // 2)
        assert await lacking(begun.database) == set()
    finally:
        await begun.client.drop_database(database_name)
        await begun.close()
