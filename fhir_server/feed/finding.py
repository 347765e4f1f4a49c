"""Which stored resource each resource of a message is: patients first, then what has identifiers, then what only its content tells apart."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fhir_server.feed import apart, identity, results, siblings
from fhir_server.feed.items import Item, linked, targets
from fhir_server.feed.ledger import owned
from fhir_server.feed.meeting import SHARED_TYPES, Deferred, Meeting
from fhir_server.feed.reconcile import member_key
from mappers.v2.problem import Problem

OF_SEVERAL = frozenset({"Account", "Coverage"})  # a family shares the number of its account and policy


async def find_patient(meeting: Meeting, item: Item) -> None:
    """By the numbers that name a patient, else a new one. Raises Deferred where they name several."""
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


async def find_by_identifier(meeting: Meeting, items: Sequence[Item]) -> None:
    """By the identifiers of each, for its patient; what shares a number is told apart (`apart`, `siblings`)."""
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


async def find_by_content(meeting: Meeting, items: Sequence[Item], *, settled: bool) -> list[Item]:
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
