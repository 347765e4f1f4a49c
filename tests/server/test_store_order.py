"""History is complete up to a horizon: a poller that resumes misses nothing, whoever commits late."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from pymongo.errors import AutoReconnect

from fhir_server.store import Change, Stored, Tx
from fhir_server.store.embedded import Embedded
from fhir_server.store.mongo.document import Document
from fhir_server.store.mongo.history import Window, _stages
from fhir_server.store.mongo.horizon import WRITERS, Horizon
from fhir_server.store.mongo.lean import Lean
from fhir_server.store.mongo.store import MongoStore, open_store


def creation(rtype: str = "Patient") -> Change:
    rid = uuid.uuid4().hex
    return Change(rtype, rid, {"resourceType": rtype, "id": rid}, {"k": [f"id={rid}"]}, None, "POST")


@pytest.fixture
async def other(mongod: Embedded, database_name: str, store: MongoStore) -> AsyncIterator[MongoStore]:
    """A second writer of the same database, as a second worker process has one."""
    opened = await open_store(mongod.uri, name=database_name, transaction_seconds=10)
    yield opened
    await opened.close()


async def slow_transaction(store: MongoStore, seconds: float, *changes: Change) -> list[Stored]:
    async def body(tx: Tx) -> list[Stored]:
        made = await tx.put(changes)
        await asyncio.sleep(seconds)
        return made

    return await store.transact(body)


async def poll(store: MongoStore, seen: list[Stored], *, limit: int = 50) -> None:
    """Read everything new behind the last position seen."""
    while page := await store.history(None, None, limit=limit, ascending=True, after=seen[-1].position if seen else ()):
        seen += page


async def test_a_poller_misses_nothing_when_long_transactions_commit_late(store: MongoStore, other: MongoStore):
    made: list[Stored] = []
    ends = time.monotonic() + 4

    async def creates(one: MongoStore) -> None:
        while time.monotonic() < ends:
            made.append(await one.insert(creation()))
            await asyncio.sleep(0.003)

    async def transactions(one: MongoStore, seconds: float) -> None:
        while time.monotonic() < ends:
            made.extend(await slow_transaction(one, seconds, creation("Observation"), creation()))

    async def polls(one: MongoStore, seen: list[Stored]) -> None:
        while time.monotonic() < ends:
            await poll(one, seen)
            await asyncio.sleep(0.02)

    seen_here: list[Stored] = []
    seen_there: list[Stored] = []
    async with asyncio.TaskGroup() as group:
        for one in (store, other):
            group.create_task(creates(one))
            group.create_task(transactions(one, 0.4))
            group.create_task(transactions(one, 1.1))
        group.create_task(polls(store, seen_here))
        group.create_task(polls(other, seen_there))
    for one, seen in ((store, seen_here), (other, seen_there)):
        await poll(one, seen)
        assert {(row.rtype, row.rid, row.vid) for row in seen} == {(row.rtype, row.rid, row.vid) for row in made}
        assert len(seen) == len(made)
        assert [row.at for row in seen] == sorted(row.at for row in seen)


async def test_what_is_committed_before_a_history_request_is_in_it(store: MongoStore, other: MongoStore):
    for number in range(60):
        writer, reader = (store, other) if number % 2 else (other, store)
        made = await writer.insert(creation())
        assert (await reader.history("Patient", None, limit=1))[0].rid == made.rid
        if number % 20 == 0:
            await asyncio.sleep(1.2)  # both become idle


async def test_history_does_not_wait_for_a_long_transaction(store: MongoStore, other: MongoStore):
    first = await store.insert(creation())
    running = asyncio.create_task(slow_transaction(other, 3, creation()))
    await asyncio.sleep(0.3)
    later = await store.insert(creation())
    begun = time.monotonic()
    seen = await store.history("Patient", None, limit=10)
    assert time.monotonic() - begun < 2
    assert [one.rid for one in seen] == [first.rid]
    late = await running
    seen = await store.history("Patient", None, limit=10)
    assert [one.rid for one in seen] == [later.rid, late[0].rid, first.rid]


async def test_a_create_writes_one_document(store: MongoStore):
    await store.insert(creation())
    before = await store.client.admin.command("serverStatus")
    for _ in range(50):
        await store.insert(creation())
    after = await store.client.admin.command("serverStatus")
    updates = after["opcounters"]["update"] + after["opcounters"]["insert"] - before["opcounters"]["update"] - before["opcounters"]["insert"]
    assert 50 <= updates < 75  # the floor is advanced every 75 ms, not per create


async def test_an_idle_writer_holds_nothing_back(store: MongoStore, other: MongoStore):
    await other.insert(creation())
    await asyncio.sleep(1.5)
    assert (await store.database[WRITERS].find_one({"_id": other.horizon.id}))["floor"] is None
    begun = time.monotonic()
    assert len(await store.history("Patient", None, limit=5)) == 1
    assert time.monotonic() - begun < 0.5


@pytest.mark.parametrize("broken", [False, True], ids=["lean", "lean lost"])
async def test_a_floor_is_kept_over_the_lean_channel_and_without_it(store: MongoStore, monkeypatch: pytest.MonkeyPatch, *, broken: bool):
    horizon, asked = Horizon(store.database, lease_seconds=11, lean=store.place.lean), []
    command = Lean.command

    async def counted(lean: Lean, one: Document, *more: object, **named: object) -> Document:
        asked.append(next(iter(one)))
        if broken:
            raise AutoReconnect("lost")
        return await command(lean, one, *more, **named)

    monkeypatch.setattr(Lean, "command", counted)
    flight = await horizon.take()
    await asyncio.sleep(0.3)
    row = await store.database[WRITERS].find_one({"_id": horizon.id})
    assert row["floor"] == flight.at  # what is in flight holds it
    horizon.land(flight)
    await asyncio.sleep(1.6)
    assert (await store.database[WRITERS].find_one({"_id": horizon.id}))["floor"] is None
    assert asked.count("findAndModify") > 3
    await store.database[WRITERS].delete_one({"_id": horizon.id})
    assert not await horizon._refresh()
    assert not horizon.valid(flight)
    await horizon.close()


async def test_a_writer_that_stalls_longer_than_its_lease_is_fenced_and_stamps_anew(store: MongoStore):
    stalled = Horizon(store.database, lease_seconds=11)
    flight = await stalled.take()
    assert stalled.valid(flight)
    stalled._task.cancel()
    long_ago = datetime.now(UTC) - timedelta(seconds=60)
    await store.database[WRITERS].update_one({"_id": stalled.id}, {"$set": {"seen": long_ago}})
    assert await store.horizon.complete_until() > flight.at
    assert await store.database[WRITERS].find_one({"_id": stalled.id}) is None
    stalled._fresh -= 60  # it was asleep
    assert not stalled.valid(flight)
    fresh = await stalled.take()
    assert fresh.stamp > flight.stamp
    assert stalled.valid(fresh)
    assert not stalled.valid(flight)
    await stalled.close()


async def test_a_transaction_of_a_fenced_writer_is_run_again_with_a_new_stamp(store: MongoStore):
    stamps = []

    async def body(tx: Tx) -> Stored:
        made = (await tx.put([creation()]))[0]
        stamps.append(made.at)
        if len(stamps) == 1:
            await store.database[WRITERS].delete_one({"_id": store.horizon.id})
            await asyncio.sleep(0.3)  # the refresh notices
        return made

    made = await store.transact(body)
    assert len(stamps) == 2
    assert made.at == stamps[1] > stamps[0]


async def test_stamps_of_a_resource_rise_even_within_a_millisecond(store: MongoStore):
    last: Stored | None = None
    one = creation()
    for _ in range(20):

        async def body(tx: Tx) -> Stored:
            prior = await tx.get("Patient", one.rid)
            return (await tx.put([Change("Patient", one.rid, one.res, {}, prior, "PUT")]))[0]

        made = await store.transact(body)
        assert last is None or (made.at > last.at and made.vid == last.vid + 1)
        last = made


async def test_history_looks_at_no_more_than_it_shows(store: MongoStore):
    """A page far behind is answered from the index on stamps, in both directions."""
    await store.ensure(["Patient"])
    made: list[Stored] = []
    for _ in range(4):
        made += await slow_transaction(store, 0, *(creation() for _ in range(100)))
    middle = made[200]
    for ascending in (True, False):
        window = Window(None, made[-1].at + timedelta(seconds=1), (middle.at, "Patient", middle.rid, 1), ascending, 10)
        plan = await store.database.command(
            {
                "explain": {"aggregate": "Patient", "pipeline": _stages("Patient", window), "cursor": {}},
                "verbosity": "executionStats",
            }
        )
        stats = plan.get("executionStats") or plan["stages"][0]["$cursor"]["executionStats"]
        assert stats["nReturned"] == 10
        assert stats["totalKeysExamined"] <= 130  # all of one stamp's hundred at the worst, and the page
