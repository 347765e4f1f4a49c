"""Merges, moves, links and changes of identifiers of patients, accounts and visits (table `merges.csv`), and their undoing.

A patient merge commits at once: the retired patient is inactive with `replaced-by`, the survivor has `replaces` and the retired numbers, every
identity key of the retired one names the survivor (so later messages land there), an alias document says so to whoever asks, and references
to the retired patient are rewritten: up to REWRITE_AT_ONCE in the same transaction, the rest by `rewrite.py`. What was done is recorded in
a `merges` document, from which it can be undone. An unknown retired number is remembered: messages for it land on the survivor too.

HL7 v2.8 chapter 3, 3.3.39 ff. and 3.5 (merge fundamentals); https://hl7.org/fhir/R4/patient.html#linking
"""

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fhir_server.feed import identity, numbers
from fhir_server.feed.answers import Failed
from fhir_server.feed.items import Item
from fhir_server.feed.ledger import KIND as FEED
from fhir_server.feed.meeting import Deferred, Meeting, Write
from fhir_server.feed.moved import follow, known_again
from fhir_server.feed.numbers import identity_of
from fhir_server.feed.rewrite import redirected, rewritten
from fhir_server.sources import Source
from fhir_server.store import Stored
from fhir_server.store.inbox import Document
from mappers.v2.message import Message, Segment
from mappers.v2.problem import Problem

REWRITE_AT_ONCE = 1000
KIND = "merges"
Resource = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """What an event does to patient, account and visit: merge, move, change, link, unlink or ''."""

    patient: str
    account: str
    visit: str


def _table() -> Mapping[str, Row]:
    with Path(__file__).with_name("merges.csv").open(encoding="utf-8") as file:
        return MappingProxyType({row["event"]: Row(row["patient"], row["account"], row["visit"]) for row in csv.DictReader(file)})


EVENTS = _table()


@dataclass(frozen=True, slots=True)
class Pair:
    """One MRG with the PID (and PV1) that it belongs to; for links the second PID stands in place of the MRG."""

    pid: Segment
    mrg: Segment
    pv1: Segment | None


def row_of(message: Message) -> Row | None:
    """What the message merges, None if nothing."""
    return EVENTS.get(message.trigger) if message.code == "ADT" else None


def pairs(message: Message, row: Row) -> list[Pair]:
    """The PID-MRG pairs of a message in order; for link and unlink the first two PIDs."""
    found: list[Pair] = []
    pids: list[Segment] = []
    mrg: Segment | None = None
    for segment in message.segments:
        if segment.name == "PID":
            pids.append(segment)
            mrg = None
        elif segment.name == "MRG" and pids:
            mrg = segment
            found.append(Pair(pids[-1], segment, None))
        elif segment.name == "PV1" and mrg is not None and found:
            found[-1] = Pair(found[-1].pid, mrg, segment)
    if row.patient in ("link", "unlink") and not found and len(pids) > 1:
        return [Pair(pids[0], pids[1], None)]
    return found


async def merge(meeting: Meeting, writes: dict[str, Write]) -> None:
    """Do what the event says, adding to the writes of the message. Raises Failed (nothing to merge, a cycle), Deferred (a person decides)."""
    message = meeting.work.message
    row = row_of(message)
    if row is None:
        return
    found = pairs(message, row)
    if not found:
        raise Failed("mapping", [Problem("E", "MRG", "100", f"{message.trigger} needs an MRG segment (for links a second PID)")])
    for pair in found:
        if row.patient:
            await _patient(meeting, writes, pair, row.patient)
        if row.account:
            await _part(meeting, writes, pair, "Account", row.account, (pair.pid, "18(1)"), (pair.mrg, "3(1)"))
        if row.visit:
            new = (pair.pv1, "19(1)") if pair.pv1 is not None and pair.pv1.valued(19) else (pair.mrg, "5(1)")
            await _part(meeting, writes, pair, "Encounter", row.visit, new, (pair.mrg, visit_field(message)))


def _item_of(meeting: Meeting, segment: Segment) -> Item | None:
    return next((item for item in meeting.work.items if item.segment is segment and item.rtype == "Patient"), None)


async def _known(meeting: Meeting, keys: Sequence[str]) -> list[str]:
    """The patients that these keys name: as the feed knows them, and those that a client stored with a number that the feed does not know."""
    await meeting.ledger.load(keys)
    meeting.ledger.under.update(identity.paired(keys))
    found = [ref for key in keys for ref in meeting.ledger.refs(key)]
    unknown = [key.partition("|")[2] for key in keys if not meeting.ledger.refs(key)]
    if unknown:
        found += [f"Patient/{rid}" for rid in await meeting.means.lookup(meeting.tx, "Patient", unknown)]
    return list(dict.fromkeys([await meeting.ledger.alias(ref) for ref in found]))


async def _patient(meeting: Meeting, writes: dict[str, Write], pair: Pair, operation: str) -> None:
    source = meeting.work.source
    survivor = _item_of(meeting, pair.pid)
    numbers = identity.PATIENT_FIELDS if pair.mrg.name == "PID" else identity.MERGED_FIELDS
    keys = identity.patient_keys(source, pair.mrg, numbers)
    place = f"{pair.mrg.name}^{pair.mrg.occurrence}^1"
    if survivor is None or not keys:
        raise Failed("mapping", [Problem("E", place, "101", "both patients must be named by an identifier that identifies")])
    refs = await _known(meeting, keys)
    if operation not in ("link", "unlink"):  # numbers that the survivor has already, of an earlier merge or of both patients, name nobody else
        refs = [ref for ref in refs if ref != survivor.ref] or refs
    if len(refs) > 1:
        raise Deferred(Problem("E", place, "205", "the identifiers belong to different stored patients: one at a time can be merged"))
    retired = refs[0] if refs else ""
    if operation in ("link", "unlink"):
        await _link(meeting, writes, survivor.ref, retired, operation, place)
    elif not retired:
        await _remember(meeting, writes, keys, survivor)
    elif operation == "change":
        await _change(meeting, writes, survivor, keys)
    elif retired == survivor.ref:
        _refuse_cycle(meeting, survivor, keys, place)
    elif operation == "move" and await _has_other_keys(meeting, retired, keys):
        await _move_number(meeting, writes, survivor.ref, retired, keys, place)
    else:
        for key in keys:  # of a patient that a client stored they are not known yet
            meeting.ledger.keep(key, retired, retired)
        await _merge_patients(meeting, writes, survivor.ref, retired)


async def _remember(meeting: Meeting, writes: dict[str, Write], keys: Sequence[str], survivor: Item) -> None:
    """A retired number that nobody used here yet: its later messages land on the survivor, which has it as an old one."""
    for key in keys:
        meeting.ledger.keep(key, survivor.ref, survivor.ref)
        meeting.ledger.retire(key)
    await _grow_old(meeting, writes, survivor.ref, keys)


async def _grow_old(meeting: Meeting, writes: dict[str, Write], ref: str, keys: Sequence[str], known: Sequence[Resource] = ()) -> None:
    """Let the numbers of these keys stay on a resource as old ones; `known`: identifiers that say more of them."""
    if ref not in meeting.states:
        meeting.states.update(await meeting.ledger.load([], [ref]))
    write = await _current(meeting, writes, ref)
    stored = write.prior.res if write.prior is not None and write.prior.res is not None else {}
    present = [*known, *stored.get("identifier", []), *write.res.get("identifier", [])]
    _remember_old(meeting, ref, numbers.aged(present, numbers.named_by(keys)))
    _replace(writes, Write(numbers.with_old(write.res, meeting.states[ref]), write.prior))


def _refuse_cycle(meeting: Meeting, survivor: Item, keys: Sequence[str], place: str) -> None:
    """Both numbers name one patient already: fine if it was this merge, refused if it was the opposite one."""
    own = [key for key in survivor.keys if key not in keys]
    if not own:
        meeting.problems.append(Problem("W", place, "205", "the patient to merge is the surviving one: nothing was done"))
        return
    if all(meeting.ledger.is_retired(key) for key in own) and not all(meeting.ledger.is_retired(key) for key in keys):
        raise Failed("mapping", [Problem("E", place, "205", "the surviving patient was itself merged into the retired one")])
    for key in keys:
        meeting.ledger.retire(key)


async def _has_other_keys(meeting: Meeting, ref: str, keys: Sequence[str]) -> bool:
    rows = await meeting.means.inbox.find(meeting.tx, FEED, "tracks.ref", [ref])
    return any(row["_id"] not in keys and not row.get("retired") for row in rows)


async def _current(meeting: Meeting, writes: Mapping[str, Write], ref: str) -> Write:
    """The resource as it will be after the writes so far, ready to be changed."""
    if ref in writes:
        return writes[ref]
    rtype, _, rid = ref.partition("/")
    stored = await meeting.tx.get(rtype, rid)
    if stored is None or stored.res is None:
        raise Failed("mapping", [Problem("E", "", "204", f"the {rtype} to merge was deleted")])
    return Write(stored.res, stored)


def _replace(writes: dict[str, Write], write: Write, **elements: Any) -> None:
    res = {name: value for name, value in {**write.res, **elements}.items() if value not in (None, [])}
    writes[f"{res['resourceType']}/{res['id']}"] = Write(res, write.prior)


def _with_link(res: Resource, other: str, kind: str) -> list[Resource]:
    kept = [link for link in res.get("link", []) if link.get("other", {}).get("reference") != other]
    return [*kept, {"other": {"reference": other}, "type": kind}]


async def _merge_patients(meeting: Meeting, writes: dict[str, Write], survivor: str, retired: str) -> None:
    await _touch(meeting, survivor, retired)
    old, new = await _current(meeting, writes, retired), await _current(meeting, writes, survivor)
    before = {"old": _parts(old.res), "new": _parts(new.res)}
    keys, aliases = await _move_keys(meeting, survivor, retired)
    replaced = [link["other"]["reference"] for link in old.res.get("link", []) if link.get("type") == "replaces"]
    _replace(writes, old, active=False, link=_with_link(old.res, survivor, "replaced-by"))
    come = _retired_numbers(old.res, new.res, numbers.named_by(keys))
    _remember_old(meeting, survivor, [one for one in come if one.get("use") == "old"])
    _replace(
        writes,
        Write(new.res, new.prior),
        active=True,
        identifier=[*new.res.get("identifier", []), *come],
        link=_with_link(new.res, retired, "replaces"),
    )
    for ref in replaced:  # chains are compressed: who was replaced by the retired one is replaced by the survivor
        earlier = await _current(meeting, writes, ref)
        links = [link for link in earlier.res.get("link", []) if link.get("other", {}).get("reference") != retired]
        _replace(writes, earlier, link=_with_link({"link": links}, survivor, "replaced-by"))
        again = await _current(meeting, writes, survivor)
        _replace(writes, again, link=_with_link(again.res, ref, "replaces"))
    touched = await rewritten(meeting.means, meeting.tx, retired, survivor, REWRITE_AT_ONCE, writes)
    done = {
        "keys": keys,
        "aliases": aliases,
        "before": before,
        "chain": replaced,
        "touched": touched,
        "numbers": [list(identity_of(one)) for one in come],
    }
    await _record(meeting, "merge", survivor, retired, done)


async def _touch(meeting: Meeting, *patients: str) -> None:
    """Count on the states of these patients, so that of this and any other message about them one waits for the other."""
    missing = [ref for ref in patients if ref not in meeting.states]
    meeting.states.update(await meeting.ledger.load([], missing))
    for ref in patients:
        state = meeting.states.setdefault(ref, {"_id": ref, "sources": {}})
        meeting.states[ref] = {**state, "n": state.get("n", 0) + 1}
        meeting.changed.add(ref)


def _parts(res: Resource) -> dict[str, Any]:
    """What a merge changes of a patient, as links and activity: enough to undo it."""
    return {"active": res.get("active"), "link": res.get("link", [])}


def _retired_numbers(old: Resource, new: Resource, named: Collection[str]) -> list[Resource]:
    """Numbers that the survivor takes over: those that named the retired patient as old ones, others (an insurance number) as they are."""
    present = {identity_of(one) for one in new.get("identifier", [])}
    come = [one for one in old.get("identifier", []) if identity_of(one) not in present]
    return [{**one, "use": "old"} if "|".join(identity_of(one)) in named else one for one in come]


def _remember_old(meeting: Meeting, ref: str, old: Sequence[Resource]) -> None:
    """Note replaced numbers in the state of a resource (loaded before)."""
    meeting.states[ref] = numbers.remembering(meeting.states.get(ref, {"_id": ref, "sources": {}}), old)
    meeting.changed.add(ref)


async def _move_keys(meeting: Meeting, survivor: str, retired: str) -> tuple[list[str], list[str]]:
    """Let every key and alias of the retired patient name the survivor."""
    rows = await meeting.means.inbox.find(meeting.tx, FEED, "tracks.ref", [retired], 10_000)
    meeting.ledger.adopt(rows)
    keys = sorted(key for key, row in meeting.ledger.documents.items() if any(one["ref"] == retired for one in row.get("tracks", ())))
    for key in keys:
        meeting.ledger.move(key, retired, survivor)
        meeting.ledger.retire(key)
    await meeting.ledger.hand_over(retired, survivor)
    return keys, await meeting.ledger.point(retired, survivor)


async def _record(meeting: Meeting, operation: str, survivor: str, retired: str, done: Document) -> None:
    document = {
        "_id": f"{meeting.work.entry}-{operation.replace(' ', '-')}-{retired.rpartition('/')[2]}",
        "operation": operation,
        "survivor": survivor,
        "retired": retired,
        "refs": [survivor, retired],
        "entry": meeting.work.entry,
        "source": meeting.work.source.name,
        "at": meeting.work.received,
        "state": "open" if operation in ("merge", "move") else "done",
        **done,
    }
    await meeting.means.inbox.save(meeting.tx, KIND, [document])


async def _link(meeting: Meeting, writes: dict[str, Write], one: str, other: str, operation: str, place: str) -> None:
    """A24 and A37: the two records are (no longer) about one person; both stay."""
    other = other or _second(meeting, place)
    for ref, target in ((one, other), (other, one)):
        write = await _current(meeting, writes, ref)
        links = [
            link for link in write.res.get("link", []) if not (link.get("other", {}).get("reference") == target and link.get("type") == "seealso")
        ]
        _replace(writes, write, link=[*links, {"other": {"reference": target}, "type": "seealso"}] if operation == "link" else links)
    await _record(meeting, operation, one, other, {})


def _second(meeting: Meeting, place: str) -> str:
    patients = [item.ref for item in meeting.work.items if item.rtype == "Patient"]
    if len(patients) < 2:
        raise Failed("mapping", [Problem("E", place, "204", "the patient to link is not known")])
    return patients[1]


async def _change(meeting: Meeting, writes: dict[str, Write], survivor: Item, keys: Sequence[str]) -> None:
    """A46 to A48: one patient, another number (`also_known` made both numbers find the same patient, or deferred the message)."""
    kept = set(identity.patient_keys(meeting.work.source, survivor.segment)) if survivor.segment is not None else set()
    await _grow_old(meeting, writes, survivor.ref, [key for key in keys if key not in kept])


def also_known(message: Message, source: Source) -> dict[tuple[str, int], tuple[str, ...]]:
    """For a change of numbers: (type, index of its segment) -> keys of the old number, by which the resource of the new number is found too."""
    row = row_of(message)
    found: dict[tuple[str, int], tuple[str, ...]] = {}
    if row is None or "change" not in (row.patient, row.account, row.visit):
        return found
    for pair in pairs(message, row):
        if row.patient:
            found["Patient", pair.pid.index] = identity.patient_keys(source, pair.mrg, identity.MERGED_FIELDS)
        if row.account:
            found["Account", pair.pid.index] = part_keys("Account", source, pair.mrg, "3(1)")
        if row.visit and pair.pv1 is not None:
            found["Encounter", pair.pv1.index] = part_keys("Encounter", source, pair.mrg, visit_field(message))
    return found


def retiring(message: Message, source: Source) -> dict[int, frozenset[str]]:
    """Of a merge: index of a PID -> keys of the number that goes. Where PID-3 lists it beside the one that stays, the latter names the survivor."""
    row = row_of(message)
    if row is None or row.patient != "merge":
        return {}
    return {pair.pid.index: frozenset(identity.patient_keys(source, pair.mrg, identity.MERGED_FIELDS)) for pair in pairs(message, row)}


def visit_field(message: Message) -> str:
    """Where MRG names the visit: MRG-5, or MRG-6 (alternate visit id) in A51."""
    return "6(1)" if message.trigger == "A51" else "5(1)"


def left_out(message: Message) -> frozenset[str]:
    """Types that a move does not take from the message: it moves what is stored."""
    row = row_of(message)
    moved = {"Encounter": row.visit, "Account": row.account} if row is not None else {}
    return frozenset(rtype for rtype, operation in moved.items() if operation == "move")


async def _move_number(meeting: Meeting, writes: dict[str, Write], survivor: str, retired: str, keys: Sequence[str], place: str) -> None:
    """A43: one of several numbers of a patient goes to another patient; which of the data came under it a person must say."""
    old, new = await _current(meeting, writes, retired), await _current(meeting, writes, survivor)
    moved = {key.partition("|")[2] for key in keys}
    gone = [one for one in old.res.get("identifier", []) if "|".join(identity_of(one)) in moved]
    _replace(writes, old, identifier=[one for one in old.res.get("identifier", []) if one not in gone])
    _replace(writes, new, identifier=[*new.res.get("identifier", []), *[one for one in gone if one not in new.res.get("identifier", [])]])
    for key in keys:
        meeting.ledger.move(key, retired, survivor)
    meeting.problems.append(Problem("W", place, "207", "the number was moved; data recorded under the patient's other numbers stayed"))
    await _record(meeting, "move number", survivor, retired, {"keys": list(keys)})


async def _part(
    meeting: Meeting, writes: dict[str, Write], pair: Pair, rtype: str, operation: str, new: tuple[Segment, str], old: tuple[Segment, str]
) -> None:
    """Accounts and visits: merge the old one into the new one, change its number, or move it to the patient of the PID."""
    source = meeting.work.source
    old_keys = part_keys(rtype, source, *old)
    new_keys = part_keys(rtype, source, *new)
    place = f"{old[0].name}^{old[0].occurrence}^{old[1].partition('(')[0]}"
    if not old_keys:
        meeting.problems.append(Problem("W", place, "101", f"the {rtype} to {operation} is not named: none was touched"))
        return
    await meeting.ledger.load([*old_keys, *new_keys])
    patient = next((item.ref for item in meeting.work.items if item.segment is pair.pid and item.rtype == "Patient"), "")
    owner = await _former_owner(meeting, pair, patient) if operation == "move" else patient
    found = [ref for key in old_keys if (ref := await meeting.ledger.find(key, owner))]
    if not found:
        for key in old_keys:
            target = [ref for one in new_keys if (ref := await meeting.ledger.find(one, patient))]
            if target and operation != "move":
                meeting.ledger.keep(key, target[0], patient)
                await _grow_old(meeting, writes, target[0], [key])
        meeting.problems.append(Problem("W", place, "204", f"the {rtype} to {operation} is not known to {source.name}; its number is remembered"))
        return
    await _act_on_part(meeting, writes, rtype, operation, found[0], new_keys, old_keys, patient, owner)


def part_keys(rtype: str, source: Source, segment: Segment, place: str) -> tuple[str, ...]:
    """Keys of an account or visit number, as the mapped resource of that number has them."""
    return identity.cx_keys(rtype, source, segment, place)


async def _former_owner(meeting: Meeting, pair: Pair, patient: str) -> str:
    keys = identity.patient_keys(meeting.work.source, pair.mrg, identity.MERGED_FIELDS)
    refs = await _known(meeting, keys)
    return refs[0] if refs else patient


async def _act_on_part(
    meeting: Meeting,
    writes: dict[str, Write],
    rtype: str,
    operation: str,
    ref: str,
    new_keys: Sequence[str],
    old_keys: Sequence[str],
    patient: str,
    owner: str,
) -> None:
    source = meeting.work.source
    known = [await meeting.ledger.find(key, patient) for key in new_keys]
    target = next((one for one in known if one and one != ref), "")
    if operation == "move":
        await _move_part(meeting, writes, rtype, ref, old_keys, patient, owner)
    elif operation == "merge" and target:
        write = await _current(meeting, writes, ref)
        _replace(writes, write, status="inactive" if rtype == "Account" else "entered-in-error")
        for key in old_keys:
            meeting.ledger.move(key, ref, target)
        await _grow_old(meeting, writes, target, old_keys, write.res.get("identifier", []))
        aliases = await meeting.ledger.point(ref, target)
        touched = await rewritten(meeting.means, meeting.tx, ref, target, REWRITE_AT_ONCE, writes)
        await known_again(meeting.ledger, source, [writes[name].res for name in touched if name in writes], patient)
        done = {"keys": list(old_keys), "aliases": aliases, "touched": touched, "before": {"status": write.res.get("status")}}
        await _record(meeting, "merge", target, ref, done)
    else:
        await _grow_old(meeting, writes, ref, [key for key in old_keys if key not in new_keys])
        for key in new_keys:
            meeting.ledger.keep(key, ref, patient)


async def _members(meeting: Meeting, ref: str) -> list[Stored]:
    """What belongs to a part: what refers to it, and what refers to the visits among that."""
    found = await meeting.means.referrers(meeting.tx, ref, REWRITE_AT_ONCE + 1)
    for visit in [one for one in found if one.rtype == "Encounter"]:
        found += await meeting.means.referrers(meeting.tx, f"Encounter/{visit.rid}", REWRITE_AT_ONCE + 1)
    return list({(one.rtype, one.rid): one for one in found}.values())


async def _move_part(meeting: Meeting, writes: dict[str, Write], rtype: str, ref: str, old_keys: Sequence[str], patient: str, owner: str) -> None:
    """A44, A45: an account or visit, and what belongs to it, goes from one patient to another."""
    await _touch(meeting, patient, owner)
    write = await _current(meeting, writes, ref)
    _replace(writes, Write(redirected(write.res, owner, patient), write.prior))
    members = await _members(meeting, ref)
    if len(members) > REWRITE_AT_ONCE:
        raise Deferred(Problem("E", "", "207", f"more than {REWRITE_AT_ONCE} resources belong to the {rtype}: a person must move it"))
    touched = []
    for member in members:
        if member.res is not None and member.rtype not in ("Provenance", "AuditEvent") and f"{member.rtype}/{member.rid}" != patient:
            res = redirected(member.res, owner, patient)
            if res != member.res:
                writes.setdefault(f"{member.rtype}/{member.rid}", Write(res, member))
                touched.append(f"{member.rtype}/{member.rid}")
    for key in old_keys:
        meeting.ledger.reassign(key, ref, patient)
    meeting.changed.update(await follow(meeting.ledger, meeting.states, touched, owner, patient))
    await _record(meeting, "move part", patient, owner, {"part": ref, "touched": touched, "state": "done"})
