"""An Encounter is what its events say together: cancels restore, updates leave the status, order of arrival does not matter."""

import itertools
from typing import Any

import pytest

from fhir_server.feed.visits import EVENTS, added, fold, noticed, step

AMB, IMP = {"code": "AMB"}, {"code": "IMP"}


def at(place: str) -> list[dict[str, Any]]:
    return [{"location": {"reference": f"Location/{place}"}}]


def sent(*events: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    for number, (event, mapped) in enumerate(events, 1):
        steps = added(steps, step(event, f"2024-01-0{number}|e", f"2024-01-0{number}", mapped))
    return steps


def test_admission_transfer_and_discharge_leave_a_history() -> None:
    got = fold(
        sent(("A04", {"class": AMB}), ("A06", {"class": IMP, "location": at("a")}), ("A02", {"location": at("b")}), ("A03", {"location": at("b")}))
    )
    assert got["status"] == "finished"
    assert got["period"] == {"start": "2024-01-01", "end": "2024-01-04"}
    assert got["statusHistory"] == [{"status": "in-progress", "period": {"start": "2024-01-01", "end": "2024-01-04"}}]
    assert got["classHistory"] == [{"class": AMB, "period": {"start": "2024-01-01", "end": "2024-01-02"}}]
    assert [(row["location"]["reference"], row["status"], row["period"]) for row in got["location"]] == [
        ("Location/a", "completed", {"start": "2024-01-02", "end": "2024-01-03"}),
        ("Location/b", "completed", {"start": "2024-01-03", "end": "2024-01-04"}),
    ]


@pytest.mark.parametrize(("events", "expected"), [(("A05",), "planned"), (("A05", "A01"), "active"), (("A01", "A11"), None), (("A01", "A23"), None)])
def test_nobody_is_at_the_place_of_a_visit_that_is_planned_or_called_off(events: tuple[str, ...], expected: str | None) -> None:
    (place,) = fold(sent(*((event, {"location": at("a")}) for event in events)))["location"]
    assert (place.get("status"), "period" in place) == (expected, expected == "active")


def test_an_update_leaves_the_status() -> None:
    assert fold(sent(("A01", {}), ("A03", {}), ("A08", {"status": "in-progress"})))["status"] == "finished"
    assert fold(sent(("A05", {}), ("A08", {"status": "in-progress"})))["status"] == "planned"


@pytest.mark.parametrize(
    ("events", "status", "place"),
    [
        ([("A01", {}), ("A11", {})], "cancelled", None),
        ([("A05", {}), ("A01", {}), ("A11", {})], "planned", None),
        ([("A01", {"location": at("a")}), ("A02", {"location": at("b")}), ("A12", {"location": at("a")})], "in-progress", "Location/a"),
        ([("A02", {"location": at("b")}), ("A12", {"location": at("a")})], None, "Location/a"),
        ([("A01", {"location": at("a")}), ("A12", {"location": at("c")})], "in-progress", "Location/c"),
        ([("A01", {}), ("A03", {"period": {"end": "2024-01-02"}}), ("A13", {})], "in-progress", None),
        ([("A13", {})], "in-progress", None),
        ([("A01", {"location": at("a")}), ("A10", {"location": at("x")}), ("A32", {})], "in-progress", "Location/a"),
        ([("A01", {"location": at("a")}), ("A09", {"location": at("x")}), ("A33", {})], "in-progress", "Location/a"),
        ([("A01", {}), ("A21", {}), ("A52", {})], "in-progress", None),
        ([("A01", {}), ("A21", {}), ("A22", {}), ("A53", {})], "onleave", None),
        ([("A14", {}), ("A27", {})], "cancelled", None),
        ([("A05", {}), ("A38", {})], "cancelled", None),
        ([("A01", {}), ("A23", {})], "entered-in-error", None),
        ([("A01", {}), ("A03", {}), ("A13", {}), ("A03", {}), ("A13", {})], "in-progress", None),
    ],
)
def test_a_cancel_restores_what_was_before(events: list[tuple[str, dict[str, Any]]], status: str | None, place: str | None) -> None:
    got = fold(sent(*events))
    assert got.get("status") == status
    assert (got["location"][-1]["location"]["reference"] if "location" in got else None) == place
    assert "end" not in got.get("period", {})


def test_the_order_of_arrival_does_not_matter() -> None:
    steps = sent(
        ("A04", {"class": AMB}), ("A06", {"class": IMP, "location": at("a")}), ("A02", {"location": at("b")}), ("A12", {}), ("A03", {}), ("A13", {})
    )
    expected = fold(steps)
    for order in itertools.permutations(steps):
        arrived: list[dict[str, Any]] = []
        for one in order:
            arrived = added(arrived, one)
        assert fold(arrived) == expected


def test_what_other_messages_say_of_a_visit_counts_only_while_no_adt_event_is_known() -> None:
    seed = ("R01", {"status": "unknown", "class": AMB, "location": at("lab")})
    assert fold(sent(seed))["status"] == "unknown"
    assert fold(sent(("A01", {"class": IMP, "location": at("a")}), seed))["class"] == IMP


def test_the_same_message_again_adds_no_step() -> None:
    steps = sent(("A01", {}))
    assert added(steps, steps[0]) == steps


def test_a_status_that_a_fhir_client_set_is_a_step_of_its_own() -> None:
    steps = sent(("A01", {}))
    edited = {**fold(steps), "status": "triaged", "meta": {"lastUpdated": "2024-01-05"}}
    assert fold(noticed(edited, steps))["status"] == "triaged"
    assert noticed({**edited, "status": "in-progress"}, steps) == steps
    later = added(noticed(edited, steps), step("A03", "2024-01-09|e", "2024-01-09", {}))
    assert fold(later)["status"] == "finished"


def test_every_row_of_the_table_is_of_a_known_kind_and_cancels_known_events() -> None:
    for event, row in EVENTS.items():
        assert row.kind in ("step", "update", "cancel"), event
        assert row.cancels <= EVENTS.keys(), event
        assert bool(row.cancels) == (row.kind == "cancel"), event


def test_a_start_behind_the_end_is_left_out() -> None:
    got = fold(sent(("A01", {"location": at("a")}), ("A03", {"period": {"start": "2024-05-01", "end": "2023-12-31T10:00:00+01:00"}})))
    assert got["period"] == {"end": "2023-12-31T10:00:00+01:00"}
    assert got["location"][0]["period"] == {"end": "2023-12-31T10:00:00+01:00"}


@pytest.mark.parametrize(
    ("events", "status"),
    [
        (("A01", "A01", "A11"), "cancelled"),
        (("A05", "A01", "A03", "A11"), "planned"),
        (("A04", "A06", "A11"), "cancelled"),
        (("A04", "A01", "A11"), "in-progress"),
        (("A01", "A21", "A11"), "cancelled"),
        (("A01", "A03", "A08", "A03", "A13"), "in-progress"),
        (("A01", "A21", "A03", "A03", "A13"), "onleave"),
        (("A05", "A05", "A38"), "cancelled"),
    ],
)
def test_a_cancel_takes_back_what_was_said_twice_and_all_of_an_admission(events: tuple[str, ...], status: str) -> None:
    assert fold(sent(*((event, {}) for event in events)))["status"] == status


def test_a_transfer_that_was_said_twice_is_cancelled_whole_and_an_earlier_one_stays() -> None:
    moves = [("A01", "a"), ("A02", "b"), ("A02", "c"), ("A08", "c"), ("A02", "c")]
    got = fold(sent(*((event, {"location": at(place)}) for event, place in moves), ("A12", {"location": at("b")})))
    assert [row["location"]["reference"] for row in got["location"]] == ["Location/a", "Location/b"]


def test_a_place_counts_from_when_the_patient_came() -> None:
    got = fold(sent(("A05", {"location": at("a")}), ("A05", {"location": at("b")}), ("A01", {}), ("A02", {"location": at("c")})))
    assert [(row["location"]["reference"], row["period"]) for row in got["location"]] == [
        ("Location/b", {"start": "2024-01-03", "end": "2024-01-04"}),
        ("Location/c", {"start": "2024-01-04"}),
    ]


def test_a_pending_transfer_shows_where_to_until_it_took_place_or_was_called_off() -> None:
    to = {"location": {"reference": "Location/icu"}, "status": "reserved"}
    before = [("A01", {"location": at("a")}), ("A15", {"location": [*at("a"), to]}), ("A08", {"location": at("a")})]
    assert fold(sent(*before))["location"][1:] == [to]
    assert len(fold(sent(*before, ("A26", {"location": at("a")})))["location"]) == 1
    assert len(fold(sent(*before[:2], ("A08", {"location": [*at("a"), to]}), ("A26", {"location": at("a")})))["location"]) == 1
    moved = fold(sent(*before, ("A02", {"location": at("icu")})))["location"]
    assert [row["status"] for row in moved] == ["completed", "active"]
