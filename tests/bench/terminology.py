"""Figures of the terminology engine on a synthetic SNOMED-sized release: the engine itself, and the cost on ingest. CPU time on one core.

    python -m tests.bench.snomed_synthetic RELEASE
    python -m tests.bench.terminology load RELEASE DATA      loads it (time, size)
    python -m tests.bench.terminology engine DATA            lookup, validate, subsumes, expand, text filter
    python -m tests.bench.terminology ingest DATA            microseconds per coding
    python -m tests.bench.terminology bulk DATA              a bulk load into the embedded database with terminology on and off

Over HTTP: `python -m tests.bench.terminology_http DATA`.
"""

import asyncio
import gc
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conformance.spec import load_spec
from conformance.validate import checker
from fhir_server.jobs.load import Target, _drafts, _write, blocks_of, context_of
from fhir_server.main import GC_THRESHOLD
from fhir_server.settings import Settings
from fhir_server.store import embedded
from fhir_server.store.mongo.store import open_store
from terminology.concepts import subsumes
from terminology.ingest import codings_judge, codings_of
from terminology.load import load
from terminology.operations import call
from terminology.service import Terms, open_terms
from tests.bench import synthetic

URL = "http://snomed.info/sct"
Json = dict[str, Any]


def median(run: Callable[[], object], times: int = 5, each: int = 1) -> float:
    """Median CPU seconds of one call."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        for _ in range(each):
            run()
        taken.append((time.process_time() - start) / each)
    return sorted(taken)[len(taken) // 2]


def parameters(**given: str | int) -> Json:
    """Parameters of strings and integers."""
    rows = [{"name": name, ("valueInteger" if isinstance(value, int) else "valueString"): value} for name, value in given.items()]
    return {"resourceType": "Parameters", "parameter": rows}


def loading(release: Path, data: Path) -> None:
    """Time and size of a load."""
    start = time.process_time()
    load("snomed", [release], data)
    size = sum(each.stat().st_size for each in data.rglob("*") if each.is_file())
    print(f"load: {time.process_time() - start:.1f} s CPU; index {size >> 20} MB, mapped once for all workers")


def engine(data: Path) -> None:
    """The engine on 1,000 random concepts."""
    terms = open_terms(data)
    system = terms.library.system(URL)
    assert system is not None
    rng = random.Random(3)
    codes = [system.code(rng.randrange(system.size)) for _ in range(1000)]
    numbers = [system.find(code) or 0 for code in codes]
    print(f"lookup (find, display): {median(lambda: [system.display(system.find(c) or 0) for c in codes]) / 1000 * 1e6:.1f} us")

    def check() -> None:
        terms.forget()
        for code in codes:
            terms.check(URL, code)

    print(f"validate (check digit, existence, activity), not cached: {median(check) / 1000 * 1e6:.1f} us")
    print(f"subsumes: {median(lambda: [subsumes(system, numbers[0], n) for n in numbers]) / 1000 * 1e6:.1f} us")
    by_size = sorted((n for n in range(0, system.size, 7)), key=lambda n: len(system.descendants(n)))
    for n in (by_size[-200], by_size[-20], by_size[-1]):
        asked = parameters(url=f"{URL}?fhir_vs=isa/{system.code(n)}", count=100)
        taken = median(lambda asked=asked: call(terms, "ValueSet/$expand", asked, now=datetime.now(UTC)))
        print(f"$expand is-a ({len(system.descendants(n))} codes), count 100: {taken * 1e3:.2f} ms")
    words = [system.display(n).split()[0] for n in numbers[:200]]
    taken_all = sorted(median(lambda w=word: system.search(w), 1) for word in [*words, *(w[:3] for w in words), *(f"{w} {w[:2]}" for w in words)])
    print(f"text filter over everything: p50 {taken_all[len(taken_all) // 2] * 1e3:.2f} ms, p95 {taken_all[int(len(taken_all) * 0.95)] * 1e3:.2f} ms")


def ingest(data: Path) -> None:
    """The judge on synthetic records, whose codes repeat as those of a real feed, and on SNOMED codes that never repeat."""
    terms = open_terms(data)
    system = terms.library.system(URL)
    assert system is not None
    rng = random.Random(3)
    records = [res for res in synthetic.patients(60) if res["resourceType"] in ("Observation", "Condition")][:2000]
    fresh = [_condition(system.code(rng.randrange(system.size))) for _ in range(2000)]
    judge = codings_judge(terms, "bench")
    gc.collect()
    gc.freeze()  # as a worker does before it serves (fhir_server/supervisor.py): else the collector goes through the Spec in some of the runs
    gc.set_threshold(*GC_THRESHOLD)
    for name, resources in (("repeated codes", records), ("codes never seen before", fresh)):
        count = sum(len(codings_of(res)) for res in resources)
        taken = median(lambda rows=resources: _all(terms, judge, rows), 3)
        print(f"ingest, {name}: {taken / count * 1e6:.1f} us per coding, {taken / len(resources) * 1e6:.1f} us per resource")
    spec = load_spec()
    gate = {rtype: checker(spec, rtype, warnings=False) for rtype in {res["resourceType"] for res in records}}
    print(
        f"for comparison, the gate: {median(lambda: [gate[res['resourceType']](res) for res in records], 3) / len(records) * 1e6:.1f} us per resource"
    )


def bulk(data: Path) -> None:
    """Resources a second of one loading process into the embedded database, in turn with terminology on and off; the best of three runs each."""
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        folder = Path(name)
        (folder / "terminology").symlink_to(data.resolve())
        file = folder / "records.ndjson"
        count = synthetic.write(150, file)
        database = embedded.start(folder / "db")
        try:
            best = {"on": 0.0, "off": 0.0}
            for turn in range(6):
                side = "on" if turn in (0, 3, 4) else "off"
                target = Target(database.uri, f"{side}{turn}", Settings(data_dir=folder), "http://127.0.0.1/fhir")
                best[side] = max(best[side], count / asyncio.run(_loaded(target, file, on=side == "on")))
        finally:
            database.stop()
        print(f"bulk load: {best['on']:.0f}/s with terminology, {best['off']:.0f}/s without, ratio {best['on'] / best['off']:.2f}")


async def _loaded(target: Target, file: Path, *, on: bool) -> float:
    """Seconds that the blocks of a file take."""
    store = await open_store(target.uri, name=target.name)
    try:
        ctx = context_of(target, store)
        ctx = ctx if on else replace(ctx, terms=None)
        start = time.perf_counter()
        for block in blocks_of(file):
            errors: list[tuple[str, int, str]] = []
            await _write(store, block, list(_drafts(ctx, block, errors)), errors)
            assert not errors, errors[:3]
        return time.perf_counter() - start
    finally:
        await store.close()


def _condition(code: str) -> Json:
    return {"resourceType": "Condition", "code": {"coding": [{"system": URL, "code": code}]}, "subject": {"reference": "Patient/1"}}


def _all(terms: Terms, judge: Callable[[Json], object], resources: list[Json]) -> None:
    terms.forget()
    for res in resources:
        judge(res)


TOPICS: dict[str, Callable[..., None]] = {"load": loading, "engine": engine, "ingest": ingest, "bulk": bulk}

if __name__ == "__main__":
    TOPICS[sys.argv[1]](*map(Path, sys.argv[2:]))
