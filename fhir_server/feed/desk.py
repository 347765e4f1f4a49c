"""The inbox as a person works with it: list, show, edit and resubmit, replay, trace, merges and their undoing. CLI and admin API call these.

Rows are plain dicts ready for JSON. They hold patient data only where the caller asks for a message itself (`show`).
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from conformance.outcome import bad_request, conflict, not_found
from fhir_server.feed import receipt, undo
from fhir_server.feed.intake import Feed, answer_code, resume
from fhir_server.feed.receipt import Sender
from fhir_server.sources import Source, recognise, sender_of
from fhir_server.store.inbox import ACCEPTED, RESUBMITTED, STATUSES, Busy, Entry
from mappers.v2.message import Message, parse

LISTED = ("id", "source", "application", "facility", "control_id", "event", "status", "size", "attempt", "transport", "peer", "flags", "origin")
FILTERS = frozenset({"source", "status", "event", "control_id", "ref", "origin", "received_ge", "received_lt"})
REPLAYED = ("processed", "warning")
REPLAY_PAGE = 200


def row(entry: Entry) -> dict[str, Any]:
    """An entry without its message: sender, times, status, problems, resources, answer code."""
    made = {name: getattr(entry, name) for name in LISTED}
    made["flags"] = list(entry.flags)
    made["received"] = entry.received.isoformat()
    made["done"] = entry.done.isoformat() if entry.done else None
    made["problems"] = [dict(problem) for problem in entry.problems]
    made["resources"] = list(entry.refs)
    made["answer"] = answer_code(entry.answer) if entry.answer else ""
    return made


async def listed(feed: Feed, filters: Mapping[str, Any], *, after: str = "", limit: int = 50) -> list[dict[str, Any]]:
    """Entries, newest first, by FILTERS. Raises Refusal 400 for an unknown filter."""
    _check(filters)
    return [row(entry) for entry in await feed.inbox.search(filters, after=after, limit=max(1, min(limit, 1000)))]


def _check(filters: Mapping[str, Any]) -> None:
    """Raises Refusal 400 for a filter that the inbox does not have: left out, it would mean every message."""
    for name in filters:
        if name not in FILTERS:
            raise bad_request(f"the inbox has no filter '{name}'; there are {', '.join(sorted(FILTERS))}")
    if "status" in filters and filters["status"] not in STATUSES:
        raise bad_request(f"'status' is one of {', '.join(sorted(STATUSES))}")


async def show(feed: Feed, id: str) -> dict[str, Any]:
    """One entry with its message as text (in its own charset) and the answers. Raises Refusal 404."""
    entry = await _entry(feed, id)
    charset = receipt.read(entry).charset
    return {
        **row(entry),
        "message": entry.raw.decode(charset, "replace").replace("\r\n", "\r").replace("\r", "\n"),
        "answer_text": entry.answer.decode(charset, "replace"),
        "commit_text": entry.commit.decode(charset, "replace"),
    }


async def _entry(feed: Feed, id: str) -> Entry:
    entry = await feed.inbox.get(id, raw=True)
    if entry is None:
        raise not_found("inbox", id)
    return entry


async def resubmit(feed: Feed, id: str, edited: bytes | None = None, who: str = "") -> dict[str, Any]:
    """Process a failed or deferred entry again; with `edited`, a corrected copy takes its place and the original stays as it was sent.

    Raises Refusal 404, 409 (accepted already, or somebody is at work on it).
    """
    entry = await _entry(feed, id)
    if entry.status in ACCEPTED or entry.status == "replaced":
        raise conflict("this message was accepted: use replay to derive its resources again")
    if edited is None:
        return await _again(feed, entry)
    message = parse(edited)
    source = _source_of(feed, entry, message)
    made = receipt.entry_of(message, edited, source, Sender(transport=RESUBMITTED, address=who), feed.owner)
    copy = replace(made, flags=("edited",), origin=entry.id, order=tuple(dict.fromkeys([*made.order, *entry.order])))
    kept, is_new = (await feed.inbox.receive([copy]))[0]
    if not is_new and kept.status in ACCEPTED:
        raise conflict(f"the edited message was accepted before, as {kept.id}")
    await feed.inbox.mark(entry.id, {"status": "replaced"})
    return await (_again(feed, kept) if not is_new else _finished(feed, replace(kept, raw=edited)))


def _source_of(feed: Feed, entry: Entry, edited: Message) -> Source:
    """Whose a corrected message is: one that was recognised by its connection stays with its source, whatever MSH says."""
    for source in feed.registry.sources:
        if source.name == entry.source and (source.certificates or source.clients):
            return source
    return recognise(feed.registry, *sender_of(edited))


async def _again(feed: Feed, entry: Entry) -> dict[str, Any]:
    now = datetime.now(UTC)
    taken = await feed.inbox.take(entry.id, feed.owner, now + receipt.LEASE, now)
    if taken is None:
        raise conflict("somebody is at work on this message")
    return await _finished(feed, replace(taken, transport=RESUBMITTED))


async def _finished(feed: Feed, entry: Entry) -> dict[str, Any]:
    await resume(feed, entry)
    return row(await _entry(feed, entry.id))


async def replay(feed: Feed, filters: Mapping[str, Any], *, after: str = "") -> list[dict[str, Any]]:
    """Derive resources again from accepted entries that match, oldest first, with the tables of today; one page, as rows.

    Every message keeps the stamp of its first processing, so an old one does not regress what newer ones said. Go on with `after` = the
    last id until the answer is empty. Raises Refusal 400 for an unknown filter.
    """
    _check(filters)
    done: list[dict[str, Any]] = []
    while not done:  # a page of messages that were never accepted is not the end
        page = await feed.inbox.search(filters, after=after, limit=REPLAY_PAGE, newest_first=False)
        if not page:
            break
        after = page[-1].id
        for entry in page:
            if entry.status in REPLAYED:
                done += await _replayed(feed, entry)
    return done


async def _replayed(feed: Feed, entry: Entry) -> list[dict[str, Any]]:
    """One accepted entry derived again; nothing where somebody is at work on it."""
    now = datetime.now(UTC)
    taken = await feed.inbox.take(entry.id, feed.owner, now + receipt.LEASE, now, accepted=True)
    return [await _finished(feed, taken)] if taken is not None else []


async def replay_resource(feed: Feed, ref: str) -> list[dict[str, Any]]:
    """Derive one resource ('Patient/1') again from every message that wrote it, oldest first."""
    done: list[dict[str, Any]] = []
    after = ""
    while True:
        page = await feed.inbox.search({"ref": ref}, after=after, limit=REPLAY_PAGE, newest_first=False)
        for entry in page:
            done += await _replayed(feed, entry)
        if len(page) < REPLAY_PAGE:
            return done
        after = page[-1].id


async def messages_of(feed: Feed, ref: str) -> list[dict[str, Any]]:
    """The messages that wrote a resource, newest first."""
    return [row(entry) for entry in await feed.inbox.search({"ref": ref}, limit=1000)]


async def merges(feed: Feed, ref: str = "") -> list[dict[str, Any]]:
    """Merges that concern a resource, or the open ones."""
    found = await feed.inbox.find(None, "merges", "refs" if ref else "state", [ref or "open"])
    return [{name: value for name, value in one.items() if name != "before"} for one in found]


async def undo_merge(feed: Feed, id: str, who: str) -> dict[str, Any]:
    """Undo a patient merge from its recorded list; `who` decided it. Raises Refusal 404, 409."""
    try:
        return await undo.undo(feed, id, who)
    except Busy as busy:
        raise conflict("the merge is being worked on: try again") from busy
