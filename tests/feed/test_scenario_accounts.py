"""Accounts: merged (A35, A41, A36), moved (A44), renumbered (A49); what is charged to them goes along, and later messages find them."""

from typing import Any

import pytest

from tests.feed.exchange import Exchange, adt, msh, pid, pv1
from tests.feed.test_scenario_merge import by_number, mrg


def of_account(number: str, account: str) -> str:
    """PID of a patient with PID-18."""
    return pid(number, rest="|" * 10 + f"{account}^^^HOSP^AN")


def charge(number: str, account: str, what: str) -> str:
    header, at = msh("DFT^P03^DFT_P03", "ADT|HOSP")
    return "\r".join([header, f"EVN|P03|{at}", of_account(number, account), f"FT1|1|T{what}||{at}||CG|{what}^Charge^L|||1"]) + "\r"


async def charged() -> Exchange:
    """Patients 1 and 2 with the accounts A1 and A2, a visit and a charge each."""
    exchange = Exchange()
    for number in "12":
        assert await exchange.send(adt("A01", of_account(number, f"A{number}"), pv1(f"V{number}"))) == "AA"
        assert await exchange.send(charge(number, f"A{number}", f"C{number}")) == "AA"
    return exchange


def accounts(exchange: Exchange) -> dict[str, dict[str, Any]]:
    return {res["identifier"][0]["value"]: res for res in exchange.all("Account")}


def charges(exchange: Exchange) -> dict[str, tuple[str, str]]:
    """Code of each charge -> its account and its patient."""
    return {res["code"]["coding"][0]["code"]: (res["account"][0]["reference"], res["subject"]["reference"]) for res in exchange.all("ChargeItem")}


async def test_an_account_has_its_patient_its_charges_and_its_number() -> None:
    exchange = await charged()
    found = accounts(exchange)
    assert found.keys() == {"A1", "A2"}
    for number in "12":
        patient = f"Patient/{by_number(exchange, number)['id']}"
        assert found[f"A{number}"]["subject"] == [{"reference": patient}]
        assert charges(exchange)[f"C{number}"] == (f"Account/{found[f'A{number}']['id']}", patient)


@pytest.mark.parametrize("event", ["A35", "A41"])
async def test_a_merged_account_gives_its_charges_to_the_survivor(event: str) -> None:
    exchange = Exchange()
    for account in ("A1", "A2"):
        await exchange.send(charge("1", account, f"C{account}"))
    assert await exchange.send(adt(event, of_account("1", "A1"), mrg("1", "A2"))) == "AA"
    found = accounts(exchange)
    assert (found["A2"]["status"], found["A1"]["status"]) == ("inactive", "active")
    survivor = f"Account/{found['A1']['id']}"
    assert {account for account, _ in charges(exchange).values()} == {survivor}
    await exchange.send(charge("1", "A2", "LATE"))
    assert charges(exchange)["LATE"][0] == survivor, "a later message for the retired number lands on the survivor"
    assert accounts(exchange)["A2"]["status"] == "inactive"
    assert by_number(exchange, "1").get("active") is not False


async def test_a_patient_and_account_merge_does_both() -> None:
    exchange = await charged()
    assert await exchange.send(adt("A36", of_account("1", "A1"), mrg("2", "A2"))) == "AA"
    found, patient = accounts(exchange), f"Patient/{by_number(exchange, '1')['id']}"
    assert by_number(exchange, "2")["active"] is False
    assert found["A2"]["status"] == "inactive"
    assert charges(exchange) == dict.fromkeys(("C1", "C2"), (f"Account/{found['A1']['id']}", patient))


async def test_a_moved_account_takes_its_charges_to_the_right_patient() -> None:
    exchange = await charged()
    assert await exchange.send(adt("A44", of_account("1", "A2"), mrg("2", "A2"))) == "AA"
    right, wrong = f"Patient/{by_number(exchange, '1')['id']}", f"Patient/{by_number(exchange, '2')['id']}"
    moved = accounts(exchange)["A2"]
    assert moved["subject"] == [{"reference": right}]
    assert charges(exchange)["C2"] == (f"Account/{moved['id']}", right)
    assert {res["subject"]["reference"] for res in exchange.all("Encounter")} == {right}, "the visit belongs to the account"
    assert wrong not in {patient for _, patient in charges(exchange).values()}
    assert len(exchange.all("Account")) == 2
    await exchange.send(charge("1", "A2", "LATE"))
    assert charges(exchange)["LATE"] == (f"Account/{moved['id']}", right)


async def test_a_changed_account_number_stays_on_the_same_account() -> None:
    exchange = await charged()
    before = accounts(exchange)["A1"]["id"]
    assert await exchange.send(adt("A49", of_account("1", "A9"), mrg("1", "A1"))) == "AA"
    (account,) = [res for res in exchange.all("Account") if res["id"] == before]
    assert {(one["value"], one.get("use")) for one in account["identifier"]} == {("A9", None), ("A1", "old")}
    await exchange.send(charge("1", "A9", "LATE"))
    assert charges(exchange)["LATE"][0] == f"Account/{before}"
    assert len(exchange.all("Account")) == 2


@pytest.mark.parametrize("event", ["A35", "A41"])
async def test_an_unknown_account_to_merge_is_remembered(event: str) -> None:
    exchange = await charged()
    assert await exchange.send(adt(event, of_account("1", "A1"), mrg("1", "A7"))) == "AA"
    assert exchange.inbox.entries()[-1].status == "warning"
    await exchange.send(charge("1", "A7", "LATE"))
    assert charges(exchange)["LATE"][0] == f"Account/{accounts(exchange)['A1']['id']}"
    assert len(exchange.all("Account")) == 2


@pytest.mark.parametrize("event", ["A35", "A41", "A44", "A49"])
async def test_repeating_an_account_event_changes_nothing_more(event: str) -> None:
    exchange = await charged()
    await exchange.send(charge("1", "A3", "C3"))
    number, account = {"A44": ("2", "A2"), "A49": ("1", "A1")}.get(event, ("1", "A3"))
    target = {"A44": "A2", "A49": "A9"}.get(event, "A1")
    message = adt(event, of_account("1", target), mrg(number, account))
    assert await exchange.send(message) == "AA"
    state, versions = exchange.state(), exchange.store.versions()
    header, _ = msh(f"ADT^{event}")
    assert await exchange.send("\r".join([header, *message.split("\r")[1:]])) == "AA"
    assert exchange.state() == state
    assert exchange.store.versions() == versions
