"""Orders of the pharmacy: what was ordered (RXO) and what the pharmacy made of it (RXE) are one MedicationRequest with one medication.

https://hl7.org/fhir/R4/medicationrequest-definitions.html#MedicationRequest.medication_x_
"""

from decimal import Decimal
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


DOSE = [{"doseQuantity": {"value": Decimal(1), "unit": "tablet"}}]


def dosages(*lines: str, kind: str = "RDE^O11") -> list[dict[str, Any]]:
    """The dosages of an encoded order of one tablet; no segment stands where its structure has none."""
    found = mapped(kind, PID, "ORC|NW|P1", *lines)
    assert not [problem for problem in found.problems if "structure" in problem.text]
    issues = checker(load_spec(), "Bundle")(found.bundle)
    assert [issue for issue in issues if issue.severity in ("error", "fatal")] == []
    return one(found, "MedicationRequest")["dosageInstruction"]


RXE = "RXE|{}|11^Doxycycline^NDC|1||^tablet"


@pytest.mark.parametrize(
    "lines",
    [
        (RXE.format("^BID"), "RXR|PO"),
        (RXE.format("1^BID"), "RXR|PO"),
        (RXE.format(""), "TQ1|1||BID", "RXR|PO"),
        (RXE.format(""), "TQ1|1|1|BID", "RXR|PO"),
    ],
)
def test_4a_4_4_amount_timing_and_route_of_an_order_are_one_dosage(lines: tuple[str, ...]) -> None:
    """Three members would be three orders. Beside a give amount (RXE-3) the quantity of the timing says how many of it are given (4A.4.4.3)."""
    (dosage,) = dosages(*lines)
    assert dosage["doseAndRate"] == DOSE
    assert dosage["timing"]["code"]["text"] == "BID"
    assert dosage["route"]["coding"][0]["code"] == "PO"


def test_4a_4_4_several_timings_are_as_many_dosages_of_the_same_amount_and_route() -> None:
    found = dosages(RXE.format(""), "TQ1|1||QAM", "TQ1|2||QPM", "RXR|PO")
    assert [dosage["timing"]["code"]["text"] for dosage in found] == ["QAM", "QPM"]
    assert all(dosage["doseAndRate"] == DOSE and dosage["route"]["coding"][0]["code"] == "PO" for dosage in found)


def test_4a_4_1_what_was_ordered_and_what_was_encoded_are_doses_of_one_dosage() -> None:
    (dosage,) = dosages("TQ1|1||BID", "RXO|11^Doxycycline^NDC|100||mg", "RXR|PO", RXE.format(""), "TQ1|1||BID", "RXR|PO")
    ordered, encoded = dosage["doseAndRate"]
    assert ordered["type"]["coding"][0]["code"] == "ordered"
    assert (ordered["doseQuantity"]["value"], encoded) == (100, DOSE[0])


def test_4a_4_4_1_the_encoded_timing_comes_before_the_one_that_was_asked_for() -> None:
    found = mapped("RDE^O01", PID, "ORC|NW|P1|||||^TID", RXE.format("^BID"))
    request = one(found, "MedicationRequest")
    assert [dosage["timing"]["code"]["text"] for dosage in request["dosageInstruction"]] == ["BID"]
    assert {"url": "urn:hl7-org:v2xml:ORC.7", "valueString": "^TID"} in request["extension"]


def test_rgv_o15_the_time_of_a_give_stands_on_it() -> None:
    found = mapped(
        "RGV^O15", PID, "ORC|RE|P1", RXE.format("^BID"), "RXG|1|||11^Doxycycline^NDC|1||^tablet", "TQ1|1||ONCE||||202401021000|202401021015"
    )
    given = one(found, "MedicationAdministration")
    assert given["effectivePeriod"] == {"start": "2024-01-02T10:00:00+01:00", "end": "2024-01-02T10:15:00+01:00"}
    assert {"url": "urn:hl7-org:v2xml:TQ1.3", "valueString": "ONCE"} in given["extension"]
