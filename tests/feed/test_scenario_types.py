"""Message types beyond ADT and ORU: what they make, that saying it again makes nothing new, and their life cycles."""

from typing import Any

import pytest

from tests.feed.exchange import Exchange, adt, msh, pid, pv1

ORDER = "ORC|{control}|P1^EHR|F1^LAB||||||20240101080000|||77^WELBY^MARCUS^^^^^^HOSP"
NEW = ORDER.format(control="NW")
GLUCOSE = "OBR|1|P1^EHR|F1^LAB|GLU^Glucose^L|||20240101080000|||||||||||||||20240101090000|||F"
VALUE = "OBX|1|NM|GLU^Glucose^L||5|mmol/L|||||F"
DRUG = "00071015523^Lipitor^NDC"


def message(code: str, *segments: str, patient: bool = True) -> str:
    header, _ = msh(code, "APP|HOSP")
    return "\r".join([header, *([pid()] if patient else []), *segments]) + "\r"


def document(event: str, number: str, parent: str = "") -> str:
    body = ["OBX|1|TX|^Body||Text of it||||||F"] if event in ("T02", "T04", "T06", "T08", "T10") else []
    return message(
        f"MDM^{event}",
        f"EVN|{event}|20240101",
        f"TXA|1|DS^Discharge|TX|20240101|||||77^WELBY|||{number}^EHR|{parent and parent + '^EHR'}||||LA",
        *body,
    )


def schedule(event: str, status: str = "", start: str = "20240301090000") -> str:
    sch = f"SCH|AP1^EHR|AF1^SCHED|||||R^Routine||30|MIN|^^30^{start}" + "|" * 14 + status
    return message(f"SIU^{event}", sch, "RGS|1", f"AIS|1||CHK^Checkup^L|{start}|||30|MIN")


# message -> types of what it makes besides the patient and the people and places it names, each with its status
MADE: dict[str, tuple[tuple[str, ...], dict[str, str | None]]] = {
    "OUL^R22": (("SPM|1|S1^S1F||SER^Serum", GLUCOSE, VALUE), {"Specimen": None, "DiagnosticReport": "final", "Observation": "final"}),
    "OUL^R23": (("SPM|1|S1^S1F||SER^Serum", "SAC|||C1", GLUCOSE, VALUE), {"Specimen": None, "DiagnosticReport": "final", "Observation": "final"}),
    "OUL^R24": ((GLUCOSE, "SPM|1|S1^S1F||SER^Serum", VALUE), {"Specimen": None, "DiagnosticReport": "final", "Observation": "final"}),
    "PPR^PC1": (("PRB|AD|20240101|I10^Hypertension^I10|PR1^EHR|||20230101",), {"Condition": None}),
    "REF^I12": (("RF1|A^Accepted|R^Routine|MED^Medical||O|R1^EHR|20240101", "PRD|RP|WELBY^MARCUS|||||77^^NPI"), {"ServiceRequest": "active"}),
    "BAR^P01": (
        ("EVN|P01|20240101", "PV1|1|I|W", "DG1|1||I10^Hypertension^I10||20240101|A", "IN1|1|PLAN1|INS1|Insurer"),
        {"Encounter": "in-progress", "Condition": None, "Coverage": "active"},
    ),
    "BAR^P05": (
        ("EVN|P05|20240101", "PV1|1|I|W", "DG1|1||I10^Hypertension^I10||20240101|F", "PR1|1||44950^Appendectomy^C4||20240101"),
        {"Condition": None, "Procedure": "completed"},
    ),
    "BAR^P12": (
        ("EVN|P12|20240101", pv1(), "DG1|1||I10^Hypertension^I10||20240101|F", "PR1|1||44950^Appendectomy^C4||20240101"),
        {"Condition": None, "Procedure": "completed"},
    ),
    "DFT^P03": (("EVN|P03|20240101", "FT1|1|T1||20240101||CG|C1^Charge^L|||1"), {"ChargeItem": "billable"}),
    "OMP^O09": ((NEW, f"RXO|{DRUG}|10||MG|TAB", "RXR|PO"), {"MedicationRequest": "active"}),
    "RDE^O11": ((NEW, f"RXE|^BID^^20240101|{DRUG}|10||MG|TAB", "RXR|PO"), {"MedicationRequest": "active"}),
    "RDE^O25": ((NEW, f"RXE|^BID^^20240101|{DRUG}|10||MG|TAB", "RXR|PO"), {"MedicationRequest": "active"}),
    "RDS^O13": ((NEW, f"RXE||{DRUG}|10||MG|TAB", f"RXD|1|{DRUG}|20240102|30|TAB||RX1", "RXR|PO"), {"MedicationDispense": "completed"}),
    "RGV^O15": ((NEW, f"RXG|1|1||{DRUG}|10||MG", "RXR|PO"), {"MedicationAdministration": "unknown"}),
    "RAS^O17": ((NEW, f"RXA|0|1|20240102080000|20240102080500|{DRUG}|10|MG||||||||||||CP", "RXR|PO"), {"MedicationAdministration": "completed"}),
    "VXU^V04": (
        (
            "ORC|RE|P1|V1^IIS",
            "RXA|0|1|20240102||08^HepB^CVX|0.5|mL||00||||||LOT1||MSD^Merck^MVX|||CP|A",
            "RXR|IM",
            "OBX|1|CE|64994-7^Eligible^LN|1|V02^x^HL70064||||||F",
        ),
        {"Immunization": "completed", "Observation": "final"},
    ),
    "ORL^O22": (("MSA|AA|1", ORDER.format(control="OK"), GLUCOSE), {"ServiceRequest": "active"}),
    "OML^O21": ((NEW, GLUCOSE, "SPM|1|S1||SER"), {"ServiceRequest": "active", "Specimen": None}),
    "OML^O33": (("SPM|1|S1||SER", NEW, GLUCOSE), {"ServiceRequest": "active", "Specimen": None}),
    "OML^O35": (("SPM|1|S1||SER", "SAC|||C1", NEW, GLUCOSE), {"ServiceRequest": "active", "Specimen": None}),
    "OMG^O19": ((NEW, GLUCOSE), {"ServiceRequest": "active"}),
    "ORM^O01": ((NEW, GLUCOSE), {"ServiceRequest": "active"}),
    "MFN^M08": (
        ("MFI|OMA^Obs^HL70175||UPD|||AL", "MFE|MAD|1|20240101|GLU^G^L|CWE", "OM1|1|GLU^Glucose^L|NM|Y|LAB|Glucose"),
        {"ObservationDefinition": None},
    ),
    "MFN^M02": (
        ("MFI|STF^Staff^HL70175||UPD|||AL", "MFE|MUP|1|20240101|77^^HOSP|CWE", "STF|77^^HOSP|77^^^HOSP|WELBY^MARCUS|P|M|19500101|A"),
        {"Practitioner": None},
    ),
}


@pytest.mark.parametrize("code", sorted(MADE))
async def test_a_message_makes_what_it_is_about_and_saying_it_again_makes_nothing(code: str) -> None:
    segments, made = MADE[code]
    exchange = Exchange()
    assert await exchange.send(message(code, *segments, patient=not code.startswith("MFN"))) == "AA"
    for rtype, status in made.items():
        (res,) = exchange.all(rtype)
        assert status is None or res["status"] == status
        if "subject" in res or "patient" in res:
            assert (res.get("subject") or res["patient"])["reference"] == f"Patient/{exchange.one('Patient')['id']}"
    state, versions = exchange.state(), exchange.store.versions()
    assert await exchange.send(message(code, *segments, patient=not code.startswith("MFN"))) == "AA"
    assert exchange.state() == state
    assert exchange.store.versions() == versions


LIVES = [
    ("S12", "booked"),
    ("S13", "booked"),
    ("S14", "booked"),
    ("S15", "cancelled"),
    ("S16", "cancelled"),
    ("S17", "entered-in-error"),
    ("S26", "noshow"),
]


@pytest.mark.parametrize(("event", "status"), LIVES)
async def test_an_appointment_is_one_resource_and_follows_its_events(event: str, status: str) -> None:
    exchange = Exchange()
    booked = schedule("S12")
    moved = schedule(event, start="20240302090000")
    assert await exchange.send(booked) == "AA"
    assert await exchange.send(moved) == "AA"
    appointment = exchange.one("Appointment")
    assert (appointment["status"], appointment["start"][:10]) == (status, "2024-03-02")
    late = Exchange()
    assert [await late.send(moved), await late.send(booked)] == ["AA", "AA"]
    assert late.one("Appointment")["status"] == status, "an older event never overwrites a newer one"


async def test_the_status_that_a_scheduler_sends_comes_before_that_of_the_event() -> None:
    exchange = Exchange()
    await exchange.send(schedule("S14", "Cancelled"))
    assert exchange.one("Appointment")["status"] == "cancelled"


def documents(exchange: Exchange) -> dict[str, dict[str, Any]]:
    return {res["masterIdentifier"]["value"]: res for res in exchange.all("DocumentReference")}


async def test_a_document_is_replaced_appended_and_withdrawn() -> None:
    exchange = Exchange()
    for one in (document("T01", "D1"), document("T02", "D1"), document("T08", "D1")):
        assert await exchange.send(one) == "AA"
    assert exchange.one("DocumentReference")["status"] == "current"
    assert await exchange.send(document("T10", "D2", "D1")) == "AA"
    assert await exchange.send(document("T06", "D3", "D2")) == "AA"
    found = documents(exchange)
    assert {number: one["status"] for number, one in found.items()} == {"D1": "superseded", "D2": "current", "D3": "current"}
    links = {number: [(row["code"], row["target"]["reference"]) for row in one.get("relatesTo", ())] for number, one in found.items()}
    assert links == {
        "D1": [],
        "D2": [("replaces", f"DocumentReference/{found['D1']['id']}")],
        "D3": [("appends", f"DocumentReference/{found['D2']['id']}")],
    }
    versions = exchange.store.versions()
    await exchange.send(document("T10", "D2", "D1"))
    assert exchange.store.versions() == versions
    assert await exchange.send(document("T11", "D2")) == "AA"
    assert documents(exchange)["D2"]["status"] == "entered-in-error"


async def test_an_order_is_cancelled_and_its_dispense_and_administration_follow_it() -> None:
    exchange = Exchange()
    await exchange.send(message("OML^O21", NEW, GLUCOSE))
    await exchange.send(message("ORM^O01", ORDER.format(control="CA"), GLUCOSE))
    assert exchange.one("ServiceRequest")["status"] == "revoked"
    for code in ("RDE^O11", "RDS^O13", "RAS^O17"):
        assert await exchange.send(message(code, *MADE[code][0])) == "AA"
    request = f"MedicationRequest/{exchange.one('MedicationRequest')['id']}"
    assert exchange.one("MedicationDispense")["authorizingPrescription"] == [{"reference": request}]
    assert exchange.one("MedicationAdministration")["request"] == {"reference": request}


def problem(action: str, ended: str = "") -> str:
    return message("PPR^PC1", f"PRB|{action}|20240101|J45^Asthma^I10|PR1|||||{ended}")


async def test_a_problem_is_resolved_kept_active_again_and_deleted() -> None:
    exchange = Exchange()
    seen = []
    for sent in (problem("AD"), problem("UP", "20240201"), problem("UP"), problem("UP", '""'), problem("UP", "20240301"), problem("DE")):
        assert await exchange.send(sent) == "AA"
        found = exchange.one("Condition")
        status = found.get("clinicalStatus", found.get("verificationStatus"))["coding"][0]["code"]
        seen.append((status, found.get("abatementDateTime")))
    ended = ("resolved", "2024-02-01")
    assert seen == [("active", None), ended, ended, ("active", None), ("resolved", "2024-03-01"), ("entered-in-error", None)]


async def test_a_deleted_person_and_a_purged_account_are_out_of_use_until_they_are_added_again() -> None:
    exchange = Exchange()
    account = pid(rest="|" * 10 + "ACC1^^^HOSP^AN")
    await exchange.send(adt("A28", pid()))
    for event, active in (("A29", False), ("A31", False), ("A28", True)):
        assert await exchange.send(adt(event, pid())) == "AA"
        assert exchange.one("Patient")["active"] is active
    for event, status in (("P01", "active"), ("P02", "inactive")):
        header, at = msh(f"BAR^{event}", "ADT|HOSP")
        assert await exchange.send(f"{header}\rEVN|{event}|{at}\r{account}\r{pv1()}\r") == "AA"
        assert exchange.one("Account")["status"] == status


async def test_two_patients_of_one_plan_and_account_have_coverages_of_their_own_and_nobody_is_warned() -> None:
    exchange = Exchange()
    for number in ("1", "2"):
        patient = pid(number, rest="|" * 10 + "ACC1^^^HOSP^AN")
        assert await exchange.send(adt("A01", patient, pv1(f"V{number}"), "IN1|1|PLAN7^Basic|I1|Insco" + "|" * 32 + "POL9")) == "AA"
    assert [entry.status for entry in exchange.inbox.entries()] == ["processed"] * 2
    assert len({res["beneficiary"]["reference"] for res in exchange.all("Coverage")}) == len(exchange.all("Coverage")) == 2


async def test_an_edit_of_a_document_that_replaced_another_does_not_make_it_an_addendum_too() -> None:
    exchange = Exchange()
    for event, number, parent in (("T02", "D1", ""), ("T10", "D2", "D1"), ("T08", "D2", "D1")):
        assert await exchange.send(document(event, number, parent) if parent else document(event, number)) == "AA"
    assert [row["code"] for row in documents(exchange)["D2"]["relatesTo"]] == ["replaces"]
