"""The feed under load: messages acknowledged after commit, durable receipts, memory with large documents. `python -m tests.bench.feed [--quick]`.

Two server processes share one port on an embedded database in a temporary folder; the load generator runs on the same cores. Every report
has 20 OBX (22 resources and a Provenance). Figures: messages per second, median and 99th percentile of the answer in milliseconds, CPU
milliseconds per message of servers and database.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fhir_server.mllp.sender import connected
from fhir_server.store import embedded
from tests.bench.processes import ROOT, cpu_seconds, family, free_port, pss_without_files
from tests.feed.exchange import msh, oru, pid, pv1

QUICK, FULL = 200, 1000


def report(number: int, patient: int, rest: str = "") -> bytes:
    """An ORU^R01 of 20 numeric results."""
    rows = [f"OBX|{row}|NM|C{row}^Analyte {row}^L||{4 + row / 10:.1f}|mmol/L|3-9|N|||F|||20240101080000" for row in range(1, 21)]
    order = f"OBR|1||F{number}^LAB|CBC^Count^L|||20240101080000|||||||||77^WELBY^MARCUS^^^^^^HOSP||||||20240101090000|||F"
    return oru(pv1(f"V{patient}"), f"ORC|RE||F{number}^LAB", order, *rows, patient=pid(str(patient), f"NAME{patient}^X"), msh_rest=rest).encode()


def large(number: int, size: int) -> bytes:
    """A message with an embedded document of `size` bytes (base64)."""
    document = f"OBX|1|ED|PDF^Report^L||^AP^^Base64^{'QUJD' * (size // 4)}||||||F"
    header, _ = msh("ORU^R01^ORU_R01", "LAB|HOSP")
    return "\r".join([header, pid("1"), f"OBR|1||L{number}^LAB|DOC^Document^L|||20240101080000|||||||||||||||20240101090000|||F", document]).encode()


async def load(port: int, messages: list[bytes], connections: int, code: bytes) -> dict[str, float]:
    """Send all messages over so many connections; the rate and the latencies. Raises AssertionError for any other answer."""
    latencies: list[float] = []
    queue = list(reversed(messages))

    async def one() -> None:
        async with connected("127.0.0.1", port) as line:
            while queue:
                message = queue.pop()
                begun = time.perf_counter()
                answer = await line.ask(message, 120)
                assert b"MSA|" + code in answer, answer[:300]
                latencies.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    spent = time.perf_counter() - begun
    latencies.sort()
    return {
        "per_second": round(len(messages) / spent, 1),
        "median_ms": round(statistics.median(latencies) * 1000, 1),
        "p99_ms": round(latencies[int(len(latencies) * 0.99) - 1] * 1000, 1),
    }


def servers(uri: str, port: int, count: int) -> list[subprocess.Popen[str]]:
    """Server processes on one port, ready."""
    command = [sys.executable, "-m", "tests.feed.serve", uri, "bench", str(port)]
    started = [subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    for one in started:
        assert one.stdout is not None
        assert int(one.stdout.readline()) == port
    return started


def measure(size: int) -> dict[str, Any]:
    """All figures; `size`: messages per figure."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        database = embedded.start(Path(folder), cache_gb=0.5)
        port = free_port()
        running = servers(database.uri, port, 2)
        try:
            measure_on(port, running, size, figures)
        finally:
            for one in running:
                assert one.stdin is not None
                one.stdin.close()
                one.wait(30)
            database.stop()
    return figures


def measure_on(port: int, running: list[subprocess.Popen[str]], size: int, figures: dict[str, Any]) -> None:
    """The figures on running servers."""
    pids = [pid for one in running for pid in family(one.pid)]
    asyncio.run(load(port, [report(number, number % 100) for number in range(200)], 8, b"AA"))  # collections, caches, known patients
    before = cpu_seconds(pids)
    figures["ack after commit, 8 connections"] = asyncio.run(load(port, [report(1000 + number, number % 100) for number in range(size)], 8, b"AA"))
    figures["ack after commit, 8 connections"]["server_cpu_ms"] = round((cpu_seconds(pids) - before) * 1000 / size, 2)
    figures["ack after commit, 1 connection"] = asyncio.run(
        load(port, [report(10_000 + number, number % 100) for number in range(size // 4)], 1, b"AA")
    )
    small = [msh("ADT^A08", rest="|||AL|NE")[0].encode() + b"\rEVN|A08\r" + pid(str(number % 100)).encode() for number in range(size * 2)]
    figures["durable receipt (CA), 16 connections"] = asyncio.run(load(port, small, 16, b"CA"))
    memory = []
    for number in range(6):
        asyncio.run(load(port, [large(number, 20 * 1024 * 1024)], 1, b"AA"))
        memory.append(round(max(pss_without_files(one.pid) for one in running) / 2**20))
    figures["memory after each 20 MB document, MB"] = memory


if __name__ == "__main__":
    print(json.dumps(measure(QUICK if "--quick" in sys.argv else FULL), indent=1))
