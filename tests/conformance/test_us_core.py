"""US Core 6.1.0: every example of the package judged, and own positive and negative cases on its profiles."""

import copy
import os
from decimal import Decimal
from pathlib import Path

import pytest

from conformance.codec import decode_value
from conformance.outcome import Issue
from conformance.package import package_files
from conformance.spec import load_spec
from conformance.validate import validate

SUITES = os.environ.get("FHIR_SUITES")
PACKAGE = Path(SUITES or ".").resolve().parent / "packages" / "hl7.fhir.us.core-6.1.0.tgz"
pytestmark = pytest.mark.skipif(not PACKAGE.is_file(), reason="the folder of FHIR_SUITES has no neighbour packages/ with US Core 6.1.0")

US = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
THO = "http://terminology.hl7.org/CodeSystem/"
UCUM = "http://unitsofmeasure.org"
LOINC = "http://loinc.org"
OMB = "urn:oid:2.16.840.1.113883.6.238"
GONE = object()
# examples of the guide that break R4 or the guide itself
ARGUED = {
    "Bundle-66c8856b-ba11-4876-8aa8-467aad8c11a2": "fullUrl ends in Endpoint/Endpoint-71, the id is 71",
    "Bundle-docref-example-2": "fullUrl ends in DocumentReference/discharge-summary789, the id is discharge",
}


@pytest.fixture(scope="module")
def spec():
    return load_spec([PACKAGE])


def concept(system, code):
    return {"coding": [{"system": system, "code": code}]}


def quantity(value, code):
    return {"value": value, "unit": code, "system": UCUM, "code": code}


def race(**parts):
    rows = {"ombCategory": {"valueCoding": {"system": OMB, "code": "2106-3"}}, "text": {"valueString": "White"}}
    rows |= parts
    return {"url": US + "race", "extension": [{"url": url, **value} for url, value in rows.items() if value is not None]}


PATIENT = {
    "resourceType": "Patient",
    "identifier": [{"system": "urn:x:mrn", "value": "1"}],
    "name": [{"family": "Low", "given": ["Ann"]}],
    "gender": "female",
    "telecom": [{"system": "phone", "value": "1", "use": "home"}],
    "extension": [race()],
}
VITAL = {
    "resourceType": "Observation",
    "status": "final",
    "category": [concept(THO + "observation-category", "vital-signs")],
    "subject": {"reference": "Patient/1"},
    "effectiveDateTime": "2020-01-01T10:00:00Z",
}
PRESSURE = {
    **VITAL,
    "code": concept(LOINC, "85354-9"),
    "component": [
        {"code": concept(LOINC, "8480-6"), "valueQuantity": quantity(120, "mm[Hg]")},
        {"code": concept(LOINC, "8462-4"), "valueQuantity": quantity(80, "mm[Hg]")},
    ],
}
WEIGHT = {**VITAL, "code": concept(LOINC, "29463-7"), "valueQuantity": quantity(Decimal("70.5"), "kg")}
LAB = {
    "resourceType": "Observation",
    "status": "final",
    "category": [concept(THO + "observation-category", "laboratory")],
    "code": concept(LOINC, "718-7"),
    "subject": {"reference": "Patient/1"},
    "effectiveDateTime": "2020-01-01T10:00:00Z",
    "valueQuantity": quantity(Decimal("13.1"), "g/dL"),
}
PROBLEM = {
    "resourceType": "Condition",
    "clinicalStatus": concept(THO + "condition-clinical", "active"),
    "verificationStatus": concept(THO + "condition-ver-status", "confirmed"),
    "category": [concept(THO + "condition-category", "problem-list-item")],
    "code": {"text": "asthma"},
    "subject": {"reference": "Patient/1"},
}
PRESCRIPTION = {
    "resourceType": "MedicationRequest",
    "status": "active",
    "intent": "order",
    "medicationCodeableConcept": {"text": "aspirin"},
    "subject": {"reference": "Patient/1"},
    "authoredOn": "2020-01-01",
    "requester": {"reference": "Practitioner/1"},
}
BASES = {
    "patient": PATIENT,
    "blood-pressure": PRESSURE,
    "body-weight": WEIGHT,
    "vital-signs": WEIGHT,
    "observation-lab": LAB,
    "condition-problems-health-concerns": PROBLEM,
    "medicationrequest": PRESCRIPTION,
}
ABSENT = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]}

# (profile, path, value or GONE): still conforms
GOOD = [
    ("patient", "birthDate", "1970-01-01"),
    ("patient", "extension", GONE),
    ("patient", "name.0.given", GONE),
    ("patient", "name.0.family", GONE),
    ("patient", "name.0", ABSENT),
    ("patient", "telecom", GONE),
    ("patient", "extension.0", race(detailed={"valueCoding": {"system": OMB, "code": "2108-9"}})),
    ("patient", "extension", [{"url": US + "birthsex", "valueCode": "F"}]),
    ("patient", "extension", [{"url": US + "sex", "valueCode": "248152002"}, {"url": "http://example.org/own", "valueBoolean": True}]),
    ("patient", "communication", [{"language": concept("urn:ietf:bcp:47", "en")}]),
    ("patient", "address", [{"state": "Vic", "city": "X"}]),
    ("blood-pressure", "dataAbsentReason", {"text": "x"}),
    ("blood-pressure", "category", [concept(THO + "observation-category", "vital-signs"), {"text": "other"}]),
    ("blood-pressure", "component.0.code.text", "systolic"),
    ("blood-pressure", "effectivePeriod+effectiveDateTime", ({"start": "2020"}, GONE)),
    ("body-weight", "valueQuantity.code", "[lb_av]"),
    ("body-weight", "valueQuantity.value", Decimal("70.50")),
    ("body-weight", "valueQuantity+dataAbsentReason", (GONE, {"text": "refused"})),
    ("vital-signs", "performer", [{"reference": "Practitioner/1"}]),
    ("observation-lab", "valueCodeableConcept+valueQuantity", ({"text": "positive"}, GONE)),
    ("observation-lab", "effectiveDateTime", GONE),
    ("observation-lab", "category", [{"text": "x"}, concept(THO + "observation-category", "laboratory")]),
    ("observation-lab", "specimen", {"reference": "Specimen/1"}),
    ("condition-problems-health-concerns", "category.0", concept("http://hl7.org/fhir/us/core/CodeSystem/condition-category", "health-concern")),
    ("condition-problems-health-concerns", "onsetDateTime", "2019"),
    ("condition-problems-health-concerns", "clinicalStatus", GONE),
    ("medicationrequest", "medicationReference+medicationCodeableConcept", ({"reference": "Medication/1"}, GONE)),
    ("medicationrequest", "category", [concept(THO + "medicationrequest-category", "outpatient")]),
    ("medicationrequest", "reportedBoolean", True),
    ("medicationrequest", "dosageInstruction", [{"text": "daily"}]),
]
# (profile, path, value or GONE, where the error stands)
BAD = [
    ("patient", "identifier", GONE, "Patient.identifier"),
    ("patient", "identifier.0.system", GONE, "Patient.identifier[0].system"),
    ("patient", "identifier.0.value", GONE, "Patient.identifier[0].value"),
    ("patient", "name", GONE, "Patient.name"),
    ("patient", "name.0", {"text": "Ann"}, "Patient.name[0]"),
    ("patient", "gender", GONE, "Patient.gender"),
    ("patient", "telecom.0.value", GONE, "Patient.telecom[0].value"),
    ("patient", "telecom.0.system", GONE, "Patient.telecom[0].system"),
    ("patient", "extension", [race(), race()], "Patient.extension"),
    ("patient", "extension.0", race(text=None), "Patient.extension[0].extension"),
    ("patient", "extension.0", {"url": US + "race", "valueString": "White"}, "Patient.extension[0].extension"),
    ("patient", "extension.0", race(ombCategory={"valueString": "White"}), "Patient.extension[0].extension[0].value"),
    ("patient", "extension", [{"url": US + "birthsex", "valueString": "F"}], "Patient.extension[0].value"),
    ("blood-pressure", "code", concept(LOINC, "8480-6"), "Observation.code"),
    ("blood-pressure", "component", [PRESSURE["component"][0]], "Observation.component"),
    ("blood-pressure", "component.1.code", concept(LOINC, "8867-4"), "Observation.component"),
    ("blood-pressure", "component.0.valueQuantity.code", "mmHg", "Observation.component[0].value.code"),
    ("blood-pressure", "component.0.valueQuantity.system", "urn:x:y", "Observation.component[0].value.system"),
    ("blood-pressure", "component.0.valueQuantity.unit", GONE, "Observation.component[0].value.unit"),
    ("blood-pressure", "category", [concept(THO + "observation-category", "laboratory")], "Observation.category"),
    ("blood-pressure", "subject", GONE, "Observation.subject"),
    ("blood-pressure", "effectiveDateTime", GONE, "Observation.effective"),
    ("body-weight", "valueQuantity.code", "ml", "Observation.value.code"),
    ("body-weight", "valueQuantity.value", GONE, "Observation.value.value"),
    ("body-weight", "valueQuantity", GONE, "Observation"),
    ("vital-signs", "category", GONE, "Observation.category"),
    ("vital-signs", "effectiveInstant+effectiveDateTime", ("2020-01-01T10:00:00Z", GONE), "Observation.effective"),
    ("observation-lab", "category", [concept(THO + "observation-category", "vital-signs")], "Observation.category"),
    ("observation-lab", "subject", {"reference": "Location/1"}, "Observation.subject"),
    ("observation-lab", "subject", GONE, "Observation.subject"),
    ("condition-problems-health-concerns", "category", GONE, "Condition.category"),
    ("condition-problems-health-concerns", "category.0", {"text": "x"}, "Condition.category"),
    ("condition-problems-health-concerns", "code", GONE, "Condition.code"),
    ("condition-problems-health-concerns", "subject", {"reference": "Group/1"}, "Condition.subject"),
    ("medicationrequest", "subject", {"reference": "Group/1"}, "MedicationRequest.subject"),
    ("medicationrequest", "requester", GONE, "MedicationRequest"),
    ("medicationrequest", "intent", GONE, "MedicationRequest.intent"),
]


def changed(name, path, value):
    res = copy.deepcopy(BASES[name])
    names = path.split("+")
    for one, each in zip(names, value if len(names) > 1 else [value], strict=True):
        *steps, last = one.split(".")
        held = res
        for step in steps:
            held = held[int(step)] if step.isdigit() else held[step]
        if each is GONE:
            held.pop(last)
        else:
            held[int(last) if last.isdigit() else last] = each
    return res


def errors(spec, name, res):
    return [issue for issue in validate(spec, res, profiles=[US + name]) if issue.severity == "error"]


@pytest.mark.parametrize("name", sorted(BASES))
def test_the_bases_conform(spec, name):
    assert errors(spec, name, BASES[name]) == []


@pytest.mark.parametrize(("name", "path", "value"), GOOD)
def test_what_the_profile_allows_is_let_through(spec, name, path, value):
    assert errors(spec, name, changed(name, path, value)) == []


@pytest.mark.parametrize(("name", "path", "value", "place"), BAD)
def test_what_the_profile_forbids_is_found_where_it_is(spec, name, path, value, place):
    found = errors(spec, name, changed(name, path, value))
    assert place in [issue.expression for issue in found]


def test_a_value_set_that_only_a_terminology_service_knows_is_asked_of_it(spec):
    asked = []

    def check_code(system, code, display, valueset, strength):
        asked.append((system, code, valueset, strength))
        return [Issue("error", "code-invalid", "not in the value set")]

    issues = validate(spec, PATIENT, profiles=[US + "patient"], check_code=check_code)
    assert (OMB, "2106-3", "http://hl7.org/fhir/us/core/ValueSet/omb-race-category", "required") in asked
    assert "Patient.extension[0].extension[0].value" in {issue.expression for issue in issues}


def test_every_example_of_the_guide_is_judged():
    spec = load_spec([PACKAGE])
    wrong, count = [], 0
    for name, data in package_files(PACKAGE):
        res = decode_value(data) if name.startswith("example/") and name.endswith(".json") else None
        if isinstance(res, dict) and "resourceType" in res:
            count += 1
            found = [(issue.expression, issue.text) for issue in validate(spec, res) if issue.severity == "error"]
            stem = name.removeprefix("example/").removesuffix(".json")
            if bool(found) != (stem in ARGUED):
                wrong.append((name, found[:2]))
    assert count >= 180
    assert wrong == []


def test_claims_in_meta_profile_are_enforced_warned_of_or_left_alone(spec):
    res = {**PATIENT, "meta": {"profile": [US + "patient"]}}
    del res["gender"]
    kinds = {
        claims: {issue.severity for issue in validate(spec, res, claims=claims) if "profile" in issue.text} for claims in ("enforce", "warn", "off")
    }
    assert kinds == {"enforce": {"error"}, "warn": {"warning"}, "off": set()}


def test_must_support_is_told_only_when_asked_for(spec):
    told = [issue for issue in validate(spec, PATIENT, profiles=[US + "patient"], support=True) if "must-support" in issue.text]
    assert {issue.severity for issue in told} == {"information"}
    assert "Patient.birthDate" in {issue.expression for issue in told}
    assert not any("must-support" in issue.text for issue in validate(spec, PATIENT, profiles=[US + "patient"]))
