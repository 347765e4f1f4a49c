"""Which stored Observation an OBX means, in every order and for every kind of correction."""

import itertools
from typing import Any

import pytest

from fhir_server.feed import results
from fhir_server.feed.results import Result, new_track


class Lab:
    """A pretended store driven by plans."""

    def __init__(self, snapshot: bool = False) -> None:
        self.track, self.stored, self.count, self.snapshot = new_track("Patient/1", "r1", ""), {}, itertools.count(1), snapshot

    def send(self, at: str, *rows: tuple[Any, ...]) -> None:
        sent = [
            Result(code, uid, status, {"resourceType": "Observation", "status": status, "code": {"text": code}, "valueString": value})
            for code, status, value, uid in (row if len(row) == 4 else (*row, "") for row in rows)
        ]
        plan = results.plan(self.track, sent, event_time=at, entry=f"e{at}", new_id=lambda: f"o{next(self.count)}", snapshot=self.snapshot)
        self.track = plan.track
        for result, written in zip(sent, plan.written):
            if written.write:
                self.stored[written.rid] = results.overlay(self.stored[written.rid], result.res) if written.keep else result.res
        for rid in plan.withdrawn:
            self.stored[rid] = results.withdraw(self.stored[rid])

    @property
    def valid(self) -> list[tuple[str, str, str]]:
        return sorted((res["code"]["text"], res["status"], res["valueString"]) for res in self.stored.values() if res["status"] != "entered-in-error")


def test_a_result_grows_from_preliminary_to_corrected_on_one_resource() -> None:
    lab = Lab()
    for at, status, value in [("1", "P", "5"), ("2", "F", "6"), ("3", "C", "7")]:
        lab.send(at, ("K", status, value))
    assert lab.stored == {"o1": {"resourceType": "Observation", "status": "C", "code": {"text": "K"}, "valueString": "7"}}


@pytest.mark.parametrize("order", list(itertools.permutations([("1", "P", "5"), ("2", "F", "6"), ("3", "C", "7")])))
def test_in_any_order_the_newest_report_stands(order: tuple[tuple[str, str, str], ...]) -> None:
    lab = Lab()
    for at, status, value in order:
        lab.send(at, ("K", status, value))
    assert lab.valid == [("K", "C", "7")]
    assert len(lab.stored) == 1


def test_at_the_same_event_time_the_further_status_stays() -> None:
    lab = Lab()
    lab.send("1", ("K", "F", "6"))
    lab.send("1", ("K", "P", "5"))
    assert lab.valid == [("K", "F", "6")]


def test_a_missing_result_is_unchanged_unless_the_source_sends_snapshots() -> None:
    for snapshot, left in ((False, 2), (True, 1)):
        lab = Lab(snapshot)
        lab.send("1", ("K", "F", "5"), ("Na", "F", "140"))
        lab.send("2", ("K", "F", "5"))
        assert len(lab.valid) == left


def test_an_older_snapshot_withdraws_nothing() -> None:
    lab = Lab(snapshot=True)
    lab.send("2", ("K", "F", "5"), ("Na", "F", "140"))
    lab.send("1", ("K", "P", "4"))
    assert lab.valid == [("K", "F", "5"), ("Na", "F", "140")]


def test_repeating_a_report_writes_nothing() -> None:
    lab = Lab()
    rows = [("K", "F", "5"), ("T", "F", "line 1"), ("T", "F", "line 2")]
    lab.send("1", *rows)
    before = dict(lab.stored)
    plan = results.plan(
        lab.track,
        [Result(code, "", status, {**before[rid]}) for (code, status, _), rid in zip(rows, before)],
        event_time="1",
        entry="e1",
        new_id=lambda: pytest.fail("a new id"),
    )
    assert not any(written.write for written in plan.written)


@pytest.mark.parametrize("after", [["b", "c"], ["a", "b", "c", "d"], ["a", "x", "c"], ["a"], ["c", "b", "a"]])
def test_a_group_told_apart_by_order_only_is_superseded_as_a_whole(after: list[str]) -> None:
    lab = Lab()
    lab.send("1", *(("T", "P", line) for line in "abc"))
    lab.send("2", *(("T", "F", line) for line in after))
    assert sorted(value for _, _, value in lab.valid) == sorted(after)
    assert all(lab.stored[rid]["status"] == "entered-in-error" for rid in ("o1", "o2", "o3"))
    assert [lab.stored[rid]["valueString"] for rid in ("o1", "o2", "o3")] == ["a", "b", "c"]


def test_a_group_of_the_same_content_only_changes_its_status() -> None:
    lab = Lab()
    lab.send("1", *(("T", "P", line) for line in "abc"))
    lab.send("2", *(("T", "F", line) for line in "abc"))
    assert lab.valid == [("T", "F", "a"), ("T", "F", "b"), ("T", "F", "c")]
    assert len(lab.stored) == 3


def test_an_older_group_of_other_size_changes_nothing() -> None:
    lab = Lab()
    lab.send("2", ("T", "F", "a"), ("T", "F", "b"))
    lab.send("1", ("T", "P", "a"))
    assert lab.valid == [("T", "F", "a"), ("T", "F", "b")]


def test_obx_21_tells_results_apart_whatever_their_order() -> None:
    lab = Lab()
    lab.send("1", ("T", "P", "a", "u1"), ("T", "P", "b", "u2"))
    lab.send("2", ("T", "F", "B", "u2"), ("T", "F", "c", "u3"))
    assert lab.valid == [("T", "F", "B"), ("T", "F", "c"), ("T", "P", "a")]
    assert len(lab.stored) == 3


def test_a_status_change_without_a_value_keeps_the_value() -> None:
    stored = {"resourceType": "Observation", "status": "preliminary", "valueString": "5", "interpretation": [{"text": "H"}]}
    sent = {"resourceType": "Observation", "status": "final", "dataAbsentReason": {"text": "unknown"}}
    assert results.overlay(stored, sent) == {**stored, "status": "final"}
    assert results.overlay(stored, {**sent, "valueString": "6"}) == {**sent, "valueString": "6"}


def test_another_patient_s_order_is_withdrawn_only_by_a_correction() -> None:
    track = {**new_track("Patient/1", "r1", "202401010800")}
    final, corrected = ([Result("K", "", status, {})] for status in "FC")
    assert not results.is_correction(track, final, "F", "202405050900")
    assert results.is_correction(track, corrected, "F", "202405050900")
    assert results.is_correction(track, final, "C", "")
    assert results.is_correction(track, final, "F", "202401010800")
    assert not results.is_correction(new_track("Patient/1", "r1", ""), final, "F", "")


def test_an_older_report_where_none_is_stored_is_written_whole() -> None:
    sent = {"resourceType": "DiagnosticReport", "status": "final"}
    assert results.report(None, sent, ["Observation/1"], [], older=True) == {**sent, "result": [{"reference": "Observation/1"}]}


def test_a_report_keeps_earlier_results_and_loses_withdrawn_ones() -> None:
    stored = {
        "resourceType": "DiagnosticReport",
        "status": "preliminary",
        "conclusion": "x",
        "result": [{"reference": "Observation/1"}, {"reference": "Observation/2"}],
    }
    sent = {"resourceType": "DiagnosticReport", "status": "final", "result": [{"reference": "urn:uuid:x"}]}
    got = results.report(stored, sent, ["Observation/3"], ["2"], older=False)
    assert got["result"] == [{"reference": "Observation/3"}, {"reference": "Observation/1"}]
    assert (got["status"], got["conclusion"]) == ("final", "x")
    older = results.report(stored, sent, ["Observation/3"], [], older=True)
    assert older["status"] == "preliminary"
    assert [row["reference"] for row in older["result"]] == ["Observation/1", "Observation/2", "Observation/3"]
