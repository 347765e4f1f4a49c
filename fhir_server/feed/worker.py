"""The feed's background work in one process: messages taken on receipt (enhanced mode) or left by a dead process, later application
answers, and references still to be rewritten after merges. Any number of processes may run it; leases in the inbox keep them apart.
"""

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from conformance.outcome import Refusal
from fhir_server.beside import beside
from fhir_server.feed import receipt, rewrite, undo
from fhir_server.feed.intake import Feed, is_gone, resume
from fhir_server.feed.later import Later, Push, Send
from fhir_server.sources import Source
from fhir_server.store.inbox import Busy, Entry

LOG = logging.getLogger("fhir.feed")
PARALLEL = 8
IDLE_SECONDS = 1.0
HEARTBEAT_SECONDS = 5.0
SWEEP_SECONDS = 5.0
LOOK_SECONDS = 10.0


async def run(feed: Feed, stop: asyncio.Event, push: Push | None = None, send: Send | None = None) -> None:
    """Work until `stop` is set; what is in work then is finished first."""
    later, sweep = Later(feed, push, send), Sweep()
    async with (
        beside("the feed's heartbeat", lambda: _heartbeat(feed)),
        beside("the feed's look at what waits", lambda: _look(feed)),
        beside("the feed's later answers", lambda: later.run(stop)),
    ):
        while not stop.is_set():
            try:
                busy = await step(feed)
                await sweep.step(feed)
            except Refusal as refusal:
                LOG.warning("background work waits for the store", extra={"fields": {"status": refusal.status}})
                busy = False
            if not busy:
                await _pause(feed, stop)


async def _pause(feed: Feed, stop: asyncio.Event) -> None:
    waits = [asyncio.create_task(feed.wake.wait()), asyncio.create_task(stop.wait())]
    await asyncio.wait(waits, timeout=IDLE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    feed.wake.clear()


async def _heartbeat(feed: Feed) -> None:
    """Prolong the leases of what this process works on, but of what has a long one: a transaction conflicts with any write to its entry."""
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        with contextlib.suppress(Refusal):
            await feed.inbox.extend(feed.owner, datetime.now(UTC) + receipt.LEASE, besides=feed.long)


async def _look(feed: Feed) -> None:
    """Tell the age of what waits, for alerts."""
    while True:
        with contextlib.suppress(Refusal):
            await feed.statistics.look(feed.inbox, feed.registry)
        await asyncio.sleep(LOOK_SECONDS)


async def step(feed: Feed) -> bool:
    """One round of everything but later answers; True if there was something to do."""
    worked = await work_once(feed)
    rewritten = await rewrite_once(feed)
    return bool(worked or rewritten)


async def work_once(feed: Feed, limit: int = PARALLEL) -> int:
    """Take and process up to `limit` waiting messages; how many."""
    now = datetime.now(UTC)
    taken = await feed.inbox.claim(feed.owner, now + receipt.LEASE, now, limit)
    for orphan in await _orphans(feed, limit - len(taken)):
        taken.append(orphan)
    taken.sort(key=lambda entry: entry.id)
    for entry, outcome in zip(taken, await asyncio.gather(*(resume(feed, entry) for entry in taken), return_exceptions=True)):
        if isinstance(outcome, BaseException):
            await _not_done(feed, entry, outcome)
    return len(taken)


async def _orphans(feed: Feed, limit: int) -> list[Entry]:
    """Messages held by processes of this machine that no longer run."""
    if limit <= 0:
        return []
    held = await feed.inbox.search({"status": "received"}, limit=50, newest_first=False)
    found: list[Entry] = []
    for entry in held:
        if len(found) < limit and entry.owner != feed.owner and is_gone(entry.owner):
            taken = await feed.inbox.take(entry.id, feed.owner, datetime.now(UTC) + receipt.LEASE, receipt.FOREVER)
            if taken is not None:
                found.append(taken)
    return found


async def _not_done(feed: Feed, entry: Entry, error: BaseException) -> None:
    """A message that could not be finished; its kind of failure is logged, never its text."""
    if isinstance(error, Busy):
        LOG.info("another process finished the message", extra={"fields": {"entry": entry.id}})
    elif isinstance(error, Exception):
        feed.statistics.count(entry.source, "failure")
        LOG.error("message failed in the background", extra={"fields": {"entry": entry.id, "error": type(error).__name__}})
        await _give_up(feed, entry)
    else:
        raise error


async def _give_up(feed: Feed, entry: Entry) -> None:
    """A failure that is not the message's fault: it waits for a person or a replay instead of failing again and again."""
    problem = {"severity": "E", "code": "207", "place": "", "text": "the message could not be processed"}
    with contextlib.suppress(Busy, Refusal):
        await feed.inbox.finish(None, entry, {"status": "store-error", "problems": (problem,), "done": datetime.now(UTC)})


@dataclass(slots=True)
class Sweep:
    """Looks, merge after merge, for references to retired resources that were written after the merge; `after`: the merge looked at last."""

    after: str = ""
    due: float = 0.0

    async def step(self, feed: Feed) -> bool:
        """Look at the next finished merge, if it is time; True if it was opened again for `rewrite_once`."""
        now = asyncio.get_running_loop().time()
        if now < self.due:
            return False
        self.due = now + SWEEP_SECONDS
        found = await feed.inbox.find(None, "merges", "state", ["done"], 1, after=self.after)
        self.after = found[0]["_id"] if found else ""
        if not found or found[0]["operation"] != "merge":
            return False
        return await rewrite.reopened(feed.mean(Source(found[0]["source"])), feed.store.transact, found[0])


async def rewrite_once(feed: Feed) -> int:
    """One step for one merge that is being undone, or for an open one; how many resources were rewritten (or are still to be put back)."""
    undoing = await feed.inbox.find(None, "merges", "state", [undo.UNDOING], 1)
    if undoing:
        return await undo.continue_undoing(feed, undoing[0]["_id"]) or 1
    found = await feed.inbox.find(None, "merges", "state", ["open"], 1)
    if not found:
        now = datetime.now(UTC)
        found = [row for row in await feed.inbox.find(None, "merges", "state", [rewrite.SETTLING]) if row["due"] <= now]
    if not found:
        return 0
    means = feed.mean(Source(found[0]["source"]))
    return await rewrite.continue_rewriting(means, feed.store.transact, found[0], settle=feed.settle_seconds)
