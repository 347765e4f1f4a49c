"""The lean channel of the embedded server does what PyMongo's way does, and gives way to it when something breaks."""

import asyncio
import os
import signal
import uuid
from pathlib import Path

import bson
import pytest
import uvloop
from pymongo.errors import AutoReconnect, DuplicateKeyError, NotPrimaryError, OperationFailure

from conformance.outcome import Refusal
from fhir_server.query.clauses import Everything
from fhir_server.store import Change, Sort, embedded
from fhir_server.store.embedded import Embedded
from fhir_server.store.mongo import lean as lean_module
from fhir_server.store.mongo import lean_tx
from fhir_server.store.mongo import store as store_module
from fhir_server.store.mongo.document import encoded, raw
from fhir_server.store.mongo.horizon import Horizon
from fhir_server.store.mongo.lean import Lean, Session, lean_for
from fhir_server.store.mongo.sessions import end_sessions
from fhir_server.store.mongo.store import CONCERN, MongoStore, open_store


def change(rid: str, size: int = 10) -> Change:
    return Change("Patient", rid, {"resourceType": "Patient", "id": rid, "x": "x" * size}, {"k": ["a"]}, None, "POST")


@pytest.fixture
async def lean(store: MongoStore) -> Lean:
    assert store.place.lean is not None
    await store.ensure(["Patient"])
    return store.place.lean


def test_only_a_private_socket_gets_a_lean_channel(mongod: Embedded):
    assert lean_for(mongod.uri, "x", "test") is not None
    for uri in (
        "mongodb://127.0.0.1/?directConnection=true",
        "mongodb://u:p@%2Ftmp%2Fm.sock/?directConnection=true",
        "mongodb://a,b/?replicaSet=c",
        "?",
    ):
        assert lean_for(uri, "x", "test") is None


async def test_many_large_rows_come_whole_and_in_order(store: MongoStore, lean: Lean):
    """More than one reply of 16 MB: the cursor is read to its end."""
    await asyncio.gather(*(store.insert(change(f"{number:03d}", 1_000_000)) for number in range(40)))
    found = await store.find("Patient", Everything(), sort=[Sort("_id")], limit=40)
    assert [one.rid for one in found] == [f"{number:03d}" for number in range(40)]
    assert all(len(one.res["x"]) == 1_000_000 for one in found)


async def test_more_requests_than_connections_take_turns(store: MongoStore, lean: Lean, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lean_module, "MOST_CONNECTIONS", 3)
    await asyncio.gather(*(store.insert(change(f"{number}")) for number in range(50)))
    found = await asyncio.gather(*(store.get("Patient", f"{number}") for number in range(50)))
    assert [one.rid for one in found] == [f"{number}" for number in range(50)]
    assert len(lean.wires) <= 3


async def test_a_cancelled_request_does_not_leave_its_answer_to_the_next(store: MongoStore, lean: Lean):
    await store.insert(change("a"))
    await store.insert(change("b"))
    for _ in range(30):
        cancelled = asyncio.create_task(store.get("Patient", "a"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        cancelled.cancel()
        assert (await store.get("Patient", "b")).rid == "b"
        await asyncio.gather(cancelled, return_exceptions=True)


def test_it_works_on_the_servers_own_event_loop(mongod: Embedded, database_name: str):
    async def body() -> None:
        store = await open_store(mongod.uri, name=database_name)
        await asyncio.gather(*(store.insert(change(f"{number}", 300_000)) for number in range(10)))
        assert len(await store.find("Patient", Everything(), sort=[Sort("_id")], limit=10)) == 10
        assert (await store.get("Patient", "3")).res["x"] == "x" * 300_000
        await store.client.drop_database(database_name)
        await store.close()

    uvloop.run(body())


async def test_the_servers_refusals_are_told_apart(store: MongoStore, lean: Lean):
    document = raw(encoded({"_id": "a", "vid": 1}))
    await lean.insert("Patient", document, CONCERN)
    with pytest.raises(DuplicateKeyError):
        await lean.insert("Patient", document, CONCERN)
    with pytest.raises(OperationFailure) as refused:
        await lean.command({"find": "Patient", "filter": {"$nonsense": 1}})
    assert refused.value.code == 2
    gone = Lean("/nowhere/x.sock", "x")
    with pytest.raises(AutoReconnect):
        await gone.command({"ping": 1})


async def test_documents_that_travel_together_keep_their_own_fate(store: MongoStore, lean: Lean, monkeypatch: pytest.MonkeyPatch):
    sent: list[int] = []
    command = Lean.command

    async def counted(self, question):
        sent.append(len(question.get("documents", ())))
        return await command(self, question)

    monkeypatch.setattr(Lean, "command", counted)
    names = ["a", "b", "c", "a", "d", "b", "e"]
    tasks = [asyncio.create_task(lean.insert("Patient", raw(encoded({"_id": name, "vid": 1})), CONCERN)) for name in names]
    await asyncio.sleep(0)
    tasks[4].cancel()
    fates = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(fate) for fate in fates[:4]] == [type(None), type(None), type(None), DuplicateKeyError]
    assert isinstance(fates[4], asyncio.CancelledError)
    assert [type(fate) for fate in fates[5:]] == [DuplicateKeyError, type(None)]
    assert len(sent) < len(names)
    monkeypatch.undo()
    rows = await lean.rows({"find": "Patient", "filter": {"_id": {"$in": list("abce")}}})
    assert sorted(row["_id"] for row in rows) == list("abce")


async def test_a_batch_stays_within_its_limits(store: MongoStore, lean: Lean, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lean_module, "BATCH_DOCUMENTS", 7)
    monkeypatch.setattr(lean_module, "BATCH_BYTES", 1_000_000)
    made = await asyncio.gather(*(store.insert(change(f"{number}", 300_000)) for number in range(40)))
    assert len(await store.get_many([("Patient", one.rid) for one in made])) == 40


async def test_nobody_waits_for_ever_where_a_batch_breaks(lean: Lean, monkeypatch: pytest.MonkeyPatch):
    async def broken(self, question):
        raise RuntimeError("not the database's fault")

    monkeypatch.setattr(Lean, "command", broken)
    fates = await asyncio.gather(*(lean.insert("Patient", raw(encoded({"_id": name})), CONCERN) for name in "abc"), return_exceptions=True)
    assert [type(fate) for fate in fates] == [AutoReconnect] * 3


async def test_lost_connections_are_made_up_for(tmp_path: Path):
    running = embedded.start(tmp_path, cache_gb=0.25)
    try:
        store = await open_store(running.uri, selection_ms=30_000)  # a busy machine may take long to start the database again
        made = [await store.insert(change(uuid.uuid4().hex)) for _ in range(5)]
        os.kill(running.pid, signal.SIGKILL)
        running.process.wait()
        pending = asyncio.create_task(store.insert(change("meanwhile")))
        await asyncio.sleep(0.2)
        running.watch()
        assert (await pending).rid == "meanwhile"
        assert (await store.get("Patient", "meanwhile")).vid == 1
        assert len(await store.get_many([("Patient", one.rid) for one in made])) == 5
        await store.close()
    finally:
        running.stop()


async def test_an_insert_that_was_applied_before_its_connection_broke_counts_as_done(store: MongoStore, lean: Lean, monkeypatch: pytest.MonkeyPatch):
    whole = Lean.insert

    async def applied_but_lost(self, *given):
        await whole(self, *given)
        raise AutoReconnect("lost")

    monkeypatch.setattr(Lean, "insert", applied_but_lost)
    assert (await store.insert(change("a"))).vid == 1
    with pytest.raises(Refusal) as refused:
        await store.insert(change("a", 20))
    assert refused.value.status == 409


async def test_opening_waits_for_a_changeover(mongod: Embedded, database_name: str, monkeypatch: pytest.MonkeyPatch):
    """A member that is not primary any more refuses to create collections; a little later there is a primary."""
    real, refusals = store_module.create_own, []

    async def not_primary_yet(database):
        if len(refusals) < 2:
            refusals.append(1)
            raise NotPrimaryError("not primary")
        await real(database)

    monkeypatch.setattr(store_module, "create_own", not_primary_yet)
    opened = await open_store(mongod.uri, name=database_name)
    assert len(refusals) == 2
    await opened.client.drop_database(database_name)
    await opened.close()


def pair(rid: str) -> list[Change]:
    """A resource and what goes with it, in two collections."""
    return [change(rid), Change("Basic", f"of-{rid}", {"resourceType": "Basic", "id": f"of-{rid}"}, {"k": ["b"]}, None, "POST")]


async def both_of(store: MongoStore, rid: str) -> int:
    """How many of a pair are there."""
    return len(await store.get_many([("Patient", rid), ("Basic", f"of-{rid}")]))


async def test_what_belongs_together_is_written_in_one_transaction(store: MongoStore, lean: Lean):
    written = await asyncio.gather(*(store.insert_all(pair(str(number))) for number in range(20)))
    assert {one.at for one in written[0]} == {(await store.get("Basic", "of-0")).at}
    assert [await both_of(store, str(number)) for number in range(20)] == [2] * 20
    assert 0 < len(lean.sessions) <= 20


async def test_all_or_none_where_one_key_is_taken(store: MongoStore, lean: Lean):
    await store.insert_all(pair("a"))
    with pytest.raises(Refusal) as refused:
        await store.insert_all([*pair("b"), change("a")])
    assert refused.value.status == 409
    assert await both_of(store, "b") == 0
    await store.insert_all(pair("b"))
    assert await both_of(store, "b") == 2


async def test_a_commit_whose_answer_is_lost_is_asked_for_again(store: MongoStore, lean: Lean, monkeypatch: pytest.MonkeyPatch):
    command, lost = Lean.command, []

    async def losing(self, question, *codec, **where):
        answer = await command(self, question, *codec, **where)
        if "commitTransaction" in question and not lost:
            lost.append(answer)
            raise AutoReconnect("lost")
        return answer

    monkeypatch.setattr(Lean, "command", losing)
    await store.insert_all(pair("a"))
    assert len(lost) == 1
    assert await both_of(store, "a") == 2


def no_commit_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every commit is lost on the way, the tries that follow too."""
    command = Lean.command

    async def losing(self, question, *codec, **where):
        if "commitTransaction" in question:
            raise AutoReconnect("lost")
        return await command(self, question, *codec, **where)

    monkeypatch.setattr(Lean, "command", losing)
    monkeypatch.setattr(lean_tx, "AGAIN_SECONDS", (0.001, 0.001))


async def test_a_commit_never_answered_is_told_as_such(store: MongoStore, lean: Lean, monkeypatch: pytest.MonkeyPatch):
    no_commit_is_answered(monkeypatch)
    with pytest.raises(Refusal) as refused:
        await store.insert_all(pair("a"))
    assert refused.value.status == 503
    assert store.horizon.flights, "the stamp is kept: the server may still apply it"


async def test_what_fails_before_the_commit_is_written_by_pymongo(store: MongoStore, lean: Lean, monkeypatch: pytest.MonkeyPatch):
    command, asked = Lean.command, []

    async def failing(self, question, *codec, **where):
        asked.extend({*question} & {"insert", "abortTransaction", "commitTransaction"})  # not those of the horizon
        if question.get("insert") == "Basic":
            raise AutoReconnect("lost")
        return await command(self, question, *codec, **where)

    monkeypatch.setattr(Lean, "command", failing)
    await store.insert_all(pair("a"))
    assert await both_of(store, "a") == 2
    assert asked[:3] == ["insert", "insert", "abortTransaction"]


async def test_a_fenced_process_does_not_commit(store: MongoStore, lean: Lean, monkeypatch: pytest.MonkeyPatch):
    answers = iter([False])
    monkeypatch.setattr(Horizon, "valid", lambda self, flight: next(answers, True))
    await store.insert_all(pair("a"))
    assert await both_of(store, "a") == 2, "written again by PyMongo, with a fresh stamp"


async def test_a_transaction_whose_connection_breaks_runs_again_through_pymongo(store: MongoStore, lean: Lean, monkeypatch: pytest.MonkeyPatch):
    command, asked = Lean.command, []

    async def failing(self, question, *codec, **where):
        asked.extend({*question} & {"insert", "abortTransaction", "commitTransaction"})  # not those of the horizon
        if question.get("insert") == "Patient":
            await command(self, question, *codec, **where)
            raise AutoReconnect("lost after it was done")
        return await command(self, question, *codec, **where)

    monkeypatch.setattr(Lean, "command", failing)
    written = await store.transact(lambda tx: tx.put([change("a")]))
    assert [one.vid for one in written] == [1]
    assert asked == ["insert", "abortTransaction"], "the second attempt asks through PyMongo"
    assert (await store.get("Patient", "a")).vid == 1


async def test_a_transaction_whose_commit_is_never_answered_is_told_as_such(store: MongoStore, lean: Lean, monkeypatch: pytest.MonkeyPatch):
    no_commit_is_answered(monkeypatch)
    store.transaction_seconds = 0.2
    with pytest.raises(Refusal) as refused:
        await store.transact(lambda tx: tx.put([change("a")]))
    assert refused.value.status == 503
    assert store.horizon.flights, "the stamp is kept: the server may still apply it"


async def test_a_transaction_uses_no_driver_session_where_there_is_a_lean_channel(store: MongoStore, lean: Lean, monkeypatch: pytest.MonkeyPatch):
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a session of PyMongo")

    monkeypatch.setattr(store.client, "start_session", refused)
    await store.transact(lambda tx: tx.put([change("a")]))
    assert (await store.get("Patient", "a")).vid == 1


async def test_the_sessions_of_a_dead_process_are_found_by_its_name(store: MongoStore, lean: Lean):
    start = {"txnNumber": bson.Int64(1), "autocommit": False, "startTransaction": True}
    session = Session()
    await lean.command({"insert": "Patient", "documents": [raw(encoded({"_id": "open"}))], "lsid": session.lsid, **start})
    assert await end_sessions(store.client, lean.name) >= 1
    with pytest.raises(OperationFailure):
        await lean.command({"commitTransaction": 1, "lsid": session.lsid, "txnNumber": bson.Int64(1), "autocommit": False}, database="admin")
    assert await store.get("Patient", "open") is None
