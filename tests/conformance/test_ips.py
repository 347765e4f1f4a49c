"""International Patient Summary 2.0.0: every example of the package is judged, and breaking one is found."""

import copy

import pytest

from conformance.codec import decode_value
from conformance.package import package_files
from conformance.spec import load_spec
from conformance.validate import validate
from tests.packages import npm_package

BUNDLE = "http://hl7.org/fhir/uv/ips/StructureDefinition/Bundle-uv-ips"


@pytest.fixture(scope="module")
def ips():
    path = npm_package("hl7.fhir.uv.ips@2.0.0")
    found = {}
    for name, data in package_files(path):
        res = decode_value(data) if name.startswith("example/") and name.endswith(".json") else None
        if isinstance(res, dict) and "resourceType" in res:
            found[name] = res
    return load_spec([path]), found


def errors(spec, res, **named):
    return [issue for issue in validate(spec, res, **named) if issue.severity == "error"]


def test_every_example_of_the_guide_conforms(ips):
    spec, examples = ips
    assert len(examples) >= 40
    assert {name: found for name, res in examples.items() if (found := errors(spec, res))} == {}


def test_a_summary_without_its_required_sections_is_refused(ips):
    spec, examples = ips
    bundle = copy.deepcopy(next(res for res in examples.values() if res["resourceType"] == "Bundle" and res["type"] == "document"))
    assert errors(spec, bundle, profiles=[BUNDLE]) == []
    composition = bundle["entry"][0]["resource"]
    composition["section"] = composition["section"][:1]
    assert any("slice" in issue.text for issue in errors(spec, bundle, profiles=[BUNDLE]))


def test_a_summary_without_a_patient_is_refused(ips):
    spec, examples = ips
    bundle = copy.deepcopy(next(res for res in examples.values() if res["resourceType"] == "Bundle" and res["type"] == "document"))
    bundle["entry"] = [each for each in bundle["entry"] if each["resource"]["resourceType"] != "Patient"]
    assert any("patient" in issue.text for issue in errors(spec, bundle, profiles=[BUNDLE]))
