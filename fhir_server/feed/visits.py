"""The life of an Encounter: status, class, place and period are what all its events together say, whatever order they came in. Pure.

Every ADT event that moves a visit is kept as a *step* in the encounter's state; a cancel takes the last step it cancels out of the sum, so
that what was before stands again. `visit_events.csv` says what each event does (HL7 v2.8 chapter 3, 3.3; status codes of
https://hl7.org/fhir/R4/valueset-encounter-status.html). Everything else of an Encounter goes through `reconcile`.

A step: {event, at: stamp, time: FHIR dateTime, status?, class?, location?, others?, start?, end?}; unset parts are absent. `others` are places where
the patient is for a while or is expected (PV1-11, PV1-42): they stand until the next event that moves the visit.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from conformance.dates import interval

Resource = dict[str, Any]
Step = dict[str, Any]
FOLDED = ("status", "statusHistory", "class", "classHistory", "location", "period")
EDIT = "~fhir"
NOT_THERE = frozenset({"planned", "cancelled", "entered-in-error"})
ADMISSIONS = frozenset({"A01", "A04"})
UNKNOWN = "unknown"  # the status of a visit of which no event has told any


@dataclass(frozen=True, slots=True)
class VisitEvent:
    """One row of the table: kind is step, update (never touches the status) or cancel; status: what it sets, or leaves if nothing is cancelled."""

    kind: str
    status: str
    cancels: frozenset[str]


def _table() -> Mapping[str, VisitEvent]:
    with Path(__file__).with_name("visit_events.csv").open(encoding="utf-8") as file:
        return MappingProxyType(
            {row["event"]: VisitEvent(row["kind"], row["status"], frozenset(row["cancels"].split())) for row in csv.DictReader(file)}
        )


EVENTS = _table()
UPDATES = frozenset(event for event, row in EVENTS.items() if row.kind == "update")
SEED = VisitEvent("seed", "", frozenset())


def step(event: str, at: str, time: str, mapped: Resource) -> Step:
    """The step that a message makes; `event` is 'A02', or any other trigger (ORU ...), which only counts while no ADT event is known."""
    row = EVENTS.get(event, SEED)
    made: Step = {"event": event if event in EVENTS else "", "at": at, "time": time}
    status = {"step": row.status, "seed": mapped.get("status", "")}.get(row.kind, "")
    period = mapped.get("period", {})
    place = mapped.get("location", [])
    parts = {
        "status": status,
        "class": mapped.get("class"),
        "location": _place(place),
        "others": _others(place),
        "start": period.get("start"),
        "end": period.get("end"),
    }
    made.update({name: value for name, value in parts.items() if value})
    return made


def _place(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Where the patient is: the first location that is not a past or a planned one."""
    for row in rows:
        if row.get("status") not in ("completed", "planned", "reserved"):
            return {name: value for name, value in row.items() if name not in ("status", "period")}
    return None


def _others(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Further places: a temporary one, one that is planned or reserved; past ones are known from the events that led there."""
    there = [row for row in rows if row.get("status") not in ("completed", "planned", "reserved")][:1]
    return [row for row in rows if row.get("status") != "completed" and row not in there]


def noticed(current: Resource, steps: Sequence[Step]) -> list[Step]:
    """The steps, with one more where a FHIR client set the status since the feed last wrote."""
    if steps and fold(steps).get("status", UNKNOWN) == current.get("status"):
        return list(steps)
    at = str(current.get("meta", {}).get("lastUpdated", ""))
    return [*steps, step(EDIT, f"{at}|", at, current) | {"event": EDIT}]


def added(steps: Sequence[Step], new: Step) -> list[Step]:
    """The steps with a new one; the same message again replaces its own step."""
    return sorted([one for one in steps if one["at"] != new["at"]] + [new], key=lambda one: str(one["at"]))


def fold(steps: Sequence[Step]) -> Resource:
    """Status, class, location, period and their histories after all steps; only what is known is present."""
    kept = _effective(sorted(steps, key=lambda one: str(one["at"])))
    out: Resource = {}
    statuses = _spans(kept, "status")
    classes = _spans(kept, "class")
    if statuses:
        out["status"] = statuses[-1][0]
    if len(statuses) > 1:
        out["statusHistory"] = [{"status": value, "period": _period(start, end)} for value, start, end in statuses[:-1]]
    if classes:
        out["class"] = classes[-1][0]
    if len(classes) > 1:
        out["classHistory"] = [{"class": value, "period": _period(start, end)} for value, start, end in classes[:-1]]
    period = _visit_period(kept, out.get("status", ""))
    if period:
        out["period"] = period
    places = _spans(_there(kept), "location")
    others = _expected(kept)
    if places or others:
        out["location"] = [_located(place, period, out.get("status", ""), last=number == len(places)) for number, place in enumerate(places, 1)]
        out["location"] += others
    return out


def _there(kept: Sequence[Step]) -> Sequence[Step]:
    """The steps since the patient came, for where they are: while a visit is planned, nobody is anywhere."""
    first = next((place for place, one in enumerate(kept) if one.get("status", "planned") != "planned"), 0)
    if not any(one.get("status") == "planned" for one in kept[:first]):
        return kept
    planned = [one["location"] for one in kept[:first] if "location" in one]
    return [{"location": planned[-1], **kept[first]} if planned else kept[first], *kept[first + 1 :]]


def _expected(kept: Sequence[Step]) -> list[Resource]:
    """Other places of the last step that named some, unless the visit has moved on since."""
    others: list[Resource] = []
    for one in kept:
        if "others" in one or EVENTS.get(one["event"], SEED).kind != "update":
            others = list(one.get("others", []))
    return others


def _effective(steps: Sequence[Step]) -> list[Step]:
    """The steps that still count: seeds only while nothing better is known, cancelled ones out, cancels without a match as their fallback."""
    known = [one for one in steps if one["event"]]
    kept: list[Step] = []
    for one in known or steps:
        row = EVENTS.get(one["event"], SEED)
        if row.kind != "cancel":
            kept.append(one)
            continue
        found = next((place for place in range(len(kept) - 1, -1, -1) if kept[place]["event"] in row.cancels), None)
        if found is None:
            kept.append({**one, "status": row.status} if row.status else one)
            continue
        kept = _without(kept, found)
        if EVENTS[one["event"]].cancels <= UPDATES:  # a pending move is called off, also where an update repeated it
            kept.append({"event": one["event"], "at": one["at"], "time": one["time"], "others": one.get("others", [])})
        said = {name: one[name] for name in ("class", "location", "start") if name in one} | ({"status": row.status} if row.status else {})
        missing = {name: value for name, value in said.items() if not any(name in other for other in kept)}
        if missing:  # what stood before is not known to us: the cancel itself says what stands now
            kept.append({"event": one["event"], "at": one["at"], "time": one["time"], **missing})
    return kept


def _without(kept: Sequence[Step], found: int) -> list[Step]:
    """The steps without the one that is cancelled, and what only repeated it; without an admission nothing that came after it took place."""
    gone, first = kept[found], found
    for place in range(found - 1, -1, -1):
        one = kept[place]
        if any(name in one and one[name] != gone.get(name) for name in ("status", *(() if "status" in gone else ("location",)))):
            break
        if one["event"] == gone["event"]:
            first = place
    if gone["event"] in ADMISSIONS:
        return list(kept[:first])
    rest = [_moved_back(one, gone) for place, one in enumerate(kept[first:], first) if one["event"] != gone["event"] or place > found]
    return [*kept[:first], *rest]


def _moved_back(one: Step, gone: Step) -> Step:
    """An update that only repeated the place of a move which is cancelled says nothing of the place."""
    if one["event"] not in UPDATES or one.get("location") != gone.get("location"):
        return one
    return {name: value for name, value in one.items() if name != "location"}


def _spans(steps: Sequence[Step], name: str) -> list[tuple[Any, str, str]]:
    """(value, since, until) of each value that differs from the one before; `until` of the last is ''."""
    spans: list[tuple[Any, str, str]] = []
    for one in steps:
        if name not in one or (spans and spans[-1][0] == one[name]):
            continue
        if spans:
            spans[-1] = (spans[-1][0], spans[-1][1], one["time"])
        spans.append((one[name], one["time"], ""))
    return spans


def _period(start: str, end: str) -> Resource:
    """A Period of two FHIR times; a start behind the end (a sender's clocks disagree) is left out: https://hl7.org/fhir/R4/datatypes.html#Period"""
    if start and end and interval(start)[0] > interval(end)[1]:
        start = ""
    return {name: value for name, value in (("start", start), ("end", end)) if value}


def _visit_period(steps: Sequence[Step], status: str) -> Resource:
    started = [one["start"] for one in steps if "start" in one]
    began = [one["time"] for one in steps if one["event"] in ("A01", "A04")]
    ended = [one["end"] for one in steps if "end" in one] if status in ("finished", "") else []
    discharged = [one["time"] for one in steps if one["event"] == "A03"]
    start = started[-1] if started else began[0] if began else ""
    end = ended[-1] if ended else discharged[-1] if discharged and status == "finished" else ""
    return _period(start, end)


def _located(place: tuple[Any, str, str], visit: Resource, status: str, *, last: bool) -> Resource:
    """A place with its status and time. Where a visit is only planned the patient is not there yet, where it was called off nobody ever was."""
    value, start, end = place
    if last and status in NOT_THERE:
        return {**value, "status": "planned"} if status == "planned" else value
    end = end or (visit.get("end", "") if last else "")
    row = {**value, "status": "completed" if end else "active"}
    period = _period(start, end)
    return {**row, "period": period} if period else row
