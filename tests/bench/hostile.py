"""Hostile queries beside a neighbour: what they cost those who ask for ordinary things.

    python -m tests.bench.hostile DATA [NAME ...]        (a folder of tests.bench.dataset; a part of a name runs only that)

An exchange with two workers. The neighbour asks with one connection for one patient's newest results and for reads; first alone, then while two hostile clients send
one kind of query again and again. Printed for each: the statuses and median seconds of the hostile query, the neighbour's p99 alone and beside it, and their ratio.
"""

import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import msgspec

from tests.bench import processes
from tests.bench.search import FAMILIES, NEWEST, Side, requests_of, side

CODES = ",".join(f"http://loinc.org|{number}-7" for number in range(1000))
HOSTILE = {
    "10,000 parameters": "Observation?" + "&".join(f"code=x{number}" for number in range(10_000)),
    "1,000 OR values": f"Observation?code={CODES}",
    "1,000 OR values of a name": "Patient?name=" + ",".join(f"q{number}" for number in range(1000)),
    "1,000 OR dates": "Observation?date=" + ",".join(f"ge20{number % 30:02d}-{number % 12 + 1:02d}" for number in range(1000)),
    "200 lists of 100 values": "Observation?" + "&".join(f"code=718-7,{CODES[:2600]}" for _ in range(20)),
    "30-hop chain": "Observation?" + ".".join(["subject"] * 30) + ".name=x",
    "8-hop chain without types": "Observation?" + ".".join(["focus"] * 7) + ".code=x",
    "_count=1000000": "Observation?_count=1000000",
    "pattern text": "Patient?name:contains=(.*a%2B)%2B%24&family:contains=[a-z]*.*.*.*",
    "_revinclude:iterate=*": "Patient?_count=200&_revinclude:iterate=*&_include:iterate=*",
    "sorted by what no index holds": "Observation?_sort=-value-quantity,code&_count=1000",
    "nothing matches, nothing excluded": "Observation?status:not=final&code:not=x&_total=accurate",
    "a filter in parentheses": "Patient?_filter=" + quote("(" * 400 + "name co x" + ")" * 400),
}
SECONDS, RUDE = 3.0, 2


class Client(threading.Thread):
    """Sends one query again and again until told to stop."""

    def __init__(self, port: int, query: str) -> None:
        super().__init__(daemon=True)
        self.url, self.ended = f"http://127.0.0.1:{port}/fhir/{query}", threading.Event()
        self.statuses: Counter[int] = Counter()
        self.times: list[float] = []

    def run(self) -> None:
        """See threading.Thread."""
        while not self.ended.is_set():
            started = time.perf_counter()
            try:
                with urllib.request.urlopen(self.url, timeout=90) as answer:
                    answer.read()
                    self.statuses[answer.status] += 1
            except urllib.error.HTTPError as error:
                self.statuses[error.code] += 1
            except OSError:
                self.statuses[0] += 1
            self.times.append(time.perf_counter() - started)


def neighbour(one: Side, folder: Path) -> float:
    """The p99 of ordinary requests in milliseconds."""
    reads = [processes.http_request("GET", f"/fhir/Patient/planted{number}") for number in range(20)]
    path = folder / "requests.msgpack"
    path.write_bytes(msgspec.msgpack.encode([*requests_of(FAMILIES[NEWEST]), *reads]))
    command = [sys.executable, "-m", "tests.bench.load", str(one.port), "1", str(SECONDS), str(path)]
    done = subprocess.run(command, cwd=processes.ROOT, capture_output=True, check=True, timeout=120)
    result = msgspec.json.decode(done.stdout)
    if set(result["statuses"]) != {"200"}:
        raise RuntimeError(f"unexpected answers: {result['statuses']}")
    return float(result["p99"])


def beside(one: Side, query: str, folder: Path) -> tuple[str, float]:
    """What the hostile clients got, and the neighbour's p99 meanwhile."""
    clients = [Client(one.port, query) for _ in range(RUDE)]
    for client in clients:
        client.start()
    time.sleep(0.3)
    try:
        p99 = neighbour(one, folder)
    finally:
        for client in clients:
            client.ended.set()
    for client in clients:
        client.join(95)
    statuses = sum((client.statuses for client in clients), Counter())
    times = [taken for client in clients for taken in client.times]
    return f"{dict(statuses)}, {statistics.median(times):.3f} s" if times else "no answer", p99


def main(argv: list[str]) -> None:
    """The table."""
    wanted = [name for name in HOSTILE if len(argv) < 2 or any(part in name for part in argv[1:])]
    with TemporaryDirectory(prefix="bench") as name:
        folder = Path(name)
        with side(Path(argv[0]), folder / "server.log") as one:
            neighbour(one, folder)
            print("| query | statuses, median time | neighbour's p99 alone | beside it | ratio |\n|---|---|---|---|---|")
            for kind in wanted:
                alone = neighbour(one, folder)
                told, p99 = beside(one, HOSTILE[kind], folder)
                print(f"| {kind} | {told} | {alone:.1f} ms | {p99:.1f} ms | {p99 / alone:.2f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
