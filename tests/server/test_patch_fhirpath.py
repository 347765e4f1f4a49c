"""FHIRPath Patch. https://hl7.org/fhir/R4/fhirpatch.html"""

import json
import re
from typing import Any

import pytest
from lxml import etree

from conformance.outcome import Refusal
from conformance.spec import load_spec
from conformance.xml import from_xml
from fhir_server.interactions.fhirpath_patch import fhirpath_patch
from tests.server.test_patch_json import suite

SPEC = load_spec()


def operation(kind: str, path: str, **parts: Any) -> dict[str, Any]:
    rows = [{"name": "type", "valueCode": kind}, {"name": "path", "valueString": path}]
    rows += [
        {"name": name, **(part if isinstance(part, dict) else {"valueInteger": part} if isinstance(part, int) else {"valueString": part})}
        for name, part in parts.items()
    ]
    return {"name": "operation", "part": rows}


def patch(*operations: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Parameters", "parameter": list(operations)}


def child(case: etree._Element, name: str) -> dict[str, Any] | None:
    holder = case.find(name)
    return from_xml(etree.tostring(holder[0]), SPEC) if holder is not None and len(holder) else None


def test_the_official_cases() -> None:
    cases = list(etree.parse(suite("fhir-patch-tests.xml"), etree.XMLParser(remove_comments=True)).getroot())
    assert len(cases) == 33
    for case in cases:
        before, diff, after = child(case, "input"), child(case, "diff"), child(case, "output")
        assert before is not None
        assert diff is not None
        if after is None:
            with pytest.raises(Refusal) as caught:
                fhirpath_patch(before, diff, SPEC)
            assert caught.value.status == 422
        else:
            assert _told(fhirpath_patch(before, diff, SPEC)) == _told(after), case.get("name")


def _told(res: dict[str, Any]) -> Any:
    """Without the blanks between the tags of a narrative."""
    return json.loads(re.sub(r"(\\n|\s)+", " ", json.dumps(res)).replace("> <", "><"))


PATIENT = {
    "resourceType": "Patient",
    "id": "1",
    "active": True,
    "name": [{"use": "official", "family": "A", "given": ["B", "C"], "_given": [None, {"id": "g"}]}, {"family": "D"}],
    "deceasedBoolean": False,
    "birthDate": "2000-01-01",
    "_birthDate": {"id": "b"},
    "contact": [{"name": {"family": "K"}}],
}


@pytest.mark.parametrize(
    ("operations", "changed"),
    [
        ([operation("replace", "Patient.active", value={"valueBoolean": False})], {"active": False}),
        ([operation("replace", "Patient.deceased", value={"valueDateTime": "2020"})], {"deceasedBoolean": None, "deceasedDateTime": "2020"}),
        ([operation("delete", "Patient.deceased")], {"deceasedBoolean": None}),
        ([operation("delete", "Patient.gender")], {}),
        ([operation("delete", "Patient.contact[0].name.family")], {"contact": None}),
        ([operation("delete", "Patient.birthDate")], {"birthDate": None, "_birthDate": None}),
        (
            [operation("replace", "Patient.birthDate", value={"valueDate": "2001", "_valueDate": {"id": "c"}})],
            {"birthDate": "2001", "_birthDate": {"id": "c"}},
        ),
        ([operation("replace", "Patient.birthDate", value={"valueDate": "2001"})], {"birthDate": "2001", "_birthDate": None}),
        (
            [operation("delete", "Patient.name[0].given[0]")],
            {"name": [{"use": "official", "family": "A", "given": ["C"], "_given": [{"id": "g"}]}, {"family": "D"}]},
        ),
        (
            [operation("insert", "Patient.name[0].given", index=1, value={"valueString": "X"})],
            {"name": [{"use": "official", "family": "A", "given": ["B", "X", "C"], "_given": [None, None, {"id": "g"}]}, {"family": "D"}]},
        ),
        (
            [operation("move", "Patient.name[0].given", source=1, destination=0)],
            {"name": [{"use": "official", "family": "A", "given": ["C", "B"], "_given": [{"id": "g"}, None]}, {"family": "D"}]},
        ),
        ([operation("insert", "Patient.link", index=0, value={"part": [{"name": "type", "valueCode": "seealso"}]})], {"link": [{"type": "seealso"}]}),
        (
            [operation("add", "Patient.name[1]", name="given", value={"valueString": "E"})],
            {"name": [PATIENT["name"][0], {"family": "D", "given": ["E"]}]},
        ),  # type: ignore[index]
        (
            [operation("add", "Patient.name.where(use = 'official')", name="period", value={"valuePeriod": {"start": "2020"}})],
            {"name": [{**PATIENT["name"][0], "period": {"start": "2020"}}, {"family": "D"}]},  # type: ignore[index]
        ),
        ([operation("add", "Patient", name="multipleBirth", value={"valueInteger": 2})], {"multipleBirthInteger": 2}),
        (
            [operation("add", "Patient.birthDate", name="extension", value={"valueExtension": {"url": "u", "valueString": "x"}})],
            {"_birthDate": {"id": "b", "extension": [{"url": "u", "valueString": "x"}]}},
        ),
        (
            [operation("add", "Patient.active", name="extension", value={"valueExtension": {"url": "u", "valueString": "x"}})],
            {"_active": {"extension": [{"url": "u", "valueString": "x"}]}},
        ),
        (
            [
                operation(
                    "add",
                    "Patient",
                    name="contact",
                    value={
                        "part": [{"name": "name", "valueHumanName": {"text": "T"}}, {"name": "relationship", "valueCodeableConcept": {"text": "r"}}]
                    },
                )
            ],
            {"contact": [{"name": {"family": "K"}}, {"name": {"text": "T"}, "relationship": [{"text": "r"}]}]},
        ),
        (
            [operation("add", "Patient", name="contained", value={"resource": {"resourceType": "Basic", "id": "c"}})],
            {"contained": [{"resourceType": "Basic", "id": "c"}]},
        ),
    ],
)
def test_operations(operations: list[dict[str, Any]], changed: dict[str, Any]) -> None:
    before = json.dumps(PATIENT)
    expected = {name: value for name, value in {**PATIENT, **changed}.items() if value is not None}
    assert fhirpath_patch(PATIENT, patch(*operations), SPEC) == expected
    assert json.dumps(PATIENT) == before


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"resourceType": "Patient"}, 400),
        ({"resourceType": "Parameters", "parameter": [{"name": "x"}]}, 400),
        (patch(operation("upsert", "Patient")), 400),
        (patch(operation("replace", "Patient.active")), 400),
        (patch(operation("replace", "Patient.active", value={})), 400),
        (patch(operation("replace", "Patient..active", value={"valueBoolean": True})), 400),
        (patch(operation("replace", "Patient.hobby", value={"valueString": "x"})), 400),
        (patch(operation("replace", "Patient.name.family", value={"valueString": "x"})), 422),
        (patch(operation("replace", "Patient.gender", value={"valueCode": "male"})), 422),
        (patch(operation("replace", "Patient.active.not()", value={"valueBoolean": True})), 422),
        (patch(operation("replace", "Patient", value={"valueString": "x"})), 422),
        (patch(operation("delete", "Patient.name")), 422),
        (patch(operation("delete", "Patient")), 422),
        (patch(operation("add", "Patient", name="active", value={"valueBoolean": True})), 422),
        (patch(operation("add", "Patient", name="deceased", value={"valueDateTime": "2020"})), 422),
        (patch(operation("add", "Patient", name="multipleBirth", value={"valueString": "2"})), 422),
        (patch(operation("add", "Patient", name="hobby", value={"valueString": "2"})), 422),
        (patch(operation("add", "Patient.link", name="type", value={"valueCode": "x"})), 422),
        (patch(operation("insert", "Patient.name", index=3, value={"valueHumanName": {}})), 422),
        (patch(operation("insert", "Patient.name", index=-1, value={"valueHumanName": {}})), 400),
        (patch(operation("insert", "Patient.active", index=0, value={"valueBoolean": True})), 422),
        (patch(operation("insert", "Patient.name.family", index=0, value={"valueString": "x"})), 422),
        (patch(operation("move", "Patient.name", source=0, destination=2)), 422),
        (patch(operation("move", "Patient.name[1]", source=0, destination=0)), 422),
        (patch(operation("replace", "Patient.id", value={"valueId": "2"})), 422),
        (patch(operation("delete", "(" * 500 + "Patient" + ")" * 500)), 400),
        (patch(*[operation("delete", "Patient.gender")] * 3000), 413),
    ],
)
def test_what_cannot_be_applied_is_refused_and_changes_nothing(body: dict[str, Any], status: int) -> None:
    before = json.dumps(PATIENT)
    with pytest.raises(Refusal) as caught:
        fhirpath_patch(PATIENT, body, SPEC)
    assert caught.value.status == status, str(caught.value)
    assert json.dumps(PATIENT) == before


def test_a_refusal_names_the_operation_but_no_quoted_text() -> None:
    with pytest.raises(Refusal, match="operation 1 ") as caught:
        fhirpath_patch(
            PATIENT,
            patch(
                operation("delete", "Patient.gender"), operation("replace", "Patient.name.where(family = 'Chalmers')", value={"valueHumanName": {}})
            ),
            SPEC,
        )
    assert "Chalmers" not in str(caught.value)


def test_nesting_by_patches_is_bounded() -> None:
    value = {"valueExtension": {"url": "u"}}
    operations = [operation("add", "Patient" + ".extension[0]" * level, name="extension", value=value) for level in range(90)]
    with pytest.raises(Refusal) as caught:
        fhirpath_patch(PATIENT, patch(*operations), SPEC)
    assert caught.value.status == 413
