"""JSON Patch. RFC 6902 and https://hl7.org/fhir/R4/http.html#patch"""

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from conformance.outcome import Refusal
from fhir_server.interactions.json_patch import apply, json_patch


def suite(name: str) -> Path:
    path = Path(os.environ.get("FHIR_SUITES", "")) / "fhir-test-cases" / "r4" / "patch" / name
    if "FHIR_SUITES" not in os.environ or not path.exists():
        pytest.skip("FHIR_SUITES does not name a folder with fhir-test-cases/r4/patch")
    return path


def test_the_official_cases() -> None:
    cases = json.loads(suite("json-patch-tests.json").read_bytes())
    assert len(cases) == 16
    for case in cases:
        before = json.dumps(case["doc"])
        if "error" in case:
            with pytest.raises(Refusal) as caught:
                apply(case["doc"], case["patch"])
            assert caught.value.status == 422, case["comment"]
        else:
            assert apply(case["doc"], case["patch"]) == case.get("expected", case["doc"]), case["comment"]
        assert json.dumps(case["doc"]) == before


PATIENT = {"resourceType": "Patient", "id": "1", "name": [{"family": "A", "given": ["B"]}, {"family": "C"}], "active": True}


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([{"op": "replace", "path": "/active", "value": False}], {**PATIENT, "active": False}),
        ([{"op": "remove", "path": "/name/0/given/0"}], {**PATIENT, "name": [{"family": "A"}, {"family": "C"}]}),
        ([{"op": "remove", "path": "/name/1/family"}], {**PATIENT, "name": [{"family": "A", "given": ["B"]}]}),
        ([{"op": "remove", "path": "/name/1"}, {"op": "remove", "path": "/name/0"}], {"resourceType": "Patient", "id": "1", "active": True}),
        (
            [{"op": "remove", "path": "/name/0/given/0"}, {"op": "add", "path": "/name/0/given/-", "value": "X"}],
            {**PATIENT, "name": [{"family": "A", "given": ["X"]}, {"family": "C"}]},
        ),
        ([{"op": "move", "from": "/name/0", "path": "/name/1"}], {**PATIENT, "name": [{"family": "C"}, {"family": "A", "given": ["B"]}]}),
        ([{"op": "copy", "from": "/name/1", "path": "/name/-"}], {**PATIENT, "name": [*PATIENT["name"], {"family": "C"}]}),  # type: ignore[misc]
        ([{"op": "move", "from": "/active", "path": "/active"}], PATIENT),
        (
            [{"op": "test", "path": "/name/1", "value": {"family": "C"}}, {"op": "add", "path": "/gender", "value": "male"}],
            {**PATIENT, "gender": "male"},
        ),
    ],
)
def test_operations_on_a_resource(operations: list[Any], expected: dict[str, Any]) -> None:
    assert json_patch(PATIENT, operations) == expected


@pytest.mark.parametrize(
    ("operations", "status"),
    [
        ({"op": "add"}, 400),
        (["x"], 400),
        ([{"op": "merge", "path": "/a"}], 400),
        ([{"op": "add", "path": "active", "value": 1}], 400),
        ([{"op": "add", "path": "/a~2b", "value": 1}], 400),
        ([{"op": "add", "path": 5, "value": 1}], 400),
        ([{"op": "add", "path": "/active"}], 400),
        ([{"op": "move", "path": "/active"}], 400),
        ([{"op": "replace", "path": "/gender", "value": "x"}], 422),
        ([{"op": "remove", "path": "/name/2"}], 422),
        ([{"op": "remove", "path": "/name/-"}], 422),
        ([{"op": "remove", "path": "/name/00"}], 422),
        ([{"op": "add", "path": "/name/3", "value": {}}], 422),
        ([{"op": "add", "path": "/name/-1", "value": {}}], 422),
        ([{"op": "add", "path": "/name/１", "value": {}}], 422),
        ([{"op": "add", "path": "/active/x", "value": 1}], 422),
        ([{"op": "move", "from": "/name", "path": "/name/0/x"}], 422),
        ([{"op": "remove", "path": ""}], 422),
        ([{"op": "replace", "path": "", "value": {"resourceType": "Person"}}], 422),
        ([{"op": "replace", "path": "", "value": []}], 422),
        ([{"op": "replace", "path": "/resourceType", "value": "Person"}], 422),
        ([{"op": "replace", "path": "/id", "value": "2"}], 422),
        ([{"op": "remove", "path": "/id"}], 422),
        ([{"op": "test", "path": "/active", "value": 1}], 422),
        ([{"op": "test", "path": "/name/0/family", "value": "Chalmers"}], 422),
        ([{"op": "test", "path": "/active", "value": True}] * 3000, 413),
        ([{"op": "add", "path": "/x", "value": [1]}] + [{"op": "copy", "from": "/x", "path": "/x/-"}] * 60, 413),
    ],
)
def test_what_cannot_be_applied_is_refused_and_changes_nothing(operations: Any, status: int) -> None:
    before = json.dumps(PATIENT)
    with pytest.raises(Refusal) as caught:
        json_patch(PATIENT, operations)
    assert caught.value.status == status
    assert json.dumps(PATIENT) == before
    assert "Chalmers" not in str(caught.value)


@pytest.mark.parametrize("levels", [70, 400, 1500])
def test_nesting_by_patches_is_bounded(levels: int) -> None:
    deep = [{"op": "add", "path": "/x" * (level + 1), "value": {}} for level in range(levels)]
    around = [
        step
        for _ in range(levels)
        for step in (
            {"op": "move", "from": "/x", "path": "/y"},
            {"op": "add", "path": "/x", "value": {}},
            {"op": "move", "from": "/y", "path": "/x/x"},
        )
    ]
    for operations in (deep, [{"op": "add", "path": "/x", "value": {}}, *around[:1899], {"op": "copy", "from": "/x", "path": "/z"}]):
        with pytest.raises(Refusal) as caught:
            json_patch(PATIENT, operations)
        assert caught.value.status == 413


def test_a_refusal_names_the_operation_and_its_path() -> None:
    with pytest.raises(Refusal, match=r"operation 1 .* at /name/7"):
        json_patch(PATIENT, [{"op": "test", "path": "/active", "value": True}, {"op": "remove", "path": "/name/7"}])


def test_numbers_are_tested_by_value() -> None:
    assert apply({"a": Decimal("1.00")}, [{"op": "test", "path": "/a", "value": 1}]) == {"a": 1}
    with pytest.raises(Refusal):
        apply({"a": 1}, [{"op": "test", "path": "/a", "value": "1"}])


def test_a_value_added_twice_is_two_values() -> None:
    value = {"family": "X"}
    patched = json_patch(PATIENT, [{"op": "add", "path": "/name/-", "value": value}, {"op": "add", "path": "/name/2/text", "value": "y"}])
    assert patched["name"][2] == {"family": "X", "text": "y"}
    assert value == {"family": "X"}
