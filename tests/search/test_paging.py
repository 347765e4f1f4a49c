"""Pages while others write, cursors of others, visibility in every inner search, hostile queries."""

import asyncio
import random
import time

import pytest

from conformance.outcome import Refusal
from conformance.spec import load_spec
from fhir_server.query.clauses import NOTHING, Ids, negated
from fhir_server.search.extract import extractor
from fhir_server.store import Change
from tests.search.test_run import lab, patient
from tests.search.world import ask, context, everything, fill, found, link

EXTRACT = extractor(load_spec(), None, "http://test/fhir")


def obs(rid: str, day: int):
    return lab(rid, "a", "718-7", str(day % 50), f"2024-{1 + day % 12:02d}-{1 + day % 28:02d}T00:00:00Z")


async def write(store, rng: random.Random, name: str, stop: asyncio.Event) -> int:
    """Insert, change and delete its own resources until told to stop; the number of writes."""
    mine, count = [], 0
    while not stop.is_set():
        rid = f"x{name}-{rng.randrange(200)}"
        res = obs(rid, rng.randrange(300))

        async def body(tx, rid=rid, res=res):
            prior = await tx.get("Observation", rid)
            gone = prior is not None and prior.res is not None and rng.random() < 0.4
            return await tx.put([Change("Observation", rid, None if gone else res, {} if gone else EXTRACT(res), prior, "DELETE" if gone else "PUT")])

        await store.transact(body)
        mine.append(rid)
        count += 1
    return count


@pytest.mark.parametrize(
    "query",
    [
        "Observation?code=718-7&_count=7",
        "Observation?_count=7",
        "Observation?patient=a&_sort=date&_count=7",
        "Observation?_sort=value-quantity,-date&_count=7",
    ],
)
async def test_nothing_that_existed_throughout_is_missed_or_repeated(store, query):
    steady = {f"s{number:03d}" for number in range(120)}
    await fill(store, [patient("a", "A", "A", "1970"), *(obs(rid, number * 7) for number, rid in enumerate(sorted(steady)))])
    ctx, stop = context(store), asyncio.Event()
    writers = [asyncio.create_task(write(store, random.Random(number), str(number), stop)) for number in range(20)]
    seen: list[str] = []
    while query:
        bundle = await ask(ctx, query)
        seen += [one.split("/")[1] for one in found(bundle)]
        query = link(bundle, "next")
        await asyncio.sleep(0.01)
    stop.set()
    assert sum(await asyncio.gather(*writers)) > 20
    kept = [rid for rid in seen if rid in steady]
    assert len(kept) == len(set(kept))
    assert set(kept) == steady


async def test_a_cursor_is_its_callers_and_its_querys(store):
    await fill(store, [obs(f"o{number}", number) for number in range(9)])
    ctx = context(store)
    cursor = link(await ask(ctx, "Observation?_count=3"), "next")
    assert found(await ask(context(store), cursor))  # another process with the same secret
    for other, query in (
        (context(store, subject="eve"), cursor),
        (ctx, cursor.replace("_count=3", "_count=4")),
        (ctx, cursor[:-2] + "zz"),
        (ctx, "Observation?_count=3&_cursor="),
    ):
        if query.endswith("="):
            continue
        with pytest.raises(Refusal) as refused:
            await ask(other, query)
        assert refused.value.status == 400


SECRET = [
    "Observation?subject:Patient.family=secret",
    "Observation?subject:Patient._id=b",
    "Patient?_has:Observation:patient:code=2345-7",
    "Patient?_id=b",
    "Patient?family=secret",
    "Observation?patient=a&_include=Observation:subject&_revinclude=Observation:patient",
    "?_type=Patient,Observation",
    'Observation?_filter=subject.family eq "Secret"',
    "Patient?_filter=not (family eq public)",
    "Patient?_list=l",
]


async def test_what_is_hidden_leaves_no_trace_in_any_inner_search(store):
    await fill(
        store,
        [
            patient("a", "Public", "A", "1970"),
            patient("b", "Secret", "B", "1970"),
            lab("oa", "a", "718-7", "1", "2024"),
            lab("ob", "b", "718-7", "1", "2024"),
            lab("hidden", "a", "2345-7", "1", "2024"),
            {"resourceType": "List", "id": "l", "status": "current", "mode": "working", "entry": [{"item": {"reference": "Patient/b"}}]},
        ],
    )

    def visible(rtype: str):
        return {"Patient": negated(Ids(("b",))), "Observation": negated(Ids(("ob", "hidden")))}.get(rtype, everything(rtype))

    ctx = context(store)
    for query in SECRET:
        bundle = await ask(ctx, query, visible=visible)
        shown = {*found(bundle), *found(bundle, "include")}
        assert not shown & {"Patient/b", "Observation/ob", "Observation/hidden"}, query
    assert found(await ask(ctx, "Patient?_has:Observation:patient:code=2345-7", visible=visible)) == []
    assert found(await ask(ctx, "Observation", visible=lambda rtype: NOTHING)) == []


HOSTILE = [
    "Patient?" + "&".join(f"name=a{number}" for number in range(10_000)),
    "Patient?_id=" + ",".join(str(number) for number in range(1001)),
    "Patient?" + "link." * 30 + "name=x",
    "Patient?" + "_has:Patient:link:" * 30 + "name=x",
    "Patient?_filter=" + "(" * 5000,
    "Patient?_filter=" + "not " * 300 + "name eq x",
    "Observation?value-quantity=1e999999999",
    "Observation?date=99999-01-01",
    "Patient?_count=" + "9" * 400,
    "Patient?birthdate=" + "9" * 100_000,
    "Location?near=1e999|nan",
    "Patient?_sort=" + ",".join(["family"] * 500),
    "Patient?name:contains=a%00b",
    "Patient?na%00me=a",
    "Patient?_sort=family,-family",
    "Patient?name=.*",
    "Patient?gender:in=http://hl7.org/fhir/ValueSet/all-types",
]
ANSWERED = [
    "Patient?_count=1000000",
    "Patient?name:contains=(a%2B)%2B$",
    "Patient?_revinclude:iterate=*&_include:iterate=*",
    "Patient?_id=" + ",".join(str(number) for number in range(1000)),
]


async def refusal(ctx, query: str) -> Refusal | None:
    try:
        await ask(ctx, query)
    except Refusal as refused:
        return refused
    return None


async def test_hostile_queries_are_refused_or_answered_in_time(store):
    await fill(
        store,
        [
            patient(f"p{number}", "A" * 30, "B", "1970", link=[{"other": {"reference": f"Patient/p{number // 2}"}, "type": "seealso"}])
            for number in range(100)
        ],
    )
    ctx = context(store)
    for query in HOSTILE:
        start = time.monotonic()
        refused = await refusal(ctx, query)
        assert refused is not None, query[:100]
        assert refused.status == 400, query[:100]
        assert len(str(refused)) < 400
        assert time.monotonic() - start < 2
    for query in ANSWERED:
        bundle = await ask(ctx, query)
        assert len(bundle.get("entry", ())) <= 1100


async def test_lenient_handling_ignores_and_tells(store):
    await fill(store, [patient("a", "A", "A", "1970"), patient("b", "B", "B", "1980")])
    bundle = await ask(context(store, lenient=True), "Patient?foo=1&birthdate=zz&name:bad=x&family=b&_sort=nope")
    assert found(bundle) == ["Patient/b"]
    assert link(bundle, "self") == "Patient?family=b"
    told = bundle["entry"][-1]
    assert told["search"]["mode"] == "outcome"
    assert len(told["resource"]["issue"]) == 4
