"""The store alone: CPU and rate of reads, creates and transactions of 100, decay over a long load, size of indexes.

`python -m tests.bench.store [--resources 100000] [--workers 2]` (about a minute). mongod and the workers share the machine's cores.
CPU is what a Python worker spends per resource (process time), the figure to hold against the budget of 150 µs.
"""

import argparse
import asyncio
import itertools
import multiprocessing
import random
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import uvloop

from fhir_server.store import Change, Stored, Tx, embedded
from fhir_server.store.mongo.store import MongoStore, open_store

BUNDLE = 100
PATIENTS = 500
START = datetime(2020, 1, 1, tzinfo=UTC)
LOINC = [(f"{number}-{number % 10}", f"Analyte number {number}") for number in range(1000, 1060)]


def observation(number: int) -> Change:
    """A laboratory result as a feed makes it, about 1.4 KB, with the index document that the search parameters of R4 give it."""
    code, display = LOINC[number % len(LOINC)]
    patient = f"Patient/{number // 7 % PATIENTS}"
    at = START + timedelta(minutes=number)
    rid = str(uuid.uuid4())
    res = {
        "resourceType": "Observation",
        "id": rid,
        "identifier": [{"system": "http://lab.example.org/results", "value": f"R{number}"}],
        "status": "final",
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "laboratory"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": code, "display": display}], "text": display},
        "subject": {"reference": patient},
        "effectiveDateTime": at.isoformat(),
        "issued": at.isoformat(),
        "performer": [{"reference": f"Organization/{number % 9}", "display": "The Laboratory"}],
        "valueQuantity": {"value": Decimal(number % 1000) / 10, "unit": "mmol/l", "system": "http://unitsofmeasure.org", "code": "mmol/L"},
        "interpretation": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation", "code": "N"}]}],
        "referenceRange": [{"low": {"value": Decimal("3.1"), "unit": "mmol/l"}, "high": {"value": Decimal("6.2"), "unit": "mmol/l"}}],
    }
    keys = [f"identifier=http://lab.example.org/results|R{number}", f"identifier=R{number}", "status=final", "category=laboratory"]
    keys += [f"code=http://loinc.org|{code}", f"code={code}", f"performer=Organization/{number % 9}", "interpretation=N"]
    index = {"k": keys, "r": [{"k": "value-quantity", "l": Decimal(number % 1000) / 10}], "p": patient, "d": at}
    return Change("Observation", rid, res, index, None, "POST")


async def bundles(store: MongoStore, numbers: "itertools.count[int]", count: int, at_once: int) -> list[float]:
    """`count` transactions of BUNDLE creates over `at_once` tasks; the time each one ended."""
    ends: list[float] = []
    left = iter(range(count))

    async def one_after_another() -> None:
        for _ in left:
            changes = [observation(next(numbers)) for _ in range(BUNDLE)]

            async def body(tx: Tx, changes: list[Change] = changes) -> list[Stored]:
                return await tx.put(changes)

            await store.transact(body)
            ends.append(time.perf_counter())

    await asyncio.gather(*(one_after_another() for _ in range(at_once)))
    return ends


async def timed(name: str, count: int, at_once: int, work: Any) -> None:
    """Print rate, CPU and latencies of `count` calls of `work`."""
    left, spans = iter(range(count)), []

    async def one_after_another() -> None:
        for _ in left:
            begun = time.perf_counter()
            await work()
            spans.append(time.perf_counter() - begun)

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one_after_another() for _ in range(at_once)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    spans.sort()
    print(
        f"{name:<28}{count / wall:>8.0f}/s  CPU {cpu / count * 1e6:>5.0f} µs  p50 {spans[count // 2] * 1e3:>6.2f} ms"
        f"  p99 {spans[count * 99 // 100] * 1e3:>6.2f} ms"
    )


async def singles(uri: str) -> None:
    """Reads and creates with 16 tasks in one process."""
    store = await open_store(uri, name="bench")
    numbers = itertools.count(10**9)
    await store.ensure(["Observation"])
    rows = await store.database["Observation"].find({}, {"_id": 1}).limit(2000).to_list()
    rids = [row["_id"] for row in rows]
    collection = store.client.get_database("bench")["Observation"]
    await timed("store.get", 6000, 16, lambda: store.get("Observation", random.choice(rids)))
    await timed("driver find_one (floor)", 6000, 16, lambda: collection.find_one({"_id": random.choice(rids)}))
    await timed("store.insert", 3000, 16, lambda: store.insert(observation(next(numbers))))
    bare = store.database["floor"]
    await timed("driver insert_one (floor)", 3000, 16, lambda: bare.insert_one({"_id": next(numbers), "res": observation(1).res}))
    await timed("history, type, page of 20", 200, 4, lambda: store.history("Observation", None, limit=20))
    size = await store.database.command("collStats", "Observation")
    print(f"{size['count']} documents of {size['avgObjSize']} bytes; index bytes / data bytes = {size['totalIndexSize'] / size['size']:.2f}")
    print({name: round(value / size["size"], 3) for name, value in size["indexSizes"].items()})
    await store.close()


async def load(uri: str, worker: int, transactions: int, report: Any) -> None:
    """One worker's share of the bulk load."""
    store = await open_store(uri, name="bench")
    cpu = time.process_time()
    ends = await bundles(store, itertools.count(worker * 10**7), transactions, 4)
    report.put((time.process_time() - cpu, ends))
    await store.close()


def run_load(uri: str, worker: int, transactions: int, report: Any) -> None:
    """A worker process."""
    uvloop.run(load(uri, worker, transactions, report))


def bulk(uri: str, resources: int, workers: int) -> None:
    """`resources` in transactions of 100 from `workers` processes: rate, CPU, and the last tenth against the first."""
    spawn = multiprocessing.get_context("spawn")
    report = spawn.Queue()
    share = resources // BUNDLE // workers
    processes = [spawn.Process(target=run_load, args=(uri, number, share, report)) for number in range(workers)]
    for process in processes:
        process.start()
    results = [report.get() for _ in processes]
    for process in processes:
        process.join()
    ends = sorted(end for _, part in results for end in part)
    tenth = len(ends) // 10
    first, last = ends[tenth] - ends[0], ends[-1] - ends[-tenth - 1]
    cpu = sum(part for part, _ in results) / (share * workers * BUNDLE)
    rate = (len(ends) - 1) * BUNDLE / (ends[-1] - ends[0])
    print(
        f"transactions of {BUNDLE}: {rate:.0f} resources/s, CPU {cpu * 1e6:.0f} µs a resource (with making it); last/first tenth {first / last:.2f}"
    )


def main(arguments: list[str]) -> None:
    """Run it all on an embedded database of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--resources", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        running = embedded.start(Path(folder))
        try:
            bulk(running.uri, chosen.resources, chosen.workers)
            uvloop.run(singles(running.uri))
        finally:
            running.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
