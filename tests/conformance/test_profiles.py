"""Profiles made for these tests: each kind of slicing, values, differentials, and what cannot be used."""

import json

import pytest

from conformance.spec import load_spec
from conformance.validate import validate

HOME = "http://example.org/sd/"
FHIR = "http://hl7.org/fhir/StructureDefinition/"
LOINC = "http://loinc.org"


@pytest.fixture
def install(tmp_path):
    """`install(StructureDefinitions ...) -> Spec` with them."""

    def make(*structures):
        (tmp_path / "package.json").write_text(json.dumps({"name": "t", "version": "1.0.0", "fhirVersions": ["4.0.1"]}))
        for at, each in enumerate(structures):
            (tmp_path / f"{at}.json").write_text(json.dumps(each))
        return load_spec().with_package(tmp_path)

    return make


def profile(rtype, *elements, name="t", base=None, **more):
    return {
        "resourceType": "StructureDefinition",
        "url": HOME + name,
        "name": name.capitalize(),
        "status": "active",
        "kind": "resource" if rtype[0].isupper() and rtype != "Extension" else "complex-type",
        "abstract": False,
        "type": rtype,
        "baseDefinition": base or FHIR + rtype,
        "derivation": "constraint",
        "differential": {
            "element": [{"id": each["id"], "path": ".".join(part.split(":")[0] for part in each["id"].split(".")), **each} for each in elements]
        },
        **more,
    }


def element(path, **facts):
    return {"id": path, **facts}


def slicing(kind, path, rules="open", **more):
    return {"slicing": {"discriminator": [{"type": kind, "path": path}], "rules": rules, **more}}


def errors(spec, res, name="t"):
    return {issue.expression for issue in validate(spec, res, profiles=[HOME + name]) if issue.severity == "error"}


PATIENT = {"resourceType": "Patient", "name": [{"family": "x"}]}


def test_cardinality_of_a_differential(install):
    spec = install(profile("Patient", element("Patient.birthDate", min=1), element("Patient.name", max="1"), element("Patient.photo", max="0")))
    assert errors(spec, PATIENT) == {"Patient.birthDate"}
    assert errors(spec, {**PATIENT, "birthDate": "2020", "name": [{"text": "a"}, {"text": "b"}], "photo": [{"title": "x"}]}) == {
        "Patient.name",
        "Patient.photo",
    }


def test_a_differential_on_a_differential(install):
    spec = install(
        profile("Patient", element("Patient.birthDate", min=1), name="first"),
        profile("Patient", element("Patient.gender", min=1), base=HOME + "first"),
    )
    assert errors(spec, PATIENT) == {"Patient.birthDate", "Patient.gender"}


def test_fixed_and_pattern_values(install):
    spec = install(
        profile(
            "Observation",
            element("Observation.status", fixedCode="final"),
            element("Observation.code", patternCodeableConcept={"coding": [{"system": LOINC, "code": "1"}]}),
            element("Observation.valueQuantity.value", min=1),
        )
    )
    res = {"resourceType": "Observation", "status": "final", "code": {"coding": [{"code": "2"}, {"system": LOINC, "code": "1", "display": "x"}]}}
    assert errors(spec, res) == set()
    assert errors(spec, {**res, "valueQuantity": {"unit": "x"}}) == {"Observation.value.value"}
    assert errors(spec, {**res, "status": "amended", "code": {"text": "x"}}) == {"Observation.status", "Observation.code"}


def test_slicing_by_value_with_limits_and_closed_rules(install):
    spec = install(
        profile(
            "Patient",
            element("Patient.identifier", min=1, **slicing("value", "system", "closed")),
            element("Patient.identifier:mrn", sliceName="mrn", min=1, max="1"),
            element("Patient.identifier:mrn.system", min=1, fixedUri="urn:x:mrn"),
            element("Patient.identifier:mrn.value", min=1),
            element("Patient.identifier:ssn", sliceName="ssn", max="1"),
            element("Patient.identifier:ssn.system", min=1, fixedUri="urn:x:ssn"),
        )
    )

    def with_identifiers(*rows):
        return {**PATIENT, "identifier": [{"system": system, **({"value": value} if value else {})} for system, value in rows]}

    assert errors(spec, with_identifiers(("urn:x:mrn", "1"), ("urn:x:ssn", ""))) == set()
    assert errors(spec, with_identifiers(("urn:x:ssn", "1"))) == {"Patient.identifier"}
    assert errors(spec, with_identifiers(("urn:x:mrn", "1"), ("urn:x:mrn", "2"))) == {"Patient.identifier"}
    assert errors(spec, with_identifiers(("urn:x:mrn", ""))) == {"Patient.identifier[0].value"}
    assert errors(spec, with_identifiers(("urn:x:mrn", "1"), ("urn:x:other", "2"))) == {"Patient.identifier[1]"}


def test_slicing_by_pattern_of_the_element_itself_in_order(install):
    def coded(code):
        return {"patternCodeableConcept": {"coding": [{"system": "urn:x:c", "code": code}]}}

    spec = install(
        profile(
            "Observation",
            element("Observation.category", **slicing("pattern", "$this", ordered=True)),
            element("Observation.category:a", sliceName="a", min=1, **coded("a")),
            element("Observation.category:b", sliceName="b", **coded("b")),
        )
    )
    res = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}
    a, b = ({"coding": [{"system": "urn:x:c", "code": code}]} for code in "ab")
    assert errors(spec, {**res, "category": [a, b, {"text": "other"}]}) == set()
    assert errors(spec, {**res, "category": [b, a]}) == {"Observation.category[1]"}
    assert errors(spec, {**res, "category": [b]}) == {"Observation.category"}


def test_slicing_by_type_of_a_choice(install):
    spec = install(
        profile(
            "Observation",
            element("Observation.value[x]", **slicing("type", "$this", "closed")),
            element("Observation.value[x]:valueQuantity", sliceName="valueQuantity", type=[{"code": "Quantity"}]),
            element("Observation.value[x]:valueQuantity.unit", min=1),
        )
    )
    res = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}
    assert errors(spec, {**res, "valueQuantity": {"value": 1, "unit": "g"}}) == set()
    assert errors(spec, {**res, "valueQuantity": {"value": 1}}) == {"Observation.value.unit"}
    assert errors(spec, {**res, "valueString": "x"}) == {"Observation.value"}


def test_slicing_by_existence(install):
    spec = install(
        profile(
            "Patient",
            element("Patient.name", **slicing("exists", "period")),
            element("Patient.name:old", sliceName="old", max="1"),
            element("Patient.name:old.period", min=1),
            element("Patient.name:now", sliceName="now", min=1),
            element("Patient.name:now.period", max="0"),
        )
    )
    old, now = {"text": "x", "period": {"end": "2000"}}, {"text": "y"}
    assert errors(spec, {**PATIENT, "name": [old, now]}) == set()
    assert errors(spec, {**PATIENT, "name": [old]}) == {"Patient.name"}
    assert errors(spec, {**PATIENT, "name": [old, old, now]}) == {"Patient.name"}


def test_slicing_by_profile_and_type_of_what_is_referred_to(install):
    group = profile("Observation", element("Observation.status", fixedCode="final"), name="final")
    spec = install(
        group,
        profile(
            "DiagnosticReport",
            element("DiagnosticReport.result", **slicing("profile", "resolve()")),
            element("DiagnosticReport.result:final", sliceName="final", min=1, type=[{"code": "Reference", "targetProfile": [HOME + "final"]}]),
        ),
        profile(
            "DiagnosticReport",
            element("DiagnosticReport.subject", **slicing("type", "resolve()", "closed")),
            element("DiagnosticReport.subject:patient", sliceName="patient", type=[{"code": "Reference", "targetProfile": [FHIR + "Patient"]}]),
            name="typed",
        ),
    )

    def report(status):
        contained = {"resourceType": "Observation", "id": "o", "status": status, "code": {"text": "x"}}
        return {
            "resourceType": "DiagnosticReport",
            "status": "final",
            "code": {"text": "x"},
            "contained": [contained],
            "result": [{"reference": "#o"}],
        }

    assert errors(spec, report("final")) == set()
    assert errors(spec, report("amended")) == {"DiagnosticReport.result"}
    unresolved = {**report("final"), "contained": [], "result": [{"reference": "Observation/1"}]}
    del unresolved["contained"]
    told = [issue for issue in validate(spec, unresolved, profiles=[HOME + "t"]) if "slice final" in issue.text]
    assert [(issue.severity, issue.code) for issue in told] == [("warning", "incomplete")]
    fetched = {"Observation/1": report("final")["contained"][0]}
    assert [issue for issue in validate(spec, unresolved, profiles=[HOME + "t"], resolve=fetched.get) if issue.severity == "error"] == []
    assert errors(spec, {**report("final"), "subject": {"reference": "Patient/1"}}, "typed") == set()
    assert errors(spec, {**report("final"), "subject": {"reference": "Group/1"}}, "typed") == {"DiagnosticReport.subject"}


def test_slices_of_slices(install):
    def coded(code):
        return {"patternCoding": {"system": "urn:x:c", "code": code}}

    spec = install(
        profile(
            "Observation",
            element("Observation.code.coding", **slicing("pattern", "$this")),
            element(
                "Observation.code.coding:a",
                sliceName="a",
                min=1,
                patternCoding={"system": "urn:x:c"},
                slicing={"discriminator": [{"type": "pattern", "path": "$this"}], "rules": "open"},
            ),
            element("Observation.code.coding:a/one", sliceName="a/one", min=1, max="1", **coded("1")),
        )
    )
    res = {"resourceType": "Observation", "status": "final"}
    assert errors(spec, {**res, "code": {"coding": [{"system": "urn:x:c", "code": "1"}]}}) == set()
    assert errors(spec, {**res, "code": {"coding": [{"system": "urn:x:c", "code": "2"}]}}) == {"Observation.code.coding"}


def test_constraints_and_limits(install):
    spec = install(
        profile(
            "Patient",
            element("Patient", constraint=[{"key": "t-1", "severity": "error", "human": "a name or none", "expression": "name.family.exists()"}]),
            element("Patient.name.family", maxLength=3),
            element("Patient.multipleBirthInteger", minValueInteger=1, maxValueInteger=3),
        )
    )
    assert errors(spec, {**PATIENT, "multipleBirthInteger": 2}) == set()
    assert errors(spec, {**PATIENT, "name": [{"family": "long"}], "multipleBirthInteger": 4}) == {"Patient.name[0].family", "Patient.multipleBirth"}
    assert errors(spec, {**PATIENT, "name": [{"text": "x"}]}) == {"Patient"}


def test_an_extension_by_definition(install):
    definition = profile(
        "Extension",
        element("Extension.extension", max="0"),
        element("Extension.url", fixedUri=HOME + "eye"),
        element(
            "Extension.value[x]",
            min=1,
            type=[{"code": "code"}],
            binding={"strength": "required", "valueSet": "http://hl7.org/fhir/ValueSet/name-use"},
        ),
        name="eye",
        context=[{"type": "element", "expression": "Patient"}],
    )
    spec = install(definition, profile("Patient", element("Patient.extension", **slicing("value", "url")),
        element("Patient.extension:eye", sliceName="eye", min=1, max="1", type=[{"code": "Extension", "profile": [HOME + "eye"]}])))  # fmt: skip

    def extended(**value):
        return {**PATIENT, "extension": [{"url": HOME + "eye", **value}]}

    assert errors(spec, extended(valueCode="usual")) == set()
    assert errors(spec, extended(valueCode="blue")) == {"Patient.extension[0].value"}
    assert errors(spec, extended(valueString="usual")) == {"Patient.extension[0].value"}
    assert errors(spec, PATIENT) == {"Patient.extension"}
    elsewhere = {"resourceType": "Basic", "code": {"text": "x"}, "extension": [{"url": HOME + "eye", "valueCode": "usual"}]}
    assert [issue.code for issue in validate(spec, elsewhere) if issue.severity == "error"] == ["extension"]


def test_what_cannot_be_used_is_said_clearly(install):
    spec = install(
        profile("Patient", base="http://example.org/nowhere", name="orphan"),
        profile("Patient", base=HOME + "circle", name="circle"),
        profile("Patient", name="t"),
    )
    for name, text in (("orphan", "not known"), ("circle", "too many bases"), ("missing", "not known")):
        found = [issue for issue in validate(spec, PATIENT, profiles=[HOME + name]) if issue.severity == "error"]
        assert len(found) == 1, name
        assert text in found[0].text
    assert errors(spec, {"resourceType": "Group", "type": "person", "actual": True}) == {"Group"}
