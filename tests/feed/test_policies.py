"""Policies of a patient (IN1): which Coverage a message means. HL7 v2.8 6.5.6."""

import pytest

from fhir_server.feed import undo
from tests.feed.exchange import Exchange, adt, msh, pid, pv1


def in1(plan: str = "PLAN7^Basic", policy: str = "", member: str = "", *, place: int = 1, ends: str = "") -> str:
    """IN1-2, IN1-13, IN1-36, IN1-49."""
    parts = {2: plan, 3: "I1", 4: "Insco", 13: ends, 36: policy, 49: member}
    return f"IN1|{place}|" + "|".join(parts.get(number, "") for number in range(2, 50))


def numbers(exchange: Exchange) -> list[tuple[str, ...]]:
    """Of each Coverage its identifiers and the number of the insured."""
    return sorted((*(one["value"] for one in res["identifier"]), res.get("subscriberId", "")) for res in exchange.all("Coverage"))


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"policy": "POL1"}, {"policy": "POL2"}),
        ({"member": "M1"}, {"member": "M2"}),
        ({"policy": "POL1", "member": "M"}, {"policy": "POL2", "member": "M"}),
        ({"policy": "POL1", "plan": "PARTA"}, {"policy": "POL1", "plan": "PARTB"}),
    ],
)
async def test_in1_36_two_policies_of_one_patient_are_two_coverages(together: bool, one: dict[str, str], other: dict[str, str]) -> None:
    exchange = Exchange()
    groups = [[in1(**one), in1(**other, place=2)]] if together else [[in1(**one)], [in1(**other)]]
    for group in [*groups, *groups]:
        assert await exchange.send(adt("A08", pid(), pv1(), *group)) == "AA"
    assert len(exchange.all("Coverage")) == 2


async def test_in1_49_two_insured_of_one_policy_in_one_message_are_two_coverages() -> None:
    exchange = Exchange()
    for _ in range(2):
        await exchange.send(adt("A08", pid(), pv1(), in1(policy="GROUP", member="FATHER"), in1(policy="GROUP", member="MOTHER", place=2)))
    assert numbers(exchange) == [("PLAN7", "GROUP", "FATHER"), ("PLAN7", "GROUP", "MOTHER")]


async def test_in1_36_a_correction_of_a_policy_stays_with_it() -> None:
    """Its end, a member number that was wrong, a message that says less, a number that was not known at first."""
    exchange = Exchange()
    for row in (in1(), in1(policy="POL1", member="M1"), in1(policy="POL1", member="M2", ends="20251231"), in1(policy="POL1"), in1(ends="20261231")):
        assert await exchange.send(adt("A08", pid(), pv1(), row)) == "AA"
    assert numbers(exchange) == [("PLAN7", "POL1", "M2")]
    assert exchange.one("Coverage")["period"]["end"] == "2026-12-31"


async def test_in1_policies_follow_their_patient_through_a_merge_and_its_undoing() -> None:
    """A later message of either number finds the policies, the allergies and the visits without number that the retired patient had."""
    exchange = Exchange()
    rows = ("PV1|1|O|W", "AL1|1|DA|PEN^Penicillin^L", in1(policy="POL1"))
    for number in ("1", "2"):
        await exchange.send(adt("A08", pid(number), *rows))
    await exchange.send(adt("A40", pid("1"), "MRG|2^^^HOSP^MR"))
    before = {rtype: len(exchange.all(rtype)) for rtype in ("Coverage", "AllergyIntolerance", "Encounter")}
    assert before == {"Coverage": 2, "AllergyIntolerance": 2, "Encounter": 2}
    for number in ("1", "2"):
        await exchange.send(adt("A08", pid(number), *rows))
    assert {rtype: len(exchange.all(rtype)) for rtype in before} == before
    [merge] = exchange.store.tables.of("merges").values()
    await undo.undo(exchange.feed, merge["_id"], "tester")
    for number in ("1", "2"):
        await exchange.send(adt("A08", pid(number), *rows))
    assert {rtype: len(exchange.all(rtype)) for rtype in before} == before
    assert len({res["patient"]["reference"] for res in exchange.all("AllergyIntolerance")}) == 2


async def test_what_has_no_number_is_kept_apart_for_each_patient() -> None:
    """A document of all patients with an allergy, a plan or a visit without number would grow with each of them."""
    exchange = Exchange()
    for number in range(5):
        await exchange.send(adt("A08", pid(str(number)), "PV1|1|O|W", "AL1|1|DA|PEN^Penicillin^L", in1(policy=f"POL{number}")))
    keys = [row for row in exchange.store.tables.of("feed").values() if any(kind in row["_id"] for kind in ("|Coverage|", "|Allergy", "|Encounter|"))]
    assert len(keys) == 15
    assert {len(row["tracks"]) for row in keys} == {1}


async def test_iam_7_and_prb_4_may_count_anew_for_each_patient() -> None:
    exchange = Exchange()
    for _ in range(2):
        for number in "123":
            assert await exchange.send(adt("A60", pid(number), "IAM|1|DA|PEN^Penicillin^L|||A|1^HOSP")) == "AA"
            header, _at = msh("PPR^PC1", "ADT|HOSP")
            lines = [header, pid(number), "PRB|AD|20240101|I10^Hypertension^I10|1^HOSP", "GOL|AD|20240101|W^Walks^L|1^HOSP"]
            assert await exchange.send("\r".join(lines)) == "AA"
    assert {entry.status for entry in exchange.inbox.entries()} == {"processed"}
    for rtype in ("AllergyIntolerance", "Condition", "Goal"):
        assert len(exchange.all(rtype)) == 3
        keys = [row for row in exchange.store.tables.of("feed").values() if f"|{rtype}|" in row["_id"] or row["_id"].startswith(f"{rtype}|")]
        assert [len(row["tracks"]) for row in keys] == [1] * 3
