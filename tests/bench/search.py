"""Search latency over HTTP at two sizes of data: the figures of the search issue.

    python -m tests.bench.dataset FOLDER PATIENTS            (once for each size; about 40 resources each)
    python -m tests.bench.search SMALL LARGE [FAMILY ...]    (the two folders; a part of a family's name measures only that)

Two exchanges with two workers each run side by side, one on each data set, and are asked in turn, so that the ratio holds while the machine's speed drifts. Each
family is asked with twenty different queries (one for each planted patient) and has the same number of matches at both sizes. Printed for each: p50 in ms with one
connection at both sizes, their ratio, p50 with 16 connections and CPU of server and database a request at the larger size, the index and documents examined
(`_explain`); the newest 20 of a patient and code against the floor of one `find`; bytes of indexes and data.
"""

import json
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from fhir_server.store import embedded
from tests.bench import dataset, processes

LAB, WEEK = "http://loinc.org|33914-3", "date=ge2025-03-01&date=lt2025-03-08"
NEWEST, DATED, BETWEEN = "patient + code, -date", "patient + code + date", "patient + code + two dates"
FAMILIES = {
    "name prefix": "Patient?family=quillf&_count=20",
    "identifier": "Patient?identifier=urn:oid:1.2.3.4|PLANTED-{n}",
    "date range": f"Observation?{WEEK}&_count=20",
    NEWEST: f"Observation?patient=planted{{n}}&code={LAB}&_sort=-date&_count=20",
    DATED: f"Observation?patient=planted{{n}}&code={LAB}&date=ge2025-03-01&_sort=-date&_count=20",
    BETWEEN: f"Observation?patient=planted{{n}}&code={LAB}&date=ge2025-03-01&date=le2030-12-31&_sort=-date&_count=20",
    "code + value-quantity": f"Observation?code={LAB}&value-quantity=gt60&_count=20",
    "code-value-quantity": "Observation?code-value-quantity=33914-3$gt60&_count=20",
    "chained subject.name": f"Observation?subject:Patient.family=quillfeather&code={LAB}&_count=20",
    "_include": f"Observation?patient=planted{{n}}&code={LAB}&_include=Observation:subject&_include=Observation:performer&_count=20",
    "_revinclude": "Patient?identifier=urn:oid:1.2.3.4|PLANTED-{n}&_revinclude=Observation:patient",
    "_has": f"Patient?_has:Observation:patient:code={LAB}&_count=20",
    "_summary=count": f"Observation?code={LAB}&_summary=count",
}
WORKERS, CLIENTS, SECONDS = 2, 16, 0.6
FULL, QUICK = (1000, 16_000), (250, 1000)  # patients


@dataclass(frozen=True)
class Side:
    """One running exchange on one data set."""

    port: int
    pids: list[int]
    mongod: int
    uri: str


@contextmanager
def side(data: Path, log: Path) -> Iterator[Side]:
    """An exchange on this data set, with the process ids of its workers."""
    port = processes.free_port()
    arguments = ["--workers", str(WORKERS), "--data-dir", str(data), "--mllp-port", "-1"]
    with processes.exchange(arguments, port, log=log) as server:
        mongod = json.loads((data / "mongo" / "running.json").read_text("ascii"))["pid"]
        yield Side(port, [pid for pid in processes.family(server.pid) if pid != mongod], mongod, str(embedded.attach(data)))


def address(query: str) -> str:
    """The path of a query, escaped."""
    return "/fhir/" + quote(query, safe="/?&=:$,*")


def requests_of(query: str) -> list[bytes]:
    """The query for each planted patient."""
    return [processes.http_request("GET", address(query.format(n=number))) for number in range(20)]


def timed(one: Side, requests: list[bytes], connections: int, folder: Path, seconds: float = SECONDS) -> dict[str, Any]:
    """Latencies, and CPU microseconds a request of server and database."""
    before = processes.cpu_seconds(one.pids), processes.cpu_seconds([one.mongod])
    result = processes.load(one.port, connections, seconds, requests, folder)
    after = processes.cpu_seconds(one.pids), processes.cpu_seconds([one.mongod])
    if set(result["statuses"]) != {"200"}:
        raise RuntimeError(f"unexpected answers: {result['statuses']}")
    result["server"] = round((after[0] - before[0]) / result["requests"] * 1e6)
    result["mongod"] = round((after[1] - before[1]) / result["requests"] * 1e6)
    return result


def asked(one: Side, query: str) -> dict[str, Any]:
    """The Bundle."""
    with urllib.request.urlopen(f"http://127.0.0.1:{one.port}{address(query)}", timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def explained(one: Side, query: str) -> str:
    """Index and documents examined, as `_explain` tells an administrator."""
    told = [issue["diagnostics"] for entry in asked(one, f"{query}&_explain=true").get("entry", ()) for issue in entry["resource"].get("issue", ())]
    return "; ".join(text.split(": ", 1)[1] for text in told if " indexes: " in text or " examined: " in text)


def matches(one: Side, query: str) -> int:
    """How many resources the answer holds, or tells of."""
    found = asked(one, query)
    return len(found.get("entry", ())) or found.get("total", 0)


def one_family(family: str, small: Side, large: Side, folder: Path) -> dict[str, Any]:
    """The figures of one family; latencies in milliseconds, CPU in microseconds a request of server and database."""
    query = FAMILIES[family]
    requests = requests_of(query)
    for one in (small, large):
        timed(one, requests, 4, folder, 0.3)
    alone: list[list[float]] = [[], []]
    for turn in range(2):
        for at in (turn, 1 - turn):
            alone[at].append(timed((small, large)[at], requests, 1, folder)["p50"])
    low, high = (sum(found) / len(found) for found in alone)
    busy = [timed(one, requests, CLIENTS, folder) for one in (small, large)]
    first = query.format(n=3)
    if (few := matches(small, first)) != (many := matches(large, first)):
        raise RuntimeError(f"{family}: {few} and {many} matches")
    return {
        "p50": [round(low, 2), round(high, 2)],
        "ratio": round(high / low, 2),
        "p50 at 16": [round(one["p50"], 1) for one in busy],
        "rate at 16": round(busy[1]["rate"]),
        "CPU server + mongod": f"{busy[1]['server']} + {busy[1]['mongod']}",
        "rows": many,
        "explain": explained(large, first),
    }


def against_floor(one: Side, folder: Path, family: str) -> dict[str, float]:
    """The newest 20 of a patient and code (and date) against a bare handler that returns the same documents by one find: rates with 16 connections, in turn; p50 with one."""
    ours = requests_of(FAMILIES[family])
    base = [processes.http_request("GET", f"/newest/planted{number}/code={quote(LAB, safe='')}") for number in range(20)]
    rates: list[float] = []
    with processes.floor(one.uri, WORKERS) as (port, pids):
        bare = Side(port, pids, one.mongod, one.uri)
        timed(bare, base, 4, folder, 0.3)
        for _ in range(3):
            rates.append(timed(one, ours, CLIENTS, folder)["rate"] / timed(bare, base, CLIENTS, folder)["rate"])
        slow, quick = timed(one, ours, 1, folder)["p50"], timed(bare, base, 1, folder)["p50"]
    return {"rate / floor": round(sorted(rates)[1], 2), "p50 alone": round(slow, 2), "floor's p50 alone": round(quick, 2)}


def run(small: Path, large: Path, wanted: Sequence[str]) -> dict[str, Any]:
    """The figures of these families on two data sets, and the bytes of the larger one."""
    with TemporaryDirectory(prefix="bench") as name, ExitStack() as stack:
        folder = Path(name)
        sides = [stack.enter_context(side(data, folder / f"server{at}.log")) for at, data in enumerate((small, large))]
        figures: dict[str, Any] = {"patients": [(data / dataset.COMPLETE).read_text("ascii") for data in (small, large)]}
        for family in wanted:
            figures[family] = one_family(family, *sides, folder)
            print(family, figures[family], file=sys.stderr, flush=True)
        figures["newest 20"] = {family: against_floor(sides[1], folder, family) for family in (NEWEST, DATED, BETWEEN) if family in wanted}
        return figures | {"bytes": dataset.sizes(sides[1].uri)}


def measure(effort: tuple[int, int]) -> dict[str, Any]:
    """All figures; the data sets are built in `.cache/bench` where they are not there yet (16,000 patients: some minutes)."""
    folders = [processes.ROOT / ".cache" / "bench" / f"patients{patients}" for patients in effort]
    for folder, patients in zip(folders, effort):
        dataset.build(folder, patients)
    return run(*folders, list(FAMILIES))


def table(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    low, high = figures["patients"]
    head = f"| family | p50 at {low} patients | at {high} | ratio | p50 at 16 connections | rate | server + mongod µs | rows | explain |"
    lines = [head, f"|{'---|' * 9}"]
    for family in FAMILIES:
        if one := figures.get(family):
            alone, busy = one["p50"], one["p50 at 16"]
            told = (
                f"{one['ratio']:.2f} | {busy[0]}, {busy[1]} | {one['rate at 16']} | {one['CPU server + mongod']} | {one['rows']} | {one['explain']}"
            )
            lines.append(f"| {family} | {alone[0]:.2f} | {alone[1]:.2f} | {told} |")
    return "\n".join([*lines, f"newest 20: {figures.get('newest 20')}", figures["bytes"]])


if __name__ == "__main__":
    parts = sys.argv[3:]
    print(table(run(Path(sys.argv[1]), Path(sys.argv[2]), [one for one in FAMILIES if not parts or any(part in one for part in parts)])))
