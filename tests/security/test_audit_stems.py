"""What AuditEvents have in common is stored once (query/stems.py): whatever is asked of them is answered as if each had all its keys."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from fhir_server.context import Grant, Reply, Request
from fhir_server.interactions.indexing import index_of
from fhir_server.jobs.trail import Trail
from fhir_server.query.clauses import Clause, Contains, Keys, Prefix, Text, both, either, negated
from fhir_server.query.match import matches
from fhir_server.query.stems import STEM, Stem, grafted, names, spelt
from fhir_server.security.occurrences import Occurrence
from fhir_server.security.scopes import rights_of
from fhir_server.store import Change
from fhir_server.store.embedded import Embedded
from fhir_server.store.mongo import stems
from fhir_server.store.mongo.reindex import reindex
from fhir_server.store.mongo.store import MongoStore, open_store
from fhir_server.store.mongo.verify import verify
from tests.server.rest.calls import Exchange, exchange_on, text_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
QUERIES = [
    "type=rest",
    "type=110114",
    "type:not=rest",
    "type:missing=true",
    "type=http://terminology.hl7.org/CodeSystem/audit-event-type|rest",
    "type=http://x|rest",
    "subtype=create",
    "subtype=create,read",
    "subtype:not=create",
    "subtype=http://hl7.org/fhir/restful-interaction|",
    "subtype=login",
    "subtype=110122",
    "action=C",
    "action=R,E",
    "action:not=C",
    "outcome=0",
    "outcome=4",
    "outcome:not=0",
    "action=C&outcome=0&subtype=create",
    "action=C&agent=Practitioner/dr",
    "address=192",
    "address:exact=192.0.2.1",
    "address:contains=0.2",
    "address=http",
    "address:missing=false",
    "agent:identifier=ehr",
    "agent:identifier=|ehr",
    "agent:identifier=nobody",
    "agent=Practitioner/dr",
    "agent:missing=false",
    "agent:missing=true",
    "entity-type=1",
    "entity-type=2",
    "entity-type:not=1",
    "entity-role=24",
    "entity-role:missing=true",
    "entity:missing=false",
    "entity=Patient/p",
    "entity:identifier=r-2",
    "source:missing=false",
    "source=Device/x",
    "patient=Patient/p",
    "patient=Patient/p&action=C",
    "patient:missing=true",
    "_tag=urn:fhir-exchange:audit|made-here",
    "_tag:not=urn:fhir-exchange:audit|made-here",
    "_profile:missing=true",
    "_profile:missing=false",
    "_tag:missing=true",
    "_profile:below=https://profiles.ihe.net/ITI/BALP/StructureDefinition",
    "_content=localhost",
    "_content=ehr",
    "_content=restricted",
    "_content=nowhere",
    "date=gt2020",
    "date=gt2020&type=rest",
    "date=lt2020",
    "_filter=action%20eq%20C%20or%20not%20(outcome%20eq%200)",
    "entity:Patient._id=p",
    "patient.gender=female",
    "patient.gender=female&outcome=0",
    "agent:Practitioner._id=dr",
]
SORTS = ("type", "subtype", "action", "outcome", "entity-type", "entity-role", "address", "date", "_lastUpdated", "_id")
BACKWARDS = ("Patient?_has:AuditEvent:patient:action=C", "Patient?_has:AuditEvent:entity:outcome=4", "Patient?_id=p&_revinclude=AuditEvent:patient")


@pytest_asyncio.fixture(loop_scope="module")
async def store(mongod: Embedded) -> AsyncIterator[MongoStore]:
    """As a process finds it: no stems known, none stored."""
    name = f"stems_{uuid.uuid4().hex[:16]}"
    opened = await open_store(mongod.uri, name=name, transaction_seconds=10)
    yield opened
    await opened.client.drop_database(name)
    await opened.close()


def callers(store: MongoStore) -> list[Exchange]:
    """A client for itself, another, a person, one nobody knows the name of."""
    ctx = exchange_on(store, audit="on").ctx
    alone = Grant("iss|ehr", "ehr", ctx.grant.rights, admin=True)
    return [
        Exchange(replace(ctx, grant=alone, source="ehr", address="192.0.2.1", request_id="r-1")),
        Exchange(replace(ctx, grant=replace(alone, subject="iss|lab"), source="lab", address="192.0.2.2", request_id="r-2")),
        Exchange(replace(ctx, grant=replace(alone, subject="iss|dr", user="Practitioner/dr"), source="ehr", address="192.0.2.1", request_id="r-3")),
        Exchange(replace(ctx, grant=replace(alone, subject="iss|nurse"), source="ehr", address="192.0.2.3", request_id="r-4")),
    ]


def observation(patient: str) -> dict[str, Any]:
    return {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": f"Patient/{patient}"}}


async def filled(store: MongoStore) -> Exchange:
    """Events of every kind, by everyone; also one that a client sent, with tags and keys of its own."""
    everyone = callers(store)
    for caller in everyone:
        trail = Trail(caller.ctx)
        assert (await caller("PUT", "Patient/p", {"resourceType": "Patient", "id": "p", "gender": "female"})).status in (200, 201)
        assert (await caller("PUT", "Practitioner/dr", {"resourceType": "Practitioner", "id": "dr"})).status in (200, 201)
        rid = (await caller("POST", "Observation", observation("p"))).res["id"]
        bundle = [{"request": {"method": "POST", "url": "Observation"}, "resource": observation(f"q{number}")} for number in range(10)]
        assert (await caller("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": bundle})).status == 200
        assert (await caller("DELETE", f"Observation/{rid}")).status == 204
        for url in ("Patient/p", "Patient/none", "Observation?code=x", "Patient/p/$everything"):
            path, _, query = url.partition("?")
            pairs = (("code", "x"),) if query else ()
            trail.note(caller.ctx, Request("GET", tuple(path.split("/")), pairs), await caller("GET", url))
        trail.note(caller.ctx, Request("GET", ("Patient", "p")), Reply(500))
        trail.happened(Occurrence("login", "0", "192.0.2.9", "ehr", "dr", "", "r-9"))
        trail.happened(Occurrence("restricted", "4", "192.0.2.9", "ehr", "Practitioner/dr", "GET /admin/restricted", "r-8"))
        await trail.flush()
    app = everyone[0].with_settings(audit="off")  # so that asking changes nothing
    sent = (await app("GET", "AuditEvent?type=rest&_count=1")).res["entry"][0]["resource"]
    sent = {name: value for name, value in sent.items() if name not in ("id", "meta")} | {"action": "E", "recorded": "2019-01-01T00:00:00Z"}
    assert (await app("POST", "AuditEvent", sent)).status == 201
    return app


async def answers(app: Exchange) -> dict[str, Any]:
    """What is said to every question."""
    found: dict[str, Any] = {}
    for query in QUERIES:
        found[query] = sorted(await ids(app, f"AuditEvent?_count=500&{query}"))
        counted = await app("GET", f"AuditEvent?_summary=count&{query}")
        assert counted.res["total"] == len(found[query]), query
    for sort in SORTS:
        for sign in ("", "-"):
            found[f"_sort={sign}{sort}"] = await ids(app, f"AuditEvent?_count=500&_sort={sign}{sort}")
    for url in BACKWARDS:
        found[url] = sorted(await ids(app, f"{url}&_count=500"))
    patient = Exchange(replace(app.ctx, grant=Grant("app", "app", rights_of(["patient/*.rs"], app.ctx.spec.types, "p"), patient="p")))
    found["a patient's"] = sorted(await ids(patient, "AuditEvent?_count=500"))
    found["a patient's history"] = sorted(await ids(patient, "AuditEvent/_history?_count=500"))
    creates = Exchange(replace(app.ctx, grant=Grant("app", "app", rights_of(["system/AuditEvent.rs?action=C"], app.ctx.spec.types))))
    found["a scope's"] = sorted(await ids(creates, "AuditEvent?_count=500"))
    found["a scope's history"] = sorted(await ids(creates, "AuditEvent/_history?_count=500"))
    found["labels in use"] = (await app("GET", "AuditEvent/$meta")).res
    return found


async def ids(app: Exchange, url: str) -> list[str]:
    reply = await app("GET", url)
    assert reply.status == 200, f"{url}: {text_of(reply)}"
    return [entry["resource"]["id"] for entry in reply.res.get("entry", ())]


async def test_everything_is_answered_as_if_each_event_had_all_its_keys(store: MongoStore) -> None:
    app = await filled(store)
    events = store.database["AuditEvent"]
    rows = [row async for row in events.find()]
    made = [row for row in rows if names(row)]
    assert len(made) == len(rows) - 1  # all but what the client sent
    assert max(len(row["k"]) for row in made if "several" not in str(row["res"]["meta"])) < 25
    with_stems = await answers(app)
    assert len([query for query in QUERIES if with_stems[query]]) > 40
    assert {"system": "urn:fhir-exchange:audit", "code": "made-here"} in with_stems["labels in use"]["parameter"][0]["valueMeta"]["tag"]
    assert [fault async for fault in verify(store, lambda res: index_of(app.ctx, res))] == []
    assert await reindex(store, "AuditEvent", lambda res: index_of(app.ctx, res), limit=1000) == ("", len(rows), 0)
    for row in made:
        whole = index_of(app.ctx, row["res"])
        await events.update_one({"_id": row["_id"]}, {"$set": {"k": whole["k"], "t": whole["t"]}})
    assert with_stems == await answers(app)


async def test_another_process_knows_them_as_soon_as_there_is_an_event(store: MongoStore, mongod: Embedded) -> None:
    first = callers(store)[0]
    other = await open_store(mongod.uri, name=store.database.name, transaction_seconds=10)
    try:
        asked = callers(other)[0].with_settings(audit="off")
        assert await ids(asked, "AuditEvent?action=U") == []
        for expected in (1, 2):
            await first("PUT", "Patient/p", {"resourceType": "Patient", "id": "p"})
            assert len(await ids(asked, "AuditEvent?type=rest")) == expected
        assert len(await ids(asked, "AuditEvent?action=U&agent:identifier=ehr")) == 1
        await callers(other)[0]("PUT", "Patient/p", {"resourceType": "Patient", "id": "p"})  # it writes the same stems
        assert len(await ids(first.with_settings(audit="off"), "AuditEvent?action=U&agent:identifier=ehr")) == 2
    finally:
        await other.close()
    assert await store.database[stems.STEMS].count_documents({}) == 3  # two kinds, one caller


async def test_stems_of_which_there_are_too_many_are_written_out(store: MongoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stems.MOST, "caller", 1)
    for number, caller in enumerate(callers(store)[:2] * 2):
        await caller("PUT", f"Patient/p{number}", {"resourceType": "Patient", "id": f"p{number}"})
    app = callers(store)[0].with_settings(audit="off")
    assert await store.database[stems.STEMS].count_documents({"of": "caller"}) == 1
    assert len(await ids(app, "AuditEvent?agent:identifier=ehr")) == 2
    assert len(await ids(app, "AuditEvent?agent:identifier=lab&action=C")) == 2
    assert [fault async for fault in verify(store, lambda res: index_of(app.ctx, res))] == []


async def test_any_store_takes_them(store: MongoStore) -> None:
    """By one insert, by several together, in a transaction."""
    stem = Stem("kind", ("type=x", "action=C"), ("c~word",))

    def change(rid: str) -> Change:
        return Change("AuditEvent", rid, {"resourceType": "AuditEvent", "id": rid}, {"f": (stem,), "k": ["outcome=0"]}, None, "POST")

    await store.insert(change("a"))
    await store.insert_all([change("b"), change("c")])
    await store.transact(lambda tx: tx.put([change("d")]))
    row = await store.database["AuditEvent"].find_one({"_id": "d"})
    assert row["k"] == ["outcome=0", stem.name]
    assert [one.rid for one in await store.find("AuditEvent", Keys(("type=x",)))] == ["a", "b", "c", "d"]
    assert [one.rid for one in await store.transact(lambda tx: tx.find("AuditEvent", Text("c~wo")))] == ["a", "b", "c", "d"]


PARTS = {"&1": {"k": ["a=1", "b~xyz\x01XYZ"], "t": ["c~one"]}, "&2": {"k": ["a=2"], "t": []}}
LEAVES: tuple[Clause, ...] = (Keys(("a=1",)), Keys(("a=1", "d=4")), Prefix("b~x"), Contains("b~", "yz", "\x01"), Text("c~o"), Text("c~one", True))


@pytest.mark.parametrize("leaf", LEAVES, ids=str)
async def test_a_grafted_clause_says_of_the_stored_what_the_clause_says_of_the_whole(leaf: Clause) -> None:
    for stored in ({"k": ["&1"]}, {"k": ["&2", "d=4"]}, {"k": ["d=4"], "t": ["c~one"]}, {"k": ["&1", "&2"]}, {}):
        whole = spelt(stored, [PARTS[name] for name in names(stored)])
        assert not [key for key in whole.get("k", ()) if key.startswith(STEM)]
        for clause in (leaf, negated(leaf), both(leaf, Keys(("a=2",))), either(negated(leaf), Keys(("d=4",)))):
            assert matches(grafted(clause, PARTS), stored) == matches(clause, whole)
