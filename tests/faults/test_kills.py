"""kill -9 of writers and of mongod under load, for real: nothing acknowledged is lost, no half transaction, ready again soon."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conformance.outcome import Refusal
from fhir_server.store import embedded
from fhir_server.store.embedded import Embedded
from fhir_server.store.mongo.store import MongoStore, open_store
from tests.faults.judge import facts, judge

READY_WITHIN = 15.0


def start_writer(mode: str, uri: str, name: str, journal: Path, seconds: float = 0) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "tests.faults.load", mode, uri, name, str(journal), str(seconds)])


async def until(condition, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_equal_guarded_creates_of_two_processes_make_one(mongod: Embedded, store: MongoStore, database_name: str, tmp_path: Path):
    journals = [tmp_path / "a", tmp_path / "b"]
    writers = [start_writer("guarded", mongod.uri, database_name, journal) for journal in journals]
    assert [await asyncio.to_thread(one.wait, 60) for one in writers] == [0, 0]
    made = [row[1] for fact in facts(journals) for row in fact.get("made", ())]
    assert len(made) == 64
    assert len(set(made)) == 1
    assert await store.database["Patient"].count_documents({}) == 1


async def test_what_a_killed_worker_held_is_free_at_once(mongod: Embedded, store: MongoStore, database_name: str, tmp_path: Path):
    journal = tmp_path / "a"
    holder = start_writer("hold", mongod.uri, database_name, journal)
    await until(lambda: any("holding" in fact for fact in facts([journal])))
    holder.kill()
    holder.wait()
    begun = time.monotonic()
    successor = await open_store(mongod.uri, name=database_name, transaction_seconds=10)  # the supervisor starts another worker
    try:

        async def body(tx):
            await tx.guard(["held"])

        await successor.transact(body)
        assert await successor.history("Patient", None, limit=5) == []
        assert time.monotonic() - begun < 3
    finally:
        await successor.close()


async def test_killed_writers_lose_nothing_and_history_goes_on(mongod: Embedded, store: MongoStore, database_name: str, tmp_path: Path):
    journals = []
    for number in range(3):
        journals.append(tmp_path / str(number))
        one = start_writer("mixed", mongod.uri, database_name, journals[-1], 30)
        await until(lambda: any("made" in fact for fact in facts(journals[-1:])))
        await asyncio.sleep(random.uniform(0.2, 0.8))
        one.kill()
        one.wait()
    begun = time.monotonic()
    newest = await store.history(None, None, limit=1)
    assert time.monotonic() - begun < 3
    assert newest
    assert await judge(store, journals) > 50


async def kill_mongod_under_load(folder: Path, seconds: float, rounds: int, writers: int = 1) -> None:
    running = embedded.start(folder / "data", cache_gb=0.5)
    journals: list[Path] = []
    try:
        for number in range(rounds):
            fresh = [folder / f"{number}-{one}" for one in range(writers)]
            journals += fresh
            await one_kill(running, fresh, seconds)
        store = await open_store(running.uri, name="faults")
        assert await judge(store, journals) > 50
        await store.close()
    finally:
        running.stop()


def acknowledged(journals: list[Path]) -> int:
    return sum("made" in fact for fact in facts(journals))


async def one_kill(running: Embedded, journals: list[Path], seconds: float) -> None:
    """Load, kill, time until writable; the writers then go on by themselves."""
    loads = [start_writer("mixed", running.uri, "faults", journal, seconds + 60) for journal in journals]
    await until(lambda: all(acknowledged([one]) for one in journals))
    await asyncio.sleep(random.uniform(0.7, 1.0) * seconds)
    os.kill(running.pid, signal.SIGKILL)
    running.process.wait()
    begun = time.monotonic()
    running.watch()
    await writable_again(running)
    ready = time.monotonic() - begun
    print(f"ready {ready:.2f} s after the kill")
    assert ready < READY_WITHIN
    before = acknowledged(journals)
    await until(lambda: acknowledged(journals) > before + 10)
    for load in loads:
        load.kill()
        load.wait()


async def writable_again(running: Embedded) -> None:
    """Until a fresh client's write is acknowledged."""
    while True:
        try:
            store = await open_store(running.uri, name="probe", selection_ms=500)
        except Refusal:
            await asyncio.sleep(0.05)
        else:
            return await store.close()


async def test_a_killed_mongod_comes_back_with_everything_acknowledged(tmp_path: Path):
    await kill_mongod_under_load(tmp_path, 1.5, 2)


@pytest.mark.slow
async def test_a_mongod_killed_after_a_minute_of_full_load_is_ready_in_time(tmp_path: Path):
    await kill_mongod_under_load(tmp_path, 60, 1, writers=2)


async def test_a_killed_server_takes_its_database_along_and_the_next_one_has_everything(tmp_path: Path):
    script = "import sys,time; from pathlib import Path; from fhir_server.store import embedded; embedded.start(Path(sys.argv[1])); time.sleep(100)"
    owner = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "data")])
    await until(lambda: embedded.attach(tmp_path / "data") is not None)
    journal = tmp_path / "journal"
    load = start_writer("mixed", embedded.attach(tmp_path / "data"), "faults", journal, 60)
    await until(lambda: len(facts([journal])) > 20)
    owner.kill()
    owner.wait()
    begun = time.monotonic()
    running = await asyncio.to_thread(embedded.start, tmp_path / "data")
    try:
        assert time.monotonic() - begun < READY_WITHIN
        load.kill()
        load.wait()
        store = await open_store(running.uri, name="faults")
        assert await judge(store, [journal]) > 10
        await store.close()
    finally:
        running.stop()
