"""Segments without a map of their own are kept on the resource they are about: a MessageHeader, where they would else go, is not stored by a feed."""

from typing import Any

import pytest

from conformance.spec import load_spec
from conformance.validate import checker
from mappers.v2.tables import load_tables
from tests.mappers.v2.feeds import mapped

PID = "PID|1||7^^^HOSP^MR||Doe^Jane||19700102|F"
ORDER = ("ORC|NW|P1", "OBR|1|P1||GLU^Glucose^L")
# Of the message, not of anything in it: errors of a reply, the file and the action of a master file, where a message goes on, where a group of resources begins
OF_THE_MESSAGE = {"ERR", "MFI", "MFE", "DSC", "RGS"}


def holders(value: Any, text: str) -> set[str]:
    """Types of the resources with an extension of this text."""
    return {
        entry["resource"]["resourceType"]
        for entry in value["entry"]
        if any(text in one.get("valueString", "") for one in entry["resource"].get("extension", ()))
    }


@pytest.mark.parametrize(
    ("kind", "lines", "segment", "holder"),
    [
        ("ADT^A01", (PID, "PV1|1|I|W"), "DB1|1|PT|KEPT", "Patient"),
        ("ADT^A01", (PID, "PV1|1|I|W"), "PDA|KEPT", "Patient"),
        ("ADT^A01", (PID, "PV1|1|I|W"), "DRG|KEPT", "Encounter"),
        ("ADT^A01", (PID, "PV1|1|I|W"), "ACC|20240101|KEPT", "Encounter"),
        ("ADT^A01", (PID, "PV1|1|I|W"), "UB2|1|KEPT", "Encounter"),
        ("ADT^A01", (PID, "PV1|1|I|W", "IN1|1|PLAN|INS|Insurer"), "IN2|KEPT", "Coverage"),
        ("DFT^P03", (PID, "PV1|1|I|W", "FT1|1|||20240101||CG|X^X^L", "IN1|1|PLAN|INS|Insurer"), "IN2|KEPT", "Coverage"),
        ("RDE^O11", (PID, "ORC|NW|P1", "RXE||1^D^L|1||mg"), "RXC|B|KEPT^Base^L|5|mg", "MedicationRequest"),
        ("RDE^O11", (PID, "ORC|NW|P1", "RXE||1^D^L|1||mg"), "TQ2|1|S|KEPT", "MedicationRequest"),
        ("RDS^O13", (PID, "ORC|RE|P1", "RXE||1^D^L|1||mg", "RXD|1|1^D^L|20240101|1"), "RXC|B|KEPT^Base^L|5|mg", "MedicationDispense"),
        ("OML^O21", (PID, *ORDER), "CTI|KEPT", "ServiceRequest"),
        ("ORU^R01", (PID, *ORDER, "OBX|1|NM|K^K^L||1|||||F"), "CTI|KEPT", "DiagnosticReport"),
        ("OUL^R22", (PID, "SPM|1|S1", *reversed(ORDER), "OBX|1|NM|K^K^L||1|||||F"), "SID|KEPT", "Observation"),
        ("VXU^V04", (PID, "ORC|RE|P1", "RXA|0|1|20240101||03^MMR^CVX|1"), "TQ2|1|S|KEPT", "Immunization"),
        ("PPR^PC1", (PID, "PRB|AD|20240101|I10^H^I10|P1"), "VAR|KEPT|20240101", "Condition"),
        ("REF^I12", ("RF1|||||R1", PID, "PR1|1||P^P^L||20240101"), "AUT|KEPT", "Procedure"),
        ("MDM^T02", ("EVN|T02|20240101", PID, "PV1|1|I|W", "TXA|1|CN|TX|20240101|||||||D1||||||AU"), "CON|1|KEPT", "DocumentReference"),
        ("ADT^A01", (PID, "PV1|1|I|W"), "ARV|1|A|DEM^Demographics^L|KEPT", "Patient"),
        ("ADT^A01", (PID, "PV1|1|I|W"), "RF1|KEPT^In review^L|R|EXT|||123", "ServiceRequest"),
        ("OUL^R22", (PID, "SPM|1|S1", "SAC|||C1"), "INV|R1^Reagent^L|KEPT", "Specimen"),
        ("OUL^R24", (PID, "OBR|1|P1||GLU^Glucose^L", "OBX|1|NM|K^K^L||1|||||F"), "TXA|1|KEPT", "DiagnosticReport"),
        ("MFN^M02", ("MFI|STF||UPD|||AL", "MFE|MAD|||77", "STF|77|77|Welby^Marcus"), "EDU|1|KEPT", "Practitioner"),
        ("MFN^M08", ("MFI|OMA||UPD|||AL", "MFE|MAD|||GLU", "OM1|1|GLU^Glucose^L"), "OM2|1|KEPT", "ObservationDefinition"),
    ],
)
def test_a_segment_without_a_map_stays_with_what_it_is_about(kind: str, lines: tuple[str, ...], segment: str, holder: str) -> None:
    found = mapped(kind, *lines, segment)
    assert holders(found.bundle, "KEPT") == {holder}
    issues = checker(load_spec(), "Bundle")(found.bundle)
    assert [issue for issue in issues if issue.severity in ("error", "fatal")] == []


def test_every_segment_of_every_structure_has_a_resource() -> None:
    homeless = {
        (structure.name, group.name, name)
        for structure in load_tables().structures.values()
        for group in structure.grammar.groups.values()
        for name in group.direct
        if name not in OF_THE_MESSAGE and not structure.rows.get((group.name, name))
    }
    assert homeless == set()
