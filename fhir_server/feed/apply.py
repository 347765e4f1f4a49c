"""A mapped message meets what is stored, inside one transaction: find, reconcile, write. Called again as a whole if the transaction is retried.

Order of work: patients are found first (everything else belongs to them), then what has identifiers, then what is only told apart by its
content, then results by their order; then the stored versions are read once, reconciled, and written once, with a Provenance that ties the
versions to the message.
"""

from collections.abc import Awaitable, Callable, Sequence

from fhir_server.feed import apart, identity, siblings
from fhir_server.feed.answers import Failed, of_issues
from fhir_server.feed.finding import find_by_content, find_by_identifier, find_patient
from fhir_server.feed.finding_results import children_key, find_results
from fhir_server.feed.items import Item, Work
from fhir_server.feed.ledger import KIND, Ledger
from fhir_server.feed.meeting import RESULT_TYPES, Applied, Invalid, Means, Meeting, Write, has_state, version
from fhir_server.feed.orders import Anchor, anchors, last_before, name_documents
from fhir_server.feed.provenance import provenance
from fhir_server.feed.writing import says_more, writes_of
from fhir_server.store import Tx

MOST_GUESSES = 10_000
Then = Callable[[Meeting, dict[str, Write]], Awaitable[None]]


async def apply(means: Means, tx: Tx, work: Work, then: Then | None = None) -> Applied:
    """Write what the message says, and what `then` adds. Raises Deferred where a person must decide, Refusal where a resource breaks the rules."""
    meeting = Meeting(means, tx, work, Ledger(means.inbox, tx))
    items = list(work.items)
    found = anchors(work.message, work.source)
    await _load_first(meeting, items, found)
    for item in items:
        if item.rtype == "Patient":
            await find_patient(meeting, item)
    await find_by_identifier(meeting, [item for item in items if item.rtype not in RESULT_TYPES and item.keys and not item.ref])
    late = await find_by_content(meeting, [item for item in items if item.rtype not in RESULT_TYPES and not item.ref], settled=False)
    await find_results(meeting, items, found)
    await find_by_content(meeting, late, settled=True)
    pending = await writes_of(meeting, items)
    if then is not None:
        before = dict(pending)
        await then(meeting, pending)
        pending = {ref: write for ref, write in pending.items() if before.get(ref) is write or says_more(write)}
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
    stateful = [key for item in items if has_state(item) for key in item.keys]
    meeting.asked.update(guess for key in stateful if (guess := meeting.means.guesses.get(key)))
    known = [key for item in items if item.rtype not in apart.TABLE for key in item.keys]
    meeting.states.update(await meeting.ledger.load(known, orders | meeting.asked))


def _remember(meeting: Meeting, items: Sequence[Item]) -> None:
    """Note what the keys meant, so that the next message about it reads its states with its keys."""
    guesses = meeting.means.guesses
    if len(guesses) > MOST_GUESSES:
        guesses.clear()
    guesses.update((key, item.ref) for item in items if has_state(item) and item.ref and item.write for key in item.keys)
