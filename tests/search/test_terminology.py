""":in, :not-in, :above, :below by the terminology service (https://hl7.org/fhir/R4/search.html#token)."""

from dataclasses import replace

import pytest

from conformance.outcome import Refusal
from fhir_server.context import Request, Right
from fhir_server.interactions.stored_terms import for_search
from terminology.service import open_terms
from tests.search.world import BASE, ask, context, fill, found

CODES = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
GENDERS = "http://hl7.org/fhir/ValueSet/administrative-gender"


@pytest.fixture
async def world(store):
    people = [{"resourceType": "Patient", "id": sex or "none", **({"gender": sex} if sex else {})} for sex in ("male", "female", "")]
    visits = [
        {"resourceType": "Encounter", "id": code, "status": "finished", "class": {"system": CODES, "code": code}}
        for code in ("IMP", "ACUTE", "NONAC", "AMB", "_ActEncounterCode")
    ]
    await fill(store, people + visits)
    return context(store, terms=open_terms())


async def test_members_of_a_value_set(world):
    assert found(await ask(world, f"Patient?gender:in={GENDERS}")) == ["Patient/female", "Patient/male"]
    assert found(await ask(world, f"Patient?gender:not-in={GENDERS}")) == ["Patient/none"]


async def test_the_hierarchy_of_a_code_system(world):
    assert sorted(found(await ask(world, f"Encounter?class:below={CODES}|IMP"))) == ["Encounter/ACUTE", "Encounter/IMP", "Encounter/NONAC"]
    assert sorted(found(await ask(world, f"Encounter?class:above={CODES}|ACUTE"))) == [
        "Encounter/ACUTE",
        "Encounter/IMP",
        "Encounter/_ActEncounterCode",
    ]


@pytest.mark.parametrize("query", ["Patient?gender:in=http://nowhere/vs", "Encounter?class:below=IMP", "Encounter?class:below=http://nowhere|x"])
async def test_what_terminology_does_not_know_is_refused(world, query):
    with pytest.raises(Refusal) as refused:
        await ask(world, query)
    assert refused.value.status == 400


LISTED = {
    "resourceType": "ValueSet",
    "id": "visits",
    "url": "http://x.org/vs",
    "status": "active",
    "compose": {"include": [{"system": "http://unknown.org", "concept": [{"code": "A"}, {"code": "B"}]}]},
}


@pytest.mark.parametrize("name", ["http://x.org/vs", "ValueSet/visits", f"{BASE}/ValueSet/visits"])
async def test_a_stored_value_set_that_lists_codes_of_an_unknown_system(world, name):
    coded = [
        {"resourceType": "Encounter", "id": code.lower(), "status": "finished", "class": {"system": "http://unknown.org", "code": code}}
        for code in "ABC"
    ]
    await fill(world.store, [LISTED, *coded])
    for modifier, expected in (("in", ["Encounter/a", "Encounter/b"]), ("not-in", ["Encounter/c"])):
        query = ((f"class:{modifier}", name), ("_id", "a,b,c"))
        ctx = await for_search(world, Request("GET", ("Encounter",), query, {}))
        assert found(await ask(ctx, f"Encounter?class:{modifier}={name}&_id=a,b,c")) == expected


async def test_a_value_set_that_its_caller_may_not_read_is_not_known(world):
    await fill(world.store, [LISTED])
    nobody = replace(world, grant=replace(world.grant, rights=(Right("Encounter", frozenset("rs")),)))
    ctx = await for_search(nobody, Request("GET", ("Encounter",), (("class:in", "ValueSet/visits"),), {}))
    with pytest.raises(Refusal):
        await ask(ctx, "Encounter?class:in=ValueSet/visits")
