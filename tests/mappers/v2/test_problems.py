"""Problems and goals (PPR, chapter 12): what the sender calls their state is their state."""

import pytest

from conformance.spec import load_spec
from conformance.validate import checker
from mappers.v2.convert import Conversion
from tests.mappers.v2.feeds import mapped, one, segment

PID = "PID|1||7^^^HOSP^MR||Doe^Jane||19700102|F"


def problem(fields: dict[int, str], *lines: str) -> Conversion:
    found = mapped("PPR^PC1", PID, segment("PRB", {1: "AD", 2: "20240101", 3: "I10^Hypertension^I10", 4: "P1", **fields}), *lines)
    issues = checker(load_spec(), "Bundle")(found.bundle)
    assert [issue for issue in issues if issue.severity in ("error", "fatal")] == []
    return found


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({14: "inactive"}, "inactive"),
        ({14: "Active-Improving"}, "active"),
        ({14: "R^resolved^L"}, "resolved"),
        ({14: "resolved", 9: "20240101"}, "resolved"),
        ({14: "inactive", 9: "20240101"}, "inactive"),
        ({14: "active", 9: "20240101"}, "active"),
        ({14: "resolved", 1: "UP"}, "resolved"),
        ({9: "20240101"}, "resolved"),
        ({14: "unheard"}, "active"),
        ({}, "active"),
    ],
)
def test_12_4_2_14_the_life_cycle_status_of_a_problem_is_its_clinical_status(fields: dict[int, str], status: str) -> None:
    found = one(problem(fields), "Condition")
    assert found["clinicalStatus"]["coding"][0]["code"] == status
    assert ("abatementDateTime" in found) == (9 in fields and status != "active")


def test_12_4_2_26_a_problem_has_a_severity() -> None:
    assert one(problem({26: "24484000^Severe^SCT"}), "Condition")["severity"]["coding"][0]["code"] == "24484000"


@pytest.mark.parametrize(
    ("fields", "status"),
    [({18: "on-hold"}, "on-hold"), ({18: "Achieved"}, "completed"), ({1: "DE", 18: "active"}, "entered-in-error"), ({}, "active")],
)
def test_12_4_1_18_the_life_cycle_status_of_a_goal(fields: dict[int, str], status: str) -> None:
    sent = {1: "AD", 2: "20240101", 3: "W^Walks^L", 4: "G1", 16: "Improving", 17: "two steps", 19: "20240301", **fields}
    goal = one(problem({}, segment("GOL", sent)), "Goal")
    assert goal["lifecycleStatus"] == status
    assert goal["achievementStatus"]["coding"][0]["code"] == "improving"
    assert (goal["statusDate"], goal["note"]) == ("2024-03-01", [{"text": "two steps"}])
