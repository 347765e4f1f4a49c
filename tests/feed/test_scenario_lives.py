"""Life cycles as a table: what one resource says after each message of its life, that the order of arrival does not matter in the end,

and that saying all of it again makes no new version. Segments are the shortest that tell the story.
"""

from dataclasses import dataclass
from typing import Any

import pytest

from tests.feed.exchange import Exchange
from tests.feed.test_scenario_types import DRUG, GLUCOSE, ORDER, VALUE, message


@dataclass(frozen=True, slots=True)
class Life:
    """`rtype`: of the one resource; `path`: what is looked at; `steps`: (message, what stands at the path after it)."""

    rtype: str
    path: str
    steps: tuple[tuple[str, Any], ...]
    shuffled: bool = True


def problem(number: int, action: str) -> str:
    return message(f"PPR^PC{number}", f"PRB|{action}|2024010{number}|I10^Hypertension^I10|PR1^EHR|||20230101")


def referral(number: int, status: str) -> str:
    return message(f"REF^I1{number}", f"RF1|{status}|R^Routine|MED^Medical||O|R1^EHR|2024010{number}", "PRD|RP|WELBY^MARCUS|||||77^^NPI")


def charge(day: int, kind: str) -> str:
    return message("DFT^P03", f"EVN|P03|2024010{day}", f"FT1|1|T1||20240101||{kind}|C1^Charge^L|||1||100^USD")


def drug(control: str, amount: int) -> str:
    return message("RDE^O11", ORDER.format(control=control), f"RXE|^BID^^20240101|{DRUG}|{amount}||MG|TAB", "RXR|PO")


def given(action: str, amount: int, completion: str = "CP") -> str:
    rxa = f"RXA|0|1|20240102080000|20240102080500|{DRUG}|{amount}|MG|||||||||||||{completion}|{action}"
    return message("RAS^O17", ORDER.format(control="RE"), f"RXE||{DRUG}|10||MG|TAB", rxa, "RXR|PO")


def shot(completion: str, action: str, dose: str = "0.5") -> str:
    rxa = f"RXA|0|1|20240102||08^HepB^CVX|{dose}|mL||00||||||LOT1||MSD^Merck^MVX|00^Refused^NIP002||{completion}|{action}"
    return message("VXU^V04", "ORC|RE|P1|V1^IIS", rxa, "RXR|IM")


def allergy(day: int, action: str, clinical: str) -> str:
    return message("ADT^A60", f"EVN|A60|2024010{day}", f"IAM|1|DA|PCN^Penicillin^L|SV|rash|{action}^x^HL70323|AL1^EHR||||||||||{clinical}")


def staff(day: int, event: str, active: str = "") -> str:
    mfe = f"MFE|{event}|1|2024010{day}|77^^HOSP|CWE"
    return message("MFN^M02", "MFI|STF^Staff^HL70175||UPD|||AL", mfe, f"STF|77^^HOSP|77^^^HOSP|WELBY^MARCUS|P|M|19500101|{active}", patient=False)


def specimen_report(status: str, value: int) -> str:
    return message("OUL^R22", "SPM|1|S1^S1F||SER^Serum", GLUCOSE, VALUE.replace("|5|", f"|{value}|").replace("|||||F", f"|||||{status}"))


def bed(day: int, state: str) -> str:
    return message("ADT^A20", f"EVN|A20|2024010{day}", f"NPU|^^B^|{state}", patient=False)


LIVES = {
    "a problem is noted, updated, deleted": Life(
        "Condition", "verificationStatus.coding.code", ((problem(1, "AD"), None), (problem(2, "UP"), None), (problem(3, "DE"), "entered-in-error"))
    ),
    "a deleted problem has no clinical status": Life(
        "Condition", "clinicalStatus.coding.code", ((problem(1, "AD"), "active"), (problem(3, "DE"), None)), shuffled=False
    ),
    "a referral is pending, accepted, cancelled": Life(
        "ServiceRequest", "status", ((referral(2, "P^Pending"), "draft"), (referral(3, "A^Accepted"), "active"), (referral(4, ""), "revoked"))
    ),
    "a charge is posted and taken back": Life("ChargeItem", "status", ((charge(1, "CG"), "billable"), (charge(2, "CD"), "aborted"))),
    "a prescription is changed and cancelled": Life(
        "MedicationRequest", "status", ((drug("NW", 10), "active"), (drug("XO", 20), "active"), (drug("CA", 20), "cancelled")), shuffled=False
    ),
    "an administration is corrected": Life(
        "MedicationAdministration", "dosage.dose.value", ((given("A", 10), 10), (given("U", 15), 15), (given("D", 15), 15)), shuffled=False
    ),
    "an administration is deleted": Life(
        "MedicationAdministration", "status", ((given("A", 10), "completed"), (given("D", 10), "entered-in-error")), shuffled=False
    ),
    "a dose that was refused was not given": Life("MedicationAdministration", "status", ((given("A", 10, "RE"), "not-done"),)),
    "a vaccination is corrected and deleted": Life(
        "Immunization", "status", ((shot("CP", "A"), "completed"), (shot("CP", "U", "1.0"), "completed"), (shot("CP", "D"), "entered-in-error")), False
    ),
    "a vaccination is refused": Life("Immunization", "status", ((shot("RE", "A", "999"), "not-done"),)),
    "an allergy becomes inactive": Life("AllergyIntolerance", "clinicalStatus.coding.code", ((allergy(1, "A", "A"), "active"), (allergy(2, "U", "I"), "inactive"))),
    "an allergy is deleted": Life(
        "AllergyIntolerance", "verificationStatus.coding.code", ((allergy(1, "A", "A"), None), (allergy(2, "D", ""), "entered-in-error"))
    ),
    "a provider is deactivated, reactivated, deleted": Life(
        "Practitioner", "active", ((staff(1, "MAD", "A"), True), (staff(2, "MDC"), False), (staff(3, "MAC"), True), (staff(4, "MDL"), False)), shuffled=False
    ),
    "a specimen's result is corrected": Life("Observation", "status", ((specimen_report("P", 5), "preliminary"), (specimen_report("F", 6), "final"), (specimen_report("C", 7), "corrected"))),
    "a bed is occupied, then cleaned": Life("Location", "operationalStatus.code", ((bed(1, "O"), "O"), (bed(2, "H"), "H")), shuffled=False),
}  # fmt: skip


def at(node: Any, path: str) -> Any:
    for name in path.split("."):
        node = node[0] if isinstance(node, list) and node else node
        node = node.get(name) if isinstance(node, dict) else None
    return node


def renumbered(text: str) -> str:
    """The same message under a control id of its own: not a resend, but told again."""
    fields = text.split("|")
    return "|".join([*fields[:9], f"{fields[9]}R", *fields[10:]])


@pytest.mark.parametrize("name", sorted(LIVES))
async def test_a_life_goes_as_its_messages_say_and_may_be_told_again(name: str) -> None:
    life, exchange = LIVES[name], Exchange()
    for text, expected in life.steps:
        assert await exchange.send(text) == "AA"
        assert at(exchange.one(life.rtype), life.path) == expected
    versions = exchange.store.versions()
    for text, _ in life.steps:
        assert await exchange.send(renumbered(text)) == "AA"
    assert exchange.store.versions() == versions


@pytest.mark.parametrize("name", sorted(name for name, life in LIVES.items() if life.shuffled and len(life.steps) > 1))
async def test_a_life_told_backwards_ends_the_same(name: str) -> None:
    life, exchange = LIVES[name], Exchange()
    for text, _ in reversed(life.steps):
        assert await exchange.send(text) == "AA"
    assert at(exchange.one(life.rtype), life.path) == life.steps[-1][1]
