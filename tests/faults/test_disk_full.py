"""A full disk: clear refusals, no damage, recovery. Needs the right to mount a tmpfs."""

import asyncio
import os
import random
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.outcome import Refusal
from fhir_server.store import Change, embedded
from fhir_server.store.mongo.store import MongoStore, open_store

DISK_MIB = 1300


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this user may not mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def patient(rid: str, size: int) -> Change:
    return Change("Patient", rid, {"resourceType": "Patient", "id": rid, "x": os.urandom(size // 2).hex()}, {"k": [rid]}, None, "POST")


async def fill(store: MongoStore, prefix: str, kept: set[str]) -> Refusal:
    """Write until refused; `kept` gets the ids of what was acknowledged."""
    for _ in range(10_000):
        rid = prefix + uuid.uuid4().hex
        try:
            if random.random() < 0.5:
                await store.insert(patient(rid, 200_000))
            else:
                await store.transact(lambda tx, rid=rid: tx.put([patient(rid, 200_000)]))
        except Refusal as refusal:
            return refusal
        kept.add(rid)
    raise AssertionError("the disk never filled")


async def all_there(store: MongoStore, kept: set[str]) -> None:
    for rid in kept:
        assert (await store.get("Patient", rid)).rid == rid
    assert {row["_id"] async for row in store.database["Patient"].find({}, {"_id": 1})} == kept


async def test_writes_are_refused_with_507_before_the_database_suffers(small_disk: Path):
    running = embedded.start(small_disk, cache_gb=0.25)
    try:
        with (small_disk / "other").open("wb") as handle:
            os.posix_fallocate(handle.fileno(), 0, 600 * 1024 * 1024)
        store = await open_store(running.uri)
        kept: set[str] = set()
        for _ in range(3):  # a checkpoint frees some room again
            refusal = await fill(store, "a", kept)
            assert refusal.status == 507
            assert running.failure() == ""
            await asyncio.sleep(1)
        assert len(kept) > 50
        await all_there(store, kept)
        await store.close()
    finally:
        running.stop()


@pytest.mark.slow
async def test_a_database_that_died_of_a_full_disk_comes_back_without_damage(small_disk: Path):
    running = embedded.start(small_disk, cache_gb=0.25)
    try:
        running.watch()
        store = await open_store(running.uri)
        kept: set[str] = set()
        for number in range(20):
            await store.insert(patient(f"a{number}", 200_000))
            kept.add(f"a{number}")
        hog = small_disk / "hog"
        with hog.open("wb") as handle:  # somebody else fills the disk
            os.posix_fallocate(handle.fileno(), 0, shutil.disk_usage(small_disk).free - 40 * 1024 * 1024)
        store.space.due = time.monotonic() + 3600  # our own look is blinded: the worst case
        refusal = await fill(store, "b", kept)
        assert refusal.status in (503, 507)
        assert running.process.wait(20) != 0
        running.watch()  # gives the ballast up
        store.space.due = 0
        async with asyncio.timeout(60):
            while (refusal := await fill(store, "c", kept)).status != 507:
                running.watch()
        assert running.failure() == ""
        there = {row["_id"] async for row in store.database["Patient"].find({}, {"_id": 1})}
        assert kept <= there
        assert len(there - kept) <= 2  # what was under way when it died
        await all_there(store, there)
        hog.unlink()
        store.space.due = 0
        await store.insert(patient("again", 200_000))
        await store.close()
    finally:
        running.stop()
