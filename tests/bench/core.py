"""Issue 2's figures: read and create against the floor, transaction bundles, index bytes, start-up, memory.

`python -m tests.bench core` (about 3 minutes; `--quick` for a short look). mongod, servers and load generator share the machine's cores;
16 connections, two workers. The floor runs in turn with the exchange, so the ratios hold while the machine's speed drifts.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from pymongo import MongoClient

from fhir_server.store import embedded
from tests.bench import processes
from tests.bench.processes import http_request, load

CONNECTIONS, WORKERS = 16, 2
WARM = 90_000_000  # numbers of the bundles that warm the server up and are not measured
DATABASE = "fhir"


@dataclass(frozen=True)
class Effort:
    """How long to measure: seconds per run, runs per side, bundles of 100 entries, bundles before them.

    warm: so many that the database writes checkpoints already when the first tenth is measured; an empty one has nothing to write for its
    first seconds, which no exchange in service sees again.
    """

    seconds: float
    rounds: int
    bundles: int
    warm: int = 32


FULL, QUICK = Effort(6.0, 3, 1000, 300), Effort(3.0, 1, 250)


def observation(number: int, subject: str = "") -> dict:
    """A laboratory result of about 1.3 kB, different for each number."""
    return {
        "resourceType": "Observation",
        "status": "final",
        "identifier": [{"system": "https://lab.example/results", "value": f"R-{number:08d}"}],
        "category": [
            {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory", "display": "Laboratory"}]}
        ],
        "code": {
            "coding": [{"system": "http://loinc.org", "code": "2823-3", "display": "Potassium [Moles/volume] in Serum or Plasma"}],
            "text": "Potassium",
        },
        "subject": {"reference": subject or f"Patient/p{number % 5000}"},
        "effectiveDateTime": f"2026-{number % 12 + 1:02d}-{number % 28 + 1:02d}T08:{number % 60:02d}:00+01:00",
        "issued": f"2026-{number % 12 + 1:02d}-{number % 28 + 1:02d}T10:00:00.000+01:00",
        "performer": [{"reference": f"Practitioner/d{number % 50}", "display": "Clinical chemistry"}],
        "valueQuantity": {"value": 3 + number % 30 / 10, "unit": "mmol/L", "system": "http://unitsofmeasure.org", "code": "mmol/L"},
        "interpretation": [
            {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", "code": "N", "display": "Normal"}]}
        ],
        "referenceRange": [{"low": {"value": 3.5, "unit": "mmol/L"}, "high": {"value": 5.1, "unit": "mmol/L"}, "text": "3.5 - 5.1 mmol/L"}],
        "note": [{"text": "Sample received without haemolysis; measured by ion-selective electrode, second reading within limits."}],
    }


def bundle(number: int) -> bytes:
    """A transaction of 100 entries: one patient, one encounter, 98 results of its day that refer to both. The days of bundles are in no order."""
    day = date(2026, 1, 1) + timedelta(days=number * 7919 % 365)
    patient, encounter = f"urn:uuid:{number:08d}-0000-4000-8000-000000000001", f"urn:uuid:{number:08d}-0000-4000-8000-000000000002"
    name = [{"family": f"Family{number:06d}", "given": ["Anna", "Maria"]}]
    rows = [
        (
            patient,
            {
                "resourceType": "Patient",
                "identifier": [{"system": "https://ehr.example/mrn", "value": f"M{number}"}],
                "name": name,
                "birthDate": "1970-01-01",
            },
        ),
        (
            encounter,
            {
                "resourceType": "Encounter",
                "status": "finished",
                "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
                "subject": {"reference": patient},
                "period": {"start": f"{day}", "end": f"{day}"},
            },
        ),
    ]
    for index in range(98):
        res = observation(number * 98 + index, patient)
        res["encounter"] = {"reference": encounter}
        res["effectiveDateTime"] = f"{day}T{6 + index // 10:02d}:{number % 60:02d}:{index % 60:02d}+01:00"
        res["issued"] = f"{day}T{8 + index // 10:02d}:{number % 60:02d}:00.000+01:00"
        rows.append((f"urn:uuid:{number:08d}-0000-4000-8000-{index + 3:012d}", res))
    entries = [{"fullUrl": url, "resource": res, "request": {"method": "POST", "url": res["resourceType"]}} for url, res in rows]
    return json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries}).encode()


def measure(effort: Effort) -> dict:
    """All figures of this topic."""
    with TemporaryDirectory(prefix="bench") as name:
        folder = Path(name)
        figures = startup(folder / "start")
        with running_database(folder / "db") as database:
            uri = database.uri
            port = processes.free_port()
            with processes.exchange(
                ["--workers", str(WORKERS), "--mongodb-uri", uri, "--mllp-port", "-1"], port, log=folder / "server.log"
            ) as server:
                pids = processes.family(server.pid)[1:]
                figures["bundles"] = bundles(port, effort, folder, uri)
                figures["memory MB per worker"] = [round(processes.pss_without_files(pid) / 1e6) for pid in pids]
                with processes.floor(uri, WORKERS) as (floor_port, floor_pids):
                    sides = (Side(port, pids, "/fhir/Observation"), Side(floor_port, floor_pids, ""))
                    figures["create"] = duel(sides, database.pid, effort, folder, _creates)
                    ids = _copy_to_floor(uri)
                    figures["read"] = duel(
                        sides, database.pid, effort, folder, lambda side, turn: [http_request("GET", f"{side.prefix}/{rid}") for rid in ids]
                    )
        return figures


@contextmanager
def running_database(folder: Path) -> Iterator[embedded.Embedded]:
    """The embedded mongod as the exchange runs it."""
    database = embedded.start(folder)
    try:
        yield database
    finally:
        database.stop()


@dataclass(frozen=True)
class Side:
    """One of two servers that are compared."""

    port: int
    pids: list[int]
    prefix: str


def _creates(side: Side, turn: int) -> list[bytes]:
    bodies = (json.dumps(observation(turn * 1_000_000 + number)).encode() for number in range(4000))
    return [http_request("POST", side.prefix or "/", body) for body in bodies]


def duel(sides: tuple[Side, Side], mongod: int, effort: Effort, folder: Path, make: Callable[[Side, int], list[bytes]]) -> dict:
    """Run exchange and floor in turn; ratios are medians of the pairs."""
    pairs = []
    for turn in range(effort.rounds):
        pairs.append(
            [_timed(side, mongod, make(side, turn + 1), effort, folder) for side in (sides if turn % 2 else sides[::-1])][:: 1 if turn % 2 else -1]
        )
    best = [max(pairs, key=lambda pair: pair[side]["rate"])[side] for side in (0, 1)]
    return {
        "rate / floor": round(statistics.median(pair[0]["rate"] / pair[1]["rate"] for pair in pairs), 3),
        "p99 / floor p99": round(statistics.median(pair[0]["p99"] / pair[1]["p99"] for pair in pairs), 2),
        "exchange": best[0],
        "floor": best[1],
    }


def _timed(side: Side, mongod: int, requests: list[bytes], effort: Effort, folder: Path) -> dict:
    before = processes.cpu_seconds(side.pids), processes.cpu_seconds([mongod])
    result = load(side.port, CONNECTIONS, effort.seconds, requests, folder)
    after = processes.cpu_seconds(side.pids), processes.cpu_seconds([mongod])
    good = {"200", "201"}
    if not set(result["statuses"]) <= good:
        raise RuntimeError(f"unexpected answers: {result['statuses']}")
    result["server µs/request"] = round((after[0] - before[0]) / result["requests"] * 1e6)
    result["mongod µs/request"] = round((after[1] - before[1]) / result["requests"] * 1e6)
    return {key: result[key] for key in ("rate", "p50", "p99", "server µs/request", "mongod µs/request")}


def bundles(port: int, effort: Effort, folder: Path, uri: str) -> dict:
    """Transactions of 100 entries, each sent once; resources a second, decay over tenths, index bytes to data bytes."""
    load(port, CONNECTIONS, 0, [http_request("POST", "/fhir", bundle(WARM + number)) for number in range(effort.warm)], folder)
    requests = [http_request("POST", "/fhir", bundle(number)) for number in range(effort.bundles)]
    result = load(port, CONNECTIONS, 0, requests, folder)
    if set(result["statuses"]) != {"200"}:
        raise RuntimeError(f"unexpected answers: {result['statuses']}")
    tenths = [round(rate * 100) for rate in result["tenths"]]
    return {
        "resources/s": round(result["rate"] * 100),
        "tenths": tenths,
        "last / first": round(tenths[-1] / max(tenths[0], 1), 2),
        "p99 ms": result["p99"],
        **sizes(uri),
    }


def sizes(uri: str) -> dict:
    """Index bytes to data bytes over all collections of the exchange's database."""
    with MongoClient(uri) as client:
        database = client[DATABASE]
        stats = [database.command("collStats", name) for name in database.list_collection_names() if name[:1].isupper()]
    data, index = sum(one["size"] for one in stats), sum(one["totalIndexSize"] for one in stats)
    return {"data MB": round(data / 1e6, 1), "index MB": round(index / 1e6, 1), "index / data": round(index / data, 2)}


def _copy_to_floor(uri: str) -> list[str]:
    """The same stored documents for both sides; the ids that are read."""
    with MongoClient(uri) as client:
        rows = list(client[DATABASE]["Observation"].find({}, {"_id": 1, "vid": 1, "at": 1, "res": 1}).limit(4000))
        client["floor"]["Observation"].drop()
        client["floor"]["Observation"].insert_many(rows)
    return [row["_id"] for row in rows]


def startup(data: Path) -> dict:
    """Seconds from the command to ready, on a new store and on an existing one (embedded database included)."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        with processes.exchange(["--data-dir", str(data), "--mllp-port", "-1"], processes.free_port()):
            times.append(round(time.perf_counter() - started, 2))
    return {"start to ready s": {"new store": times[0], "existing store": times[1:]}}
