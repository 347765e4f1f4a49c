"""A merge counts at once: for searches, for access and for what is written later, before the job has rewritten a single reference."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from fhir_server.context import Right
from fhir_server.feed import undo, worker
from fhir_server.feed.intake import Feed, answer_code, receive
from fhir_server.feed.receipt import Sender
from fhir_server.search.aliases import renewed
from fhir_server.settings import Settings
from fhir_server.store.mongo.store import MongoStore
from tests.feed.exchange import adt, obr, obx, oru, pid, pv1
from tests.feed.serve import feed_on
from tests.server.rest.calls import Exchange, exchange_on, text_of

MERGE = "MRG|2^^^HOSP^MR"
JOB_SECONDS = 30.0


@pytest.fixture
async def feed(store: MongoStore, monkeypatch: pytest.MonkeyPatch) -> Feed:
    """A feed whose merges leave every reference to the job."""
    monkeypatch.setattr("fhir_server.feed.merge.REWRITE_AT_ONCE", 0)
    made = await feed_on(store, Settings(secret="test"))
    made.settle_seconds = 1.0
    return made


async def said(feed: Feed, message: str) -> str:
    return answer_code(await receive(feed, message.encode(), Sender("mllp")) or b"")


async def merged(feed: Feed, rest: Exchange) -> tuple[str, str]:
    """Two patients, each with a visit and a result, then merged: (survivor, retired)."""
    for number in "12":
        assert await said(feed, adt("A01", pid(number), pv1(f"V{number}"))) == "AA"
        assert await said(feed, oru(obr(f"F{number}"), obx("K", number), patient=pid(number))) == "AA"
    survivor, retired = await patient(rest, "1"), await patient(rest, "2")
    assert await said(feed, adt("A40", pid("1"), MERGE)) == "AA"
    await renewed(rest.ctx.store)
    return survivor, retired


async def patient(rest: Exchange, number: str) -> str:
    found = await rest("GET", f"Patient?identifier={number}&active:not=false")
    assert found.res is not None
    (entry,) = found.res["entry"]
    return f"Patient/{entry['resource']['id']}"


async def subjects(rest: Exchange, query: str) -> list[str]:
    """Whom the Observations refer to that a search finds."""
    found = await rest("GET", query)
    assert found.status == 200, found.res
    assert found.res is not None
    rows = [entry["resource"] for entry in found.res.get("entry", ())]
    return sorted(row["subject"]["reference"] for row in rows if row["resourceType"] == "Observation")


async def job(feed: Feed) -> None:
    async with asyncio.timeout(JOB_SECONDS):
        while await feed.inbox.find(None, "merges", "state", ["open", "settling"], 1):
            if not await worker.rewrite_once(feed):
                await asyncio.sleep(0.05)


def observation(subject: str) -> dict[str, Any]:
    return {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": subject}}


async def test_searches_for_either_patient_find_what_refers_to_both(feed: Feed, store: MongoStore) -> None:
    rest = exchange_on(store)
    survivor, retired = await merged(feed, rest)
    both = sorted([survivor, retired])
    for ref in both:
        rid = ref.removeprefix("Patient/")
        for query in (
            f"Observation?subject={ref}",
            f"Observation?patient={rid}",
            f"Observation?subject:Patient={rid}&code=K",
            f"Patient/{rid}/Observation",
            f"Patient/{rid}/$everything",
            f"Patient?_id={rid}&_revinclude=Observation:subject",
            f"Observation?subject._id={rid}",
            f"Observation/$lastn?patient={rid}&code=K&max=9",
        ):
            assert await subjects(rest, query) == both, query
    assert await subjects(rest, "Observation?subject:Patient.identifier=2") == both
    assert await subjects(rest, "Observation?subject=Patient/other") == []
    having = await rest("GET", "Patient?_has:Observation:patient:code=K")
    assert having.res is not None
    assert having.res["total"] == 2
    await job(feed)
    assert await subjects(rest, f"Observation?subject={retired}") == [survivor, survivor]


async def test_the_retired_patient_reads_as_inactive_and_names_its_survivor(feed: Feed, store: MongoStore) -> None:
    rest = exchange_on(store)
    survivor, retired = await merged(feed, rest)
    found = (await rest("GET", retired)).res
    assert found is not None
    assert (found["active"], found["link"]) == (False, [{"other": {"reference": survivor}, "type": "replaced-by"}])


async def test_access_for_either_patient_reaches_what_refers_to_both(feed: Feed, store: MongoStore) -> None:
    rest = exchange_on(store)
    survivor, retired = await merged(feed, rest)
    everything = await rest("GET", "Observation")
    assert everything.res is not None
    rids = [entry["resource"]["id"] for entry in everything.res["entry"]]
    for ref in (survivor, retired):
        app = rest.by(Right("*", frozenset("crus"), level="patient", who=ref))
        assert await subjects(app, "Observation") == sorted([survivor, retired])
        assert [(await app("GET", f"Observation/{rid}")).status for rid in rids] == [200, 200]
        assert [(await app("GET", one)).status for one in (survivor, retired)] == [200, 200]
    for ref in (survivor, retired):
        app = rest.by(Right("*", frozenset("crus"), level="patient", who=ref))
        assert (await app("POST", "Observation", observation(retired))).status == 201
    stranger = rest.by(Right("*", frozenset("rs"), level="patient", who="Patient/other"))
    assert await subjects(stranger, "Observation") == []


async def test_what_is_written_later_refers_to_the_survivor(feed: Feed, store: MongoStore) -> None:
    rest = exchange_on(store)
    survivor, retired = await merged(feed, rest)
    made = await rest("POST", "Observation", observation(retired))
    assert made.res is not None
    assert made.res["subject"]["reference"] == survivor
    told = await rest("POST", "Observation", observation(retired), prefer="return=OperationOutcome")
    assert "merged into" in text_of(told)
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {"request": {"method": "PUT", "url": "Observation/late"}, "resource": {**observation(f"http://localhost/fhir/{retired}"), "id": "late"}},
            {
                "request": {"method": "PUT", "url": "Provenance/past"},
                "resource": {
                    "resourceType": "Provenance",
                    "id": "past",
                    "target": [{"reference": retired}],
                    "recorded": "2024-01-01T00:00:00Z",
                    "agent": [{"who": {"display": "x"}}],
                },
            },
        ],
    }
    assert (await rest("POST", "", bundle)).status == 200
    late, past = (await rest("GET", "Observation/late")).res, (await rest("GET", "Provenance/past")).res
    assert late is not None
    assert past is not None
    assert late["subject"]["reference"] == survivor
    assert past["target"][0]["reference"] == retired, "what tells of the past stays"


async def test_after_an_undo_each_has_its_own_again(feed: Feed, store: MongoStore) -> None:
    rest = exchange_on(store)
    survivor, retired = await merged(feed, rest)
    await job(feed)
    (record,) = await feed.inbox.find(None, "merges", "state", ["done"])
    await undo.undo(feed, record["_id"], "tester")
    await renewed(store)
    assert await subjects(rest, f"Observation?subject={retired}") == [retired]
    assert await subjects(rest, f"Observation?subject={survivor}") == [survivor]
    assert (await rest("PUT", "Observation/again", {**observation(retired), "id": "again"})).status == 201
    again = (await rest("GET", "Observation/again")).res
    assert again is not None
    assert again["subject"]["reference"] == retired
    assert await said(feed, oru(obr("F9"), obx("K", "9"), patient=pid("2"))) == "AA"
    assert len(await subjects(rest, f"Observation?subject={retired}")) == 3
    assert await said(feed, adt("A40", pid("1"), MERGE)) == "AA"
    await renewed(store)
    assert len(await subjects(rest, f"Observation?subject={retired}")) == 4


async def test_writers_that_race_with_a_merge_leave_nothing_behind(feed: Feed, store: MongoStore) -> None:
    rest = exchange_on(store)
    for number in "12":
        await said(feed, adt("A08", pid(number)))
    survivor, retired = await patient(rest, "1"), await patient(rest, "2")
    stop = asyncio.Event()

    async def writer(number: int) -> int:
        for turn in range(1000):
            if stop.is_set():
                return turn
            await renewed(store)
            one = {**observation(retired), "id": f"w{number}-{turn}"}
            calls = {0: ("POST", "Observation"), 1: ("PUT", f"Observation/{one['id']}")}
            assert (await rest(*calls[number % 2], one)).status == 201
        return 1000

    writers = [asyncio.create_task(writer(number)) for number in range(8)]
    await asyncio.sleep(0.2)
    assert await said(feed, adt("A40", pid("1"), MERGE)) == "AA"
    await asyncio.sleep(0.2)
    stop.set()
    written = sum(await asyncio.wait_for(asyncio.gather(*writers), 30))
    assert written > 16
    await job(feed)
    rows = await store.database["Observation"].find({}).to_list()
    assert len(rows) == written
    assert {row["res"]["subject"]["reference"] for row in rows} == {survivor}


async def test_a_stopped_job_goes_on_and_a_merge_of_merged_is_one_group(feed: Feed, store: MongoStore) -> None:
    rest = exchange_on(store)
    survivor, retired = await merged(feed, rest)
    assert await said(feed, adt("A08", pid("3"))) == "AA"
    last = await patient(rest, "3")
    assert await said(feed, adt("A40", pid("3"), "MRG|1^^^HOSP^MR")) == "AA"
    await renewed(store)
    for ref in (survivor, retired, last):
        assert len(await subjects(rest, f"Observation?subject={ref}")) == 2
    task = asyncio.create_task(job(feed))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    other = replace(feed, owner="another process")
    await job(other)
    assert await subjects(rest, f"Observation?subject={retired}") == [last, last]
