"""The inbox in MongoDB: durable, unique, leased, and part of the transaction that applies a message."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fhir_server.feed.receipt import new_id
from fhir_server.store.inbox import REUSED, Busy, Entry
from fhir_server.store.mongo.inbox import MongoInbox, prepare
from fhir_server.store.mongo.store import MongoStore

NOW = datetime(2024, 1, 1, tzinfo=UTC)
SOON = NOW + timedelta(seconds=20)
LATE = NOW + timedelta(seconds=60)


@pytest.fixture(params=["lean", "driver"])
async def inbox(store: MongoStore, request: pytest.FixtureRequest) -> MongoInbox:
    await prepare(store.database)
    return MongoInbox(store.database, store.place.lean if request.param == "lean" else None)


def entry(control: str = "1", digest: str = "d", **fields: Any) -> Entry:
    key = "\x1f".join(["lab", "A", "B", control, digest])
    given = {"id": new_id(), "received": NOW, "raw": b"MSH|", "owner": "me", "until": SOON, "order": ("p1",), "control_id": control, **fields}
    return Entry(key=key, source="lab", application="A", facility="B", event="ORU^R01", digest=digest, **given)


async def kept(inbox: MongoInbox, one: Entry) -> Entry:
    return (await inbox.receive([one]))[0][0]


async def test_what_is_received_comes_back_unchanged(inbox: MongoInbox) -> None:
    one = entry(problems=({"code": "1"},), flags=("edited",), extra={"a": 1})
    assert await inbox.receive([one]) == [(one, True)]
    assert await inbox.get(one.id, raw=True) == one
    assert await inbox.get(one.id) == replace(one, raw=b"")
    assert await inbox.get("unknown") is None


async def test_the_same_message_is_kept_once_however_many_come_at_once(inbox: MongoInbox) -> None:
    answers = await asyncio.gather(*(inbox.receive([entry(), entry(digest=f"d{number}")]) for number in range(8)))
    assert sum(is_new for [(_, is_new), _] in answers) == 1
    assert len({one.id for [(one, _), _] in answers}) == 1
    assert all(is_new for [_, (_, is_new)] in answers)


async def test_a_message_beyond_the_document_limit_is_kept_whole(inbox: MongoInbox) -> None:
    raw = bytes(range(256)) * 80_000
    one = entry(raw=raw, size=len(raw))
    assert await inbox.receive([one]) == [(one, True)]
    assert (await inbox.get(one.id, raw=True)).raw == raw
    again, is_new = (await inbox.receive([replace(one, id=new_id())]))[0]
    assert (again.id, is_new) == (one.id, False)
    assert await inbox.database["inbox_raw.files"].count_documents({}) == 1


async def test_work_is_taken_by_one_owner_and_again_when_the_lease_ended(inbox: MongoInbox) -> None:
    one = await kept(inbox, entry(owner="", until=None))
    taken = await asyncio.gather(*(inbox.take(one.id, f"w{number}", SOON, NOW) for number in range(8)))
    assert sum(got is not None for got in taken) == 1
    assert await inbox.take(one.id, "late", LATE, NOW) is None
    again = await inbox.take(one.id, "late", LATE, SOON + timedelta(seconds=1))
    assert again is not None
    assert again.attempt == 3
    await inbox.release(one.id, "late")
    assert [got.id for got in await inbox.claim("w", SOON, NOW, 5)] == [one.id]


async def test_accepted_messages_are_not_taken_and_failed_ones_are(inbox: MongoInbox) -> None:
    one = await kept(inbox, entry())
    await inbox.finish(None, one, {"status": "store-error"})
    again = await inbox.take(one.id, "you", LATE, NOW)
    assert again is not None
    assert (again.status, again.owner) == ("received", "you")
    await inbox.finish(None, again, {"status": "processed", "answer": b"AA"})
    assert await inbox.take(one.id, "you", LATE, LATE) is None


async def test_only_the_holder_finishes(inbox: MongoInbox) -> None:
    one = await kept(inbox, entry())
    taken = await inbox.take(one.id, "other", LATE, SOON + timedelta(seconds=1))
    assert taken is not None
    with pytest.raises(Busy):
        await inbox.finish(None, one, {"status": "processed"})
    await inbox.finish(None, taken, {"status": "processed"})


async def test_finishing_is_part_of_the_transaction(inbox: MongoInbox, store: MongoStore) -> None:
    one = await kept(inbox, entry())

    async def fails(tx: Any) -> None:
        await inbox.save(tx, "feed", [{"_id": "k", "tracks": []}])
        await inbox.finish(tx, one, {"status": "processed"})
        raise KeyError

    with pytest.raises(KeyError):
        await store.transact(fails)
    assert (await inbox.get(one.id)).status == "received"
    assert await inbox.load(None, "feed", ["k"]) == {}


async def test_two_transactions_that_make_the_same_document_run_one_after_the_other(inbox: MongoInbox, store: MongoStore) -> None:
    async def claim(tx: Any) -> str:
        found = await inbox.load(tx, "feed", ["k"])
        if not found:
            await asyncio.sleep(0.02)
            await inbox.save(tx, "feed", [{"_id": "k", "ref": new_id()}])
            return "made"
        return "found"

    answers = await asyncio.gather(*(store.transact(claim) for _ in range(6)))
    assert sorted(answers) == ["found"] * 5 + ["made"]


async def test_earlier_messages_of_the_patient_and_reused_control_ids_are_found(inbox: MongoInbox) -> None:
    first = await kept(inbox, entry("1", order=("p1", "p2")))
    other = await kept(inbox, entry("2", order=("p3",)))
    last = await kept(inbox, entry("1", "other", order=("p2",)))
    assert [one.id for one in await inbox.earlier(None, last)] == [first.id]
    assert await inbox.earlier(None, other) == []
    await inbox.finish(None, first, {"status": "processed"})
    assert await inbox.earlier(None, last) == [], "only what is not finished is waited for"
    assert (first.flags, other.flags, last.flags) == ((), (), (REUSED,))


async def test_a_reused_control_id_is_flagged_once_a_resend_and_an_edited_copy_are_not(inbox: MongoInbox) -> None:
    first = await kept(inbox, entry("1", "a"))
    ((resent, is_new),) = await inbox.receive([entry("1", "a")])
    assert (resent.id, is_new, resent.flags) == (first.id, False, ())
    copy = await kept(inbox, entry("1", "b", origin=first.id))
    assert copy.flags == ()
    (other, other_new), (again, again_new), (fresh, _) = await inbox.receive([entry("1", "c"), entry("1", "a"), entry("2", "a")])
    assert (other.flags, other_new, again.id, again_new, fresh.flags) == ((REUSED,), True, first.id, False, ())
    stored = await inbox.get(other.id)
    assert stored is not None
    assert stored.flags == (REUSED,)


async def test_search_and_summary(inbox: MongoInbox) -> None:
    for number in range(5):
        one = await kept(inbox, entry(str(number), received=NOW + timedelta(minutes=number)))
        await inbox.finish(None, one, {"status": "processed" if number % 2 else "store-error", "refs": (f"Patient/{number}/_history/3",)})
    assert [one.control_id for one in await inbox.search({"status": "processed"})] == ["3", "1"]
    assert [one.control_id for one in await inbox.search({"ref": "Patient/2"})] == ["2"]
    assert [one.control_id for one in await inbox.search({"received_ge": NOW + timedelta(minutes=3)}, newest_first=False)] == ["3", "4"]
    page = await inbox.search({}, limit=2)
    assert [one.control_id for one in await inbox.search({}, after=page[-1].id, limit=2)] == ["2", "1"]
    summary = {row["status"]: row for row in await inbox.summary(datetime(2020, 1, 1, tzinfo=UTC))}
    assert (summary["processed"]["count"], summary["store-error"]["count"]) == (2, 3)
    assert summary["processed"]["oldest"] == NOW + timedelta(minutes=1)


async def test_a_message_is_traced_only_to_what_it_wrote(inbox: MongoInbox) -> None:
    one = await kept(inbox, entry("1"))
    await inbox.finish(None, one, {"status": "processed", "refs": ("Encounter/1/_history/1", "Patient/1/_history/1", "Patient/9/_history/1")})
    for ref, found in (("Patient/1", 1), ("Patient/9", 1), ("Encounter/1", 1), ("Patient/5", 0), ("Observation/1", 0), ("Patient/", 0)):
        assert len(await inbox.search({"ref": ref})) == found, ref


async def test_documents_are_found_by_an_indexed_field(inbox: MongoInbox) -> None:
    await inbox.save(None, "feed", [{"_id": f"k{number}", "tracks": [{"ref": f"Patient/{number % 2}", "patient": ""}]} for number in range(4)])
    assert [row["_id"] for row in await inbox.find(None, "feed", "tracks.ref", ["Patient/1"])] == ["k1", "k3"]
    assert [row["_id"] for row in await inbox.beginning(None, "feed", "k", 3)] == ["k0", "k1", "k2"]
    assert [row["_id"] for row in await inbox.beginning(None, "feed", "k1", 3)] == ["k1"]
    await inbox.drop(None, "feed", ["k1"])
    assert [row["_id"] for row in await inbox.find(None, "feed", "tracks.ref", ["Patient/1"])] == ["k3"]
