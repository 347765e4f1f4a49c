"""Search latency at two sizes of data, and the bulk load: the figures of the search issue.

    python -m tests.bench.search [small] [large]        (patients; default 1000 16000; about 40 resources each)

Prints for each family of queries: the p50 (ms, one client, in process: parse, database, bundle) at both sizes, their ratio, the index used, documents examined per match,
and p50 with 16 at once; the floor: one indexed `find` of the driver that returns the same documents; the rate of the load and the index size.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fhir_server.jobs.load import Report, Target, load
from fhir_server.search import parse, run
from fhir_server.search.explain import summary
from fhir_server.search.resolve import resolve
from fhir_server.settings import Settings
from fhir_server.store import embedded
from fhir_server.store.mongo.store import MongoStore, open_store
from tests.bench.synthetic import write
from tests.search.world import BASE, ask, context, everything, found

LAB, WEEK = "http://loinc.org|33914-3", "date=ge2025-03-01&date=lt2025-03-08"
FAMILIES = {
    "name prefix": "Patient?family=quillf&_count=20",
    "identifier": "Patient?identifier=urn:oid:1.2.3.4|PLANTED-7",
    "date range": f"Observation?{WEEK}&_count=20",
    "patient + code, -date": f"Observation?patient=planted3&code={LAB}&_sort=-date&_count=20",
    "patient + code + date": f"Observation?patient=planted3&code={LAB}&date=ge2025-03-01&_sort=-date&_count=20",
    "code + value-quantity": "Observation?code-value-quantity=33914-3$gt60&_count=20",
    "chained subject.name": f"Observation?subject:Patient.family=quillfeather&code={LAB}&_count=20",
    "_include": f"Observation?patient=planted3&code={LAB}&_include=Observation:subject&_include=Observation:performer&_count=20",
    "_revinclude": "Patient?identifier=urn:oid:1.2.3.4|PLANTED-7&_revinclude=Observation:patient",
    "_has": f"Patient?_has:Observation:patient:code={LAB}&_count=20",
    "_summary=count": f"Observation?code={LAB}&_summary=count",
}


async def timed(ctx: Any, query: str, rounds: int) -> float:
    """Milliseconds, median."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        await ask(ctx, query)
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


async def crowded(ctx: Any, query: str, clients: int = 16, rounds: int = 6) -> float:
    """Median with so many clients at once on one process."""
    found = await asyncio.gather(*(timed(ctx, query, rounds) for _ in range(clients)))
    return statistics.median(found)


async def explained(ctx: Any, query: str) -> str:
    """Index and documents examined."""
    path, _, text = query.partition("?")
    pairs = [tuple(pair.split("=", 1)) for pair in text.split("&")]
    plan = parse.parse(ctx, path, pairs)
    clause = await resolve(ctx, parse.where(ctx, plan, path), everything)
    sort = run._order(ctx, plan, path, clause, None, False)
    facts = summary((await ctx.store.explain(path, clause, sort, plan.count))["plan"])
    return f"{facts['indexes']}: {facts['examined']}"


async def floor(store: MongoStore, ids: list[str], rounds: int = 100) -> float:
    """One find by the compound index that returns the same documents, decoded."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        wanted = {"p": "Patient/planted3", "k": "code=http://loinc.org|33914-3"}
        rows = await store.database["Observation"].find(wanted, {"res": 1}).sort([("d", -1)]).limit(20).to_list()
        times.append((time.perf_counter() - start) * 1000)
        assert len(rows) == len(ids)
    return statistics.median(times)


async def sizes(store: MongoStore) -> str:
    """Index bytes by data bytes."""
    data = index = 0
    for rtype in await store.types():
        stats = await store.database.command({"collStats": rtype})
        data, index = data + stats["size"], index + stats["totalIndexSize"]
    return f"data {data / 1e6:.0f} MB, indexes {index / 1e6:.0f} MB, ratio {index / data:.2f}"


async def measure(uri: str, name: str) -> dict[str, tuple[float, float, str, int]]:
    """Family -> (p50, p50 at 16, explain, matches)."""
    store = await open_store(uri, name=name)
    ctx = context(store)
    rows = {}
    for family, query in FAMILIES.items():
        bundle = await ask(ctx, query)
        await timed(ctx, query, 10)
        rows[family] = (
            await timed(ctx, query, 60),
            await crowded(ctx, query),
            await explained(ctx, query),
            len(found(bundle)) or bundle.get("total", 0),
        )
    ids = found(await ask(ctx, FAMILIES["patient + code, -date"]))
    base = await floor(store, ids)
    ours = rows["patient + code, -date"][0]
    print(f"  floor of one find: {base:.2f} ms, ours {ours:.2f} ms, rate {base / ours:.2f} x the floor's")
    print("  " + await sizes(store))
    await store.close()
    return rows


def fill(uri: str, name: str, count: int, folder: Path) -> None:
    """Load the synthetic patients, with the rate of each tenth."""
    path = folder / f"{count}.ndjson"
    lines = write(count, path)
    marks = [(time.perf_counter(), 0)]

    def note(report: Report) -> None:
        marks.append((time.perf_counter(), report.loaded))

    report = load([path], Target(uri, name, Settings(secret="b" * 32), BASE), processes=2, progress=note)
    spent = marks[-1][0] - marks[1][0] if len(marks) > 2 else 1.0
    tenth = max(len(marks) // 10, 2)
    rates = [
        (marks[at + tenth - 1][1] - marks[at][1]) / (marks[at + tenth - 1][0] - marks[at][0])
        for at in (1, len(marks) - tenth)
        if len(marks) > 2 * tenth
    ]
    print(
        f"loaded {report.loaded} of {lines} ({report.failed} refused {report.errors[:2]}): {(marks[-1][1] - marks[1][1]) / spent:.0f}/s; first and last tenth {[round(rate) for rate in rates]}/s"
    )


def main() -> None:
    """Both sizes, then the table."""
    small, large = (int(text) for text in (sys.argv[1:3] or ("1000", "16000")))
    with tempfile.TemporaryDirectory() as folder:
        mongod = embedded.start(Path(folder) / "db", cache_gb=2)
        try:
            found = {}
            for count in (small, large):
                print(f"{count} patients:")
                fill(mongod.uri, f"b{count}", count, Path(folder))
                found[count] = asyncio.run(measure(mongod.uri, f"b{count}"))
        finally:
            mongod.stop()
    print(f"| family | p50 at {small} | p50 at {large} | ratio | at 16 clients | matches | explain at {large} |\n|---|---|---|---|---|---|---|")
    for family in FAMILIES:
        (low, _, _, few), (high, busy, explain, many) = found[small][family], found[large][family]
        print(f"| {family} | {low:.2f} ms | {high:.2f} ms | {high / low:.2f} | {busy:.1f} ms | {few}/{many} | {explain} |")


if __name__ == "__main__":
    main()
