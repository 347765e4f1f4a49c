"""A replica set of three bundled members loses its primary twice under load: nothing acknowledged is lost, the writers go on by themselves."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from fhir_server.store.bundled import find_mongod
from fhir_server.store.mongo.client import WrongDatabase
from fhir_server.store.mongo.store import open_store
from tests.faults.judge import judge
from tests.faults.test_kills import acknowledged, start_writer, until


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@dataclass
class Members:
    folder: Path
    ports: list[int] = field(default_factory=lambda: [free_port() for _ in range(3)])
    running: dict[int, subprocess.Popen] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        return "mongodb://" + ",".join(f"127.0.0.1:{port}" for port in self.ports) + "/?replicaSet=three"

    def start(self, port: int, *options: str) -> None:
        data = self.folder / str(port)
        data.mkdir(exist_ok=True)
        command = [str(find_mongod()), "--dbpath", str(data), "--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket", "--oplogSize", "64"]
        command += ["--wiredTigerCacheSizeGB", "0.25", "--logpath", str(data / "log"), "--syncdelay", "5"]
        self.running[port] = subprocess.Popen([*command, *(options or ("--replSet", "three"))], stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        for one in self.running.values():
            one.kill()
            one.wait()
        shutil.rmtree(self.folder)

    def say(self, port: int, command: object) -> dict:
        with MongoClient("127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=500) as client:
            return client.admin.command(command)

    def primary(self) -> int:
        """The port of the member that is primary now, 0 if none is."""
        for port, one in self.running.items():
            try:
                if one.poll() is None and self.say(port, "hello").get("isWritablePrimary"):
                    return port
            except PyMongoError:
                continue
        return 0


@pytest.fixture
def members(tmp_path: Path) -> Iterator[Members]:
    three = Members(tmp_path / "members")
    three.folder.mkdir()
    yield three
    three.stop()


async def initiate(members: Members) -> None:
    for port in members.ports:
        members.start(port)
    config = {"_id": "three", "members": [{"_id": number, "host": f"127.0.0.1:{port}"} for number, port in enumerate(members.ports)]}
    config["settings"] = {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500}
    async with asyncio.timeout(20):
        while True:
            try:
                members.say(members.ports[0], {"replSetInitiate": config})
                break
            except PyMongoError:
                await asyncio.sleep(0.1)
    await until(members.primary)


@pytest.mark.slow
async def test_a_lost_primary_costs_nothing_acknowledged(members: Members, tmp_path: Path):
    await initiate(members)
    journal = tmp_path / "journal"
    load = start_writer("mixed", members.uri, "faults", journal, 120)
    await until(lambda: acknowledged([journal]) > 50)
    for _ in range(2):
        lost = members.primary()
        before = acknowledged([journal])
        os.kill(members.running[lost].pid, signal.SIGKILL)
        members.running[lost].wait()
        await until(lambda before=before: acknowledged([journal]) > before + 50, 40)
        members.start(lost)
    load.terminate()
    load.wait()
    store = await open_store(members.uri, name="faults")
    assert store.horizon.members == 3
    assert await judge(store, [journal]) > 100
    newest = await store.history(None, None, limit=3)
    assert len(newest) == 3
    await store.close()


async def test_a_standalone_server_is_refused_with_the_reason(members: Members):
    members.start(members.ports[0], "--setParameter", "diagnosticDataCollectionEnabled=false")
    with pytest.raises(WrongDatabase, match=r"standalone.*--replSet"):
        await open_store(f"mongodb://127.0.0.1:{members.ports[0]}/")
