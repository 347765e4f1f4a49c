"""A mapped message meets what is stored, inside one transaction: find, reconcile, write. Called again as a whole if the transaction is retried.

Order of work: patients are found first (everything else belongs to them), then what has identifiers, then what is only told apart by its
content, then results by their order; then the stored versions are read once, reconciled, and written once, with a Provenance that ties the
versions to the message.
"""

import asyncio
import hashlib
import itertools
import re
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from conformance.outcome import Refusal
from fhir_server.feed import apart, identity, numbers, results, siblings, visits
from fhir_server.feed.answers import Failed, FieldOf, no_field, of_issues
from fhir_server.feed.aside import LARGE_NUMBER, aside
from fhir_server.feed.items import Item, Work, linked, targets, without
from fhir_server.feed.ledger import KIND, Ledger, owned
from fhir_server.feed.orders import Anchor, anchors, group_key, last_before, name_documents, result_uid
from fhir_server.feed.provenance import provenance
from fhir_server.feed.reconcile import Said, member_key, reconcile, stamp
from fhir_server.feed.times import TIMES, event_time, sortable, zone_of
from fhir_server.store import Stored, Tx
from fhir_server.store.inbox import Document, Inbox
from mappers.v2.problem import Problem

Resource = dict[str, Any]
SHARED_TYPES = frozenset({"Practitioner", "PractitionerRole", "Organization", "Location", "Device", "Medication", "Substance"})
OF_SEVERAL = frozenset({"Account", "Coverage"})  # a family shares the number of its account and policy
ENTRY_ID = re.compile(r"[0-9a-f]{24}")  # `receipt.new_id`: it begins with the milliseconds of receipt
ORDER_SEGMENTS = frozenset({"ORC", "OBR", "RXO", "RXE", "RXD", "RXG", "RXA", "TQ1"})
RESULT_TYPES = frozenset({"Observation", "DiagnosticReport"})
STATE = KIND
MOST_GUESSES = 10_000
BREATH = 50  # resources reconciled before others have their turn


@dataclass(frozen=True, slots=True)
class Write:
    """One version to write: the resource with its id, the version it supersedes (None for a new one); as_is: references to merged resources stay."""

    res: Resource
    prior: Stored | None
    as_is: bool = False


Commit = Callable[[Tx, Sequence[Write]], Awaitable[list[Stored]]]  # (transaction, versions) -> stored versions, through the one door to disk
Lookup = Callable[[Tx, str, Sequence[str]], Awaitable[list[str]]]  # (transaction, type, 'system|value' ...) -> ids of what clients created

Referrers = Callable[[Tx | None, str, int], Awaitable[list[Stored]]]  # (transaction, 'Patient/1', limit) -> resources that refer to it


@dataclass(frozen=True, slots=True)
class Means:
    """What `apply` works with."""

    inbox: Inbox
    commit: Commit
    lookup: Lookup
    referrers: Referrers
    choice: Callable[[str, str], str]  # (type, JSON name) -> element name, 'deceased[x]'
    field_of: FieldOf = no_field
    guesses: dict[str, str] = field(default_factory=dict)  # identity key -> resource it last meant: what to read along; never believed


@dataclass(frozen=True, slots=True)
class Applied:
    """refs: versions written ('Observation/1/_history/2'), the Provenance last; problems: warnings that came up."""

    refs: tuple[str, ...]
    problems: tuple[Problem, ...]


@dataclass(slots=True, eq=False)
class Invalid(Refusal):
    """A mapped resource breaks the rules: `ref` says which."""

    ref: str = ""


class Deferred(Exception):
    """A person must decide: `problems` say why."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("deferred")
        self.problems = problems


@dataclass(slots=True, eq=False)
class Meeting:
    """The state of one `apply`: what is decided so far."""

    means: Means
    tx: Tx
    work: Work
    ledger: Ledger
    refs: dict[str, str] = field(default_factory=dict)
    states: dict[str, Document] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)  # states that were looked for
    withdrawn: dict[str, str] = field(default_factory=dict)  # 'Observation/1' -> why
    late: dict[str, list[str]] = field(default_factory=dict)  # stored result -> the results it turns out to be derived from
    seen: dict[str, int] = field(default_factory=dict)

    def new_id(self, name: str) -> str:
        """An id for something new: the same on every attempt of the transaction, so that a large body that was uploaded is found again."""
        return dated_id(self.work.entry, f"{self.work.attempt}|{name}")

    def decide(self, item: Item, ref: str) -> None:
        """The item is (or becomes) this resource."""
        item.new = not ref
        item.ref = ref or f"{item.rtype}/{self.new_id(item.url)}"
        self.refs[item.url] = item.ref


def dated_id(entry: str, name: str) -> str:
    """A UUID of version 7 (RFC 9562) with the entry's time of receipt, the rest a hash: what a message makes stands together in the indexes."""
    millis = int(entry[:12], 16) if ENTRY_ID.match(entry) else 0
    rest = int.from_bytes(hashlib.blake2b(f"{entry}|{name}".encode(), digest_size=10).digest(), "big")
    return str(uuid.UUID(int=millis << 80 | 0x7 << 76 | (rest >> 68) << 64 | 0b10 << 62 | (rest & (1 << 62) - 1)))


Then = Callable[[Meeting, dict[str, Write]], Awaitable[None]]


async def apply(means: Means, tx: Tx, work: Work, then: Then | None = None) -> Applied:
    """Write what the message says, and what `then` adds. Raises Deferred where a person must decide, Refusal where a resource breaks the rules."""
    meeting = Meeting(means, tx, work, Ledger(means.inbox, tx))
    items = list(work.items)
    found = anchors(work.message, work.source)
    await _load_first(meeting, items, found)
    for item in items:
        if item.rtype == "Patient":
            await _find_patient(meeting, item)
    await _find_by_identifier(meeting, [item for item in items if item.rtype not in RESULT_TYPES and item.keys and not item.ref])
    late = await _find_by_content(meeting, [item for item in items if item.rtype not in RESULT_TYPES and not item.ref], settled=False)
    await _find_results(meeting, items, found)
    await _find_by_content(meeting, late, settled=True)
    pending = await _writes(meeting, items)
    if then is not None:
        before = dict(pending)
        await then(meeting, pending)
        pending = {ref: write for ref, write in pending.items() if before.get(ref) is write or _says_more(write)}
    writes = list(pending.values())
    refs = [version(write) for write in writes]
    if refs:
        record = provenance(work, refs)
        writes.append(Write(record, None))
        refs.append(f"Provenance/{record['id']}/_history/1")
        await _committed(meeting, items, writes)
    await means.inbox.save(tx, KIND, [*meeting.ledger.to_save(), *(meeting.states[key] for key in sorted(meeting.changed))])
    _remember(meeting, items)
    return Applied(tuple(refs), tuple(meeting.problems))


async def _committed(meeting: Meeting, items: Sequence[Item], writes: Sequence[Write]) -> None:
    """Write; a resource that breaks the rules is named by the segment and field it came from."""
    try:
        await meeting.means.commit(meeting.tx, writes)
    except Invalid as invalid:
        segment = next((item.segment for item in items if item.ref == invalid.ref and item.segment is not None), None)
        raise Failed("validation", of_issues(invalid.issues, segment, meeting.means.field_of)) from invalid


def version(write: Write) -> str:
    """The versioned reference that a write makes: versions of one resource are numbered without gaps."""
    return f"{write.res['resourceType']}/{write.res['id']}/_history/{(write.prior.vid if write.prior else 0) + 1}"


async def _load_first(meeting: Meeting, items: Sequence[Item], found: dict[int, Anchor]) -> None:
    """Everything that can be looked up by the message alone, in one query per kind."""
    source = meeting.work.source
    for item in items:
        if item.rtype == "Patient":
            keys = identity.patient_keys(source, item.segment) if item.segment is not None else ()
            gone = meeting.work.retiring.get(item.segment.index, ()) if item.segment is not None else ()
            keys = tuple(key for key in keys if key not in gone) or keys
            item.keys = keys or tuple(key for key in [identity.demographic_key(source, item.res)] if key)
        elif item.rtype not in RESULT_TYPES:
            item.keys = identity.identifier_keys(source, item.res, meeting.work.namespaces)
            if item.rtype in siblings.TABLE and item.segment is not None:
                order = last_before(meeting.work.message, item.segment.index, ("ORC", "PID"))
                item.keys = siblings.by_order(item.rtype, item.keys, item.segment, order, source.own_authority)
        if meeting.work.also_known and item.segment is not None:
            item.keys = tuple(dict.fromkeys([*item.keys, *meeting.work.also_known.get((item.rtype, item.segment.index), ())]))
        meeting.ledger.under.update(identity.paired(item.keys))
    name_documents(items, found, source.own_authority)
    orders = {anchor.id for anchor in found.values() if anchor.numbered}
    orders |= {children_key(order) for anchor in found.values() for order in (*anchor.orders, *anchor.parents)}
    stateful = [key for item in items if _has_state(item) for key in item.keys]
    meeting.asked.update(guess for key in stateful if (guess := meeting.means.guesses.get(key)))
    known = [key for item in items if item.rtype not in apart.TABLE for key in item.keys]
    meeting.states.update(await meeting.ledger.load(known, orders | meeting.asked))


def _has_state(item: Item) -> bool:
    """True if the feed keeps a state of the resource beside it (contributions, steps of a visit)."""
    return item.rtype not in RESULT_TYPES


def _remember(meeting: Meeting, items: Sequence[Item]) -> None:
    """Note what the keys meant, so that the next message about it reads its states with its keys."""
    guesses = meeting.means.guesses
    if len(guesses) > MOST_GUESSES:
        guesses.clear()
    guesses.update((key, item.ref) for item in items if _has_state(item) and item.ref and item.write for key in item.keys)


async def _find_patient(meeting: Meeting, item: Item) -> None:
    refs = list(dict.fromkeys(ref for key in item.keys for ref in meeting.ledger.refs(key)))  # a merge has moved the keys to the survivor
    place = f"{item.segment.name}^{item.segment.occurrence}^3" if item.segment is not None else ""
    if len(refs) > 1:
        raise Deferred(Problem("E", place, "205", "the identifiers belong to different stored patients"))
    if not refs and item.keys:
        known = await meeting.means.lookup(
            meeting.tx, "Patient", [key.partition("|")[2] for key in item.keys if "|~" not in key and not meeting.ledger.is_taken(key)]
        )
        refs = list(dict.fromkeys([await meeting.ledger.alias(f"Patient/{rid}") for rid in known]))
        if len(refs) > 1:
            raise Deferred(Problem("E", place, "205", "several stored patients have this identifier"))
    meeting.decide(item, refs[0] if refs else "")
    if not item.keys:
        meeting.problems.append(Problem("W", place, "101", "no identifier names the patient: a new patient record was made"))
    _spell(meeting, item)
    for key in item.keys:
        meeting.ledger.keep(key, item.ref, item.ref)


def _spell(meeting: Meeting, item: Item) -> None:
    """Give numbers of a namespace the universal authority that is known for them: the same number is not spelt now one way, now the other."""
    found = {key: system for key in item.keys if (system := meeting.ledger.universal(key, item.ref))}
    if not found or "identifier" not in item.res:
        return
    origins, spelt = dict(item.origins), []
    for number, one in enumerate(item.res["identifier"]):
        system = found.get(f"{item.rtype}|{one.get('system')}|{one.get('value')}", "")
        now = {**one, "system": system} if system else one
        place = origins.pop(("identifier", member_key("identifier", number, one)), "") if system else ""
        if place:
            origins["identifier", member_key("identifier", number, now)] = place
        spelt.append(now)
    item.res, item.origins = {**item.res, "identifier": spelt}, origins


async def _find_by_identifier(meeting: Meeting, items: Sequence[Item]) -> None:
    await _own(meeting, [item for item in items if item.rtype in apart.TABLE])
    family = _family(meeting, items)
    for item in items:
        item.res = linked(item.res, meeting.refs)  # one by one: a room is part of the ward that was found before it
        patient = identity.patient_of(item.res)
        ref = ""
        for key in item.keys:
            ref = ref or await _named(meeting, item, key, patient, family)
        if not ref and not patient and item.rtype not in apart.TABLE:
            ref = _of_one(meeting, item, family)
        if not ref and item.rtype in SHARED_TYPES:
            known = await meeting.means.lookup(meeting.tx, item.rtype, [key.partition("|")[2] for key in item.keys])
            ref = f"{item.rtype}/{known[0]}" if known else ""
        if not ref and patient and item.rtype not in OF_SEVERAL and meeting.ledger.of_others(item.keys, patient):
            place = f"{item.segment.name}^{item.segment.occurrence}" if item.segment is not None else ""
            meeting.problems.append(Problem("W", place, "205", f"this {item.rtype} number was used for another patient"))
        _settle(meeting, item, ref, patient)


async def _own(meeting: Meeting, items: Sequence[Item]) -> None:
    """Of what is told apart by further numbers, have the keys of its patient at hand."""
    for item in items:
        item.numbers = apart.told(item.rtype, item.segment)
        patient = identity.patient_of(linked(item.res, meeting.refs))
        item.keys = tuple(owned(key, patient) for key in apart.without_numbers(item.keys, item.numbers))
    await meeting.ledger.load([key for item in items for key in item.keys])


Family = Mapping[str, Sequence[Item]]  # key -> the items of the message that have it


def _family(meeting: Meeting, items: Sequence[Item]) -> Family:
    """What a message says under one number more than once, of types that share numbers."""
    found: dict[str, list[Item]] = {}
    for item in items:
        if item.rtype in siblings.TABLE:
            item.numbers = siblings.told(item.rtype, item.segments, meeting.work.source.name)
            for key in item.keys:
                found.setdefault(key, []).append(item)
    return found


def _sibling(item: Item, key: str, rows: Sequence[Mapping[str, Any]], family: Family) -> str:
    others = [one for one in family.get(key, ()) if one is not item and not siblings.alike(one.numbers, item.numbers)] if rows else []
    taken = {one.ref for one in others if one.ref}
    return siblings.chosen(item.rtype, key.rpartition("|")[2], rows, item.numbers, [one.numbers for one in others], taken)


async def _named(meeting: Meeting, item: Item, key: str, patient: str, family: Family) -> str:
    """The resource that a key means for an item of this patient, '' if there is none yet."""
    if item.rtype in siblings.TABLE:
        return _sibling(item, key, await meeting.ledger.rows(key, patient), family)
    if item.rtype not in apart.TABLE:
        return await meeting.ledger.find(key, patient)
    others = {one.ref for one in meeting.work.items if one is not item and one.rtype == item.rtype and one.ref and not _same_said(one, item)}
    return apart.chosen(item.rtype, await meeting.ledger.rows(key, patient), item.numbers, others)


def _same_said(one: Item, other: Item) -> bool:
    """True if two items of a message with the same identifier are one thing that is said twice."""
    return one.numbers == other.numbers and (bool(one.numbers) or one.res == other.res)


def _of_one(meeting: Meeting, item: Item, family: Family) -> str:
    """What the numbers name where a message names no patient (an ORL or ORR without PID) and only one patient has such a number; '' otherwise."""
    rows = {row["ref"]: row for key in item.keys for row in meeting.ledger.meant(key)}
    if item.rtype in siblings.TABLE and len({row["patient"] for row in rows.values()}) == 1:
        return next((ref for key in item.keys if (ref := _sibling(item, key, meeting.ledger.meant(key), family))), "")
    return next(iter(rows)) if len(rows) == 1 else ""


def _settle(meeting: Meeting, item: Item, ref: str, patient: str) -> None:
    meeting.decide(item, ref)
    _spell(meeting, item)
    for key in item.keys:
        meeting.ledger.keep(key, item.ref, patient, siblings.kept(item.numbers))
    if item.rtype in SHARED_TYPES:
        item.digest = results.full_digest(item.res)
        item.write = item.new or not meeting.ledger.same(item.keys[0], meeting.work.source.name, item.digest)
        if item.new:
            meeting.ledger.same(item.keys[0], meeting.work.source.name, item.digest)


async def _find_by_content(meeting: Meeting, items: Sequence[Item], *, settled: bool) -> list[Item]:
    """Find items whose references are all decided, round by round. Unless `settled`, those that wait for results are returned."""
    urls = frozenset(item.url for item in meeting.work.items)
    pending = list(items)
    while pending:
        ready = [item for item in pending if all(target in meeting.refs for target in item.targets if target in urls)]
        if not ready and not settled:
            return pending
        ready = ready or list(_least_bound(meeting, pending, urls))
        for item in ready:
            item.keys = item.keys or (_natural(meeting, item),)
        await meeting.ledger.load([key for item in ready for key in item.keys])
        for item in ready:
            patient = identity.patient_of(linked(item.res, meeting.refs))
            ref = await meeting.ledger.find(item.keys[0], patient)
            _settle(meeting, item, ref, patient)
        pending = [item for item in pending if not item.ref]
    return []


def _least_bound(meeting: Meeting, pending: Sequence[Item], urls: Collection[str]) -> Sequence[Item]:
    """Of things that refer to each other (a visit and its diagnoses) those whose keys are decided; all, if there are none."""
    bound = {item.url: set(targets(identity.told_apart_by(item.res))) & urls - meeting.refs.keys() for item in pending}
    return [item for item in pending if not bound[item.url]] or pending


def _natural(meeting: Meeting, item: Item) -> str:
    """The key by content; equal things of one message that nobody shares are told apart by their order."""
    res = linked(item.res, meeting.refs)
    key = identity.natural_key(meeting.work.source, res)
    if item.rtype in SHARED_TYPES:
        return key
    key = owned(key, identity.patient_of(res))
    meeting.seen[key] = meeting.seen.get(key, 0) + 1
    return key if meeting.seen[key] == 1 else f"{key}#{meeting.seen[key]}"


async def _find_results(meeting: Meeting, items: Sequence[Item], found: dict[int, Anchor]) -> None:
    """Observations of OBX and reports of OBR by their order; other Observations and reports by their content."""
    groups: dict[str, list[Item]] = {}
    by_id = {anchor.id: anchor for anchor in found.values()}
    loose = []
    for item in items:
        if item.rtype not in RESULT_TYPES:
            continue
        anchor = found.get(item.segment.index) if item.segment is not None else None
        if anchor is None or (item.rtype == "Observation" and item.segment is not None and item.segment.name != "OBX"):
            loose.append(item)
        else:
            groups.setdefault(anchor.id, []).append(item)
    await _find_by_content(meeting, loose, settled=True)
    for id, members in groups.items():
        await _find_order(meeting, by_id[id], members)


async def _find_order(meeting: Meeting, anchor: Anchor, members: Sequence[Item]) -> None:
    """The track of one order for this patient, and what of it each result is."""
    observations = [item for item in members if item.rtype == "Observation"]
    reports = [item for item in members if item.rtype == "DiagnosticReport"]
    await aside(len(members) > LARGE_NUMBER, _link_all, members, dict(meeting.refs))
    patient = identity.patient_of(members[0].res)
    id = anchor.id if anchor.numbered else f"{anchor.id}|{patient}"
    if not anchor.numbered:
        meeting.states.update(await meeting.means.inbox.load(meeting.tx, STATE, [id]))
    await _link_parents(meeting, anchor, observations, patient)
    sent = await aside(len(observations) > LARGE_NUMBER, _sent, observations)
    at = sortable(event_time(meeting.work.message, "result", zone_of(meeting.work.source.zone), meeting.work.received, anchor.segment))
    now = results.result_stamp(at, anchor.status, meeting.work.entry)
    track, others, known_wrong = await _track(meeting, id, anchor, patient, sent, now)
    if known_wrong and track["void"]:
        return  # these results were taken from this patient by a newer message: an older one does not bring them back
    if known_wrong:
        for item in members:
            item.res = results.withdraw(item.res)
        sent = _sent(observations)
    numbers = itertools.count()
    plan = await aside(
        len(sent) > LARGE_NUMBER,
        results.plan,
        track,
        sent,
        event_time=at,
        entry=meeting.work.entry,
        new_id=lambda: meeting.new_id(f"{id}|{next(numbers)}"),
        snapshot=meeting.work.source.snapshots,
        report_status=anchor.status,
    )
    for item, row in zip(observations, plan.written):
        item.ref, item.new, item.write, item.keep = f"Observation/{row.rid}" if row.rid else "", row.is_new, row.write, row.keep
        if item.ref:
            meeting.refs[item.url] = item.ref
    meeting.withdrawn.update({f"Observation/{rid}": "superseded" for rid in plan.withdrawn})
    await _adopt_children(meeting, anchor, plan.track)
    for number, item in enumerate(reports):
        _report(meeting, item, plan, track, number)
    _keep_track(meeting, id, anchor, [*others, plan.track], {item.ref for item in reports if item.new})


def _link_all(members: Sequence[Item], refs: Mapping[str, str]) -> None:
    for item in members:
        item.linked = item.targets <= refs.keys()
        item.res = linked(item.res, refs)


async def _link_parents(meeting: Meeting, anchor: Anchor, observations: Sequence[Item], patient: str) -> None:
    """Results of a child order (OBR-26, OBR-29: a culture's susceptibilities) are derived from the parent result, where that is known."""
    if not anchor.parents:
        return
    _announce(meeting, anchor, patient)
    stored = {row["_id"]: row for row in await meeting.means.inbox.find(meeting.tx, STATE, "orders", anchor.parents)}
    stored.update({key: row for key, row in meeting.states.items() if not set(anchor.parents).isdisjoint(row.get("orders", ()))})
    found: list[str] = []
    for row in stored.values():
        for track in row.get("tracks", ()):
            if row["_id"] != anchor.id and await meeting.ledger.alias(track["patient"]) == patient:
                found += [
                    item["id"]
                    for group in track["groups"]
                    if group["key"] == anchor.parent_group or not anchor.parent_group
                    for item in group["items"]
                ]
    if not found:
        meeting.problems.append(Problem("W", f"OBR^{anchor.segment.occurrence}^26", "204", "the parent result is not known"))
    for item in observations:
        before = item.res.get("derivedFrom", [])
        item.res["derivedFrom"] = [*before, *({"reference": f"Observation/{rid}"} for rid in dict.fromkeys(found))]
        if not item.res["derivedFrom"]:
            del item.res["derivedFrom"]


def children_key(order: str) -> str:
    """The id of the document that lists the child orders of an order, which may come before it: {_id, children: [[results id, parent group]]}."""
    return f"children|{order}"


def _announce(meeting: Meeting, anchor: Anchor, patient: str) -> None:
    """Note under each number of the parent order that this order is a child of it."""
    row = [anchor.id if anchor.numbered else f"{anchor.id}|{patient}", anchor.parent_group]
    for key in map(children_key, anchor.parents):
        document = meeting.states.get(key, {"_id": key, "children": []})
        if row not in document["children"]:
            meeting.states[key] = {**document, "children": [*document["children"], row]}
            meeting.changed.add(key)


async def _adopt_children(meeting: Meeting, anchor: Anchor, track: results.Track) -> None:
    """Child results that came before these parent results are derived from them from now on."""
    rows = [tuple(row) for order in anchor.orders for row in meeting.states.get(children_key(order), {}).get("children", ())]
    if not rows:
        return
    unread = {id for id, _ in rows} - meeting.states.keys()
    meeting.states.update(await meeting.means.inbox.load(meeting.tx, STATE, unread))
    for id, wanted in dict.fromkeys(rows):
        parents = [f"Observation/{item['id']}" for group in track["groups"] if wanted in ("", group["key"]) for item in group["items"]]
        for child in meeting.states.get(id, {}).get("tracks", ()):
            if parents and await meeting.ledger.alias(child["patient"]) == track["patient"]:
                meeting.late.update({f"Observation/{rid}": parents for rid in results.all_ids(child)})


def _derived(res: Resource, parents: Sequence[str]) -> Resource:
    """The result with these among what it is derived from."""
    known = [row.get("reference") for row in res.get("derivedFrom", ())]
    return {**res, "derivedFrom": [*res.get("derivedFrom", ()), *({"reference": ref} for ref in parents if ref not in known)]}


def _sent(observations: Sequence[Item]) -> list[results.Result]:
    parts: dict[int, int] = {}
    sent = []
    for item in observations:
        if item.segment is None or item.segment.name != "OBX":
            raise ValueError("an Observation of an order comes from an OBX")
        part = parts[item.segment.index] = parts.get(item.segment.index, -1) + 1
        sent.append(results.Result(group_key(item.segment, part), result_uid(item.segment), item.segment.get("11").upper(), item.res))
    return sent


async def _track(
    meeting: Meeting, id: str, anchor: Anchor, patient: str, sent: Sequence[results.Result], now: str
) -> tuple[results.Track, list[results.Track], bool]:
    """This patient's track of an order, those of other patients, and if a newer message said that the results are another patient's.

    A wrong-patient correction empties the tracks of the others (`void`: when). Which of two messages corrects the other, their event times tell.
    """
    mine: results.Track | None = None
    others: list[results.Track] = []
    wrong = False
    for track in meeting.states.get(id, {}).get("tracks", ()):
        if track["patient"] == patient or await meeting.ledger.alias(track["patient"]) == patient:
            mine = {**track, "patient": patient}
        elif track["groups"] and now < track["at"]:
            wrong = wrong or results.corrects(track, anchor.collected)
            others.append(track)
        elif track["groups"] and results.is_correction(track, sent, anchor.status, anchor.collected):
            meeting.withdrawn.update({f"Observation/{rid}": "wrong patient" for rid in results.all_ids(track)})
            meeting.withdrawn.update(dict.fromkeys(_documents(meeting, track["patient"]), "wrong patient"))
            if track["report"]:
                meeting.withdrawn[f"DiagnosticReport/{track['report']}"] = "wrong patient"
            others.append({**track, "groups": [], "report": "", "void": now})
            meeting.problems.append(Problem("W", f"OBR^{anchor.segment.occurrence}^3", "205", "the results were withdrawn from another patient"))
        else:
            others.append(track)
    wrong = wrong or (mine is not None and now < mine.get("void", ""))
    if wrong:
        meeting.problems.append(
            Problem("W", f"OBR^{anchor.segment.occurrence}^3", "205", "a newer message says that these are another patient's results")
        )
    return {"void": "", **(mine or results.new_track(patient, "", anchor.collected))}, others, wrong


def _documents(meeting: Meeting, patient: str) -> list[str]:
    """What the documents of this message's results are known as for another patient."""
    keys = [key for item in meeting.work.items if item.rtype == "DocumentReference" for key in item.keys if "#result|" in key]
    return [row["ref"] for key in keys for row in meeting.ledger.meant(key) if row["patient"] == patient]


def _report(meeting: Meeting, item: Item, plan: results.Plan, track: results.Track, number: int) -> None:
    known = track["report"] if not number else ""
    meeting.decide(item, f"DiagnosticReport/{known}" if known else "")
    if not number:
        plan.track["report"] = item.rid
    item.older, item.withdrawn = plan.older, plan.withdrawn


def _keep_track(meeting: Meeting, id: str, anchor: Anchor, tracks: Sequence[results.Track], made: set[str]) -> None:
    document = {
        "_id": id,
        "tracks": list(tracks),
        "orders": list(anchor.orders),
        "patients": sorted({track["patient"] for track in tracks if track["patient"]}),
    }
    if document != meeting.states.get(id):
        meeting.states[id] = document
        meeting.changed.add(id)


async def _writes(meeting: Meeting, items: Sequence[Item]) -> dict[str, Write]:
    """The versions to write by 'Type/id', from what is stored now."""
    wanted = [item for item in items if item.ref and item.write]
    lost = {item.url for item in items if not item.ref}  # results that are older than what is stored: nothing may refer to them
    for item in wanted if lost else ():
        if not lost.isdisjoint(item.targets):
            item.res = without(item.res, lost)
    known = [item.ref for item in wanted if not item.new] + list(meeting.withdrawn) + list(meeting.late)
    pairs = [(rtype, rid) for rtype, _, rid in (ref.partition("/") for ref in dict.fromkeys(known))]
    stored = await meeting.tx.get_many(pairs)
    unread = {item.ref for item in wanted if not item.new and _has_state(item)} - meeting.asked
    meeting.states.update(await meeting.means.inbox.load(meeting.tx, STATE, unread))
    writes: dict[str, Write] = {}
    for number, item in enumerate(wanted):
        if number % BREATH == BREATH - 1:
            await asyncio.sleep(0)
        prior = stored.get((item.rtype, item.rid))
        if prior is None and not item.new:
            prior = await meeting.tx.get(item.rtype, item.rid)
        current = writes[item.ref].res if item.ref in writes else prior.res if prior is not None else None
        res = {**_after(meeting, item, current), "id": item.rid}
        if current is None or _differs(current, res):
            writes[item.ref] = Write(res, prior)
    for ref, parents in meeting.late.items():
        rtype, _, rid = ref.partition("/")
        base = writes.get(ref) or Write((prior.res if (prior := stored.get((rtype, rid))) is not None else None) or {}, stored.get((rtype, rid)))
        if base.res and _derived(base.res, parents) != base.res:
            writes[ref] = Write(_derived(base.res, parents), base.prior)
    for ref in meeting.withdrawn:
        rtype, _, rid = ref.partition("/")
        prior = stored.get((rtype, rid))
        if prior is not None and prior.res is not None and ref not in writes and _differs(prior.res, results.withdraw(prior.res)):
            writes[ref] = Write(results.withdraw(prior.res), prior)
    return writes


def _says_more(write: Write) -> bool:
    return write.prior is None or write.prior.res is None or _differs(write.prior.res, write.res)


def _differs(current: Resource, res: Resource) -> bool:
    return {name: value for name, value in current.items() if name != "meta"} != {name: value for name, value in res.items() if name != "meta"}


def _after(meeting: Meeting, item: Item, current: Resource | None) -> Resource:
    """The resource after this message."""
    sent = item.res if item.linked else linked(item.res, meeting.refs)
    if item.rtype == "Observation":
        return results.overlay(current, sent) if item.keep and current is not None else sent
    if item.rtype == "DiagnosticReport" and item.segment is not None and item.segment.name == "OBR":
        return _report_after(meeting, item, current, sent)
    if item.rtype == "Patient" and current is not None and meeting.work.source.conflict == "defer" and identity.is_conflict(current, sent):
        disagree = ", ".join(identity.disagreements(current, sent))
        raise Deferred(Problem("E", "PID^1^3", "205", f"the identifier belongs to a stored patient whose {disagree} disagree"))
    if identity.is_whole(item.rtype, item.keys):
        return sent
    return _reconciled(meeting, item, current, sent)


def _report_after(meeting: Meeting, item: Item, current: Resource | None, sent: Resource) -> Resource:
    references = [row["reference"] for row in sent.get("result", ()) if not row.get("reference", "").startswith("urn:")]
    if item.assumed and current is not None:
        sent = {name: value for name, value in sent.items() if name not in item.assumed or name not in current}
    return results.report(current, sent, references, item.withdrawn, item.older)


def _time_of(meeting: Meeting, item: Item) -> str:
    """The event time that holds for a resource: of what an order brought that of its ORC, else of the message as a whole.

    Many senders repeat the time of the order in every transaction about it; then the message's own time tells which is the later one.
    """
    work = meeting.work
    if item.rtype == "DocumentReference" and item.segment is not None and item.segment.name == "OBX":
        reported = last_before(work.message, item.segment.index, ("OBR", "PID"))
        return sortable(event_time(work.message, "result", zone_of(work.source.zone), work.received, reported))
    if item.segment is None or item.segment.name not in ORDER_SEGMENTS or item.rtype in SHARED_TYPES or (work.message.code, "order") not in TIMES:
        return work.person_time
    order = last_before(work.message, item.segment.index, ("ORC", "PID"))
    if order is None:
        return work.person_time
    return f"{sortable(event_time(work.message, 'order', zone_of(work.source.zone), work.received, order))}|{work.person_time}"


def _reconciled(meeting: Meeting, item: Item, current: Resource | None, sent: Resource) -> Resource:
    at = stamp(_time_of(meeting, item), meeting.work.entry)
    state = meeting.states.get(item.ref)
    folded: Resource = {}
    steps: list[Document] = []
    if item.rtype == "Encounter":
        steps = list((state or {}).get("steps", ()))
        if current is not None:
            steps = visits.noticed(current, steps)
        told = {name: value for name, value in sent.items() if name not in item.assumed}
        event = meeting.work.message.trigger if meeting.work.message.code == "ADT" else ""
        steps = visits.added(steps, visits.step(event, at, meeting.work.occurred or meeting.work.person_time, told))
        folded = visits.fold(steps)
        sent_class = {"class": sent["class"]} if "class" in sent else {}
        sent = {name: value for name, value in sent.items() if name not in visits.FOLDED}
    said = Said(
        numbers.current_only(sent, state),
        meeting.work.source.name,
        at,
        item.nulls,
        lambda name: meeting.means.choice(item.rtype, name),
        item.origins,
        item.assumed,
    )
    merged, after = reconcile(current, state, said)
    merged = numbers.with_old(merged, state)
    after.update({name: value for name, value in (state or {}).items() if name == "old"})
    if item.rtype == "Encounter":
        kept = {"status": visits.UNKNOWN, **{name: part["class"] for part in (sent_class, current or {}) for name in ("class",) if "class" in part}}
        merged = {name: value for name, value in merged.items() if name not in visits.FOLDED} | kept | folded
        after["steps"] = steps
    document = {"_id": item.ref, **after}
    if item.rtype == "Patient":  # counted, so that of a merge and a message about one patient, or of two messages, one waits for the other
        document["n"] = (state or {}).get("n", 0) + 1
    if document != state:
        meeting.states[item.ref] = document
        meeting.changed.add(item.ref)
    return merged
