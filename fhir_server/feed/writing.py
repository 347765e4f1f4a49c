"""The versions that a message makes, when it is decided which resources it is about: what it says and what is stored are reconciled."""

import asyncio
from collections.abc import Sequence

from fhir_server.feed import identity, numbers, results, visits
from fhir_server.feed.items import Item, linked, without
from fhir_server.feed.meeting import SHARED_TYPES, STATE, Deferred, Meeting, Resource, Write, has_state
from fhir_server.feed.orders import last_before
from fhir_server.feed.reconcile import Said, reconcile, stamp
from fhir_server.feed.times import TIMES, event_time, sortable, zone_of
from fhir_server.store.inbox import Document
from mappers.v2.problem import Problem

ORDER_SEGMENTS = frozenset({"ORC", "OBR", "RXO", "RXE", "RXD", "RXG", "RXA", "TQ1"})
BREATH = 50  # resources reconciled before others have their turn


def _derived(res: Resource, parents: Sequence[str]) -> Resource:
    """The result with these among what it is derived from."""
    known = [row.get("reference") for row in res.get("derivedFrom", ())]
    return {**res, "derivedFrom": [*res.get("derivedFrom", ()), *({"reference": ref} for ref in parents if ref not in known)]}


async def writes_of(meeting: Meeting, items: Sequence[Item]) -> dict[str, Write]:
    """The versions to write by 'Type/id', from what is stored now."""
    wanted = [item for item in items if item.ref and item.write]
    lost = {item.url for item in items if not item.ref}  # results that are older than what is stored: nothing may refer to them
    for item in wanted if lost else ():
        if not lost.isdisjoint(item.targets):
            item.res = without(item.res, lost)
    known = [item.ref for item in wanted if not item.new] + list(meeting.withdrawn) + list(meeting.late)
    pairs = [(rtype, rid) for rtype, _, rid in (ref.partition("/") for ref in dict.fromkeys(known))]
    stored = await meeting.tx.get_many(pairs)
    unread = {item.ref for item in wanted if not item.new and has_state(item)} - meeting.asked
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


def says_more(write: Write) -> bool:
    """True if a version would say something that the one before does not."""
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
