"""Absent keeps, "" deletes, a value replaces, each source its own, and the order of arrival does not matter."""

import itertools
import time
from typing import Any

import pytest

from fhir_server.feed.reconcile import Said, reconcile, stamp

PHONE = {"system": "phone", "value": "1"}
WORK = {"system": "phone", "value": "2"}


def choice(name: str) -> str:
    return "deceased[x]" if name.startswith("deceased") else name


def said(at: str, source: str = "adt", nulls: tuple[str, ...] = (), **elements: Any) -> Said:
    return Said({"resourceType": "Patient", **elements}, source, stamp(at, f"e{at}"), nulls, choice)


def after(*messages: Said) -> dict[str, Any]:
    res, state = None, None
    for message in messages:
        res, state = reconcile(res, state, message)
    assert res is not None
    return {name: value for name, value in res.items() if name != "resourceType"}


def test_absent_keeps_and_a_value_replaces() -> None:
    assert after(said("1", gender="male", birthDate="1970"), said("2", gender="female")) == {"gender": "female", "birthDate": "1970"}


HOME = {"system": "phone", "value": "1", "use": "home"}
OFFICE = {"system": "phone", "value": "2", "use": "work"}


def test_null_deletes_what_the_source_said() -> None:
    first = said("1", gender="male", telecom=[HOME, OFFICE])
    assert after(first, said("2", nulls=("gender", "telecom@home"))) == {"telecom": [OFFICE]}
    assert after(first, said("2", nulls=("telecom",))) == {"gender": "male"}
    assert after(first, said("2", nulls=("telecom@home",), telecom=[OFFICE])) == {"gender": "male", "telecom": [OFFICE]}


def test_one_kind_of_a_list_can_be_absent_without_deleting_what_was_said() -> None:
    other = {"system": "phone", "value": "3", "use": "work"}
    assert after(said("1", telecom=[HOME, OFFICE]), said("2", telecom=[other])) == {"telecom": [HOME, other]}
    numbers = [{"type": {"coding": [{"code": kind}]}, "value": kind} for kind in ("MR", "SS")]
    assert after(said("1", identifier=numbers), said("2", identifier=numbers[:1])) == {"identifier": numbers}


def test_one_source_cannot_wipe_what_another_gave() -> None:
    adt = said("1", telecom=[PHONE], identifier=[{"system": "a", "value": "1"}], gender="male")
    lab = said("2", "lab", telecom=[WORK], nulls=("gender", "identifier"))
    assert after(adt, lab) == {"telecom": [PHONE, WORK], "identifier": [{"system": "a", "value": "1"}], "gender": "male"}
    assert after(adt, lab, said("3", "lab", nulls=("telecom",)))["telecom"][0] == PHONE


def test_the_same_item_of_two_sources_stands_once_and_stays_until_both_take_it_back() -> None:
    both = after(said("1", telecom=[PHONE]), said("2", "lab", telecom=[PHONE]))
    assert both == {"telecom": [PHONE]}
    assert after(said("1", telecom=[PHONE]), said("2", "lab", telecom=[PHONE]), said("3", telecom=[WORK]))["telecom"] == [WORK, PHONE]


def test_an_older_event_never_overwrites_a_newer_one_but_fills_gaps() -> None:
    assert after(said("5", gender="male"), said("3", gender="female", birthDate="1970")) == {"gender": "male", "birthDate": "1970"}


def test_choice_types_replace_each_other() -> None:
    assert after(said("1", deceasedBoolean=True), said("2", deceasedDateTime="2024-01-01")) == {"deceasedDateTime": "2024-01-01"}


def test_what_a_fhir_client_changed_is_kept_against_older_and_replaced_by_newer_events() -> None:
    res, state = reconcile(None, None, said("2024-01-01", gender="male", telecom=[PHONE]))
    res = {**res, "gender": "female", "telecom": [WORK, PHONE], "maritalStatus": {"text": "S"}, "meta": {"lastUpdated": "2024-03-01"}}
    older, old_state = reconcile(res, state, said("2024-02-01", gender="other", telecom=[PHONE]))
    assert older["gender"] == "female"
    assert older["telecom"] == [PHONE, WORK]
    assert older["maritalStatus"] == {"text": "S"}
    newer, _ = reconcile(older, old_state, said("2024-04-01", gender="other"))
    assert newer["gender"] == "other"


def test_a_fhir_client_s_deletion_is_not_undone_by_an_older_event() -> None:
    res, state = reconcile(None, None, said("2024-01-01", gender="male"))
    res = {"resourceType": "Patient", "meta": {"lastUpdated": "2024-03-01"}}
    again, _ = reconcile(res, state, said("2024-02-01", gender="male"))
    assert "gender" not in again


MESSAGES = [
    said("1", gender="male", telecom=[PHONE], name=[{"family": "A"}]),
    said("2", "lab", gender="unknown", telecom=[PHONE], name=[{"family": "A", "given": ["X"]}]),
    said("3", telecom=[WORK], nulls=("gender",)),
    said("4", "lab", birthDate="1970", name=[{"family": "B"}]),
    said("5", name=[{"family": "A"}, {"family": "C"}], deceasedBoolean=False),
]


@pytest.mark.parametrize("order", list(itertools.permutations(range(5))))
def test_the_order_of_arrival_does_not_matter(order: tuple[int, ...]) -> None:
    got = after(*(MESSAGES[place] for place in order))
    assert got == {
        "gender": "unknown",
        "birthDate": "1970",
        "telecom": [WORK, PHONE],
        "name": [{"family": "A"}, {"family": "C"}, {"family": "B"}],
        "deceasedBoolean": False,
    }


def test_repeating_a_message_changes_nothing() -> None:
    res, state = reconcile(None, None, MESSAGES[0])
    assert reconcile(res, state, MESSAGES[0]) == (res, state)


def test_a_message_mapped_again_takes_back_what_it_no_longer_says() -> None:
    first = said("1", gender="male", telecom=[HOME, OFFICE], photo=[{"url": "x"}])
    assert after(first, said("2", birthDate="1970"), said("1", telecom=[HOME])) == {"birthDate": "1970", "telecom": [HOME]}
    assert after(first, said("2", gender="female"), said("1", gender="other")) == {"gender": "female"}


def test_many_slots_of_one_list_are_merged_in_one_pass() -> None:
    """A segment with 4,000 fields that no map knows makes 4,000 slots of one list: merging the list for each of them took minutes."""
    many = {"resourceType": "Patient", "extension": [{"url": f"urn:field:{number}", "valueString": "x"} for number in range(4000)]}
    merged, state = reconcile(None, None, Said(many, "a", stamp("2024-01-01T00:00:00.000Z", "1")))
    begun = time.process_time()
    merged, state = reconcile(merged, state, Said(many, "a", stamp("2024-01-02T00:00:00.000Z", "2")))
    assert time.process_time() - begun < 2.0
    assert sorted(merged["extension"], key=str) == sorted(many["extension"], key=str)


def test_what_is_assumed_stands_until_something_is_said_and_again_when_that_is_taken_back() -> None:
    assumed = Said(
        {"resourceType": "Coverage", "status": "active", "payor": [{"display": "unknown"}]}, "a", stamp("5", "5"), assumed=("status", "payor")
    )
    payer = {"reference": "Organization/1"}
    told = Said({"resourceType": "Coverage", "status": "cancelled", "payor": [payer]}, "a", stamp("1", "1"))
    for order in ((assumed, told), (told, assumed)):
        assert after(*order) == {"status": "cancelled", "payor": [payer]}
    taken = Said({"resourceType": "Coverage"}, "a", stamp("6", "6"), nulls=("status", "payor"))
    assert after(assumed, told, taken) == {"status": "active", "payor": [{"display": "unknown"}]}
