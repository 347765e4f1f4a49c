"""kill -9 of the whole server under load: nothing acknowledged is lost, no transaction is half there, it becomes ready again (how soon is printed; `-s` shows it)."""

import json
import random
import threading
import time
import uuid
from pathlib import Path

import httpx
import pytest

from tests.scenarios.running import Server, free_port, start, stop, wait_ready

JSON = {"Content-Type": "application/fhir+json"}
ENTRIES = 20


def bundle(tag: str) -> dict:
    """A transaction whose entries all carry one tag, so that a half one would show."""
    rows = [
        {
            "resource": {
                "resourceType": "Observation",
                "status": "final",
                "code": {"text": "x"},
                "identifier": [{"system": "https://tag.example", "value": tag}],
                "valueInteger": number,
            },
            "request": {"method": "POST", "url": "Observation"},
        }
        for number in range(ENTRIES)
    ]
    return {"resourceType": "Bundle", "type": "transaction", "entry": rows}


class Writers:
    """Threads that post transactions until the server goes away, and note what was acknowledged."""

    def __init__(self, server: Server, count: int) -> None:
        self.acknowledged: list[str] = []
        self.sent: list[str] = []
        self.stopping = False
        self.threads = [threading.Thread(target=self.write, args=(server,)) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def write(self, server: Server) -> None:
        with httpx.Client(base_url=server.base, timeout=10) as http:
            while not self.stopping:
                tag = uuid.uuid4().hex
                self.sent.append(tag)
                try:
                    answer = http.post("", content=json.dumps(bundle(tag)), headers=JSON)
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    self.acknowledged.append(tag)

    def begun(self) -> "Writers":
        """Wait until the first transaction is acknowledged: a machine may be busy."""
        deadline = time.monotonic() + 30
        while not self.acknowledged and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self.acknowledged
        return self

    def join(self) -> None:
        self.stopping = True
        for thread in self.threads:
            thread.join()


def check(server: Server, writers: Writers) -> None:
    """Every acknowledged transaction is whole, every other one is whole or absent; index and content agree."""
    acknowledged = set(writers.acknowledged)
    with server.client() as http:
        for tag in writers.sent:
            found = http.get("/Observation", params={"identifier": f"https://tag.example|{tag}", "_count": "100"}).json()
            values = sorted(entry["resource"]["valueInteger"] for entry in found.get("entry", []))
            whole = list(range(ENTRIES))
            assert values == whole or (values == [] and tag not in acknowledged), f"{len(values)} of {ENTRIES} entries"


def round_of_load(data: Path, seconds: float) -> None:
    port, mllp_port = free_port(), free_port()
    server = start(data, "--workers", "2", port=port, mllp_port=mllp_port)
    try:
        wait_ready(server)
        writers = Writers(server, 4).begun()
        time.sleep(seconds)
        server.kill()
        writers.join()
        server = start(data, "--workers", "2", port=port, mllp_port=mllp_port)
        print(f"ready again after {wait_ready(server):.1f} s")
        check(server, writers)
    finally:
        stop(server)


def test_kill_9_under_load(tmp_path: Path) -> None:
    round_of_load(tmp_path / "data", 1.5)


@pytest.mark.slow
def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    dice = random.Random(20261121)
    for _ in range(4):
        round_of_load(tmp_path / "data", dice.uniform(0.2, 3.0))


@pytest.mark.slow
def test_kill_9_after_a_minute_of_full_load(tmp_path: Path) -> None:
    round_of_load(tmp_path / "data", 60)
