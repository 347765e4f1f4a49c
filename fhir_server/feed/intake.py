"""The way of a message through the exchange: stored durably, mapped, applied in one transaction, answered after the commit.

Both doors (MLLP, `POST /hl7v2`) and the background worker end here. Whatever happens, the raw bytes stay in the inbox, and a message is
applied exactly once: the resources, the feed's own documents and the inbox status with the stored answer are one transaction, and a resend
of an accepted message gets that answer.
"""

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from conformance.outcome import Refusal
from fhir_server.feed import answers, receipt, sequence, unmapped
from fhir_server.feed.answers import COMMIT, FAILURES, Failed
from fhir_server.feed.aside import LARGE_BYTES, aside, is_large
from fhir_server.feed.asked import asked, wanted
from fhir_server.feed.meeting import Deferred, Means
from fhir_server.feed.receipt import Sender
from fhir_server.feed.statistics import Statistics
from fhir_server.feed.work import Mapped, apply_all, check, kind_of, map_message, merges
from fhir_server.search.aliases import settled
from fhir_server.sources import Registry, Source, recognise, sender_of
from fhir_server.store import Store, Tx
from fhir_server.store.inbox import ACCEPTED, FAILED, RESENT, REUSED, Busy, Entry, Inbox
from mappers.v2 import batch
from mappers.v2.convert import Conversion
from mappers.v2.message import Message, parse
from mappers.v2.problem import Problem

LOG = logging.getLogger("fhir.feed")
WAIT_SECONDS = 25.0  # longest wait for an earlier message of the same patient, or for another process at the same message
POLL_SECONDS = 0.02
TRANSIENT = frozenset({429, 500, 503, 507})
MUCH = 1000  # segments of a message that may be too much for one transaction: it is refused for good where the store failed so often at it
ATTEMPTS = 3
REPEATS = 20  # how often a message that was taken (CA) is tried while the store fails, before it waits for a person
PUT_OFF_SECONDS = 1.0
MOST_CONNECTIONS = 1000  # of a source, and sources with one, that are remembered for later answers
SILENT_CODES = frozenset({"ACK", "MCF"})  # answers are never answered


def owner_name() -> str:
    """This process among all that share the inbox."""
    return f"{socket.gethostname()}:{os.getpid()}:{os.urandom(3).hex()}"


def nothing_wrong(message: Message, source: Source) -> Problem | None:
    """An `unsupported` that supports every type of message."""
    return None


async def at_once(rtypes: Iterable[str]) -> None:
    """Where no consents are enforced, everything counts when it is committed."""


@dataclass(slots=True, eq=False)
class Feed:
    """The running feed of one tenant in one process.

    convert: (message, source) -> Conversion of mappers.v2; unsupported: what is said of a type of message that no table maps; mean: source name -> what `apply` writes with; wake: set when the background
    worker has something to do; waiting, writing: receipts that go together into the next write.
    """

    store: Store
    inbox: Inbox
    registry: Registry
    convert: Callable[[Message, Source], Conversion]
    mean: Callable[[Source], Means]
    owner: str = field(default_factory=owner_name)
    statistics: Statistics = field(default_factory=Statistics)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: list[tuple[Entry, "asyncio.Future[tuple[Entry, bool]]"]] = field(default_factory=list)
    writing: bool = False
    unmapped: set[str] = field(default_factory=set)  # kinds of codes without a map that this process noted
    unsupported: Callable[[Message, Source], Problem | None] = nothing_wrong
    settled: Callable[[Iterable[str]], Awaitable[None]] = at_once  # returns when what was written of these types counts everywhere
    connections: dict[str, dict[str, None]] = field(default_factory=dict)  # source name -> its MLLP connections to this process, the latest last
    answered: asyncio.Event = field(default_factory=asyncio.Event)  # set when a later answer may be due
    long: set[str] = field(default_factory=set)  # entries in a long transaction: they have a lease of their own
    settle_seconds: float = 65.0  # the longest that a write may take which began before a merge

    def remember(self, source: str, connection: str) -> None:
        """A message of the source came over this MLLP connection ('' for none). Only so many are remembered: unknown senders may give any name."""
        if not connection:
            return
        latest = self.connections.pop(source, {})
        latest.pop(connection, None)
        latest[connection] = None
        self.connections[source] = latest
        for crowded in (latest, self.connections):
            if len(crowded) > MOST_CONNECTIONS:
                del crowded[next(iter(crowded))]

    def forget(self, source: str, connection: str) -> None:
        """This connection is no more."""
        latest = self.connections.get(source, {})
        latest.pop(connection, None)
        if not latest:
            self.connections.pop(source, None)


class Behind(Exception):
    """An earlier message of the same patient is not finished yet: its entry."""

    def __init__(self, entry: Entry) -> None:
        super().__init__("behind")
        self.entry = entry


async def nothing_more() -> None:
    """The `stored` callback of a door that says nothing when a message is stored."""


async def receive(
    feed: Feed, raw: bytes, sender: Sender, stored: Callable[[], Awaitable[None]] = nothing_more, charset: str | None = None
) -> bytes | None:
    """Take one body (a message, or a batch) and give the bytes to answer, None for no answer."""
    split = await aside(len(raw) > LARGE_BYTES, batch.split, raw)
    if not split.messages and not split.empty:
        return await _unreadable(feed, raw, sender, stored)
    if len(split.messages) == 1 and not split.batched:
        return await _receive_one(feed, split.messages[0], sender, stored, charset)
    given = [await _receive_one(feed, piece, sender, nothing_more, charset) for piece in split.messages]
    await stored()
    return answers.batched(given, split)


async def _unreadable(
    feed: Feed, raw: bytes, sender: Sender, stored: Callable[[], Awaitable[None]], reason: str = "unreadable", message: Message | None = None
) -> bytes | None:
    """Kept, but not to be taken for a message: `reason` is a row of the failure table, `message` what could be read of it."""
    (entry, is_new) = await _store(feed, receipt.unreadable_entry(raw, sender, feed.owner))
    await stored()
    feed.statistics.count("unreadable", "received")
    failure = FAILURES[reason]
    problem = Problem("E", "MSH^1^18" if message else "", failure.condition, failure.text)
    answer = answers.answer(message, failure.code, [problem]) if message else answers.reject(b"", reason)
    if is_new:
        problems = answers.as_rows([problem])
        await feed.inbox.finish(None, entry, {"status": failure.status, "problems": problems, "answer": answer or b"", "done": datetime.now(UTC)})
    feed.statistics.count("unreadable", "answer:AR")
    return answer


async def _receive_one(feed: Feed, raw: bytes, sender: Sender, stored: Callable[[], Awaitable[None]], charset: str | None) -> bytes | None:
    message = await aside(len(raw) > LARGE_BYTES, parse, raw, charset)
    if message.code in SILENT_CODES:
        feed.statistics.count("answers", "received")
        await stored()
        return None
    if sender.transport == "mllp" and message.charset.startswith(("utf-16", "utf-32")):
        return await _unreadable(feed, raw, sender, stored, "wide", replace(message, charset="ascii"))
    source = recognise(feed.registry, *sender_of(message), certificate=sender.certificate, client=sender.client)
    feed.statistics.count(source.name, "received")
    want = asked(message)
    feed.remember(source.name, sender.connection)
    refused = _refused(feed, message, source) if want.enhanced else None
    commit = answers.answer(message, "CA", []) if want.enhanced else b""
    owner = "" if want.enhanced and refused is None else feed.owner
    made = await aside(len(raw) > LARGE_BYTES, receipt.entry_of, message, raw, source, sender, owner, commit, charset)
    try:
        entry, is_new = await _store(feed, made)
    except Refusal:
        failure = FAILURES["not-stored"]
        code = COMMIT["AE"] if want.enhanced else failure.code
        return _say(
            feed, source, message, code, [Problem("E", "", failure.condition, failure.text)], want.accept if want.enhanced else want.application
        )
    await stored()
    if refused is not None:
        return await _rejected(feed, entry, is_new, message, source, refused)
    if want.enhanced:
        return await _committed(feed, entry, is_new, message, source, sender)
    answer = await work_out(feed, entry, message, source) if is_new else await _again(feed, entry, message, source)
    return answer if _wanted(want.application, answer) else None


def _say(feed: Feed, source: Source, message: Message, code: str, problems: Sequence[Problem], condition: str, expected: str = "") -> bytes | None:
    feed.statistics.count(source.name, f"answer:{code}")
    answer = answers.answer(message, code, problems, expected)
    return answer if _wanted(condition, answer) else None


def _wanted(condition: str, answer: bytes) -> bool:
    return wanted(condition, accepted=answer_code(answer)[1:] == "A")


def answer_code(answer: bytes) -> str:
    """MSA-1 of an answer's bytes."""
    return parse(answer).get("MSA-1")


async def _store(feed: Feed, entry: Entry) -> tuple[Entry, bool]:
    """Store an entry durably; entries that arrive while a write is under way go together in the next one."""
    future: asyncio.Future[tuple[Entry, bool]] = asyncio.get_running_loop().create_future()
    feed.waiting.append((entry, future))
    if not feed.writing:
        feed.writing = True
        try:
            while feed.waiting:
                await _store_waiting(feed)
        finally:
            feed.writing = False
    return await future


async def _store_waiting(feed: Feed) -> None:
    taken, feed.waiting = feed.waiting[:64], feed.waiting[64:]
    keys: set[str] = set()
    now = [pair for pair in taken if not (pair[0].key in keys or keys.add(pair[0].key))]  # type: ignore[func-returns-value]
    feed.waiting = [pair for pair in taken if pair not in now] + feed.waiting
    try:
        results = await feed.inbox.receive([entry for entry, _ in now])
    except (Refusal, Busy) as error:
        for _, future in now:
            future.set_exception(error)
        return
    for (_, future), result in zip(now, results):
        future.set_result(result)


def _refused(feed: Feed, message: Message, source: Source) -> Failed | None:
    """Why a message is rejected on sight (CR) although it can be stored: its header, its type or its sender is not acceptable. HL7 v2.8 2.9.3.1"""
    try:
        check(message, source)
    except Failed as failed:
        return failed if failed.failure.code == "AR" else None
    if sequence.opens(source, message):
        return None
    problem = feed.unsupported(message, source)
    return Failed(kind_of([problem]), [problem]) if problem is not None else None


async def _rejected(feed: Feed, entry: Entry, is_new: bool, message: Message, source: Source, why: Failed) -> bytes | None:
    """Enhanced mode: kept, but rejected at once; sent again after the reason is gone, it is taken."""
    code = COMMIT[why.failure.code]
    if is_new:
        answer = answers.answer(message, code, why.problems)
        final = _final(why.failure.status, why.problems, answer, entry, message, ())
        await feed.inbox.finish(None, entry, {**final, "commit": answer, "due": False})
        feed.statistics.count(source.name, why.failure.status)
    return _say(feed, source, message, code, why.problems, asked(message).accept)


async def _flag_resent(feed: Feed, entry: Entry) -> None:
    """A message that was not accepted came again."""
    if RESENT not in entry.flags:
        await feed.inbox.mark(entry.id, {"flags": (*entry.flags, RESENT)})


async def _committed(feed: Feed, entry: Entry, is_new: bool, message: Message, source: Source, sender: Sender) -> bytes | None:
    """Enhanced mode: the message is stored, say so; the background worker does the rest."""
    want = asked(message)
    if not is_new:
        feed.statistics.count(source.name, "duplicate")
        if entry.status in FAILED and await feed.inbox.take(entry.id, "", None, datetime.now(UTC)) is not None:
            await _flag_resent(feed, entry)
        elif entry.status in ACCEPTED and entry.answer and _wanted(want.application, entry.answer):  # who sends it again waits for both answers
            await feed.inbox.mark(entry.id, {"due": True, "until": None, "connection": sender.connection})
            feed.answered.set()
    feed.wake.set()
    feed.statistics.count(source.name, "answer:CA")
    answer = entry.commit if answer_code(entry.commit) == "CA" else answers.answer(message, "CA", [])  # it was rejected before
    return answer if _wanted(want.accept, answer) else None


async def _again(feed: Feed, entry: Entry, message: Message, source: Source) -> bytes:
    """A message that the inbox knows already: the stored answer if it was accepted, else another attempt."""
    feed.statistics.count(source.name, "duplicate")
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
    while True:
        current = await feed.inbox.get(entry.id)
        if current is None:
            raise Busy
        if current.status in ACCEPTED and current.answer:
            return current.answer
        now = datetime.now(UTC)
        until = now + receipt.LEASE
        taken = await feed.inbox.take(entry.id, feed.owner, until, receipt.FOREVER if is_gone(current.owner) else now)
        if taken is not None:
            if current.status in FAILED:
                await _flag_resent(feed, current)
            return await work_out(feed, taken, message, source)
        if asyncio.get_running_loop().time() > deadline:
            failure = FAILURES["store"]
            return answers.answer(message, failure.code, [Problem("E", "", failure.condition, failure.text)])
        await asyncio.sleep(POLL_SECONDS)


def is_gone(owner: str) -> bool:
    """True if this owner was a process of this machine that no longer runs: its messages need not wait for the end of its lease."""
    host, _, rest = owner.partition(":")
    if host != socket.gethostname() or not rest:
        return False
    try:
        os.kill(int(rest.partition(":")[0]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


async def work_out(feed: Feed, entry: Entry, message: Message, source: Source) -> bytes:
    """Process an entry that this process holds; its final state is stored before the answer is given."""
    settled = False
    try:
        answer = await _processed(feed, entry, message, source)
        settled = True
    except Busy:
        settled = True
        current = await feed.inbox.get(entry.id)
        if current is not None and current.status in ACCEPTED and current.answer:
            return current.answer
        raise
    except (Failed, Deferred, Refusal) as error:
        if _is_ours_to_repeat(entry, message, error):
            settled = True
            await _put_off(feed, entry)
            return b""
        answer = await _failed(feed, entry, message, source, error)
        settled = True
    finally:
        if not settled:
            await _give_up(feed, entry, message, cancelled=not isinstance(sys.exception(), Exception))
    feed.statistics.count(source.name, f"answer:{answer_code(answer)}")
    if entry.commit:
        feed.answered.set()
    return answer


def _is_ours_to_repeat(entry: Entry, message: Message, error: Exception) -> bool:
    """True where the store failed at a message that the sender was told is safe (CA): nobody would send it again."""
    passing = error.status in TRANSIENT if isinstance(error, Refusal) else isinstance(error, Failed) and error.failure is FAILURES["store"]
    taken = bool(entry.commit) and answer_code(entry.commit) == "CA"
    return passing and taken and entry.attempt < REPEATS and not _is_too_much(entry, message)


async def _put_off(feed: Feed, entry: Entry) -> None:
    """Leave the entry to whoever takes it up next, a moment later; where not even that can be stored, to the end of its lease."""
    await asyncio.sleep(PUT_OFF_SECONDS)
    with contextlib.suppress(Refusal):
        await feed.inbox.release(entry.id, entry.owner)


async def _give_up(feed: Feed, entry: Entry, message: Message, *, cancelled: bool) -> None:
    """A failure that nobody foresaw (the door answers it): the message must not hold up those that come after it for the same patient."""
    with contextlib.suppress(Busy, Refusal):
        if cancelled:
            await feed.inbox.release(entry.id, entry.owner)
            return
        failure = FAILURES["failure"]
        problems = [Problem("E", "", failure.condition, failure.text)]
        answer = answers.answer(message, failure.code, problems)
        await feed.inbox.finish(None, entry, _final(failure.status, problems, answer, entry, message, entry.refs))


async def _processed(feed: Feed, entry: Entry, message: Message, source: Source) -> bytes:
    mapped = await aside(is_large(message), map_message, feed.convert, entry, message, source)
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
    while True:
        try:
            async with _unhurried(feed, entry, message):
                answer, refs = await feed.store.transact(lambda tx: _in_transaction(feed, tx, entry, mapped))
        except Behind as behind:
            if asyncio.get_running_loop().time() > deadline:
                raise Failed("store") from behind
            await _wait_for(feed, behind.entry)
        else:
            if merges(mapped.message):
                await settled(feed.store)
            await feed.settled({ref.partition("/")[0] for ref in refs})
            await unmapped.note(feed.inbox, feed.unmapped, mapped.source.name, entry.id, mapped.unmapped)
            return answer


@contextlib.asynccontextmanager
async def _unhurried(feed: Feed, entry: Entry, message: Message) -> AsyncIterator[None]:
    """A large message gets a lease as long as its transaction may take, and the heartbeat leaves it alone: the transaction ends by writing the entry, and
    would conflict with each beat. What takes longer than from one beat to the next could never be stored.
    """
    if not is_large(message):
        yield
        return
    feed.long.add(entry.id)
    try:
        await feed.inbox.extend(entry.owner, datetime.now(UTC) + timedelta(seconds=feed.settle_seconds), only=entry.id)
        yield
    finally:
        feed.long.discard(entry.id)


async def _in_transaction(feed: Feed, tx: Tx, entry: Entry, mapped: Mapped) -> tuple[bytes, tuple[str, ...]]:
    """(the acknowledgement, what was written)."""
    for one in await feed.inbox.earlier(tx, entry):
        raise Behind(one)
    problems = list(mapped.problems)
    if REUSED in entry.flags:
        problems.append(Problem("W", "MSH^1^10", "205", "this control id was used before for another message"))
    expected = await sequence.check(feed.inbox, tx, mapped.source, mapped.message, entry)
    if mapped.excluded:
        answer = answers.answer(mapped.message, "AA", problems, expected)
        await feed.inbox.finish(tx, entry, _final("excluded", problems, answer, entry, mapped.message, entry.refs))
        feed.statistics.count(entry.source, "excluded")
        return answer, ()
    applied = await apply_all(feed.mean(mapped.source), tx, mapped)
    problems += applied.problems
    answer = answers.answer(mapped.message, "AA", problems, expected)
    status = "warning" if any(problem.severity == "W" for problem in problems) else "processed"
    refs = tuple(dict.fromkeys([*entry.refs, *applied.refs]))  # a replay adds to what the first processing wrote
    await feed.inbox.finish(tx, entry, _final(status, problems, answer, entry, mapped.message, refs))
    feed.statistics.count(entry.source, status)
    return answer, refs


def _final(status: str, problems: Sequence[Problem], answer: bytes, entry: Entry, message: Message, refs: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a finished entry; `due`: the application answer of enhanced mode is still to be sent (MSH-16)."""
    return {
        "status": status,
        "problems": answers.as_rows(problems),
        "answer": answer,
        "refs": refs,
        "done": datetime.now(UTC),
        "due": bool(entry.commit) and answer_code(entry.answer) != "AA" and _wanted(asked(message).application, answer),
        "until": None,
    }


async def _wait_for(feed: Feed, earlier: Entry) -> None:
    """An earlier message of the same patient comes first: wait a moment, or do its work if whoever held it is gone."""
    now = datetime.now(UTC)
    taken = await feed.inbox.take(earlier.id, feed.owner, now + receipt.LEASE, receipt.FOREVER if is_gone(earlier.owner) else now)
    if taken is None:
        await asyncio.sleep(POLL_SECONDS)
        return
    await resume(feed, taken)


async def resume(feed: Feed, entry: Entry) -> bytes:
    """Work on an entry taken from the inbox (after a crash, in enhanced mode, on replay)."""
    message = await aside(len(entry.raw) > LARGE_BYTES, receipt.read, entry)
    source = next((one for one in feed.registry.sources if one.name == entry.source), None)
    if source is None:
        source = recognise(feed.registry, *sender_of(message))
    return await work_out(feed, entry, message, source)


def _is_too_much(entry: Entry, message: Message) -> bool:
    """True where the store failed again and again at a very large message: to ask for a resend once more would go on for ever."""
    return len(message.segments) > MUCH and entry.attempt >= ATTEMPTS


async def _failed(feed: Feed, entry: Entry, message: Message, source: Source, error: Failed | Deferred | Refusal) -> bytes:
    """The final state of a message that is not accepted, and its answer."""
    if isinstance(error, Refusal):
        transient = error.status in TRANSIENT
        error = (
            Failed("too-much" if _is_too_much(entry, message) else "store")
            if transient
            else Failed("validation", answers.of_issues(error.issues, None, answers.no_field))
        )
    failure = FAILURES["conflict"] if isinstance(error, Deferred) else error.failure
    problems = list(error.problems)
    answer = answers.answer(message, failure.code, problems, "" if isinstance(error, Deferred) else error.expected)
    LOG.warning("message not accepted", extra={"fields": {"source": source.name, "entry": entry.id, "status": failure.status, "code": failure.code}})
    feed.statistics.count(source.name, failure.status)
    try:
        await feed.inbox.finish(None, entry, _final(failure.status, problems, answer, entry, message, entry.refs))
    except Refusal:
        LOG.warning("the failure could not be stored; the message is taken up again when its lease ends", extra={"fields": {"entry": entry.id}})
    return answer
