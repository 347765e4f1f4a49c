"""The terminology operations through the routes: GET and POST, type and instance level, stored resources beside loaded ones."""

from typing import Any

import pytest
import pytest_asyncio

from fhir_server.context import Right
from fhir_server.store.mongo.store import MongoStore
from terminology.service import open_terms
from tests.server.rest.calls import Exchange, exchange_on, rid_of

LOCAL = "http://example.org/fhir/CodeSystem/local"
SYSTEM = {
    "resourceType": "CodeSystem",
    "url": LOCAL,
    "version": "1",
    "status": "active",
    "content": "complete",
    "hierarchyMeaning": "is-a",
    "concept": [{"code": "a", "display": "Alpha", "concept": [{"code": "b", "display": "Beta"}]}, {"code": "c", "display": "Gamma"}],
}
VALUES = {
    "resourceType": "ValueSet",
    "url": "http://example.org/fhir/ValueSet/local",
    "status": "active",
    "compose": {"include": [{"system": LOCAL, "filter": [{"property": "concept", "op": "is-a", "value": "a"}]}]},
}
MAP = {
    "resourceType": "ConceptMap",
    "url": "http://example.org/fhir/ConceptMap/local",
    "status": "active",
    "group": [
        {
            "source": LOCAL,
            "target": "http://hl7.org/fhir/administrative-gender",
            "element": [{"code": "c", "target": [{"code": "other", "equivalence": "wider"}]}],
        }
    ],
}


@pytest_asyncio.fixture
async def exchange(store: MongoStore) -> Exchange:
    made = exchange_on(store, open_terms())
    for res in (SYSTEM, VALUES, MAP):
        assert (await made("POST", res["resourceType"], res)).status == 201
    return made


def value(res: Any, name: str) -> Any:
    row = next((each for each in res["parameter"] if each["name"] == name), None)
    return None if row is None else next(v for k, v in row.items() if k != "name")


async def test_lookup_validate_and_subsumes_of_a_stored_code_system(exchange: Exchange) -> None:
    found = await exchange("GET", f"CodeSystem/$lookup?system={LOCAL}&code=b")
    assert (found.status, value(found.res, "display")) == (200, "Beta")
    wrong = await exchange("GET", f"CodeSystem/$lookup?system={LOCAL}&code=zz")
    assert (wrong.status, wrong.res["resourceType"]) == (404, "OperationOutcome")
    answer = await exchange("GET", f"CodeSystem/$validate-code?url={LOCAL}&code=b&display=Wrong")
    assert (answer.status, value(answer.res, "result")) == (200, False)
    answer = await exchange("GET", f"CodeSystem/$subsumes?system={LOCAL}&codeA=a&codeB=b")
    assert value(answer.res, "outcome") == "subsumes"
    body = {
        "resourceType": "Parameters",
        "parameter": [{"name": "property", "part": [{"name": "code", "valueCode": "display"}, {"name": "value", "valueString": "Gamma"}]}],
    }
    body["parameter"].append({"name": "system", "valueUri": LOCAL})
    answer = await exchange("POST", "CodeSystem/$find-matches", body)
    assert answer.res["parameter"][0]["part"][0]["valueCoding"]["code"] == "c"


async def test_expand_and_validate_on_type_and_instance_level(exchange: Exchange) -> None:
    listed = await exchange("GET", "ValueSet/$expand?url=http://example.org/fhir/ValueSet/local&excludeNested=true")
    assert [each["code"] for each in listed.res["expansion"]["contains"]] == ["a", "b"]
    stored = await exchange("GET", "ValueSet?url=http://example.org/fhir/ValueSet/local")
    rid = stored.res["entry"][0]["resource"]["id"]
    inside = await exchange("GET", f"ValueSet/{rid}/$validate-code?system={LOCAL}&code=b")
    assert value(inside.res, "result") is True
    outside = await exchange("GET", f"ValueSet/{rid}/$validate-code?system={LOCAL}&code=c")
    assert value(outside.res, "result") is False
    own = await exchange("GET", "ValueSet/$expand?url=http://hl7.org/fhir/ValueSet/administrative-gender&count=2")
    assert own.res["expansion"]["total"] == 4


async def test_translate_with_a_stored_map(exchange: Exchange) -> None:
    answer = await exchange("GET", f"ConceptMap/$translate?url=http://example.org/fhir/ConceptMap/local&system={LOCAL}&code=c")
    assert value(answer.res, "result") is True
    created = await exchange("GET", "ConceptMap?url=http://example.org/fhir/ConceptMap/local")
    rid = rid_of(type(answer)(200, created.res["entry"][0]["resource"]))
    answer = await exchange("GET", f"ConceptMap/{rid}/$translate?system={LOCAL}&code=a")
    assert value(answer.res, "result") is False


async def test_errors_are_outcomes_with_their_status(exchange: Exchange) -> None:
    assert (await exchange("GET", "ValueSet/$expand?url=http://example.org/none")).status == 404
    assert (await exchange("GET", "ValueSet/$expand?url=http://hl7.org/fhir/ValueSet/administrative-gender&count=many")).status == 400
    assert (await exchange("GET", "CodeSystem/$lookup")).status == 400
    assert (await exchange("POST", "ValueSet/$expand", {"resourceType": "Patient"})).status == 400


async def test_stored_resources_stay_hidden_from_who_may_not_read_them(exchange: Exchange) -> None:
    other = exchange.by(Right("Patient", frozenset("r")))
    assert (await other("GET", f"CodeSystem/$lookup?system={LOCAL}&code=b")).status == 404
    assert (await other("GET", "CodeSystem/$lookup?system=http://hl7.org/fhir/administrative-gender&code=male")).status == 200


async def test_a_search_knows_stored_value_sets_and_hierarchies(exchange: Exchange) -> None:
    for code in ("a", "b", "c"):
        coded = {"coding": [{"system": LOCAL, "code": code}]}
        assert (await exchange("POST", "Observation", {"resourceType": "Observation", "status": "final", "code": coded})).status == 201

    async def found(query: str) -> list[str]:
        answer = await exchange("GET", f"Observation?{query}")
        assert answer.status == 200, answer.res
        return sorted(each["resource"]["code"]["coding"][0]["code"] for each in answer.res.get("entry", []))

    url = VALUES["url"]
    assert await found(f"code:in={url}") == ["a", "b"]
    assert await found(f"code:not-in={url}") == ["c"]
    assert await found(f"code:below={LOCAL}|a") == ["a", "b"]
    assert await found(f"code:above={LOCAL}|b") == ["a", "b"]
    assert await found(f"_filter=code in {url}") == ["a", "b"]
    assert await found(f"_filter=code ni {url} and status eq final") == ["c"]
    assert await found(f"_filter=code ss {LOCAL}|a") == ["a", "b"]
    assert await found(f"_filter=code sb {LOCAL}|b") == ["a", "b"]
    assert (await exchange("GET", "Observation?code:in=http://example.org/none")).status == 400
    assert (await exchange("GET", "Observation?_filter=code in http://example.org/none")).status == 400


async def test_a_remembered_answer_does_not_outlive_what_it_rests_on(store: MongoStore) -> None:
    exchange = exchange_on(store, open_terms())
    asked = f"CodeSystem/$validate-code?url={LOCAL}&code=b"
    assert value((await exchange("GET", asked)).res, "result") is False
    rid = rid_of(await exchange("POST", "CodeSystem", SYSTEM))
    assert value((await exchange("GET", asked)).res, "result") is True
    await exchange("DELETE", f"CodeSystem/{rid}")
    assert value((await exchange("GET", asked)).res, "result") is False
    own = "CodeSystem/$lookup?system=http://hl7.org/fhir/administrative-gender&code=male"
    first, second = await exchange("GET", own), await exchange("GET", own)
    assert first.res == second.res
    german = await exchange("GET", own, accept_language="de")
    assert german.status == 200


async def test_a_context_means_the_value_set_bound_there(exchange: Exchange) -> None:
    context = "http://hl7.org/fhir/StructureDefinition/Patient%23Patient.gender"
    listed = await exchange("GET", f"ValueSet/$expand?context={context}")
    assert (listed.status, listed.res["expansion"]["total"]) == (200, 4)
    for code, good in (("male", True), ("martian", False)):
        answer = await exchange("GET", f"ValueSet/$validate-code?context={context}&system=http://hl7.org/fhir/administrative-gender&code={code}")
        assert value(answer.res, "result") is good
    for direction, status in (("incoming", 200), ("outgoing", 200), ("both", 400)):
        assert (await exchange("GET", f"ValueSet/$expand?context={context}&contextDirection={direction}")).status == status
    assert (await exchange("GET", "ValueSet/$expand?url=http://hl7.org/fhir/ValueSet/administrative-gender&contextDirection=incoming")).status == 400
    for wrong, status in (("Patient.gender", 400), (context.replace("gender", "active"), 404), (context.replace("Patient", "Nothing"), 404)):
        assert (await exchange("GET", f"ValueSet/$expand?context={wrong}")).status == status


async def test_a_code_system_is_excluded_from_an_expansion(exchange: Exchange) -> None:
    other = "http://hl7.org/fhir/administrative-gender"
    both = {"resourceType": "ValueSet", "status": "active", "compose": {"include": [{"system": LOCAL}, {"system": other}]}}
    rows = [{"name": "valueSet", "resource": both}]
    body = {"resourceType": "Parameters", "parameter": rows}
    assert (await exchange("POST", "ValueSet/$expand", body)).res["expansion"]["total"] == 7
    rows.append({"name": "exclude-system", "valueCanonical": LOCAL})
    assert (await exchange("POST", "ValueSet/$expand", body)).res["expansion"]["total"] == 4


async def test_units_are_members_of_value_sets(exchange: Exchange) -> None:
    asked = "ValueSet/$validate-code?system=http://unitsofmeasure.org&url="
    for url, code, good in (
        ("http://hl7.org/fhir/ValueSet/ucum-units", "mg/dL{creat}", True),
        ("http://hl7.org/fhir/ValueSet/ucum-units", "furlongs", False),
        ("http://hl7.org/fhir/ValueSet/ucum-vitals-common", "kg", True),
        ("http://hl7.org/fhir/ValueSet/ucum-vitals-common", "mg/dL", False),
        ("http://unitsofmeasure.org/vs", "10*3/uL", True),
    ):
        assert value((await exchange("GET", f"{asked}{url}&code={code}")).res, "result") is good, (url, code)
    assert (await exchange("GET", "ValueSet/$expand?url=http://hl7.org/fhir/ValueSet/ucum-units&count=5")).status == 422
    assert (await exchange("GET", "ValueSet/$expand?url=http://hl7.org/fhir/ValueSet/ucum-vitals-common&count=5")).status == 200


HOSTILE: list[list[dict[str, Any]]] = [
    [{"name": "coding", "valueCoding": {"system": 1, "code": 2}}],
    [{"name": "coding", "valueCoding": "x"}],
    [{"name": "codeableConcept", "valueCodeableConcept": {"coding": [1]}}],
    [{"name": "valueSet", "resource": {"resourceType": "ValueSet", "status": "active", "compose": "x"}}],
    [{"name": "valueSet", "resource": {"resourceType": "ValueSet", "status": "active", "compose": {"include": [1]}}}],
    [{"name": "conceptMap", "resource": {"resourceType": "ConceptMap", "status": "active", "group": "x"}}, {"name": "code", "valueCode": "a"}],
    [{"name": "tx-resource", "resource": {"resourceType": "CodeSystem", "url": LOCAL, "concept": "y"}}, {"name": "code", "valueCode": "a"}],
    [{"name": "url", "valueUri": ["x"]}],
    [{"name": "url", "valueUri": "http://snomed.info/sct?fhir_vs=ecl/" + "(" * 5000}],
    [{"name": "concept", "valueCoding": [1]}, {"name": "name", "valueString": "t"}],
]


@pytest.mark.parametrize("rows", HOSTILE)
async def test_misshapen_parameters_are_refused_and_never_an_error_of_the_server(exchange: Exchange, rows: list[dict[str, Any]]) -> None:
    for operation in ROUTES:
        answer = await exchange("POST", operation, {"resourceType": "Parameters", "parameter": rows})
        assert answer.status < 500, operation
        assert answer.res is not None
        assert answer.status == 200 or answer.res["resourceType"] == "OperationOutcome"


ROUTES = (
    *(f"CodeSystem/${name}" for name in ("lookup", "validate-code", "subsumes", "find-matches")),
    *(f"ValueSet/${name}" for name in ("expand", "validate-code", "batch-validate-code")),
    *(f"ConceptMap/${name}" for name in ("translate", "closure")),
)
