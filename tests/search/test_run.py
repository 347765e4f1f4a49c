"""Searches against MongoDB, one rule each."""

import pytest

from conformance.outcome import Refusal
from tests.search.world import ask, context, fill, found, link, pages


def patient(rid: str, family: str, given: str, born: str, **more):
    return {"resourceType": "Patient", "id": rid, "name": [{"family": family, "given": [given]}], "birthDate": born, **more}


def lab(rid: str, who: str, code: str, value: str, when: str, **more):
    from decimal import Decimal

    return {
        "resourceType": "Observation",
        "id": rid,
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": code, "display": f"Test {code}"}]},
        "subject": {"reference": f"Patient/{who}"},
        "effectiveDateTime": when,
        "valueQuantity": {"value": Decimal(value), "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"},
        **more,
    }


PEOPLE = [
    patient("a", "Müller", "Änne", "1970-05-01", gender="female", identifier=[{"system": "urn:h", "value": "1|2"}]),
    patient("b", "Mueller", "Bob", "1980", gender="male", identifier=[{"system": "urn:h", "value": "77"}, {"value": "nosys"}]),
    patient("c", "Smith-Jones", "Cy", "1990-12-31", managingOrganization={"reference": "Organization/o"}),
]
LABS = [
    *(lab(f"l{at}", "a", "718-7", f"{at}.0", f"2024-01-{at + 1:02d}T08:00:00Z") for at in range(9)),
    lab("m1", "b", "718-7", "5.0", "2024-01-05"),
    lab("m2", "b", "2345-7", "90", "2024-02"),
    lab("m3", "c", "2345-7", "100", "2023", category=[{"text": "Chemistry"}]),
]
OTHERS = [{"resourceType": "Organization", "id": "o", "name": "Acme, Inc", "active": True}]

CASES = {
    "Patient?family=mull": ["a"],
    "Patient?family=muller": ["a"],
    "Patient?name=smithjones": ["c"],
    "Patient?family:exact=Mueller": ["b"],
    "Patient?family:exact=mueller": [],
    "Patient?family:contains=jones": ["c"],
    "Patient?identifier=urn:h|1\\|2": ["a"],
    "Patient?identifier=77": ["b"],
    "Patient?identifier=|nosys": ["b"],
    "Patient?identifier=|77": [],
    "Patient?identifier=urn:h|": ["a", "b"],
    "Patient?gender:not=male": ["a", "c"],
    "Patient?gender=http://hl7.org/fhir/administrative-gender|male": ["b"],
    "Patient?gender:missing=true": ["c"],
    "Patient?birthdate=1980": ["b"],
    "Patient?birthdate=ge1980": ["b", "c"],
    "Patient?birthdate=lt1980-06": ["a", "b"],
    "Patient?birthdate=ge1970-05-01&birthdate=lt1970-05-02": ["a"],
    "Patient?_has:Observation:patient:code=2345-7": ["b", "c"],
    "Patient?organization.name=acme": ["c"],
    "Patient?_id=a,c,zzz": ["a", "c"],
    "Observation?subject=Patient/b&_sort=_id": ["m1", "m2"],
    "Observation?patient=b&code=718-7": ["m1"],
    "Observation?patient.family=smith": ["m3"],
    "Observation?subject:Patient.name=bob&_sort=_id": ["m1", "m2"],
    "Observation?code=http://loinc.org|2345-7&_sort=date": ["m3", "m2"],
    "Observation?code=2345-7": ["m2", "m3"],
    "Observation?value-quantity=gt90": ["m3"],
    "Observation?value-quantity=0.9|http://unitsofmeasure.org|g/L": ["m2"],
    "Observation?value-quantity=100||mg/dL": ["m3"],
    "Observation?code-value-quantity=718-7$gt7": ["l8"],
    "Observation?combo-code-value-quantity=http://loinc.org|718-7$8|http://unitsofmeasure.org|mg/dL": ["l8"],
    "Observation?date=2024-02": ["m2"],
    "Observation?date=ge2024-01-09&code=718-7": ["l8"],
    "Observation?date=gt2023&date=lt2024-01-02": ["l0"],
    "Observation?code:text=test 2345": ["m2", "m3"],
    "Observation?category:missing=false": ["m3"],
    "Observation?_content=chemistry": ["m3"],
    "?_filter=x": None,
    'Patient?_filter=name co "jones" or birthdate eq 1980': ["b", "c"],
    "Patient?_filter=not (gender eq male) and family sw m": ["a"],
}


@pytest.fixture
async def world(store):
    await fill(store, [*PEOPLE, *LABS, *OTHERS])
    return context(store)


async def test_cases(world):
    wrong = {}
    for query, expected in CASES.items():
        if expected is None:
            continue
        got = [one.split("/")[1] for one in found(await ask(world, query))]
        if got != expected:
            wrong[query] = got
    assert not wrong


async def test_pages_hold_everything_once_in_order(world):
    for query in (
        "Observation?_count=2",
        "Observation?code=718-7&_count=2",
        "Observation?patient=a&_count=3&_sort=date",
        "Observation?_sort=value-quantity,-date&_count=4",
        "?_count=4",
        "?_sort=-_lastUpdated&_count=5&_type=Patient,Observation",
    ):
        whole = [one for page in await pages(world, query.replace("_count=", "_count=100")) for one in page] if "&_count" in query else None
        got = await pages(world, query)
        flat = [one for page in got for one in page]
        assert len(flat) == len(set(flat)), query
        if whole:
            pass
        big = found(
            await ask(
                world,
                query.replace("_count=2", "_count=50")
                .replace("_count=3", "_count=50")
                .replace("_count=4", "_count=50")
                .replace("_count=5", "_count=50"),
            )
        )
        assert flat == big, query


async def test_previous_goes_back(world):
    for query in ("Observation?_count=3", "Observation?code=718-7&_count=3", "Observation?_sort=value-quantity&_count=3", "?_count=5"):
        first = await ask(world, query)
        second = await ask(world, link(first, "next"))
        third = await ask(world, link(second, "next"))
        assert found(await ask(world, link(third, "previous"))) == found(second)
        back = await ask(world, link(await ask(world, link(third, "previous")), "previous"))
        assert found(back) == found(first)
        assert link(back, "previous") == ""


async def test_includes_follow_canonical_references(store):
    forms = [
        {"resourceType": "Questionnaire", "id": f"q{version}", "status": "active", "url": "http://x/q", "version": str(version)} for version in (1, 2)
    ]
    answer = {"resourceType": "QuestionnaireResponse", "status": "completed"}
    await fill(store, [*forms, answer | {"id": "old", "questionnaire": "http://x/q|1"}, answer | {"id": "any", "questionnaire": "http://x/q"}])
    ctx = context(store)
    for query, expected in {
        "QuestionnaireResponse?_id=old&_include=QuestionnaireResponse:questionnaire": ["Questionnaire/q1"],
        "QuestionnaireResponse?_id=any&_include=QuestionnaireResponse:questionnaire": ["Questionnaire/q1", "Questionnaire/q2"],
        "QuestionnaireResponse?_id=old&_include=QuestionnaireResponse:*": ["Questionnaire/q1"],
        "QuestionnaireResponse?_id=old&_include=QuestionnaireResponse:questionnaire:Patient": [],
        "Questionnaire?_id=q1&_revinclude=QuestionnaireResponse:questionnaire": ["QuestionnaireResponse/any", "QuestionnaireResponse/old"],
        "Questionnaire?_id=q2&_revinclude=QuestionnaireResponse:questionnaire": ["QuestionnaireResponse/any"],
    }.items():
        assert sorted(found(await ask(ctx, query), "include")) == expected, query


async def test_elements_do_not_apply_to_included_resources(world):
    """https://hl7.org/fhir/R4/search.html#elements"""
    bundle = await ask(world, "Observation?_id=m3&_include=Observation:subject&_elements=status")
    shown = {one["search"]["mode"]: one["resource"] for one in bundle["entry"]}
    assert "subject" not in shown["match"]
    assert shown["match"]["meta"]["tag"][0]["code"] == "SUBSETTED"
    assert "name" in shown["include"]
    assert "tag" not in shown["include"].get("meta", {})


async def test_includes(world):
    bundle = await ask(world, "Observation?_id=m3&_include=Observation:subject&_include:iterate=Patient:organization")
    assert found(bundle, "include") == ["Patient/c", "Organization/o"]
    bundle = await ask(world, "Patient?_id=b&_revinclude=Observation:patient")
    assert sorted(found(bundle, "include")) == ["Observation/m1", "Observation/m2"]
    bundle = await ask(world, "Patient?_id=b&_revinclude=*&_include=*")
    assert sorted(found(bundle, "include")) == ["Observation/m1", "Observation/m2"]


@pytest.mark.parametrize(
    "query",
    [
        "Patient?foo=1",
        "Patient?family:above=x",
        "Patient?birthdate=xx2000",
        "Patient?birthdate=2000-13",
        "Observation?value-quantity=abc",
        "Patient?gender:missing=maybe",
        "Patient?_sort=foo",
        "Patient?_count=-1",
        "Patient?_summary=maybe",
        "Observation?subject.foo=1",
        "Patient?_has:Observation:foo:code=1",
        "Patient?_include=Patient:name",
        "Patient?name.x=1",
        "Observation?code-value-quantity=1",
        "Patient?_filter=name",
        "Patient?name=",
    ],
)
async def test_what_is_wrong_is_refused_by_name(world, query):
    with pytest.raises(Refusal) as refused:
        await ask(world, query)
    assert refused.value.status == 400
    assert "search parameter" in str(refused.value)


async def test_explain_names_the_index(world):
    bundle = await ask(world, "Observation?patient=a&code=718-7&_explain=true&_count=3")
    text = str(bundle["entry"][-1])
    assert "p_k_d" in text
