"""Every official R4 example passes the gate, or its refusal is argued in refused_examples.csv."""

import csv
from pathlib import Path

import pytest

from conformance.spec import load_spec
from conformance.validate import checker
from tests.conformance.official import resources

SPEC = load_spec()
ARGUED = {row["file"]: row for row in csv.DictReader((Path(__file__).parent / "refused_examples.csv").open(encoding="utf-8"))}


def judge(name, res):
    """None, or how the judgement differs from what is argued."""
    errors = [issue for issue in checker(SPEC, res["resourceType"], warnings=False)(res) if issue.severity == "error"]
    row = ARGUED.get(name)
    if row is None:
        return f"{name}: {errors[0].expression}: {errors[0].text}" if errors else None
    right = len(errors) == int(row["issues"]) and any(each.expression == row["expression"] for each in errors)
    return None if right else f"{name}: argued {row['issues']} at {row['expression']}, found {[(each.expression, each.text) for each in errors]}"


def test_examples_of_the_clinical_types_are_judged_as_argued():
    types = ("Patient", "Observation", "Condition", "MedicationRequest", "Encounter", "DiagnosticReport", "Procedure", "Claim")
    wrong = [judge(name, res) for name, res in resources(types=types)]
    assert len(wrong) > 100
    assert [each for each in wrong if each] == []


@pytest.mark.slow
def test_all_5306_examples_are_judged_as_argued():
    wrong = [judge(name, res) for name, res in resources()]
    assert len(wrong) == 5306
    assert [each for each in wrong if each] == []
