"""Real processes, a real database: a feed killed at any moment applies every message exactly once; two processes keep the order of a patient."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_server.mllp.sender import Line, connected
from fhir_server.store.embedded import Embedded
from fhir_server.store.mongo.store import MongoStore
from mappers.v2.message import parse
from tests.feed.exchange import adt, obr, obx, oru, pid, pv1

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """A feed process on a database."""

    def __init__(self, uri: str, database: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "tests.feed.serve", uri, database, str(port)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process.wait(20)


@contextlib.contextmanager
def served(uri: str, database: str, port: int = 0) -> Iterator[Server]:
    server = Server(uri, database, port)
    try:
        yield server
    finally:
        server.stop()


@contextlib.asynccontextmanager
async def line_to(port: int) -> AsyncIterator[Line]:
    async with connected("127.0.0.1", port) as line:
        yield line


async def everything(store: MongoStore, rtype: str) -> list[dict[str, Any]]:
    rows = await store.database[rtype].find({}).to_list()
    return [row["res"] for row in rows]


@pytest.mark.slow
async def test_a_feed_killed_between_receipt_and_answer_applies_every_message_exactly_once(
    mongod: Embedded, store: MongoStore, database_name: str
) -> None:
    messages = [
        oru(pv1(f"V{number % 5}"), obr(f"F{number}"), obx("K", str(number)), obx("NA", "140"), patient=pid(str(number % 5), f"P{number % 5}^X"))
        for number in range(40)
    ]
    chance = random.Random(1)
    left = list(messages)
    kills = 0
    while left:
        server = Server(mongod.uri, database_name)
        moment = time.monotonic() + chance.uniform(0.05, 0.5)
        with contextlib.suppress(ConnectionError, TimeoutError, OSError):
            async with line_to(server.port) as line:
                while left:
                    asked = asyncio.create_task(line.ask(left[0].encode(), 30))
                    done, _ = await asyncio.wait([asked], timeout=max(moment - time.monotonic(), 0.001) if kills < 6 else 30)
                    if not done:
                        server.kill()
                        kills += 1
                    assert parse(await asked).get("MSA-1") == "AA"
                    left.pop(0)
        server.stop()
    assert kills == 6
    observations = await everything(store, "Observation")
    assert len(observations) == 80
    assert len(await everything(store, "DiagnosticReport")) == 40
    assert len(await everything(store, "Patient")) == 5
    assert len(await everything(store, "Encounter")) == 5
    assert await store.database["inbox"].count_documents({"status": {"$in": ["processed", "warning"]}}) == 40
    assert await store.database["inbox"].count_documents({}) == 40
    assert await store.database["history"].count_documents({"t": "Observation"}) == 0, "no result was written twice"


@pytest.mark.slow
async def test_what_a_killed_process_received_is_finished_by_another_without_a_resend(
    mongod: Embedded, store: MongoStore, database_name: str
) -> None:
    server = Server(mongod.uri, database_name)
    async with line_to(server.port) as line:
        for number in range(30):
            answer = await line.ask(adt("A08", pid(str(number), f"P{number}^X"), msh_rest="|||AL|NE").encode())
            assert parse(answer).get("MSA-1") == "CA"
    server.kill()
    with served(mongod.uri, database_name):
        for _ in range(300):
            if await store.database["inbox"].count_documents({"status": "processed"}) == 30:
                break
            await asyncio.sleep(0.1)
    assert len(await everything(store, "Patient")) == 30


@pytest.mark.slow
async def test_two_processes_make_one_patient_of_many_messages_and_keep_their_order(mongod: Embedded, store: MongoStore, database_name: str) -> None:
    with served(mongod.uri, database_name) as one, served(mongod.uri, database_name) as other:

        async def sender(port: int, number: int) -> None:
            async with line_to(port) as line:
                for turn in range(6):
                    message = oru(pv1("V1"), obr(f"F{number}-{turn}"), obx("K", str(turn)), patient=pid("1"))
                    assert parse(await line.ask(message.encode())).get("MSA-1") == "AA"

        await asyncio.gather(*(sender((one if number % 2 else other).port, number) for number in range(8)))
        assert len(await everything(store, "Patient")) == 1
        assert len(await everything(store, "Encounter")) == 1
        assert len(await everything(store, "Observation")) == 48
        async with line_to(one.port) as first, line_to(other.port) as second:
            for turn in range(20):
                at = "20240101120000"
                line, family = (first, second)[turn % 2], f"N{turn}"
                assert parse(await line.ask(adt("A08", pid("1", f"{family}^X"), at=at, evn=at).encode())).get("MSA-1") == "AA"
        patient = (await everything(store, "Patient"))[0]
        families = {row["family"] for row in patient["name"]} - {"SMITH"}  # SMITH is what the laboratory says
        assert families == {"N19"}, "of equal event times the later received stands"


@pytest.mark.slow
async def test_a_merge_races_with_results_for_the_retired_patient_and_none_is_left_behind(
    mongod: Embedded, store: MongoStore, database_name: str
) -> None:
    with served(mongod.uri, database_name) as one, served(mongod.uri, database_name) as other:
        async with line_to(one.port) as line:
            for number in "12":
                await line.ask(adt("A08", pid(number)).encode())

        async def results(port: int, name: str) -> None:
            async with line_to(port) as line:
                for turn in range(10):
                    message = oru(obr(f"{name}{turn}"), obx("K", str(turn)), patient=pid("2"))
                    assert parse(await line.ask(message.encode())).get("MSA-1") == "AA"

        async def merge() -> None:
            await asyncio.sleep(0.15)
            async with line_to(other.port) as line:
                assert parse(await line.ask(adt("A40", pid("1"), "MRG|2^^^HOSP^MR").encode())).get("MSA-1") == "AA"

        await asyncio.gather(results(one.port, "a"), results(other.port, "b"), results(one.port, "c"), merge())
        for _ in range(100):
            subjects = {res["subject"]["reference"] for res in await everything(store, "Observation")}
            if len(subjects) == 1:
                break
            await asyncio.sleep(0.1)
        assert len(subjects) == 1
        assert len(await everything(store, "Observation")) == 30
