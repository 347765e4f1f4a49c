"""Transactions: conflicts are retried, racing creators exclude each other, nothing is lost; over the lean channel and through PyMongo alike."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from conformance.outcome import Refusal, precondition_failed
from fhir_server.query.clauses import Keys
from fhir_server.store import Change, Stored, Tx
from fhir_server.store.embedded import Embedded
from fhir_server.store.mongo.store import MongoStore, open_store


@pytest.fixture(params=["lean", "driver"])
async def store(request: pytest.FixtureRequest, mongod: Embedded, database_name: str) -> AsyncIterator[MongoStore]:
    """An empty store that has the lean channel, or not (an external cluster)."""
    opened = await open_store(mongod.uri, name=database_name, transaction_seconds=10)
    lean = opened.place.lean
    if request.param == "driver":
        opened.place = replace(opened.place, lean=None)
    yield opened
    await opened.client.drop_database(database_name)
    opened.place = replace(opened.place, lean=lean)
    await opened.close()


def patient(rid: str, prior: Stored | None = None, count: int = 0, **index: object) -> Change:
    return Change("Patient", rid, {"resourceType": "Patient", "id": rid, "count": count}, index, prior, "PUT")


async def create_if_none(store: MongoStore, key: str) -> Stored:
    async def body(tx: Tx) -> Stored:
        await tx.guard([f"Patient?{key}"])
        found = await tx.find("Patient", Keys((key,)), limit=2)
        if found:
            return found[0]
        return (await tx.put([patient(uuid.uuid4().hex, k=[key])]))[0]

    return await store.transact(body)


async def test_racing_conditional_creates_make_one(store: MongoStore):
    made = await asyncio.gather(*(create_if_none(store, "identifier=a|1") for _ in range(64)))
    assert len({one.rid for one in made}) == 1
    assert await store.count("Patient", Keys(("identifier=a|1",))) == 1


async def test_write_skew_is_prevented_by_a_guard(store: MongoStore):
    """Two resources, each deleted only if the other is there: with snapshots alone both could go."""

    async def first(tx: Tx) -> None:
        await tx.put([patient("a"), patient("b")])

    await store.transact(first)

    async def remove(rid: str, other: str) -> None:
        async def body(tx: Tx) -> None:
            await tx.guard(["pair"])
            mine = await tx.get("Patient", rid)
            its = await tx.get("Patient", other)
            await asyncio.sleep(0.05)
            if its.res is None:
                raise precondition_failed("the other is gone")
            await tx.put([Change("Patient", rid, None, {}, mine, "DELETE")])

        await store.transact(body)

    results = await asyncio.gather(remove("a", "b"), remove("b", "a"), return_exceptions=True)
    assert sorted(type(one) for one in results if one is not None) == [Refusal] or [one for one in results if one] != []
    assert len(await store.get_many([("Patient", "a"), ("Patient", "b")])) == 1


async def test_no_increment_is_lost(store: MongoStore):
    async def start(tx: Tx) -> None:
        await tx.put([patient("a")])

    await store.transact(start)

    async def increment() -> None:
        async def body(tx: Tx) -> None:
            prior = await tx.get("Patient", "a")
            await tx.put([patient("a", prior, prior.res["count"] + 1)])

        await store.transact(body)

    await asyncio.gather(*(increment() for _ in range(32)))
    last = await store.get("Patient", "a")
    assert (last.res["count"], last.vid) == (32, 33)
    assert [one.vid for one in await store.history("Patient", "a", limit=100)] == list(range(33, 0, -1))


async def test_two_creators_of_one_id_both_succeed_in_turn(store: MongoStore):
    async def upsert() -> Stored:
        async def body(tx: Tx) -> Stored:
            prior = await tx.get("Patient", "same")
            await asyncio.sleep(0.01)
            return (await tx.put([patient("same", prior)]))[0]

        return await store.transact(body)

    made = await asyncio.gather(*(upsert() for _ in range(8)))
    assert sorted(one.vid for one in made) == list(range(1, 9))


async def test_a_stale_prior_is_never_overwritten(store: MongoStore):
    async def first(tx: Tx) -> Stored:
        return (await tx.put([patient("a")]))[0]

    stale = await store.transact(first)
    attempts = 0

    async def second(tx: Tx) -> Stored:
        prior = await tx.get("Patient", "a")
        return (await tx.put([patient("a", prior)]))[0]

    await store.transact(second)

    async def third(tx: Tx) -> None:
        nonlocal attempts
        attempts += 1
        if attempts > 3:
            raise precondition_failed("stale")
        await tx.put([patient("a", stale)])

    with pytest.raises(Refusal):
        await store.transact(third)
    assert attempts == 4
    assert (await store.get("Patient", "a")).vid == 2


async def test_a_new_type_is_created_outside_of_the_transaction_that_needs_it(store: MongoStore):
    runs = 0

    async def body(tx: Tx) -> None:
        nonlocal runs
        runs += 1
        await tx.put([Change("Flag", "f", {"resourceType": "Flag", "id": "f"}, {"k": ["a"]}, None, "PUT"), patient("p")])

    await store.transact(body)
    assert runs == 2
    names = {row["name"] async for row in await store.database["Flag"].list_indexes()}
    assert {"_id_", "at", "r"} <= names


async def test_a_body_that_makes_the_same_id_twice_is_refused(store: MongoStore):
    async def body(tx: Tx) -> None:
        await tx.put([patient("a"), patient("a")])

    with pytest.raises(Refusal) as refused:
        await store.transact(body)
    assert refused.value.status == 409


async def test_a_cancelled_transaction_leaves_nothing(store: MongoStore):
    begun = asyncio.Event()

    async def body(tx: Tx) -> None:
        await tx.put([patient("a")])
        begun.set()
        await asyncio.sleep(60)

    running = asyncio.create_task(store.transact(body))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with asyncio.timeout(2):
        await create_if_none(store, "k=1")

        async def again(tx: Tx) -> Stored:
            return (await tx.put([patient("a", await tx.get("Patient", "a"))]))[0]

        assert (await store.transact(again)).vid == 1


async def test_what_a_transaction_wrote_it_reads_and_nobody_else_does(store: MongoStore):
    many = [patient(f"{number:04d}", k=["a"]) for number in range(1500)]

    async def body(tx: Tx) -> int:
        await tx.put(many)
        assert await store.count("Patient", Keys(("a",))) == 0
        assert len(await tx.get_many([("Patient", one.rid) for one in many])) == 1500
        assert len(await tx.find("Patient", Keys(("a",)), limit=1200)) == 1200
        return await tx.count("Patient", Keys(("a",)))

    assert await store.transact(body) == 1500
    assert await store.count("Patient", Keys(("a",))) == 1500


async def test_large_versions_of_one_transaction_travel_in_parts(store: MongoStore):
    size = 4_000_000  # four of them are more than one command carries, and fit twice into the small cache of the tests' database

    def large(rid: str, letter: str, prior: Stored | None = None) -> Change:
        return Change("Patient", rid, {"resourceType": "Patient", "id": rid, "x": letter * size}, {}, prior, "PUT")

    first = await store.transact(lambda tx: tx.put([large(rid, "a") for rid in "abcd"]))
    await store.transact(lambda tx: tx.put([large(one.rid, "b", one) for one in first]))
    assert [(await store.get("Patient", rid)).res["x"] == "b" * size for rid in "abcd"] == [True] * 4
    assert [(await store.version("Patient", rid, 1)).res["x"] == "a" * size for rid in "abcd"] == [True] * 4


async def test_deletions_and_changes_of_one_type_in_one_transaction(store: MongoStore):
    made = await store.transact(lambda tx: tx.put([patient(rid) for rid in "abc"]))

    async def body(tx: Tx) -> None:
        await tx.put([Change("Patient", "a", None, {}, made[0], "DELETE"), patient("b", made[1], 7), patient("d")])

    await store.transact(body)
    assert (await store.get("Patient", "a")).res is None
    assert [(await store.get("Patient", rid)).res["count"] for rid in "bcd"] == [7, 0, 0]
