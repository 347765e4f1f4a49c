"""Segments that take something back by an action code do not state it. HL7 v2.8 tables 0206 and 0287"""

import pytest

from tests.mappers.v2.feeds import mapped, one, resources, target

PID = "PID|1||7^^^HOSP^MR||Doe^Jane||19700102|F"


@pytest.mark.parametrize(("code", "stated"), [("AD", True), ("UC", True), ("DE", False), ("UN", False)])
def test_table_0287_who_is_taken_out_of_a_role_does_not_have_it(code: str, stated: bool) -> None:
    found = mapped("ADT^A08", "EVN|A08|20240101", PID, f"ROL|1|{code}|PP|77^Welby", "PV1|1|I|W", f"ROL|2|{code}|AT|78^Kildare")
    assert ("generalPractitioner" in one(found, "Patient")) is stated
    assert ("participant" in one(found, "Encounter")) is stated
    report = mapped("ORU^R01", PID, "OBR|1|P|F|G^G^L", "OBX|1|NM|K^K^L||5|||||F", f"PRT|1|{code}||RO|77^Welby")
    assert ("performer" in one(report, "Observation")) is stated


@pytest.mark.parametrize(("code", "stated"), [("A", True), ("U", True), ("X", True), ("", True), ("D", False)])
def test_table_0206_what_is_taken_out_of_an_appointment_is_no_part_of_it(code: str, stated: bool) -> None:
    parts = (f"AIS|1|{code}|CT^CT scan^L|20240201", f"AIG|1|{code}|EQ1^Scanner^L|D", f"AIL|1|{code}|ROOM1", f"AIP|1|{code}|77^Welby|D")
    found = mapped("SIU^S14", "SCH|A1^P|F1^L|||||CHK^Checkup^L", PID, "RGS|1|U", *parts, "AIP|2|A|78^Kildare|D")
    appointment = one(found, "Appointment")
    assert ("serviceType" in appointment) is stated
    people = [target(found, part["actor"]) for part in appointment["participant"] if "actor" in part]
    names = {name["family"] for each in people if each["resourceType"] == "Practitioner" for name in each["name"]}
    assert names == ({"Welby", "Kildare"} if stated else {"Kildare"})
    assert bool(resources(found, "Location")) is stated


@pytest.mark.parametrize(("code", "status"), [("A", "completed"), ("", "completed"), ("D", "entered-in-error")])
def test_table_0206_a_deleted_procedure_was_entered_in_error(code: str, status: str) -> None:
    found = mapped("ADT^A08", "EVN|A08|20240101", PID, "PV1|1|I|W", "PR1|1||P^P^L||20240101" + "|" * 15 + code)
    assert one(found, "Procedure")["status"] == status
