"""A parsed message and the tables -> a transaction Bundle, what is wrong, and the facts that a stateful feed needs.

Pure: nothing is looked up or stored. https://hl7.org/fhir/R4/http.html#transaction, https://build.fhir.org/ig/HL7/v2-to-fhir/
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mappers.v2 import authority, finish, times
from mappers.v2.grammar import Group
from mappers.v2.mapping import Map, apply_segment, compiled
from mappers.v2.message import Message, Segment, content
from mappers.v2.place import At, Scope
from mappers.v2.problem import ERROR, INFORMATION, Problem, erl
from mappers.v2.run import Draft, Element, Run, ToUcum, Translate, Unmapped
from mappers.v2.source import Source
from mappers.v2.tables import MessageRow, Ref, Structure, Tables

BUNDLE_MAP = "msh[bundle]"
MAX_SEGMENTS = 20_000
MAX_REPETITIONS = 20_000
_SOURCE = Source()
_TIMED = frozenset({"OBR", "ORC", "PID"})
_NONE: frozenset[str] = frozenset()
_NAME_ALONE = frozenset({0})
_UNTOLD: Mapping[str, tuple[str, ...]] = MappingProxyType({})


@dataclass(slots=True, eq=False)  # not frozen: each is made of seven parts, forty times a message
class EntryFact:
    """About one bundle entry: the segment that made it (name, position in message.segments from 0), all segments that wrote to it,

    `nulls`: top-level elements that the sender emptied with `""` and that the resource does not have, of a list that several fields fill only
    the members of the field ('telecom@PID.13', 'extension@URL'); `time`: the event time that holds for it (FHIR dateTime), '' if the message
    says none; `origins`: list element -> for each of its members the field that gave it ('PID.13'), '' if none alone did; `assumed`: elements of
    the resource that the message does not tell (tables/defaults.csv): what is known of them already stays.
    """

    full_url: str
    segment: str
    index: int
    nulls: frozenset[str]
    segments: tuple[int, ...]
    time: str
    origins: Mapping[str, tuple[str, ...]]
    assumed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Facts:
    """About the whole message: its event time (FHIR dateTime, '' if none), and one EntryFact per bundle entry, in its order.

    namespaces: system of an authority -> the systems that its namespaces alone would give, as far as the message names both (`HOSP&1.2.3&ISO`).
    """

    event_time: str
    entries: tuple[EntryFact, ...]
    namespaces: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _UNTOLD)


@dataclass(frozen=True, slots=True)
class Conversion:
    """The result: a transaction Bundle, problems (of form and of mapping), facts, and codes that no map knew."""

    bundle: Element
    problems: list[Problem]
    facts: Facts
    unmapped: tuple[Unmapped, ...]


@dataclass(slots=True, eq=False)
class Link:
    """A reference to be set when all is read: `draft` is what `target` means in it, other labels are looked up from `scope`."""

    draft: Draft
    target: str
    scope: Scope
    refs: tuple[Ref, ...]


def convert(
    message: Message, tables: Tables, *, source: Source = _SOURCE, translate: Translate | None = None, to_ucum: ToUcum | None = None
) -> Conversion:
    """Map a message. Never raises on content: a message without a structure gives an empty Bundle and a problem of severity E.

    translate(system, code) -> further Codings for a code; to_ucum(unit text) -> UCUM code or None.
    """
    problems = list(message.problems)
    code, trigger = message.code, message.trigger
    structure = tables.structure_for(code, trigger)
    refused = (unsupported(message, tables) if structure is None or message.header is None else None) or _too_much(message)
    if structure is None or refused is not None:
        return Conversion(_bundle([]), [*problems, *([refused] if refused else [])], Facts("", ()), ())
    needed = required().get(f"{code}^{trigger}", required().get(code, ()))
    missing = [segment for segment in needed if message.nth(segment) is None]
    if missing:
        absent = [Problem(ERROR, name, "100", f"{code} messages need the segment {name}, which is missing") for name in missing]
        return Conversion(_bundle([]), [*problems, *absent], Facts("", ()), ())
    run = Run(message, tables, source, translate, to_ucum)
    authority.learn(run)
    run.recall()
    links = _Walk(run, structure, tables).walk()
    for link in links:
        finish.link(run, link.draft, link.target, link.scope, link.refs)
    drafts = finish.finish(run)
    event_time = _event_time(run)
    facts = tuple(_fact(draft, event_time) for draft in drafts)
    bundle = {**_of_message(run, tables), **_bundle([_entry(draft) for draft in drafts])}
    return Conversion(bundle, list(dict.fromkeys(problems + run.problems)), Facts(event_time, facts, run.namespaces), tuple(run.unmapped))


@cache
def required() -> dict[str, tuple[str, ...]]:
    """Message code, or code^event where that differs -> segments without which its messages say nothing (tables/required.csv). Sites may leave out what else HL7 requires."""
    with (Path(__file__).parent / "tables" / "required.csv").open(encoding="utf-8", newline="") as rows:
        found: dict[str, tuple[str, ...]] = {}
        for row in csv.DictReader(rows):
            found[row["code"]] = (*found.get(row["code"], ()), row["segment"])
        return found


def unsupported(message: Message, tables: Tables) -> Problem | None:
    """Why no table maps a message of this type and event; None if one does."""
    if message.header is None:
        return Problem(ERROR, "", "100", "no MSH segment")
    if tables.structure_for(message.code, message.trigger) is not None:
        return None
    known = any(name.split("^")[0] == message.code for name in tables.triggers)
    return Problem(ERROR, "MSH^1^9", "201" if known else "200", "the trigger event has no mapping" if known else "the message type has no mapping")


def _too_much(message: Message) -> Problem | None:
    """A message that would keep the mapper busy for minutes: far more segments or repetitions than any real one has."""
    if len(message.segments) > MAX_SEGMENTS:
        return Problem(ERROR, "", "198", f"more than {MAX_SEGMENTS} segments")
    marks = message.delimiters
    for segment in message.segments:
        if len(segment.line) > MAX_REPETITIONS and _most_parts(segment, (marks.repetition, marks.component, marks.subcomponent)) > MAX_REPETITIONS:
            return Problem(ERROR, erl(segment.name, segment.occurrence), "198", f"more than {MAX_REPETITIONS} repetitions or components")
    return None


def _most_parts(segment: Segment, marks: tuple[str, ...]) -> int:
    return max(segment.line.count(mark) for mark in (segment.delimiters.field, *marks) if mark)


class _Walk:
    """Places segment after segment and applies the rows of its place."""

    def __init__(self, run: Run, structure: Structure, tables: Tables) -> None:
        self.run = run
        self.structure = structure
        self.tables = tables
        self.scope = Scope(structure.grammar.root, None)
        self.scopes = [self.scope]
        self.positions: list[int] = [-1]
        self.links: list[Link] = []
        self.at = At(run, run.header, self.scope)

    def walk(self) -> list[Link]:
        run = self.run
        for segment in run.message.segments:
            segment.split()
            rows = self._place(segment)
            if segment.name in self.tables.deleted and self._is_deletion(segment):
                rows = []
            self.scope.note(segment)
            if segment.name in _TIMED:
                run.order_time = times.date_time(segment.get("22.1"), run.zone) or "" if segment.name == "OBR" else ""
            self.at = At(run, segment, self.scope)
            run.landed, run.leftover = set(), {}
            drafts = []
            for row in rows:
                draft = self._apply(row, segment)
                if draft is not None:
                    drafts.append(draft)
            self._keep_rest(segment, drafts)
        for scope in self.scopes:
            scope.inner.clear()  # a circle of parents and children would keep all of the message until the collector comes
        return self.links

    def _is_deletion(self, segment: Segment) -> bool:
        """True where a segment says what is no longer so: nothing of it is stated."""
        number, codes = self.tables.deleted[segment.name]
        return segment.get(f"{number}.1").upper() in codes

    def _keep_rest(self, segment: Segment, drafts: list[Draft]) -> None:
        """What no row took goes, as text, into an extension named by the field's XML name (urn:hl7-org:v2xml:PV1.22): nothing is lost."""
        run = self.run
        leftover, name, marks = run.leftover, segment.name, segment.delimiters
        done = (run.landed.difference(leftover) if leftover else run.landed) | self.tables.ignored.get(name, _NAME_ALONE)
        for number, raw in segment.present:
            if number in done:
                continue
            if number not in leftover and len(raw) > 2 and self._told(segment, raw):
                continue
            parts = list(dict.fromkeys(leftover.get(number, ()))) or [part for part in segment.repetitions(number) if content(part, marks)]
            draft = drafts[0] if drafts else self.scope.find("MessageHeader[1]")
            if draft is not None and parts:
                rest = [{"url": f"urn:hl7-org:v2xml:{name}.{number}", "valueString": text} for text in (run.text(part) for part in parts) if text]
                if rest:
                    draft.res.setdefault("extension", []).extend(rest)

    def _told(self, segment: Segment, raw: str) -> bool:
        """True if another segment of the group says the same (OBR-2 after ORC-2)."""
        return any(raw in other.fields for other in self.scope.segments.values() if other is not segment)

    def _place(self, segment: Segment) -> list[MessageRow]:
        """Move to the segment's place; its rows there."""
        name = segment.name
        move = self.structure.grammar.move(self.scope.group, self.positions[-1], name)
        if move is None:
            return self._elsewhere(segment)
        if move.close:
            for _ in range(move.close):
                self.scope = self.scope.parent or self.scope
            del self.positions[-move.close :]
        for group in move.opened:
            self._open(group, name)
        if move.expected:
            self.positions[-1] = move.position
        else:
            self.run.problems.append(
                Problem(
                    INFORMATION,
                    erl(segment.name, segment.occurrence),
                    "100",
                    "the segment stands where its structure has none; it was mapped all the same",
                )
            )
        return self.structure.rows.get((self.scope.group.name, name), [])

    def _open(self, group: Group, name: str) -> None:
        """Step into a group: a new instance, but for a segment that opens none and comes late (an NK1 behind the results) the latest one."""
        parent = self.scope.group
        if group.parent is parent:
            self.positions[-1] = group.place
        latest = self.scope.inner.get(group.name)
        if latest is None or name in group.openers:
            latest = self.scope.inner[group.name] = Scope(group, self.scope)
            self.scopes.append(latest)
        self.scope = latest
        self.positions.append(-1)

    def _elsewhere(self, segment: Segment) -> list[MessageRow]:
        """Rows of messages/ANY.csv for a segment that the structure does not have (Z segments of a site, extensions)."""
        anywhere = self.tables.structures.get("ANY")
        rows = anywhere.rows.get(("", segment.name), []) if anywhere else []
        if not rows:
            self.run.problems.append(Problem(INFORMATION, erl(segment.name, segment.occurrence), "100", "no table maps this segment"))
        return rows

    def _apply(self, row: MessageRow, segment: Segment) -> Draft | None:
        """Apply a row; the resource it made or extended, None if it did not hold or gave nothing."""
        run = self.run
        if row.holds is not None:
            run.field = 0
            if not row.holds(self.at):
                return None
        home = self._home(self.structure.homes.get(row.target, ""))
        found, maker = home.labels.get(row.target), home.makers.get(row.target)
        if not row.map:
            self._link(row, found)
            return found
        table = compiled(self.tables, row.map)
        if row.source:
            return self._apply_other(row, table, segment, found)
        if found is not None and maker is not None and (maker[0] != segment.name or maker[1] == segment.index):
            apply_segment(run, table, segment, found, self.at)
            if found.segments[-1] != segment.index:
                found.segments.append(segment.index)
            draft = found
        else:
            run.segment = segment
            draft = run.draft(row.target.partition("[")[0])
            if not apply_segment(run, table, segment, draft, self.at) and not draft.nulls:
                return None
            run.keep(draft)
            home.publish(row.target, draft)
            home.makers[row.target] = (segment.name, segment.index)
        self._link(row, draft)
        return draft

    def _apply_other(self, row: MessageRow, table: Map, segment: Segment, found: Draft | None) -> Draft | None:
        """Apply a map of another segment (the ORC of an RXA) to a resource that is there already; no field of this segment is taken by it."""
        run = self.run
        read = self.scope.segment(row.source) or run.message.nth(row.source)
        if found is None or read is None:
            return None
        landed, leftover = run.landed, run.leftover
        run.landed, run.leftover = set(), {}
        apply_segment(run, table, read, found, At(run, read, self.scope))
        run.landed, run.leftover, run.segment = landed, leftover, segment
        self._link(row, found)
        return found

    def _link(self, row: MessageRow, draft: Draft | None) -> None:
        if row.refs and draft is not None:
            self.links.append(Link(draft, row.target, self.scope, row.refs))

    def _home(self, group: str) -> Scope:
        here: Scope = self.scope
        while here.group.name != group and here.parent is not None:
            here = here.parent
        return here


def _event_time(run: Run) -> str:
    """The first of EVN-6, EVN-2 (not for results), OBR-22, MSH-7 that is a time; README.md has the table."""
    message = run.message
    fields = ("OBR-22", "MSH-7") if message.nth("OBR") else ("EVN-6", "EVN-2", "MSH-7")
    for path in fields:
        found = times.date_time(message.get(f"{path}.1"), run.zone)
        if found:
            return found
    return ""


def _fact(draft: Draft, event_time: str) -> EntryFact:
    nulls = frozenset(name for name in draft.nulls if name not in draft.res) if draft.nulls else _NONE
    assumed = frozenset(draft.assumed) if draft.assumed else _NONE
    origins = _origins(draft) if draft.origins else _UNTOLD
    time, segments = draft.time or event_time, tuple(draft.segments)
    return EntryFact(draft.url, draft.segment.name, draft.segment.index, nulls, segments, time, origins, assumed)


def _origins(draft: Draft) -> Mapping[str, tuple[str, ...]]:
    """Which field gave each member of the lists that are told apart by field; members are the very objects that the mapping made."""
    known = {id(member): place for _, member, place in draft.origins}
    return {name: tuple(known.get(id(member), "") for member in draft.res.get(name, ())) for name in {name for name, _, _ in draft.origins}}


def _of_message(run: Run, tables: Tables) -> Element:
    """What the map MSH[Bundle] says of the bundle itself: identifier and time. https://hl7.org/fhir/R4/bundle.html"""
    root: Element = {"resourceType": "Bundle"}
    if BUNDLE_MAP in tables.maps:
        run.landed, run.leftover = set(), {}
        apply_segment(run, compiled(tables, BUNDLE_MAP), run.header, Draft(root, "", run.header), At(run, run.header, Scope(Group("", None), None)))
    return root


def _entry(draft: Draft) -> Element:
    rtype = draft.res["resourceType"]
    request: Element = {"method": "POST", "url": rtype}
    if rtype in finish.FOUND_BY_IDENTIFIER:
        criteria = finish.criteria(draft.res)
        if criteria:
            request["ifNoneExist"] = criteria
    return {"fullUrl": draft.url, "resource": draft.res, "request": request}


def _bundle(entries: list[Any]) -> Element:
    bundle: Element = {"resourceType": "Bundle", "type": "transaction"}
    if entries:
        bundle["entry"] = entries
    return bundle
