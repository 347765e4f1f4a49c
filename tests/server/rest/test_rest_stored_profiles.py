"""Profiles stored over REST judge what is written next; deleted or retired ones judge no more. https://hl7.org/fhir/R4/profiling.html"""

import time
from typing import Any

import pytest

from fhir_server.context import Right
from fhir_server.interactions.profiles import MEMO, SECONDS, settled
from tests.server.rest.calls import Exchange, text_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
HOME = "http://example.org/fhir/StructureDefinition/"
CORE = "http://hl7.org/fhir/StructureDefinition/"


def profile(name: str, *elements: dict[str, Any], base: str = f"{CORE}Patient", rtype: str = "Patient", **more: Any) -> dict[str, Any]:
    """A differential-only profile."""
    return {
        "resourceType": "StructureDefinition",
        "id": name,
        "url": HOME + name,
        "name": name.replace("-", "_"),
        "status": "active",
        "kind": "complex-type" if rtype == "Extension" else "resource",
        "abstract": False,
        "type": rtype,
        "baseDefinition": base,
        "derivation": "constraint",
        "differential": {"element": [{"id": each["path"], **each} for each in ({"path": rtype}, *elements)]},
        **more,
    }


def claiming(*names: str, rtype: str = "Patient", **more: Any) -> dict[str, Any]:
    return {"resourceType": rtype, "meta": {"profile": [HOME + name for name in names]}, **more}


@pytest.fixture(autouse=True)
def forgotten(rest: Exchange) -> None:
    """The database was emptied behind the exchange's back: it knows nothing."""
    rest.ctx.spec.memo.pop(MEMO, None)
    rest.ctx.spec.take_stored(None)


BORN = profile("born", {"path": "Patient.birthDate", "min": 1})


async def test_a_stored_profile_is_enforced_at_once_until_it_is_retired_or_deleted(rest: Exchange) -> None:
    assert (await rest("POST", "Patient", claiming("born"))).status == 201
    assert (await rest("PUT", "StructureDefinition/born", BORN)).status == 201
    refused = await rest("POST", "Patient", claiming("born"))
    assert refused.status == 422
    assert "Patient.birthDate" in text_of(refused)
    assert (await rest("POST", "Patient", claiming("born", birthDate="2000"))).status == 201
    assert (await rest("POST", "Patient", {"resourceType": "Patient"})).status == 201
    assert (await rest("PUT", "StructureDefinition/born", {**BORN, "status": "retired"})).status == 200
    assert (await rest("POST", "Patient", claiming("born"))).status == 201
    assert (await rest("PUT", "StructureDefinition/born", BORN)).status == 200
    assert (await rest("POST", "Patient", claiming("born"))).status == 422
    assert (await rest("DELETE", "StructureDefinition/born")).status == 204
    assert (await rest("POST", "Patient", claiming("born"))).status == 201


async def test_a_changed_profile_judges_as_it_is_now(rest: Exchange) -> None:
    await rest("PUT", "StructureDefinition/born", BORN)
    await rest("PUT", "StructureDefinition/born", profile("born", {"path": "Patient.gender", "min": 1}))
    assert (await rest("POST", "Patient", claiming("born", gender="male"))).status == 201
    assert (await rest("POST", "Patient", claiming("born", birthDate="2000"))).status == 422


async def test_it_may_be_set_for_a_type_and_is_validated_against(rest: Exchange) -> None:
    await rest("PUT", "StructureDefinition/born", BORN)
    set_for = rest.with_settings(profiles=f"Patient=enforce:{HOME}born")
    assert (await set_for("POST", "Patient", {"resourceType": "Patient"})).status == 422
    told = await rest("POST", f"Patient/$validate?profile={HOME}born", {"resourceType": "Patient"})
    assert "Patient.birthDate" in text_of(told)
    shown = await rest("GET", "metadata?_elements=rest")
    (patient,) = [row for row in (shown.res or {})["rest"][0]["resource"] if row["type"] == "Patient"]
    assert patient["supportedProfile"] == [HOME + "born"]


async def test_updates_patches_bundles_and_what_is_inside_are_judged_too(rest: Exchange) -> None:
    await rest("PUT", "StructureDefinition/born", BORN)
    whole = claiming("born", id="a", birthDate="2000")
    assert (await rest("PUT", "Patient/a", whole)).status == 201
    assert (await rest("PUT", "Patient/a", claiming("born", id="a"))).status == 422
    removal = b'[{"op":"remove","path":"/birthDate"}]'
    assert (await rest("PATCH", "Patient/a", body=removal, media="application/json-patch+json")).status == 422
    for kind, status in (("transaction", 422), ("batch", 200)):
        entry = {"request": {"method": "POST", "url": "Patient"}, "resource": claiming("born")}
        reply = await rest("POST", "", {"resourceType": "Bundle", "type": kind, "entry": [entry]})
        assert reply.status == status
        assert "Patient.birthDate" in text_of(reply) or "birthDate" in text_of(reply)
    contained = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": "#p"},
        "contained": [claiming("born", id="p")],
    }
    assert (await rest("POST", "Observation", contained)).status == 422
    stored = {"resourceType": "Bundle", "type": "collection", "entry": [{"fullUrl": "urn:oid:1.2.3", "resource": claiming("born")}]}
    assert (await rest("POST", "Bundle", stored)).status == 422


async def test_a_profile_upon_a_stored_profile_needs_both(rest: Exchange) -> None:
    named = profile("named", {"path": "Patient.name", "min": 1}, base=HOME + "born")
    made = await rest("PUT", "StructureDefinition/named", named, prefer="return=OperationOutcome")
    assert made.status == 201
    assert "born is not known" in text_of(made)
    unusable = await rest("POST", "Patient", claiming("named", name=[{"text": "x"}], birthDate="2000"))
    assert unusable.status == 422
    assert "born is not known" in text_of(unusable)
    await rest("PUT", "StructureDefinition/born", BORN)
    assert (await rest("POST", "Patient", claiming("named", name=[{"text": "x"}]))).status == 422
    assert (await rest("POST", "Patient", claiming("named", birthDate="2000"))).status == 422
    assert (await rest("POST", "Patient", claiming("named", name=[{"text": "x"}], birthDate="2000"))).status == 201


@pytest.mark.parametrize(
    ("elements", "place"),
    [
        ([{"path": "Patient.hobby", "min": 1}], "differential.element[1].path"),
        ([{"path": "Patient.name.surname", "min": 1}], "differential.element[1].path"),
        ([{"path": "Observation.code", "min": 1}], "sdf-8a"),
    ],
)
async def test_a_profile_that_names_what_its_type_does_not_have_is_refused(rest: Exchange, elements: list[dict[str, Any]], place: str) -> None:
    reply = await rest("PUT", "StructureDefinition/odd", profile("odd", *elements))
    assert reply.status == 422
    assert place in text_of(reply)


async def test_bindings_to_stored_value_sets_are_judged(rest: Exchange) -> None:
    bound = {"path": "Patient.maritalStatus", "min": 1, "binding": {"strength": "required", "valueSet": "http://example.org/fhir/ValueSet/ours"}}
    concepts = {"system": "http://example.org/fhir/CodeSystem/ours"}
    values = {"resourceType": "ValueSet", "id": "ours", "url": bound["binding"]["valueSet"], "status": "active", "compose": {"include": [concepts]}}
    system = {
        "resourceType": "CodeSystem",
        "id": "ours",
        "url": concepts["system"],
        "status": "active",
        "content": "complete",
        "concept": [{"code": "M"}],
    }
    for res in (profile("married", bound), values, system):
        assert (await rest("PUT", f"{res['resourceType']}/{res['id']}", res)).status == 201

    async def status(code: str) -> int:
        return (await rest("POST", "Patient", claiming("married", maritalStatus={"coding": [{**concepts, "code": code}]}))).status

    assert [await status(code) for code in ("M", "X")] == [201, 422]
    assert (await rest("PUT", "CodeSystem/ours", {**system, "concept": [{"code": "X"}]})).status == 200
    assert [await status(code) for code in ("M", "X")] == [422, 201]


async def test_a_stored_extension_definition_is_live(rest: Exchange) -> None:
    extension = profile(
        "nick",
        {"path": "Extension.url", "fixedUri": HOME + "nick"},
        {"path": "Extension.value[x]", "min": 1, "type": [{"code": "string"}]},
        base=f"{CORE}Extension",
        rtype="Extension",
        context=[{"type": "element", "expression": "Patient"}],
    )

    async def status(rtype: str, **value: Any) -> int:
        more = {"status": "final", "code": {"text": "x"}} if rtype == "Observation" else {}
        return (await rest("POST", rtype, {"resourceType": rtype, **more, "extension": [{"url": HOME + "nick", **value}]})).status

    assert await status("Patient", valueInteger=1) == 201
    assert (await rest("PUT", "StructureDefinition/nick", extension)).status == 201
    assert await status("Patient", valueInteger=1) == 400
    assert await status("Patient", valueString="x") == 201
    assert await status("Observation", valueString="x") in (400, 422)


async def test_r4s_own_definitions_are_not_replaced(rest: Exchange) -> None:
    mine = {**profile("Patient", {"path": "Patient.birthDate", "min": 1}), "url": f"{CORE}bodyweight"}
    assert (await rest("PUT", "StructureDefinition/Patient", mine)).status == 201
    assert (await rest("POST", "Patient", {"resourceType": "Patient", "meta": {"profile": [f"{CORE}bodyweight"]}})).status in (201, 400, 422)
    assert (await rest("POST", "Patient", {"resourceType": "Patient"})).status == 201


SLICED = profile(
    "seen",
    {"path": "Observation.performer", "slicing": {"discriminator": [{"type": "profile", "path": "resolve()"}], "rules": "closed"}},
    {
        "id": "Observation.performer:doctor",
        "path": "Observation.performer",
        "sliceName": "doctor",
        "min": 1,
        "type": [{"code": "Reference", "targetProfile": [HOME + "doctor"]}],
    },
    base=f"{CORE}Observation",
    rtype="Observation",
)
DOCTOR = profile("doctor", {"path": "Practitioner.qualification", "min": 1}, base=f"{CORE}Practitioner", rtype="Practitioner")
SKILLED = {"resourceType": "Practitioner", "id": "skilled", "qualification": [{"code": {"text": "MD"}}]}


async def test_writes_resolve_what_is_stored_where_a_profile_asks(rest: Exchange) -> None:
    for res in (SLICED, DOCTOR, SKILLED, {"resourceType": "Practitioner", "id": "plain"}):
        assert (await rest("PUT", f"{res['resourceType']}/{res['id']}", res)).status == 201

    def seen_by(reference: str) -> dict[str, Any]:
        return claiming("seen", rtype="Observation", status="final", code={"text": "x"}, performer=[{"reference": reference}])

    assert (await rest("POST", "Observation", seen_by("Practitioner/skilled"))).status == 201
    assert (await rest("POST", "Observation", seen_by("http://localhost/fhir/Practitioner/skilled"))).status == 201
    assert (await rest("POST", "Observation", seen_by("Practitioner/plain"))).status == 422
    assert (await rest("PUT", "Observation/o", {**seen_by("Practitioner/plain"), "id": "o"})).status == 422
    for content, status in ((SKILLED, 200), ({"resourceType": "Practitioner"}, 422)):
        entries = [
            {"fullUrl": "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0", "request": {"method": "POST", "url": "Practitioner"}, "resource": content},
            {"request": {"method": "POST", "url": "Observation"}, "resource": seen_by("urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0")},
        ]
        reply = await rest("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": entries})
        assert reply.status == status, text_of(reply)


async def test_what_the_caller_may_not_see_is_not_resolved(rest: Exchange) -> None:
    for res in (SLICED, DOCTOR, SKILLED):
        await rest("PUT", f"{res['resourceType']}/{res['id']}", res)
    blind = rest.by(Right("Observation", frozenset("cruds")))
    res = claiming("seen", rtype="Observation", status="final", code={"text": "x"}, performer=[{"reference": "Practitioner/skilled"}])
    told = await blind("POST", "Observation", res, prefer="return=OperationOutcome")
    assert "skilled" not in text_of(told)
    assert told.status in (201, 422)


async def test_who_stores_a_profile_waits_also_where_another_request_took_it_up_first(rest: Exchange) -> None:
    """Else the other processes could still judge as before when the writer is answered."""
    assert (await rest("POST", "Patient", claiming("born"))).status == 201
    assert (await rest("PUT", "StructureDefinition/born", BORN)).status == 201
    seen = rest.ctx.spec.memo[MEMO]
    seen.taken = time.monotonic()  # as if this had just been somebody else's look
    started = time.monotonic()
    await settled(rest.ctx, ["StructureDefinition"])
    assert time.monotonic() - started >= SECONDS * 0.9
