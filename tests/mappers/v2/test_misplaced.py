"""Segments in another order than the structure's: they belong to the patient, the order, the result at hand; nobody is made twice."""

import itertools
import random
from typing import Any

import pytest

from tests.mappers.v2.feeds import mapped, resources

PID = "PID|1||7^^^HOSP^MR||Doe^Jane||19700102|F"
OF_PATIENT = (
    "PD1||||1^Good^Doc",
    "NK1|1|Doe^Joe|SPO^Spouse^HL70063",
    "NK1|2|Doe^Tim|CHD^Child^HL70063",
    "PV1|1|I|W^1^A||||2^Att^End||||||||||||V1^^^HOSP^VN",
    "PV2|||^pain",
    "OBX|1|NM|8302-2^Height^LN||170|cm|||||F",
    "AL1|1|DA|PEN^Penicillin^L|SV|Hives",
    "AL1|2|FA|NUT^Nuts^L|MO",
    "DG1|1||J18.9^Pneumonia^I10|||A",
    "PR1|1||99213^Visit^C4||20240102",
    "GT1|1||Doe^Joe",
    "IN1|1|P1^Plan|I1|Insco|||||||||||||SEL",
)
PATIENT_LINKS = ("patient", "subject", "beneficiary")


def _patients(bundle: dict[str, Any]) -> set[str]:
    links = [entry["resource"][name] for entry in bundle["entry"] for name in PATIENT_LINKS if name in entry["resource"]]
    return {link["reference"] for link in links if isinstance(link, dict)}


@pytest.mark.parametrize("seed", range(40))
def test_all_segments_of_an_admission_are_of_one_patient_in_any_order(seed: int) -> None:
    lines = list(OF_PATIENT)
    random.Random(seed).shuffle(lines)
    found = mapped("ADT^A01", "EVN|A01|20240102", PID, *lines)
    (patient,) = resources(found, "Patient")
    assert _patients(found.bundle) == {entry["fullUrl"] for entry in found.bundle["entry"] if entry["resource"] is patient}
    kinds = ("Encounter", "RelatedPerson", "AllergyIntolerance", "Condition", "Procedure", "Coverage", "Observation")
    assert [len(resources(found, kind)) for kind in kinds] == [1, 3, 2, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("ORU^R01", ("ORC|RE|P1|F1", "OBR|1|P1|F1|CBC^Count^L|||20240102", "OBX|1|NM|HGB^Hb^L||7|g/dL|||||F", "PV1|1|O", "NK1|1|Doe^Joe|SPO")),
        ("ORM^O01", ("ORC|NW|P1", "OBR|1|P1||CBC^Count^L", "PV1|1|O", "AL1|1|DA|PEN^Penicillin^L", "IN1|1|P1^Plan|I1|Insco")),
        ("VXU^V04", ("ORC|RE||F1", "RXA|0|1|20240102||141^Flu^CVX|0.5|mL", "NK1|1|Doe^Joe|SPO", "PV1|1|O")),
    ],
)
def test_what_is_of_the_patient_may_stand_anywhere_behind_it(kind: str, lines: tuple[str, ...]) -> None:
    for order in itertools.permutations(lines):
        found = mapped(kind, PID, *order)
        assert len(resources(found, "Patient")) == 1, order
        assert len(_patients(found.bundle)) == 1, order
