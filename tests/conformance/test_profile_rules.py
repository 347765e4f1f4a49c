"""Rules of profiling that are easily forgotten, each with what keeps and what breaks it. https://hl7.org/fhir/R4/profiling.html"""

from decimal import Decimal
from typing import Any

import pytest

from conformance.codec import encode
from conformance.gate.looks import looks_through
from conformance.package import Definition, Package
from conformance.spec import Spec, load_spec
from conformance.validate import validate

HOME, CORE = "http://example.org/fhir/StructureDefinition/", "http://hl7.org/fhir/StructureDefinition/"
Json = dict[str, Any]


def profile(rtype: str, *elements: Json, name: str = "t", base: str = "") -> Json:
    rows = [{"id": each["path"] + (f":{each['sliceName']}" if "sliceName" in each else ""), **each} for each in ({"path": rtype}, *elements)]
    kind = "complex-type" if rtype == "Extension" else "resource"
    head = {"resourceType": "StructureDefinition", "url": HOME + name, "name": name, "status": "active", "kind": kind, "abstract": False}
    return head | {"type": rtype, "baseDefinition": base or CORE + rtype, "derivation": "constraint", "differential": {"element": rows}}


def spec_of(*profiles: Json) -> Spec:
    index = {each["url"]: (Definition("StructureDefinition", each["url"], "", encode(each)),) for each in profiles}
    return Spec(load_spec().tables, (Package("p", "1", "p", "", {}, index),))


def errors(profiles: tuple[Json, ...], res: Json, **more: Any) -> list[str]:
    found = validate(spec_of(*profiles), res, profiles=[HOME + "t"], **more)
    return [issue.expression for issue in found if issue.severity == "error"]


def warned(profiles: tuple[Json, ...], res: Json) -> list[str]:
    return [
        issue.text for issue in validate(spec_of(*profiles), res, profiles=[HOME + "t"]) if issue.severity == "warning" and issue.code == "incomplete"
    ]


def patient(**more: Any) -> Json:
    return {"resourceType": "Patient", **more}


def observation(**more: Any) -> Json:
    return {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, **more}


def identified(*systems: str) -> Json:
    return patient(identifier=[{"system": f"http://{each}", "value": "1"} for each in systems])


def by_system(rules: str, *names: str, ordered: bool = False) -> Json:
    slicing = {"discriminator": [{"type": "value", "path": "system"}], "rules": rules, "ordered": ordered}
    rows: list[Json] = [{"path": "Patient.identifier", "slicing": slicing}]
    for name in names:
        rows.append({"path": "Patient.identifier", "sliceName": name})
        rows.append({"id": f"Patient.identifier:{name}.system", "path": "Patient.identifier.system", "min": 1, "fixedUri": f"http://{name}"})
    return profile("Patient", *rows)


@pytest.mark.parametrize(
    ("rules", "ordered", "systems", "kept"),
    [
        ("open", False, "bca", True),
        ("closed", False, "ba", True),
        ("closed", False, "ac", False),
        ("openAtEnd", False, "bac", True),
        ("openAtEnd", False, "acb", False),
        ("openAtEnd", False, "ca", False),
        ("openAtEnd", False, "c", True),
        ("open", True, "acb", True),
        ("open", True, "ba", False),
    ],
)
def test_slicing_rules_and_order(rules: str, ordered: bool, systems: str, kept: bool) -> None:
    assert (not errors((by_system(rules, "a", "b", ordered=ordered),), identified(*systems))) == kept


NICK = profile(
    "Extension",
    {"path": "Extension.url", "fixedUri": HOME + "nick"},
    {"path": "Extension.value[x]", "min": 1, "type": [{"code": "string"}]},
    name="nick",
)
NICK["context"] = [{"type": "element", "expression": "Patient"}]
NICKED = profile(
    "Patient", {"path": "Patient.extension", "sliceName": "nick", "min": 1, "max": "1", "type": [{"code": "Extension", "profile": [HOME + "nick"]}]}
)


@pytest.mark.parametrize(("count", "kept"), [(0, False), (1, True), (2, False)])
def test_extensions_are_sliced_by_url_though_a_differential_does_not_say_so(count: int, kept: bool) -> None:
    extensions = [{"url": HOME + "nick", "valueString": "x"}] * count
    res = patient(extension=[{"url": "http://example.org/other", "valueString": "y"}, *extensions])
    assert (not errors((NICKED, NICK), res)) == kept


LIMITS = [
    ("Patient.birthDate", {"minValueDate": "1900-01-01"}, patient(birthDate="1899-12-31"), False),
    ("Patient.birthDate", {"minValueDate": "1900-06-01"}, patient(birthDate="1900"), True),
    ("Patient.birthDate", {"maxValueDate": "2000-06"}, patient(birthDate="2000-06-30"), True),
    ("Patient.birthDate", {"maxValueDate": "2000-06"}, patient(birthDate="2000-07-01"), False),
    (
        "Observation.effectiveDateTime",
        {"minValueDateTime": "2020-01-01T00:00:00Z"},
        observation(effectiveDateTime="2020-01-01T00:30:00+02:00"),
        False,
    ),
    ("Observation.effectiveDateTime", {"minValueDateTime": "2020-01-01T00:00:00Z"}, observation(effectiveDateTime="2019-12-31T23:30:00-02:00"), True),
    ("Observation.valueInteger", {"minValueInteger": 5}, observation(valueInteger=4), False),
    ("Observation.valueInteger", {"maxValueInteger": 5}, observation(valueInteger=5), True),
    ("Observation.valueTime", {"maxValueTime": "12:00:00"}, observation(valueTime="12:00:01"), False),
    ("Observation.valueQuantity", {"minValueQuantity": {"value": Decimal("5.0")}}, observation(valueQuantity={"value": 4}), False),
    ("Observation.valueQuantity", {"maxValueQuantity": {"value": 5, "unit": "kg"}}, observation(valueQuantity={"value": 6, "unit": "kg"}), False),
    ("Observation.valueQuantity", {"maxValueQuantity": {"value": 5, "unit": "kg"}}, observation(valueQuantity={"value": 600, "unit": "g"}), True),
]


@pytest.mark.parametrize(("path", "limit", "res", "kept"), LIMITS)
def test_limits_of_dates_numbers_and_quantities(path: str, limit: Json, res: Json, kept: bool) -> None:
    assert (not errors((profile(path.partition(".")[0], {"path": path, **limit}),), res)) == kept


@pytest.mark.parametrize(
    ("reference", "kept"),
    [
        ({"reference": "Organization/1"}, True),
        ({"reference": "Practitioner/1"}, False),
        ({"reference": "#o"}, True),
        ({"reference": "#p"}, False),
        ({"type": "Practitioner", "identifier": {"value": "1"}}, False),
        ({"type": "Organization", "identifier": {"value": "1"}}, True),
        ({"reference": "http://example.org/somewhere", "type": "Practitioner"}, False),
        ({"display": "somebody"}, True),
    ],
)
def test_targets_of_a_profile_hold_for_contained_and_logical_references(reference: Json, kept: bool) -> None:
    narrowed = {"path": "Patient.generalPractitioner", "type": [{"code": "Reference", "targetProfile": [f"{CORE}Organization"]}]}
    inside = {"#o": {"resourceType": "Organization", "id": "o", "name": "x"}, "#p": {"resourceType": "Practitioner", "id": "p"}}
    held = [inside[reference["reference"]]] if reference.get("reference") in inside else None
    res = patient(generalPractitioner=[reference], **({"contained": held} if held else {}))
    assert (not errors((profile("Patient", narrowed),), res)) == kept


def ruled(rtype: str, expression: str) -> Json:
    return profile(rtype, {"path": rtype, "constraint": [{"key": "x-1", "severity": "error", "human": "h", "expression": expression}]})


def test_constraints_resolve_references_by_what_the_caller_knows() -> None:
    subject = {"reference": "Patient/1"}
    born = (ruled("Observation", "subject.resolve().birthDate.exists()"),)
    assert not errors(born, observation(subject=subject), resolve=lambda _: patient(id="1", birthDate="2000"))
    assert errors(born, observation(subject=subject), resolve=lambda _: patient(id="1"))
    assert errors((ruled("Observation", "subject.resolve() is Group"),), observation(subject=subject), resolve=lambda _: patient(id="1"))


def test_a_constraint_on_what_cannot_be_resolved_is_told_apart_from_a_broken_one() -> None:
    born = (ruled("Observation", "subject.resolve().birthDate.exists()"),)
    res = observation(subject={"reference": "Patient/1"})
    assert not errors(born, res)
    assert any("without resolving" in text for text in warned(born, res))
    assert errors(born, observation())


def test_constraints_in_an_entry_resolve_within_the_bundle() -> None:
    claiming = observation(meta={"profile": [HOME + "t"]}, subject={"reference": "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0"})
    bundle = {"resourceType": "Bundle", "type": "collection"}
    for birth, kept in (({"birthDate": "2000"}, True), ({}, False)):
        entries = [{"fullUrl": claiming["subject"]["reference"], "resource": patient(**birth)}, {"fullUrl": "urn:oid:1.2.3", "resource": claiming}]
        found = validate(spec_of(ruled("Observation", "subject.resolve().birthDate.exists()")), {**bundle, "entry": entries})
        assert (not [issue for issue in found if issue.severity == "error"]) == kept


def test_constraints_may_ask_for_membership_and_profiles() -> None:
    married = (ruled("Patient", "maritalStatus.memberOf('http://hl7.org/fhir/ValueSet/marital-status')"),)
    system = "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus"
    assert not errors(married, patient(maritalStatus={"coding": [{"system": system, "code": "M"}]}))
    assert errors(married, patient(maritalStatus={"coding": [{"system": system, "code": "zzz"}]}))
    named = profile("Patient", {"path": "Patient.name", "min": 1}, name="named")
    either = (ruled("Patient", f"conformsTo('{HOME}named')"), named)
    assert not errors(either, patient(name=[{"text": "x"}]))
    assert errors(either, patient())


@pytest.mark.parametrize(
    "element",
    [{"path": "Patient.name", "max": "many"}, {"path": "Patient.name", "min": "1"}, {"path": None}, {"path": "Patient.name", "type": "HumanName"}],
)
def test_a_profile_that_does_not_conform_to_r4_is_refused_and_breaks_nothing(element: Json) -> None:
    broken = profile("Patient")
    broken["differential"]["element"].append(element)
    assert errors((broken,), patient(name=[{"text": "x"}]))


def test_a_profile_whose_base_is_not_known_or_goes_in_a_circle_is_refused_by_name() -> None:
    for profiles in ((profile("Patient", base=HOME + "none"),), (profile("Patient", base=HOME + "t"),)):
        found = validate(spec_of(*profiles), patient(meta={"profile": [HOME + "t"]}))
        assert any(issue.severity == "error" and HOME in issue.text for issue in found)


def test_only_profiles_that_ask_are_looked_through() -> None:
    through = ruled("Observation", "subject.resolve().exists()")
    upon = profile("Observation", name="upon", base=HOME + "t")
    plain = profile("Observation", name="plain")
    spec = spec_of(through, upon, plain)
    assert [looks_through(spec, HOME + name) for name in ("t", "upon", "plain", "unknown")] == [True, True, False, False]
