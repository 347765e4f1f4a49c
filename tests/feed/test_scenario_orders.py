"""Orders as hospitals send them: what a message does not tell stays, the time of the order counts, replies may come without a patient."""

import pytest

from tests.feed.exchange import Exchange, adt, msh, obr, obx, oru, pid, pv1

PLACED = "|P1^CPOE"


def orm(control: str, at: str = "", *, numbers: str = PLACED, changed: str = "", status: str = "", patient: str = pid(), obr: bool = True) -> str:
    header, _ = msh("ORM^O01", "CPOE|HOSP", at)
    orc = f"ORC|{control}{numbers}|||{status}||||{changed}"
    detail = [f"OBR|1{numbers}||CBC^Blood count^L"] if obr else []
    return "\r".join([header, *([patient] if patient else []), orc, *detail]) + "\r"


@pytest.mark.parametrize(
    ("control", "status"),
    [
        ("SR", "active"),
        ("SC", "active"),
        ("UC", "active"),
        ("UD", "active"),
        ("HD", "on-hold"),
        ("UR", "on-hold"),
        ("RP", "revoked"),
        ("RQ", "revoked"),
        ("RU", "revoked"),
        ("RO", "active"),
        ("OE", "active"),
    ],
)
async def test_an_order_keeps_its_status_where_a_message_does_not_tell_it(control: str, status: str) -> None:
    exchange = Exchange()
    await exchange.send(orm("NW"))
    await exchange.send(orm(control))
    assert exchange.one("ServiceRequest")["status"] == status


async def test_a_request_to_cancel_that_cannot_be_met_leaves_the_order_active() -> None:
    exchange = Exchange()
    await exchange.send(orm("NW"))
    await exchange.send(orm("CA", obr=False))
    assert exchange.one("ServiceRequest")["status"] == "revoked"
    await exchange.send(orm("UC", obr=False))
    assert exchange.one("ServiceRequest")["status"] == "active"
    assert exchange.one("ServiceRequest")["code"]["coding"][0]["code"] == "CBC"


async def test_results_without_an_orc_do_not_make_the_order_s_status_unknown() -> None:
    exchange = Exchange()
    await exchange.send(orm("NW"))
    await exchange.send(oru(obr().replace("|1||", "|1|P1^CPOE|", 1), obx("K", "4"), sender="CPOE|HOSP"))
    assert exchange.one("ServiceRequest")["status"] == "active"


async def test_what_was_only_assumed_gives_way_to_what_is_said_even_earlier() -> None:
    exchange = Exchange()
    await exchange.send(orm("SR", "20240301100000"))
    assert exchange.one("ServiceRequest")["status"] == "unknown"
    await exchange.send(orm("HD", "20240301090000"))
    assert exchange.one("ServiceRequest")["status"] == "on-hold"


async def test_a_report_keeps_its_status_where_a_later_message_has_none() -> None:
    exchange = Exchange()
    await exchange.send(oru(obr(reported="20240101090000"), obx("K", "4")))
    await exchange.send(oru(obr(reported="20240101091000", status=""), obx("NA", "140")))
    assert exchange.one("DiagnosticReport")["status"] == "final"


async def test_a_reply_without_a_patient_is_about_the_order_that_is_known() -> None:
    exchange = Exchange()
    await exchange.send(orm("NW"))
    header, _ = msh("ORL^O22^ORL_O22", "LAB|HOSP")
    assert await exchange.send("\r".join([header, "MSA|AA|1", "ORC|OK|P1^CPOE|F1^LAB", "OBR|1|P1^CPOE|F1^LAB|CBC^Blood count^L"])) == "AA"
    order = exchange.one("ServiceRequest")
    assert order["subject"] == {"reference": f"Patient/{exchange.one('Patient')['id']}"}
    assert {one["value"] for one in order["identifier"]} == {"P1", "F1"}


async def test_a_reply_without_a_patient_is_not_given_to_one_of_two() -> None:
    exchange = Exchange()
    await exchange.send(orm("NW"))
    await exchange.send(orm("NW", patient=pid("2", "LEE^ANN", "1980", "F")))
    await exchange.send(orm("CA", patient=""))
    assert sorted(one["status"] for one in exchange.all("ServiceRequest")) == ["active", "active", "revoked"]


async def test_an_older_transaction_of_an_order_does_not_overwrite_a_newer_one() -> None:
    exchange = Exchange()
    await exchange.send(orm("NW", "20240301100000", changed="20240301100000"))
    await exchange.send(orm("CA", "20240301110000", changed="20240301110000"))
    await exchange.send(orm("HD", "20240301120000", changed="20240301103000"))
    assert exchange.one("ServiceRequest")["status"] == "revoked"


async def test_where_every_transaction_repeats_the_time_of_the_order_the_later_message_counts() -> None:
    exchange = Exchange()
    await exchange.send(orm("CA", "20240301110000", changed="20240301100000"))
    await exchange.send(orm("NW", "20240301100000", changed="20240301100000"))
    assert exchange.one("ServiceRequest")["status"] == "revoked"


async def test_a_discontinued_prescription_keeps_its_medication_and_when_it_was_written() -> None:
    exchange = Exchange()
    header, _ = msh("RDE^O11^RDE_O11", "RX|HOSP")
    drug = "RXE|1^BID^^20260301|00093-3109^Amoxicillin 500 MG^NDC|500||MG|CAP"
    await exchange.send("\r".join([header, pid(), "ORC|NW|R1^RX|||||||20240301100000", drug]))
    before = exchange.one("MedicationRequest")
    header, _ = msh("RDE^O11^RDE_O11", "RX|HOSP")
    await exchange.send("\r".join([header, pid(), "ORC|DC|R1^RX|||||||20240302100000"]))
    after = exchange.one("MedicationRequest")
    assert after["status"] == "stopped"
    for name in ("medicationReference", "medicationCodeableConcept", "authoredOn"):
        assert after.get(name) == before.get(name)


async def test_a_visit_keeps_its_class_where_a_message_has_none() -> None:
    exchange = Exchange()
    await exchange.send(adt("A01", pid(), pv1()))
    await exchange.send(adt("A08", pid(), pv1(klass="")))
    visit = exchange.one("Encounter")
    assert visit["class"]["code"] == "IMP"
    assert "classHistory" not in visit


async def test_an_appointment_keeps_its_times_where_nobody_came() -> None:
    exchange = Exchange()
    for event, times in (("S12", "^^30^20240501093000^20240501100000"), ("S26", "")):
        header, _ = msh(f"SIU^{event}^SIU_S12", "SCHED|HOSP")
        await exchange.send("\r".join([header, f"SCH|A1^SCHED|||||^Control|||30|min^minute|{times}", pid()]))
    appointment = exchange.one("Appointment")
    assert appointment["status"] == "noshow"
    assert appointment["start"].startswith("2024-05-01T09:30:00")
    assert "_start" not in appointment
