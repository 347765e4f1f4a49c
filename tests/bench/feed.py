"""The feed under load: messages acknowledged after commit, durable receipts, memory with large documents. `python -m tests.bench.feed [--quick]`; single reports of thousands of results:
`--long`.

The exchange itself (`fhir-exchange serve --workers 2`, embedded database, a temporary folder); the load generator runs on the same cores. Every report
has 20 OBX (22 resources and a Provenance). Figures: messages per second, median and 99th percentile of the answer in milliseconds, CPU
milliseconds per message of servers and database.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fhir_server.mllp.sender import connected
from tests.bench.processes import cpu_seconds, exchange, family, free_port, pss_without_files
from tests.feed.exchange import msh, oru, pid, pv1

QUICK, FULL = 200, 1000
LONG = (1000, 6000, 19_000)  # results of one report; a message may have 20,000 segments


def report(number: int, patient: int, rest: str = "", results: int = 20) -> bytes:
    """An ORU^R01 of so many numeric results."""
    rows = [f"OBX|{row}|NM|C{row}^Analyte {row}^L||{4 + row / 10:.1f}|mmol/L|3-9|N|||F|||20240101080000" for row in range(1, results + 1)]
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


def cpu_by_kind(root: int) -> tuple[float, float]:
    """CPU seconds so far of the exchange's own processes, and of its database."""
    pids = family(root)
    database = [pid for pid in pids if Path(f"/proc/{pid}/comm").read_text().startswith("mongod")]
    return cpu_seconds([pid for pid in pids if pid not in database]), cpu_seconds(database)


def measure(size: int) -> dict[str, Any]:
    """All figures; `size`: messages per figure."""
    figures: dict[str, Any] = {}
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--data-dir", folder, "--workers", "2", "--mllp-port", str(port)]
        with exchange(arguments, free_port()) as running:
            measure_on(port, running.pid, size, figures)
    return figures


def measure_on(port: int, root: int, size: int, figures: dict[str, Any]) -> None:
    """The figures of the running exchange, whose first process is `root`."""
    asyncio.run(load(port, [report(number, number % 100) for number in range(300)], 8, b"AA"))  # collections, caches, known patients
    before = cpu_by_kind(root)
    figures["ack after commit, 8 connections"] = asyncio.run(load(port, [report(1000 + number, number % 100) for number in range(size)], 8, b"AA"))
    spent = [round((now - then) * 1000 / size, 2) for now, then in zip(cpu_by_kind(root), before)]
    figures["ack after commit, 8 connections"].update(server_cpu_ms=spent[0], database_cpu_ms=spent[1])
    figures["ack after commit, 1 connection"] = asyncio.run(
        load(port, [report(10_000 + number, number % 100) for number in range(size // 4)], 1, b"AA")
    )
    small = [msh("ADT^A08", rest="|||AL|NE")[0].encode() + b"\rEVN|A08\r" + pid(str(number % 100)).encode() for number in range(size * 2)]
    figures["durable receipt (CA), 16 connections"] = asyncio.run(load(port, small, 16, b"CA"))
    workers = [pid for pid in family(root)[1:] if not Path(f"/proc/{pid}/comm").read_text().startswith("mongod")]
    memory = []
    for number in range(6):
        asyncio.run(load(port, [large(number, 20 * 1024 * 1024)], 1, b"AA"))
        memory.append(round(max(map(pss_without_files, workers)) / 2**20))
    figures["memory after each 20 MB document, MB"] = memory


def long_reports() -> dict[str, float]:
    """Results in one report -> seconds to the answer after its commit."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, exchange(["--data-dir", folder, "--workers", "1", "--mllp-port", str(port)], free_port()):
        asyncio.run(load(port, [report(0, 1)], 1, b"AA"))
        return {f"{size} results": round(asyncio.run(load(port, [report(size, 1, results=size)], 1, b"AA"))["median_ms"] / 1000, 1) for size in LONG}


if __name__ == "__main__":
    print(json.dumps(long_reports() if "--long" in sys.argv else measure(QUICK if "--quick" in sys.argv else FULL), indent=1))
