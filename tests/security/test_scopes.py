"""Scopes of SMART App Launch 2.2 in both forms, and what they reach. https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html"""

from dataclasses import replace
from typing import Any

import pytest

from conformance.spec import load_spec
from fhir_server.context import Context
from fhir_server.interactions.access import within
from fhir_server.interactions.indexing import index_of
from fhir_server.query.clauses import EVERYTHING, NOTHING
from fhir_server.query.match import matches
from fhir_server.search.extract import extractor
from fhir_server.security.reach import sharing
from fhir_server.security.scopes import rights_of
from fhir_server.security.visible import covers, may_feed, visible
from fhir_server.store import Stored
from tests.feed.memory import MemoryStore
from tests.server.rest.calls import exchange_on

SPEC = load_spec()


@pytest.mark.parametrize(
    ("scope", "actions"),
    [
        ("patient/Observation.read", "rs"),
        ("patient/Observation.write", "cdu"),
        ("patient/Observation.*", "cdrsu"),
        ("patient/*.rs", "rs"),
        ("user/Observation.cruds", "cdrsu"),
        ("system/Observation.r", "r"),
        ("patient/Observation.rs?category=http://terminology.hl7.org/CodeSystem/observation-category|laboratory", "rs"),
    ],
)
def test_scopes_that_grant(scope: str, actions: str) -> None:
    (right,) = rights_of([scope], SPEC.types, "1", "Practitioner/1")
    assert "".join(sorted(right.actions)) == actions


@pytest.mark.parametrize(
    "scope",
    [
        "patient/Observation.sr",
        "patient/Observation.",
        "patient/Observation",
        "patient/Nonsense.rs",
        "patient/Observation.read?category=x",
        "patient/Observation.rs?",
        "patient/Observation.rs?category",
        "patient/Observation.rs?category=",
        "patient/Observation.rs?=x",
        "Patient/Observation.rs",
        "patient/observation.rs",
        "patient/Observation.rs ",
        "patients/Observation.rs",
        "patient/Observation.rsx",
        "launch/patient",
        "openid",
        "",
        "*",
        "*/*.*",
        "patient/*.**",
    ],
)
def test_scopes_that_grant_nothing(scope: str) -> None:
    assert rights_of([scope], SPEC.types, "1", "Practitioner/1") == ()


def test_a_scope_without_its_context_grants_nothing() -> None:
    assert rights_of(["patient/*.cruds", "user/*.cruds"], SPEC.types) == ()
    assert rights_of(["patient/*.cruds"], SPEC.types, "../1") == ()
    assert len(rights_of(["patient/*.cruds", "user/*.cruds"], SPEC.types, "1")) == 1


def test_only_an_unlimited_system_scope_may_feed() -> None:
    def feeds(*scopes: str) -> bool:
        grant = replace(exchange_on(MemoryStore()).ctx.grant, rights=rights_of(scopes, SPEC.types, "1", "Practitioner/1"))
        return may_feed(grant)

    assert feeds("system/*.cu")
    assert not any(feeds(one) for one in ("user/*.cruds", "patient/*.cruds", "system/*.cruds?_id=1", "system/Patient.cruds"))


def ctx_of(*scopes: str, patient: str = "mine", user: str = "") -> Context:
    ctx = exchange_on(MemoryStore()).ctx
    return replace(ctx, grant=replace(ctx.grant, rights=rights_of(scopes, SPEC.types, patient, user)))


def observation(patient: str, category: str) -> dict[str, Any]:
    coding = {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": category}
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "category": [{"coding": [coding]}],
        "subject": {"reference": f"Patient/{patient}"},
    }


def test_granular_criteria_and_the_patient_both_limit() -> None:
    ctx = ctx_of("patient/Observation.rs?category=http://terminology.hl7.org/CodeSystem/observation-category|laboratory")
    for patient, category, expected in (("mine", "laboratory", True), ("mine", "vital-signs", False), ("theirs", "laboratory", False)):
        index = extractor(SPEC)(observation(patient, category))
        assert covers(ctx, "Observation", "r", index, "o") is expected
    assert visible(ctx, "Observation", "u") == NOTHING
    assert visible(ctx, "Patient", "r") == NOTHING


@pytest.mark.parametrize(
    "query", ["nonsense=1", "subject:Patient.name=x", "_has:Observation:subject:code=x", "_count=1", "_sort=date", "date=banana"]
)
def test_criteria_that_the_type_does_not_have_grant_nothing(query: str) -> None:
    ctx = ctx_of(f"system/Observation.rs?{query}")
    assert len(ctx.grant.rights) == 1
    assert visible(ctx, "Observation", "r") == NOTHING


def test_a_wildcard_with_criteria_reaches_only_types_that_have_them() -> None:
    ctx = ctx_of("system/*.rs?patient=Patient/1")
    assert visible(ctx, "Observation", "r") not in (NOTHING, EVERYTHING)
    assert visible(ctx, "ValueSet", "r") == NOTHING


@pytest.mark.parametrize(
    ("user", "everything"),
    [("Practitioner/1", True), ("PractitionerRole/1", True), ("Organization/1", True), ("Person/1", False), ("http://else/Practitioner/1", False)],
)
def test_who_a_user_is_decides(user: str, everything: bool) -> None:
    assert (visible(ctx_of("user/*.rs", user=user), "Observation", "r") == EVERYTHING) is everything


def test_a_patient_who_is_the_user_sees_what_the_patient_sees() -> None:
    own = ctx_of("user/*.cruds", user="Patient/mine", patient="")
    assert visible(own, "Observation", "r") == visible(ctx_of("patient/*.cruds"), "Observation", "r")
    assert visible(ctx_of("user/*.cruds", user="http://localhost/fhir/Patient/mine"), "Observation", "r") == visible(own, "Observation", "r")


def test_every_type_is_sorted_once() -> None:
    table = sharing()
    members = {rtype for rtype, codes in SPEC.compartments["Patient"].items() if codes}
    rows = [*members, *table["shared"], *table["beside"], *table["withheld"]]
    assert sorted(rows) == sorted(SPEC.types)
    assert set(table["unassigned"]) <= set(table["beside"])


def test_shared_types_are_read_and_never_written() -> None:
    ctx = ctx_of("patient/*.cruds")
    for rtype in sharing()["shared"]:
        assert [visible(ctx, rtype, action) for action in "rs"] == [EVERYTHING] * 2, rtype
        assert [visible(ctx, rtype, action) for action in "cud"] == [NOTHING] * 3, rtype
    for rtype in sharing()["withheld"]:
        assert [visible(ctx, rtype, action) for action in "cruds"] == [NOTHING] * 5, rtype


@pytest.mark.parametrize(
    ("res", "read", "write"),
    [
        ({"resourceType": "Device"}, True, False),
        ({"resourceType": "Device", "patient": {"reference": "Patient/mine"}}, True, True),
        ({"resourceType": "Device", "patient": {"reference": "Patient/theirs"}}, False, False),
        ({"resourceType": "Device", "patient": {"identifier": {"value": "1"}}}, False, False),
        ({"resourceType": "Task", "for": {"reference": "Patient/mine"}}, True, True),
        ({"resourceType": "Task", "owner": {"reference": "Patient/mine"}}, True, True),
        ({"resourceType": "Task", "focus": {"reference": "Patient/mine"}}, False, False),
        ({"resourceType": "Group", "member": [{"entity": {"reference": "Patient/mine"}}]}, True, True),
        ({"resourceType": "Observation", "performer": [{"reference": "Patient/mine"}]}, True, True),
        ({"resourceType": "Observation", "focus": [{"reference": "Patient/mine"}]}, False, False),
    ],
)
def test_members(res: dict[str, Any], read: bool, write: bool) -> None:
    ctx = ctx_of("patient/*.cruds")
    index = extractor(SPEC)(res)
    assert (covers(ctx, res["resourceType"], "r", index, "x"), covers(ctx, res["resourceType"], "u", index, "x")) == (read, write)


QUERIES = (
    "category=laboratory",
    "code=http://loinc.org|718-7",
    "date=ge2024-01-01",
    "date=lt2010",
    "value-quantity=gt5||g/dL",
    "code-value-quantity=http://loinc.org|718-7$gt5",
    "combo-code=718-7",
    "patient=Patient/mine",
    "subject=Patient/mine,Patient/theirs",
    "performer:missing=true",
    "status:not=final",
    "_security:missing=true",
    "_lastUpdated=gt2020",
    "code:text=hemoglobin",
    "identifier=http://x|1",
    "_tag=x,y",
    "has-member=Observation/2",
)


@pytest.mark.parametrize("level", ["patient", "system"])
@pytest.mark.parametrize("query", QUERIES)
def test_judging_by_what_is_asked_for_is_judging_by_all(query: str, level: str) -> None:
    ctx = ctx_of(f"{level}/Observation.rs?{query}")
    clause = visible(ctx, "Observation", "r")
    assert clause != NOTHING
    for patient in ("mine", "theirs"):
        res = observation(patient, "laboratory") | {
            "id": "1",
            "code": {"coding": [{"system": "http://loinc.org", "code": "718-7"}], "text": "Hemoglobin"},
            "valueQuantity": {"value": 7, "unit": "g/dL", "code": "g/dL", "system": "http://unitsofmeasure.org"},
            "effectiveDateTime": "2024-03-01",
            "performer": [{"reference": "Patient/mine"}],
        }
        for one in (res, {"resourceType": "Observation"}, res | {"status": "amended", "performer": []}):
            stored = Stored("Observation", "1", 1, ctx.now, one)
            assert within(ctx, clause, stored) is matches(clause, index_of(ctx, one), rid="1", at=ctx.now)
