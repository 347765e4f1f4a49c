"""Orders of the pharmacy: what was ordered (RXO) and what the pharmacy made of it (RXE) are one MedicationRequest with one medication.

https://hl7.org/fhir/R4/medicationrequest-definitions.html#MedicationRequest.medication_x_
"""

from typing import Any

import pytest

from conformance.spec import load_spec
from conformance.validate import checker
from mappers.v2.convert import Conversion
from tests.mappers.v2.feeds import mapped, one, resources, segment, target

PID = "PID|1||7^^^HOSP^MR||Doe^Jane||19700102|F"


def dispensed(ordered: str, encoded: str) -> Conversion:
    """An RDS of an order with a strength, so that it has a Medication of its own, and of what the pharmacy encoded."""
    found = mapped(
        "RDS^O13",
        PID,
        "ORC|NW|P1",
        segment("RXO", {1: ordered, 2: "2", 4: "385055001^Tablet^SCT", 18: "150", 19: "mg"}),
        f"RXE||{encoded}|1||385055001^Tablet^SCT",
        f"RXD|1|{encoded}|20240102|10",
    )
    issues = checker(load_spec(), "Bundle")(found.bundle)
    assert [issue for issue in issues if issue.severity in ("error", "fatal")] == []
    return found


def codes(concept: dict[str, Any]) -> list[str]:
    return [coding["code"] for coding in concept.get("coding", ())]


@pytest.mark.parametrize(
    ("ordered", "encoded"), [("11^Doxycycline^NDC", "11^Doxycycline^NDC"), ("11^Doxycycline^NDC", "11^Doxy^NDC^D^Doxy^L"), ("", "11^Doxy^NDC")]
)
def test_the_same_substance_is_one_medication(ordered: str, encoded: str) -> None:
    found = dispensed(ordered, encoded)
    request = one(found, "MedicationRequest")
    assert "medicationCodeableConcept" not in request
    medication = target(found, request["medicationReference"])
    assert codes(medication["code"])[0] == "11"
    assert len(codes(medication["code"])) == (2 if encoded.endswith("^L") else 1)
    assert medication["ingredient"][0]["strength"]["numerator"]["value"] == 150


def test_another_substance_than_was_ordered_takes_its_place_and_the_order_is_kept() -> None:
    found = dispensed("11^Doxycycline^NDC", "12^Amoxicillin^NDC")
    request = one(found, "MedicationRequest")
    assert codes(request["medicationCodeableConcept"]) == ["12"]
    assert "medicationReference" not in request
    (kept,) = [each["valueReference"] for each in request["extension"] if each["url"] == "urn:hl7-org:v2xml:RXO.1"]
    assert codes(target(found, kept)["code"]) == ["11"]
    assert len(resources(found, "MedicationDispense")) == 1
