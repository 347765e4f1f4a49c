"""Commit stamps, and the horizon up to which history is complete.

Stamps are the database server's clock, but a version becomes visible only when it commits, and a long transaction commits late. So that a
poller never finds something new behind what it has seen, each process keeps one document in `writers`:

    {_id, floor, seen, host, pid}     floor: no version that this process commits from now on has an earlier stamp (null: nothing in flight)

and history shows only versions before the lowest floor. The floor is written before the first stamp after idleness (with majority; then the
server's clock is read again, so a reader that did not see the floor read the clock earlier than any stamp given under it), and advanced every
REFRESH_SECONDS while the process writes, not per write. A process that stops refreshing longer than LEASE (a transaction's longest life and a
margin: the database itself has ended its transactions by then) is fenced: its document is removed. It notices before it stamps or commits.
A process that is known to be dead (same machine, pid gone) is fenced at once, after its sessions were ended.
"""

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import DeleteOne, ReturnDocument, UpdateOne
from pymongo.errors import AutoReconnect, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from fhir_server.store.mongo.client import FAST, MAJORITY, Database
from fhir_server.store.mongo.document import Document
from fhir_server.store.mongo.lean import Lean, failures
from fhir_server.store.mongo.sessions import end_sessions, is_dead, machine

log = logging.getLogger("fhir.store.horizon")
WRITERS = "writers"
CLOCK = "clock"  # a document that is always there, so that a read always brings the server's time
REFRESH_SECONDS = 0.075
IDLE_SECONDS = 1.0
MARGIN_SECONDS = 10.0
WAIT_SECONDS = 1.0
STEP_MS, SLEW_MS = 50, 5  # a clock that went back by more than the one is approached by the other per refresh
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


@dataclass(slots=True, eq=False)
class Flight:
    """A stamp in use: from before the write until its outcome is known."""

    stamp: int  # ms since 1970
    generation: int

    @property
    def at(self) -> datetime:
        """The stamp as the versions carry it."""
        return EPOCH + timedelta(milliseconds=self.stamp)


def milliseconds(at: datetime) -> int:
    """Whole milliseconds since 1970."""
    return (at - EPOCH) // MILLISECOND


@dataclass(slots=True, eq=False)
class Horizon:
    """This process's stamps in one tenant's database, and the view of everybody's floors."""

    database: Database
    lease_seconds: float
    members: int = 1
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    lean: Lean | None = None  # the channel of the embedded server: it spares PyMongo's machinery thirteen times a second
    generation: int = 0
    flights: set[Flight] = field(default_factory=set)
    _last: int = 0  # the latest stamp given out, or floor promised
    _offset: float = 0.0  # server's clock minus our monotonic one, ms; never too large, so a stamp is never in the server's future
    _fresh: float = float("-inf")  # monotonic time before which the last refresh was sent
    _used: float = float("-inf")
    _active: bool = False
    _task: "asyncio.Task[None] | None" = None
    _gate: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def prepare(self) -> None:
        """Create what reading needs, outside of any transaction; end what dead processes of this machine left."""
        await self.database[WRITERS].update_one({"_id": CLOCK}, {"$setOnInsert": {"seen": EPOCH}}, upsert=True)
        await self._fence((await self._rows())[0])

    async def take(self, after: datetime | None = None) -> Flight:
        """A stamp for a write that starts now, later than `after`. Give it back with `land`."""
        now = time.monotonic()
        if not self._active or now - self._fresh > self.lease_seconds - MARGIN_SECONDS:
            await self._activate()
        self._used = now
        stamp = self._clock()
        if after is not None:
            stamp = max(stamp, milliseconds(after) + 1)
        flight = Flight(stamp, self.generation)
        self.flights.add(flight)
        return flight

    def land(self, flight: Flight) -> None:
        """The write of this stamp is committed or certainly not going to be."""
        self.flights.discard(flight)

    def lose(self, flight: Flight) -> None:
        """The outcome is unknown (the connection broke): the server may still apply it, so keep the floor until it cannot any more."""
        asyncio.get_running_loop().call_later(self.lease_seconds, self.flights.discard, flight)

    def valid(self, flight: Flight) -> bool:
        """False if this process may have been fenced since: the stamp must not be committed."""
        return flight.generation == self.generation and time.monotonic() - self._fresh < self.lease_seconds - MARGIN_SECONDS / 2

    def _clock(self) -> int:
        """Now, in ms; never earlier than any answer before, because floors were promised with those."""
        self._last = max(int(time.monotonic() * 1000 + self._offset), self._last)
        return self._last

    def _set_clock(self, seen: int, *, first: bool) -> None:
        """Follow the server's clock; where it was set back, or another member's runs behind, go on from where we are, a little slower."""
        measured = seen - time.monotonic() * 1000
        back = self._offset - measured
        self._offset = measured if first or back < STEP_MS else max(measured, self._offset - SLEW_MS)

    async def _activate(self) -> None:
        async with self._gate:
            if self._active and time.monotonic() - self._fresh < self.lease_seconds - MARGIN_SECONDS:
                return
            if self._active and await self._refresh():
                return
            self.generation += 1
            self.flights.clear()
            mine = {"floor": "$$NOW", "seen": "$$NOW", "pid": os.getpid(), "host": machine(), "name": self.id}
            await self.database[WRITERS].update_one({"_id": self.id}, [{"$set": mine}], upsert=True)
            self._active = True
            if not await self._refresh(first=True):
                raise TimeoutError  # fenced within a moment: somebody's clock is far off
            _, now = await self._rows()
            if milliseconds(now) >= self._last:
                self._last = milliseconds(now) + 1
                self._offset = max(self._offset, self._last - time.monotonic() * 1000)
            await asyncio.sleep(max(0.0, self._last - (time.monotonic() * 1000 + self._offset)) / 1000)
            self._used = time.monotonic()
            if self._task is None or self._task.done():
                self._task = asyncio.get_running_loop().create_task(self._keep_fresh())

    async def _refresh(self, *, first: bool = False, idle: bool = False) -> bool:
        """Advance the floor and set our clock by the server's. False if we were fenced."""
        sent = time.monotonic()
        change: Document = {"seen": {"$max": ["$$NOW", EPOCH + timedelta(milliseconds=self._last)]}}
        if idle:
            change["floor"] = None
        elif not first:
            now = self._clock()
            change["floor"] = EPOCH + timedelta(milliseconds=min((one.stamp for one in self.flights), default=now))
        row = await self._changed(change, MAJORITY if idle else FAST)  # a floor lost in a crash is only lower
        if row is None:
            self._active = False
            self.generation += 1
            return False
        self._set_clock(milliseconds(row["now"]), first=first)
        if first:
            self._last = max(self._last, milliseconds(row["seen"]) + 1)
        self._fresh = sent
        return True

    async def _changed(self, change: Document, concern: WriteConcern) -> Document | None:
        """Our own document after this change, with the server's time as `now`; None if it is not there any more."""
        mine, steps, shown = {"_id": self.id}, [{"$set": change}], {"seen": 1, "now": "$$NOW"}
        if self.lean is not None:
            command: Document = {"findAndModify": WRITERS, "query": mine, "update": steps, "fields": shown, "new": True}
            with suppress(AutoReconnect):  # then PyMongo's way, which waits for the server; made twice it is the same change
                answer = await self.lean.command({**command, "writeConcern": concern.document})
                for failure in failures(answer, 1).values():
                    raise failure
                found: Document | None = answer["value"]
                return found
        writers = self.database[WRITERS].with_options(write_concern=concern)
        row: Document | None = await writers.find_one_and_update(mine, steps, shown, return_document=ReturnDocument.AFTER)
        return row

    async def _keep_fresh(self) -> None:
        """While this process writes, keep its floor close; then say that it is idle."""
        while self._active:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                async with self._gate:
                    idle = not self.flights and time.monotonic() - self._used > IDLE_SECONDS
                    if idle:
                        self._active = False
                    await self._refresh(idle=idle)
            except PyMongoError as error:
                self._active = True  # also where it could not say that it is idle: it says so again
                log.warning("the floor of history could not be advanced", extra={"fields": {"error": type(error).__name__}})
                await asyncio.sleep(REFRESH_SECONDS * 4)

    async def close(self) -> None:
        """This process writes no more."""
        self._active = False
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if not self.flights:
            with suppress(PyMongoError):  # the database may be gone already; then the lease ends it
                clock = {"$max": {"seen": EPOCH + timedelta(milliseconds=self._last)}}
                await self.database[WRITERS].bulk_write([UpdateOne({"_id": CLOCK}, clock), DeleteOne({"_id": self.id})])

    async def complete_until(self, wait: float = WAIT_SECONDS) -> datetime:
        """Versions with an earlier stamp than this are all there. Waits, at most `wait` seconds, until that includes what is committed now."""
        deadline = time.monotonic() + wait
        begin: datetime | None = None
        while True:
            rows, now = await self._rows()
            begin = begin or now
            rows = await self._fence(rows)
            edge = min((row["floor"] for row in rows), default=now + MILLISECOND)
            edge = min(edge, now + MILLISECOND)
            if edge > begin or time.monotonic() > deadline:
                return edge
            await asyncio.sleep(0.005)

    async def _rows(self) -> tuple[list[Document], datetime]:
        """The floors in force, our own as we know it now, and the time from before they were read.

        The time is the server's, or what a writer saw later than that: it does not go back when the server's does.
        """
        concern = ReadConcern("linearizable" if self.members > 1 else "local")
        writers = self.database.get_collection(WRITERS, read_concern=concern)
        rows = await writers.find({}, {"floor": 1, "seen": 1, "pid": 1, "host": 1, "now": "$$NOW"}).to_list()
        now = max((max(row["now"], row["seen"]) for row in rows), default=EPOCH)
        for row in rows:
            if row["_id"] == self.id and self._active and row.get("floor") is not None:
                row["floor"] = max(row["floor"], EPOCH + timedelta(milliseconds=self._own_floor(milliseconds(now))))
        return [row for row in rows if row.get("floor") is not None], now

    def _own_floor(self, now: int) -> int:
        """Promise, where nothing is in flight, that our next stamp is later than `now`: then nobody has to wait for our clock to get there."""
        if not self.flights:
            self._last = max(self._clock(), now + 1)
            return self._last
        return min(one.stamp for one in self.flights)

    async def _fence(self, rows: Iterable[Document]) -> list[Document]:
        """Remove the floors of processes that are gone; the rest."""
        left: list[Document] = []
        for row in rows:
            if row["_id"] != self.id and (is_dead(row) or self._expired(row)) and await self._removed(row):
                log.warning("a writer that ended without notice was fenced", extra={"fields": {"pid": row["pid"]}})
            else:
                left.append(row)
        return left

    def _expired(self, row: Document) -> bool:
        return bool(row["now"] - row["seen"] > timedelta(seconds=self.lease_seconds))

    async def _removed(self, row: Document) -> bool:
        await end_sessions(self.database.client, row["_id"])
        done: Any = await self.database[WRITERS].delete_one({"_id": row["_id"], "seen": row["seen"]})
        return bool(done.deleted_count)
