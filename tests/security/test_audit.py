"""The audit trail: an AuditEvent for every change and access, found by patient, changed by nobody, sealed. https://profiles.ihe.net/ITI/BALP/"""

import asyncio
import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import bson
import pytest
import pytest_asyncio

from conformance.outcome import Refusal
from conformance.validate import checker
from fhir_server.context import Admission, Grant, Reply, Request
from fhir_server.interactions import together
from fhir_server.jobs import seal, trail
from fhir_server.query.clauses import NOTHING
from fhir_server.search.shelved import unshelved
from fhir_server.security.audit import BALP
from fhir_server.security.scopes import rights_of
from fhir_server.store import Change
from fhir_server.store.mongo import seals
from tests.server.rest.calls import Exchange, text_of
from tests.server.rest.conftest import module_store, rest  # noqa: F401

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATIENT = {"resourceType": "Patient", "id": "p"}


def observation(rid: str, patient: str = "p") -> dict[str, Any]:
    return {"resourceType": "Observation", "id": rid, "status": "final", "code": {"text": "x"}, "subject": {"reference": f"Patient/{patient}"}}


@pytest_asyncio.fixture(loop_scope="module")
async def audited(rest: Exchange, tmp_path: Path) -> Exchange:  # noqa: F811
    opened = rest.with_settings(audit="on", data_dir=tmp_path)
    await opened.ctx.store.database[seals.SEALS].delete_many({})
    grant = replace(opened.ctx.grant, subject="dr", client="ehr", user="Practitioner/dr")
    return Exchange(replace(opened.ctx, grant=grant, source="ehr", address="192.0.2.1"))


async def events(app: Exchange, query: str = "") -> list[dict[str, Any]]:
    """AuditEvents, oldest first."""
    reply = await app("GET", f"AuditEvent?_sort=_lastUpdated,_id&_count=500{query}")
    assert reply.status == 200, text_of(reply)
    return [row["resource"] for row in reply.res.get("entry", ())]


def facts(event: dict[str, Any]) -> tuple[str, str, list[str]]:
    """(interaction, action, references)."""
    return event["subtype"][0]["code"], event["action"], [one["what"]["reference"] for one in event["entity"] if "reference" in one.get("what", {})]


async def test_every_change_has_its_event(audited: Exchange) -> None:
    await audited("PUT", "Patient/p", PATIENT)
    made = await audited("POST", "Observation", observation("x"))
    rid = made.res["id"]
    await audited("PUT", f"Observation/{rid}", observation(rid))
    await audited("PATCH", f"Observation/{rid}", body=b'[{"op":"add","path":"/valueString","value":"v"}]', media="application/json-patch+json")
    await audited("DELETE", f"Observation/{rid}")
    found = await events(audited)
    assert [facts(one) for one in found] == [
        ("create", "C", ["Patient/p/_history/1", "Patient/p"]),
        ("create", "C", [f"Observation/{rid}/_history/1", "Patient/p"]),
        ("update", "U", [f"Observation/{rid}/_history/2", "Patient/p"]),
        ("patch", "U", [f"Observation/{rid}/_history/3", "Patient/p"]),
        ("delete", "D", [f"Observation/{rid}/_history/4", "Patient/p"]),
    ]
    names = [one["meta"]["profile"][0].removeprefix(BALP) for one in found]
    assert names == ["PatientCreate", "PatientCreate", "PatientUpdate", "PatientUpdate", "PatientDelete"]
    agents = {one["type"]["coding"][0]["code"]: one for one in found[0]["agent"]}
    assert agents["110153"]["who"]["identifier"]["value"] == "ehr"
    assert agents["110153"]["network"]["address"] == "192.0.2.1"
    assert agents["IRCP"]["who"]["reference"] == "Practitioner/dr"


async def test_events_are_valid_and_found_by_patient(audited: Exchange) -> None:
    await audited("PUT", "Patient/p", PATIENT)
    await audited("PUT", "Patient/q", {"resourceType": "Patient", "id": "q"})
    await audited("PUT", "Observation/o", observation("o", "q"))
    await audited("PUT", "Observation/o", observation("o", "p"))  # both patients are concerned
    for event in await events(audited):
        assert not [issue for issue in checker(audited.ctx.spec, "AuditEvent", warnings=False)(event) if issue.severity in ("error", "fatal")]
    assert len(await events(audited, "&patient=Patient/p")) == 2
    assert len(await events(audited, "&patient=Patient/q")) == 3


async def test_a_change_that_fails_has_no_event(audited: Exchange) -> None:
    await audited("PUT", "Patient/p", PATIENT)
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {"request": {"method": "PUT", "url": "Observation/o"}, "resource": observation("o")},
            {"request": {"method": "PATCH", "url": "Observation/none"}, "resource": {"resourceType": "Parameters"}},
        ],
    }
    assert (await audited("POST", "", bundle)).status == 404
    assert len(await events(audited)) == 1


@pytest.mark.parametrize(("patients", "expected"), [(1, 1), (3, 3), (40, 1)])
async def test_a_bundle_has_an_event_per_patient_or_one_for_many(audited: Exchange, patients: int, expected: int) -> None:
    entries = [
        {"request": {"method": "POST", "url": "Observation"}, "resource": observation("x", f"p{number % patients}")} for number in range(patients * 2)
    ]
    assert (await audited("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": entries})).status == 200
    found = await events(audited)
    assert len(found) == expected
    assert sum(len([ref for ref in facts(one)[2] if ref.startswith("Observation/")]) for one in found) == patients * 2
    grant = Grant("app", "app", rights_of(["patient/*.rs"], audited.ctx.spec.types, "p0"), patient="p0")
    mine = await events(Exchange(replace(audited.ctx, grant=grant)))
    assert len(mine) == (0 if patients == 40 else 1)  # an event that names others is not shown to one patient
    assert len(await events(audited, "&patient=Patient/p0")) == 1


async def read(app: Exchange, recorder: trail.Trail, method: str, url: str, res: Any = None) -> Reply:
    """As the door does: asked, then noted."""
    path, _, query = url.partition("?")
    reply = await app(method, url, res)
    pairs = tuple(tuple(part.split("=", 1)) for part in query.split("&")) if query else ()
    recorder.note(app.ctx, Request(method, tuple(part for part in path.split("/") if part), pairs, res=res), reply)  # type: ignore[arg-type]
    return reply


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("Observation/o", ("read", "R", ["Observation/o", "Patient/p"])),
        ("Observation/o/_history/1", ("vread", "R", ["Observation/o/_history/1", "Patient/p"])),
        ("Observation/o/_history", ("history", "R", ["Observation/o", "Patient/p"])),
        ("Patient/p", ("read", "R", ["Patient/p", "Patient/p"])),
        ("Patient/gone", ("read", "R", ["Patient/gone"])),
        ("Observation?code:text=x", ("search", "E", ["Patient/p"])),
        ("Patient/p/Condition?_id=1", ("search", "E", ["Patient/p"])),
        ("Patient/p/$everything", ("operation", "E", ["Patient/p"])),
        ("Observation/_history", ("search", "E", ["Patient/p"])),
    ],
)
async def test_every_read_has_its_event(audited: Exchange, url: str, expected: tuple[str, str, list[str]]) -> None:
    await audited("PUT", "Patient/p", PATIENT)
    await audited("PUT", "Observation/o", observation("o"))
    before = len(await events(audited))
    recorder = trail.Trail(audited.ctx)
    reply = await read(audited, recorder, "GET", url)
    await recorder.flush()
    (event,) = (await events(audited))[before:]
    assert facts(event) == expected
    assert event["outcome"] == ("0" if reply.status == 200 else "4")
    queries = [base64.b64decode(one["query"]).decode() for one in event["entity"] if "query" in one]
    assert not queries or queries[0].split("?")[0] == url.split("?")[0]


async def test_reads_inside_a_batch_have_events(audited: Exchange) -> None:
    await audited("PUT", "Patient/p", PATIENT)
    recorder = trail.Trail(audited.ctx)
    entries = [{"request": {"method": "GET", "url": "Patient/p"}}, {"request": {"method": "GET", "url": "Patient?_id=p"}}]
    await read(audited, recorder, "POST", "", {"resourceType": "Bundle", "type": "batch", "entry": entries})
    assert [facts(one) for one in recorder.waiting] == [("read", "R", ["Patient/p", "Patient/p"]), ("search", "E", ["Patient/p"])]


def told(event: dict[str, Any]) -> tuple[str, str, list[str], str]:
    """(outcome, interaction, references, query)."""
    queries = [base64.b64decode(one["query"]).decode() for one in event["entity"] if "query" in one]
    return event["outcome"], facts(event)[0], facts(event)[2], "".join(queries)


@pytest.mark.parametrize(
    ("method", "url", "res", "expected"),
    [
        ("POST", "Observation", observation("x") | {"status": "zzz"}, ("create", ["Patient/p"], "Observation?")),
        ("POST", "Observation", {"resourceType": "Observation", "subject": [1, {"reference": 5}]}, ("create", [], "Observation?")),
        ("POST", "Patient", PATIENT | {"gender": "zzz"}, ("create", [], "Patient?")),
        ("POST", "Nonsense", PATIENT, ("create", ["Patient/p"], "Nonsense?")),
        ("PUT", "Observation/o", observation("other"), ("update", ["Observation/o", "Patient/p"], "")),
        ("PUT", "Observation?code=x&zzz=1", observation("o"), ("update", ["Patient/p"], "Observation?code=x&zzz=1")),
        ("PUT", "Patient/p", PATIENT | {"gender": "zzz"}, ("update", ["Patient/p", "Patient/p"], "")),
        ("DELETE", "Patient/p", None, ("delete", ["Patient/p", "Patient/p"], "")),
        ("DELETE", "Observation", None, ("delete", [], "Observation?")),
        ("PATCH", "Observation/none", None, ("patch", ["Observation/none"], "")),
    ],
)
async def test_what_was_refused_has_its_event(audited: Exchange, method: str, url: str, res: Any, expected: tuple[str, list[str], str]) -> None:
    await audited("PUT", "Patient/p", PATIENT)
    await audited("PUT", "Observation/o", observation("o"))  # which holds the patient
    recorder = trail.Trail(audited.ctx)
    assert (await read(audited, recorder, method, url, res)).status >= 400
    assert [told(one) for one in recorder.waiting] == [("4", *expected)]
    await recorder.flush()
    event = (await events(audited))[-1]
    assert not [issue for issue in checker(audited.ctx.spec, "AuditEvent", warnings=False)(event) if issue.severity in ("error", "fatal")]
    assert "profile" not in event["meta"]  # BALP's patterns are of what succeeded


async def test_a_refused_transaction_is_told_whole(audited: Exchange) -> None:
    entries: list[Any] = [
        {"request": {"method": "PUT", "url": "Observation/o"}, "resource": observation("o")},
        {"request": {"method": "DELETE", "url": f"{audited.ctx.base}/Observation/x"}},
        {"request": {"method": "GET", "url": "Patient/q"}},
        {"request": {"method": "POST", "url": "Observation"}, "resource": observation("y") | {"status": "zzz"}},
    ]
    recorder = trail.Trail(audited.ctx)
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    assert (await read(audited, recorder, "POST", "", bundle)).status == 422
    assert [told(one)[:3] for one in recorder.waiting] == [
        ("4", "update", ["Observation/o", "Patient/p"]),
        ("4", "delete", ["Observation/x"]),
        ("4", "read", ["Patient/q", "Patient/q"]),
        ("4", "create", ["Patient/p"]),
    ]


@pytest.mark.parametrize(
    "entry", [1, [[]], [1], [{"request": 1}], [{"request": {"method": 1, "url": 2}}], [{"request": {"method": "PUT"}, "resource": 3}]]
)
async def test_a_bundle_of_any_shape_can_be_told_of(audited: Exchange, entry: Any) -> None:
    recorder = trail.Trail(audited.ctx)
    for kind in ("transaction", "batch"):
        await read(audited, recorder, "POST", "", {"resourceType": "Bundle", "type": kind, "entry": entry})
    assert {one["outcome"] for one in recorder.waiting} <= {"4"}


async def test_entries_of_a_batch_are_told_each(audited: Exchange) -> None:
    await audited("PUT", "Patient/p", PATIENT)
    recorder = trail.Trail(audited.ctx)
    entries: list[Any] = [
        {"request": {"method": "PUT", "url": "Observation/o"}, "resource": observation("o")},  # done: its event is in its own transaction
        {"request": {"method": "PUT", "url": "Observation/x"}, "resource": observation("x") | {"status": "zzz"}},
        {"request": {"method": "GET", "url": f"{audited.ctx.base}/Patient/p/$everything"}},
        {"request": {"method": "POST", "url": "Patient/p/$everything"}},
        {"request": {"method": "POST", "url": "Patient", "ifNoneExist": "_id=p"}, "resource": {"resourceType": "Patient"}},
    ]
    await read(audited, recorder, "POST", "", {"resourceType": "Bundle", "type": "batch", "entry": entries})
    assert [told(one) for one in recorder.waiting] == [
        ("4", "update", ["Observation/x", "Patient/p"], ""),
        ("0", "operation", ["Patient/p"], "Patient/p/$everything?"),
        ("0", "operation", ["Patient/p"], "Patient/p/$everything?"),
        ("0", "search", ["Patient/p"], "Patient?_id=p"),
    ]


async def test_a_conditional_create_that_finds_is_told_as_a_search(audited: Exchange) -> None:
    await audited("PUT", "Patient/p", PATIENT)
    before = len(await events(audited))
    reply = await audited("POST", "Patient", {"resourceType": "Patient"}, if_none_exist="_id=p")
    assert reply.status == 200
    recorder = trail.Trail(audited.ctx)
    recorder.note(audited.ctx, Request("POST", ("Patient",), (), {"if-none-exist": "_id=p"}, {"resourceType": "Patient"}), reply)
    assert [told(one) for one in recorder.waiting] == [("0", "search", ["Patient/p"], "Patient?_id=p")]
    assert len(await events(audited)) == before
    made = await audited("POST", "Patient", {"resourceType": "Patient"}, if_none_exist="_id=none")
    recorder = trail.Trail(audited.ctx)
    recorder.note(audited.ctx, Request("POST", ("Patient",), (), {"if-none-exist": "_id=none"}, {"resourceType": "Patient"}), made)
    assert (made.status, recorder.waiting) == (201, [])


async def test_the_broken_glass_is_told(audited: Exchange) -> None:
    recorder = trail.Trail(audited.ctx)
    ctx = replace(audited.ctx, admission=Admission(lambda rtype: NOTHING, ("TREAT",), "unconscious in the emergency room"))
    recorder.note(ctx, Request("GET", ("Patient", "p")), Reply(200, PATIENT))
    purposes = recorder.waiting[0]["purposeOfEvent"]
    assert [one["coding"][0]["code"] for one in purposes] == ["TREAT", "BTG"]
    assert purposes[1]["text"] == "unconscious in the emergency room"


async def test_nothing_is_shown_when_the_trail_is_full(audited: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trail, "MOST_WAITING", 2)
    recorder = trail.Trail(audited.ctx)
    for _ in range(2):
        await read(audited, recorder, "GET", "Patient/p")
    with pytest.raises(Refusal) as refused:
        await read(audited, recorder, "GET", "Patient/p")
    assert refused.value.status == 503


async def test_nobody_changes_the_trail_or_poses_as_it(audited: Exchange) -> None:
    await audited("PUT", "Patient/p", PATIENT)
    (event,) = await events(audited)
    place = f"AuditEvent/{event['id']}"
    assert (await audited("DELETE", place)).status == 403
    assert (await audited("DELETE", f"AuditEvent?_id={event['id']}")).status == 403
    assert (await audited("PUT", place, event | {"outcome": "8"})).status == 403
    assert (await audited("PATCH", place, body=b'[{"op":"remove","path":"/meta/tag"}]', media="application/json-patch+json")).status == 403
    own = {name: value for name, value in event.items() if name not in ("id", "meta")}
    assert (await audited("POST", "AuditEvent", own)).status == 201
    assert (await audited("POST", "AuditEvent", own | {"meta": {"tag": event["meta"]["tag"]}})).status == 403


def sealer(app: Exchange) -> seal.Sealer:
    return seal.Sealer(app.ctx, unshelved(app.ctx.store))


async def faults(app: Exchange) -> list[str]:
    return [f"{one.place}: {one.rule}" async for one in seal.check(app.ctx, app.ctx.store.database)]


async def test_the_trail_is_sealed_and_every_tampering_found(audited: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "BLOCK", 3)
    for number in range(7):
        await audited("PUT", f"Patient/p{number}", {"resourceType": "Patient", "id": f"p{number}"})
    await audited("POST", "AuditEvent", {name: value for name, value in (await events(audited))[0].items() if name not in ("id", "meta")})
    assert await seal.seal(sealer(audited)) == 8  # the seven, and that of the POST; not what the client sent
    assert await seal.seal(sealer(audited)) == 0
    assert await faults(audited) == []
    database = audited.ctx.store.database
    first = (await events(audited))[0]["id"]
    kept = await database["AuditEvent"].find_one({"_id": first})
    await database["AuditEvent"].update_one({"_id": first}, {"$set": {"res.outcome": "8"}})
    assert await faults(audited) == [f"AuditEvent/{first}: is not what was sealed"]
    await database["AuditEvent"].delete_one({"_id": first})
    assert await faults(audited) == [f"AuditEvent/{first}: is sealed, but not there"]
    await database["AuditEvent"].insert_one(kept)
    await database["AuditEvent"].insert_one(kept | {"_id": "slipped-in"})
    assert await faults(audited) == ["AuditEvent/slipped-in: is in no block of the seals"]
    await database["AuditEvent"].delete_one({"_id": "slipped-in"})
    last = await seals.last(database)
    await database[seals.SEALS].delete_one({"_id": last["_id"]})
    assert f"audit block {last['_id']}: was sealed, and is missing or another now" in await faults(audited)
    await database[seals.SEALS].insert_one(last)
    await database[seals.SEALS].update_one({"_id": 2}, {"$pop": {"events": 1}})
    assert "audit block 2: does not continue the chain" in await faults(audited)
    other = await faults(audited.with_settings(secret="another"))
    assert [one for one in other if "another secret" in one]


async def test_blocks_sealed_by_content_instead_of_bytes_still_check(audited: Exchange) -> None:
    """As sealed before blocks said what their digests are of."""
    await audited("PUT", "Patient/p", PATIENT)
    assert await seal.seal(sealer(audited)) == 1
    database = audited.ctx.store.database
    block = await seals.last(database)
    ((rid, _),) = block["events"]
    row = await database["AuditEvent"].find_one({"_id": rid})
    block["events"] = [[rid, seal.digest_of_members(bson.encode(row["res"]))]]
    block["hash"] = seal._hash(audited.ctx, block["_id"], block["prev"], block["events"])
    del block["of"]
    await database[seals.SEALS].replace_one({"_id": block["_id"]}, block)
    (audited.ctx.settings.data_dir / seal.HEAD).write_text(f"{block['_id']} {block['hash']}\n")
    assert await faults(audited) == []
    await database["AuditEvent"].replace_one({"_id": rid}, row | {"res": dict(reversed(row["res"].items()))})
    assert await faults(audited) == []
    await database["AuditEvent"].update_one({"_id": rid}, {"$set": {"res.outcome": "8"}})
    assert await faults(audited) == [f"AuditEvent/{rid}: is not what was sealed"]


async def test_one_process_seals_at_a_time_and_old_blocks_are_removed(audited: Exchange) -> None:
    await audited("PUT", "Patient/p", PATIENT)
    first, second = sealer(audited), sealer(audited)
    now = audited.ctx.now
    assert await seals.lease(first.database, first.owner, now, seal.LEASE)
    assert await seals.lease(first.database, first.owner, now, seal.LEASE)
    assert not await seals.lease(first.database, second.owner, now, seal.LEASE)
    assert await seals.lease(first.database, second.owner, now + 2 * seal.LEASE, seal.LEASE)
    await first.database[seals.SEALS].delete_one({"_id": seals.LEASE})
    await seal.seal(first)
    await first.database[seals.SEALS].update_many({"newest": {"$exists": True}}, {"$set": {"newest": now - 100 * seal.LEASE * 1000}})
    await seal.age(first)  # FHIR_AUDIT_DAYS is 0: nothing is removed
    assert len(await events(audited)) == 1
    aged = audited.with_settings(audit_days=1)
    await seal.age(sealer(aged))
    assert await events(audited) == []
    assert await faults(audited) == []


async def test_creates_that_arrive_together_are_stored_with_their_events(audited: Exchange) -> None:
    replies = await asyncio.gather(*(audited("POST", "Observation", observation("x", f"p{number}")) for number in range(100)))
    assert {reply.status for reply in replies} == {201}
    assert len({reply.res["id"] for reply in replies}) == 100
    for number in (0, 50, 99):
        assert (await audited("GET", f"Observation/{replies[number].res['id']}")).res["subject"]["reference"] == f"Patient/p{number}"
    found = await events(audited)
    assert len(found) == 100
    assert {ref for one in found for ref in facts(one)[2] if ref[0] == "O"} == {f"Observation/{reply.res['id']}/_history/1" for reply in replies}


async def test_one_that_fails_does_not_fail_those_beside_it(audited: Exchange) -> None:
    store = audited.ctx.store
    change = Change("Patient", "same", {"resourceType": "Patient", "id": "same"}, {}, None, "POST")
    other = Change("Patient", "other", {"resourceType": "Patient", "id": "other"}, {}, None, "POST")
    await together.put(store, [change])
    done = await asyncio.gather(together.put(store, [change]), together.put(store, [other]), return_exceptions=True)
    assert isinstance(done[0], Refusal)
    assert done[1][0].rid == "other"


async def test_two_writers_of_one_trail_write_each_event_once(audited: Exchange) -> None:
    """The last flush of a stopping process meets one under way."""
    recorder = trail.Trail(audited.ctx)
    for number in range(30):
        recorder.note(audited.ctx, Request("GET", ("Patient", f"n{number}")), Reply(404))
    await asyncio.gather(recorder.flush(), recorder.flush())
    found = [facts(event)[2] for event in await events(audited)]
    assert sorted(found) == sorted([f"Patient/n{number}"] for number in range(30))
