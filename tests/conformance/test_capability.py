"""The CapabilityStatement says what is enabled and is valid R4."""

import pytest

from conformance.capability import capability, terminology_capabilities
from conformance.spec import load_spec
from conformance.validate import checker

SPEC = load_spec()
ENABLED = {
    "base": "http://localhost/fhir",
    "name": "FHIR Exchange",
    "version": "0.1.0",
    "date": "2026-11-21",
    "formats": ["application/fhir+json", "application/fhir+xml"],
    "patch_formats": ["application/json-patch+json"],
    "interactions": {rtype: ["read", "create", "search-type"] for rtype in SPEC.types},
    "system": ["transaction", "batch"],
    "operations": [
        ("validate", "http://hl7.org/fhir/OperationDefinition/Resource-validate", {"type", "instance"}, {"*"}),
        ("everything", "http://hl7.org/fhir/OperationDefinition/Patient-everything", {"instance"}, {"Patient"}),
        ("versions", "http://hl7.org/fhir/OperationDefinition/CapabilityStatement-versions", {"system"}, {"*"}),
    ],
    "terminology": {"codeSystems": [("http://loinc.org", ["2.77"])]},
}


def errors(res):
    return [(issue.expression, issue.text) for issue in checker(SPEC, res["resourceType"])(res) if issue.severity == "error"]


@pytest.mark.parametrize("mode", ["full", "normative"])
def test_the_statement_is_valid(mode):
    assert errors(capability(SPEC, ENABLED, mode)) == []


def test_the_terminology_statement_is_valid():
    assert errors(terminology_capabilities(SPEC, ENABLED)) == []


def test_every_enabled_type_is_listed_with_its_own_parameters_and_operations():
    rest = capability(SPEC, ENABLED)["rest"][0]
    rows = {row["type"]: row for row in rest["resource"]}
    assert set(rows) == SPEC.types
    assert {"identifier", "family", "_id"} <= {each["name"] for each in rows["Patient"]["searchParam"]}
    assert [each["name"] for each in rows["Patient"]["operation"]] == ["everything", "validate"]
    assert [each["name"] for each in rows["Group"]["operation"]] == ["validate"]
    assert [each["name"] for each in rest["operation"]] == ["versions"]
    assert "Observation:subject" in rows["Patient"]["searchRevInclude"]


def test_the_normative_mode_leaves_out_trial_use():
    types = {row["type"] for row in capability(SPEC, ENABLED, "normative")["rest"][0]["resource"]}
    assert "Patient" in types
    assert "Encounter" not in types


def test_what_is_not_enabled_is_not_listed():
    only = {**ENABLED, "interactions": {"Patient": ["read"]}, "params": {"Patient": []}, "operations": []}
    rest = capability(SPEC, only)["rest"][0]
    assert [row["type"] for row in rest["resource"]] == ["Patient"]
    assert "searchParam" not in rest["resource"][0]
    assert "operation" not in rest
