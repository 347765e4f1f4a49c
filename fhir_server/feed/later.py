"""Application answers of enhanced mode, sent when a message is done: to the source's own address, else over a connection that the sender has open here.

It runs beside the rest of the background work, one task per source, so that an address that does not answer or a connection that is not read holds up
nobody else; and it asks only for answers that can be sent from here, so that those of a sender that is gone are not in the way of others. An answer is
claimed before it is sent: of several processes one sends it, and where that one dies before it has noted so, it is sent again. HL7 v2.8 2.9.3.2
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from conformance.outcome import Refusal
from fhir_server.feed.intake import Feed
from fhir_server.sources import Source
from fhir_server.store.inbox import Entry

LOG = logging.getLogger("fhir.feed")
PAGE = 50
CLAIM = timedelta(seconds=60)
GRACE = timedelta(seconds=5)  # the process that has the connection of the message comes first, then any that has one of its sender
REST_SECONDS = 30.0  # an address that did not answer is left alone for so long
ROUND_SECONDS = 1.0
Push = Callable[[str, bytes], Awaitable[bool]]  # (MLLP connection id, block) -> it was sent
Send = Callable[[str, bytes], Awaitable[bool]]  # ('host:port', block) -> the other end took it


@dataclass(slots=True, eq=False)
class Later:
    """resting: source name -> when (of the loop's clock) its address is tried again; working: source name -> the task that sends its answers."""

    feed: Feed
    push: Push | None = None
    send: Send | None = None
    resting: dict[str, float] = field(default_factory=dict)
    working: "dict[str, asyncio.Task[int]]" = field(default_factory=dict)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set."""
        try:
            while not stop.is_set():
                with contextlib.suppress(Refusal):
                    await self.step()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.feed.answered.wait(), ROUND_SECONDS)
                self.feed.answered.clear()
        finally:
            tasks = list(self.working.values())
            self.working.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def step(self) -> int:
        """One round; how many answers were sent within a moment (slow ones go on beside)."""
        names = self._reachable()
        while names and (page := await self.feed.inbox.search({"due": True, "source": names}, limit=PAGE, newest_first=False)):
            for name in {entry.source for entry in page}:
                self.working[name] = asyncio.create_task(self._all_of(name))
            names = [name for name in names if name not in self.working]
        if self.working:
            await asyncio.wait(list(self.working.values()), timeout=ROUND_SECONDS)
        done = [name for name, task in self.working.items() if task.done()]
        return sum(self._result(self.working.pop(name)) for name in done)

    def _result(self, task: "asyncio.Task[int]") -> int:
        error = task.exception()
        if error is None:
            return task.result()
        LOG.warning("answers could not be sent", extra={"fields": {"error": type(error).__name__}})
        return 0

    def _reachable(self) -> list[str]:
        """Sources to which something can be sent from this process now, and nothing is being sent."""
        now = asyncio.get_running_loop().time()
        addressed = {source.name for source in self.feed.registry.sources if source.answer_to} if self.send else set()
        open_here = self.feed.connections.keys() if self.push else set()
        return sorted(name for name in addressed | open_here if name not in self.working and self.resting.get(name, 0.0) <= now)

    async def _all_of(self, name: str) -> int:
        """Send what is due of one source, oldest first, until one cannot be sent; how many were."""
        source = next((one for one in self.feed.registry.sources if one.name == name), Source(name))
        sent, after = 0, ""
        while page := await self.feed.inbox.search({"due": True, "source": [name]}, after=after, limit=PAGE, newest_first=False):
            after = page[-1].id
            for entry in page:
                sent += await self._one(source, entry)
                if name in self.resting or not (source.answer_to or name in self.feed.connections):
                    return sent
        return sent

    async def _one(self, source: Source, entry: Entry) -> bool:
        now = datetime.now(UTC)
        connections = [] if source.answer_to else self._connections(source, entry, now)
        if not (source.answer_to or connections) or not await self.feed.inbox.claim_due(entry.id, now + CLAIM, now):
            return False
        sent = False
        try:
            sent = await self._to_address(source, entry) if source.answer_to else await self._over(source, connections, entry)
        finally:
            with contextlib.suppress(Refusal):
                await self.feed.inbox.mark(entry.id, {"due": not sent, "until": None})
        if sent:
            self.feed.statistics.count(source.name, "delivered")
        return sent

    async def _to_address(self, source: Source, entry: Entry) -> bool:
        self.resting.pop(source.name, None)
        if self.send is not None and await self.send(source.answer_to, entry.answer):
            return True
        self.resting[source.name] = asyncio.get_running_loop().time() + REST_SECONDS
        return False

    def _connections(self, source: Source, entry: Entry, now: datetime) -> list[str]:
        """Where the answer may go from here: the connection that the message came over, and after a moment any of its sender, the latest first."""
        here = list(reversed(self.feed.connections.get(source.name, ())))
        if entry.connection in here:
            return [entry.connection, *(one for one in here if one != entry.connection)]
        return here if not entry.connection or entry.done is None or now - entry.done.replace(tzinfo=UTC) > GRACE else []

    async def _over(self, source: Source, connections: list[str], entry: Entry) -> bool:
        for connection in connections:
            if self.push is not None and await self.push(connection, entry.answer):
                return True
            self.feed.forget(source.name, connection)
        return False
