"""Backup, restore, verify, reindex."""

import asyncio
import gzip
import stat
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from conformance.outcome import Refusal
from fhir_server.store import Change, Stored, Tx
from fhir_server.store.embedded import Embedded
from fhir_server.store.mongo.archive import BadArchive, backup, restore
from fhir_server.store.mongo.reindex import reindex
from fhir_server.store.mongo.store import MongoStore, open_store
from fhir_server.store.mongo.verify import Fault, verify


def extract(res: dict) -> dict:
    """A stand-in for the extractor: one key, one range."""
    return {"k": [f"mark={res.get('mark')}"], "r": [{"k": "n", "l": Decimal("1.0")}]}


def change(rid: str, mark: str, prior: Stored | None = None, rtype: str = "Patient", **more: object) -> Change:
    res = {"resourceType": rtype, "id": rid, "mark": mark, "value": Decimal("1.00"), **more}
    return Change(rtype, rid, res, extract(res), prior, "PUT")


async def put(store: MongoStore, *changes: Change) -> list[Stored]:
    async def body(tx: Tx) -> list[Stored]:
        return await tx.put(changes)

    return await store.transact(body)


@pytest.fixture
async def filled(store: MongoStore) -> MongoStore:
    made = await put(store, *(change(f"p{number}", "1") for number in range(700)), change("o", "1", rtype="Observation"))
    await put(store, change("p1", "2", made[1]), Change("Patient", "p2", None, {}, made[2], "DELETE"))
    await store.insert(change("big", "1", rtype="Binary", data="x" * (16 * 1024 * 1024)))
    await store.database["feed_state"].insert_one({"_id": "s", "patient": "Patient/p1"})
    await store.database["feed_state"].create_index([("patient", 1)], name="patient", sparse=True)
    return store


@pytest.fixture
async def empty(mongod: Embedded) -> AsyncIterator[MongoStore]:
    name = f"test_{uuid.uuid4().hex[:16]}"
    opened = await open_store(mongod.uri, name=name)
    yield opened
    await opened.client.drop_database(name)
    await opened.close()


async def faults(store: MongoStore) -> list[Fault]:
    return [fault async for fault in verify(store, extract)]


async def test_a_backup_restores_everything(filled: MongoStore, empty: MongoStore, tmp_path: Path):
    file = tmp_path / "backup"
    counts = await backup(filled, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert counts["Patient"] == 699
    await empty.database["feed_state"].insert_one({"_id": "s", "patient": "Patient/other"})  # an exchange served this store before anybody used it
    assert await restore(empty, file) == counts
    for name in counts:
        rows = [await store.database[name].find().sort("_id", 1).to_list() for store in (filled, empty)]
        assert rows[0] == rows[1]
    assert [one.vid for one in await empty.history("Patient", "p2", limit=5)] == [2, 1]
    assert len((await empty.get("Binary", "big")).res["data"]) == 16 * 1024 * 1024
    assert "patient" in await empty.database["feed_state"].index_information()
    assert await faults(empty) == []
    with pytest.raises(Refusal) as refused:
        await restore(empty, file)
    assert refused.value.status == 409


async def test_a_backup_is_one_snapshot_while_writers_go_on(store: MongoStore, empty: MongoStore, tmp_path: Path):
    """Pairs are written together; a backup that is not a snapshot would hold halves."""
    await store.ensure(["Patient", "Observation"])
    going = True

    async def write() -> None:
        while going:
            mark = uuid.uuid4().hex
            await put(store, change(mark, mark), change(mark, mark, rtype="Observation"))

    writers = [asyncio.create_task(write()) for _ in range(4)]
    await asyncio.sleep(0.3)
    for number in range(3):
        await backup(store, tmp_path / str(number))
    going = False
    await asyncio.gather(*writers)
    await restore(empty, tmp_path / "2")
    pairs = [{row["_id"] async for row in empty.database[rtype].find({}, {"_id": 1})} for rtype in ("Patient", "Observation")]
    assert pairs[0] == pairs[1]
    assert pairs[0]


@pytest.mark.parametrize("damage", ["cut", "garbage", "plain", "empty", "other"])
async def test_a_damaged_backup_is_refused(filled: MongoStore, empty: MongoStore, tmp_path: Path, damage: str):
    file = tmp_path / "backup"
    await backup(filled, file)
    whole = file.read_bytes()
    damaged = {
        "cut": whole[: len(whole) // 2],
        "garbage": whole[:2000] + bytes(100) + whole[2100:],
        "plain": b"not a backup",
        "empty": b"",
        "other": gzip.compress(b'{"some": "json"}' * 10),
    }
    file.write_bytes(damaged[damage])
    with pytest.raises(BadArchive):
        await restore(empty, file)


async def test_verify_finds_what_is_wrong(filled: MongoStore):
    assert await faults(filled) == []
    patients, history = filled.database["Patient"], filled.database["history"]
    await patients.update_one({"_id": "p3"}, {"$set": {"k": ["mark=other"]}})
    await patients.update_one({"_id": "p4"}, {"$set": {"res.mark": "other"}})
    await patients.update_one({"_id": "p5"}, {"$set": {"vid": 2}})
    await history.delete_one({"i": "p1"})
    await history.delete_one({"i": "p2", "v": 1})
    await patients.update_one({"_id": "p6"}, {"$unset": {"r": ""}})
    assert {fault.place.split("/")[1] for fault in await faults(filled)} == {"p1", "p2", "p3", "p4", "p5", "p6"}
    assert not any("other" in fault.rule for fault in await faults(filled))


async def test_reindex_is_resumable_and_leaves_versions_alone(filled: MongoStore):
    def anew(res: dict) -> dict:
        return {"k": [f"mark={res['mark']}", "new"]}

    before = await filled.get("Patient", "p1")
    after, looked, changed = await reindex(filled, "Patient", anew, limit=400)
    assert (looked, changed) == (400, 400)
    assert await reindex(filled, "Patient", anew, after=after, limit=400) == ("", 299, 299)
    assert await reindex(filled, "Patient", anew, limit=1000) == ("", 699, 0)
    assert await filled.get("Patient", "p1") == before
    assert await filled.database["Patient"].count_documents({"r": {"$exists": True}}) == 0
    assert [fault async for fault in verify(filled, anew, ["Patient"])] == []


async def test_a_large_body_is_stored_once_for_all_versions_that_share_it(filled: MongoStore):
    made = await filled.get("Binary", "big")
    await put(filled, Change("Binary", "big", made.res, {}, made, "PUT"))
    assert [(await filled.version("Binary", "big", vid)).res["meta"]["versionId"] for vid in (1, 2)] == ["1", "2"]
    files = await filled.database["blobs.files"].find().to_list()
    assert [sorted(file["owners"]) for file in files] == [["Binary/big/1", "Binary/big/2"]]


async def test_blobs_that_nothing_refers_to_are_collected_after_an_hour(filled: MongoStore):
    kept = await filled.database["blobs.files"].distinct("_id")
    lost = await filled.blobs.put(b"nobody's")
    assert await filled.blobs.collect() == 0
    await filled.database["blobs.files"].update_many({}, [{"$set": {"touched": {"$subtract": ["$$NOW", 3700_000]}}}])
    assert await filled.blobs.collect() == 1
    assert await filled.database["blobs.files"].distinct("_id") == kept
    assert await filled.database["blobs.chunks"].count_documents({"files_id": lost}) == 0
