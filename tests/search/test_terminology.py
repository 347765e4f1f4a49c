""":in, :not-in, :above, :below by the terminology service (https://hl7.org/fhir/R4/search.html#token)."""

import pytest

from conformance.outcome import Refusal
from terminology.service import open_terms
from tests.search.world import ask, context, fill, found

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
