"""Run a body in a transaction: snapshot reads, majority commit, the whole body again after a transient conflict.

https://www.mongodb.com/docs/manual/core/transactions-in-applications/: TransientTransactionError means nothing was committed, run it again;
UnknownTransactionCommitResult means ask again for the commit. Both are bounded in time.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from pymongo.errors import AutoReconnect, ConnectionFailure, OperationFailure, PyMongoError

from conformance.outcome import unavailable
from fhir_server.query.clauses import Clause
from fhir_server.store import Change, Sort, Stored, Tx
from fhir_server.store.mongo import find, guard, read, write
from fhir_server.store.mongo.blob import BlobGone
from fhir_server.store.mongo.client import MAJORITY, SNAPSHOT
from fhir_server.store.mongo.errors import TRANSIENT, UNKNOWN_COMMIT, as_refusal, is_duplicate
from fhir_server.store.mongo.frame import DriverFrame, Frame
from fhir_server.store.mongo.horizon import Flight, Horizon
from fhir_server.store.mongo.lean_tx import LeanFrame
from fhir_server.store.mongo.space import Space

if TYPE_CHECKING:
    from fhir_server.store.mongo.store import MongoStore

T = TypeVar("T")
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.25
DUPLICATES = 5  # as often a taken key is worth another look; then it is the body's own mistake


class NewType(Exception):
    """A type's collection does not exist yet; it is created outside the transaction, which then runs again."""

    def __init__(self, rtypes: Iterable[str]) -> None:
        super().__init__()
        self.rtypes = frozenset(rtypes)


class Fenced(Exception):
    """This process stalled so long that its stamps may not be committed any more; the transaction runs again with a new one."""


@dataclass(slots=True, eq=False)
class MongoTx:
    """One attempt of a transaction (`store.Tx`). frame: also for the exchange's own documents in the same transaction."""

    place: read.Place
    frame: Frame
    known: set[str]
    horizon: Horizon
    queues: guard.Queues
    space: Space
    flight: Flight | None = None
    held: dict[str, asyncio.Lock] = field(default_factory=dict)
    committing: bool = False

    async def guard(self, keys: Iterable[str]) -> None:
        """See `Tx.guard`."""
        wanted = sorted(set(keys))
        await guard.wait(self.queues, wanted, self.held)
        await guard.touch(self.frame, wanted)

    async def get(self, rtype: str, rid: str) -> Stored | None:
        """See `Reader.get`."""
        return await read.get(self.place, rtype, rid)

    async def get_many(self, refs: Sequence[tuple[str, str]], *, tombstones: bool = False) -> dict[tuple[str, str], Stored]:
        """See `Reader.get_many`."""
        return await read.get_many(self.place, refs, tombstones)

    async def find(
        self, rtype: str, clause: Clause, *, sort: Sequence[Sort] = (), limit: int = 0, after: tuple[Any, ...] = (), only_ids: bool = False
    ) -> list[Stored]:
        """See `Reader.find`."""
        return await find.find(self.place, rtype, clause, sort, limit, after, only_ids)

    async def count(self, rtype: str, clause: Clause, limit: int = 0) -> int:
        """See `Reader.count`."""
        return await find.count(self.place, rtype, clause, limit)

    async def refs(self, rtype: str, clause: Clause, heads: Sequence[str], limit: int) -> list[str]:
        """See `Reader.refs`."""
        return await find.refs(self.place, rtype, clause, heads, limit)

    async def put(self, changes: Sequence[Change]) -> list[Stored]:
        """See `Tx.put`."""
        new = {change.rtype for change in changes} - self.known
        if new:
            raise NewType(new)
        await self.space.check()
        changes = await self.place.stems.settled(changes)
        return await write.put(self.place, self.frame, changes, await self._stamp(changes))

    async def _stamp(self, changes: Sequence[Change]) -> datetime:
        """One stamp for the transaction; a later one only where a prior is not older."""
        latest = max((change.prior.at for change in changes if change.prior is not None), default=None)
        if self.flight is None:
            self.flight = await self.horizon.take(latest)
        return self.flight.at if latest is None else max(self.flight.at, latest + read.MILLISECOND)


async def transact(store: "MongoStore", body: Callable[[Tx], Awaitable[T]]) -> T:
    """See `Store.transact`. Raises what `body` raises (rolled back), Refusal 503 when conflicts do not end in time."""
    deadline = time.monotonic() + store.transaction_seconds
    pause, duplicates, by_lean = FIRST_PAUSE, 0, True
    while True:
        try:
            return await _attempt(store, body, deadline, by_lean=by_lean)
        except NewType as new:
            await store.ensure(new.rtypes)
            continue
        except (BlobGone, Fenced):
            if time.monotonic() > deadline:
                raise unavailable("the change could not be stored in time") from None
        except PyMongoError as error:
            duplicates += is_duplicate(error)
            by_lean = by_lean and not isinstance(error, AutoReconnect)  # PyMongo waits for the server
            if not _worth_again(error, duplicates) or time.monotonic() > deadline:
                raise as_refusal(error) from error
        await asyncio.sleep(pause * (0.5 + random.random()))
        pause = min(pause * 2, LONGEST_PAUSE)


def _worth_again(error: PyMongoError, duplicates: int) -> bool:
    if is_duplicate(error):
        return duplicates <= DUPLICATES
    return error.has_error_label(TRANSIENT)


@asynccontextmanager
async def _opened(store: "MongoStore", *, by_lean: bool) -> AsyncIterator[Frame]:
    lean = store.place.lean
    if by_lean and lean is not None:
        yield LeanFrame(lean, MAJORITY.document)
        return
    async with store.client.start_session(causal_consistency=False) as session:
        await session.start_transaction(SNAPSHOT, MAJORITY, max_commit_time_ms=int(store.transaction_seconds * 1000))
        yield DriverFrame(store.database, session)


async def _attempt(store: "MongoStore", body: Callable[[Tx], Awaitable[T]], deadline: float, *, by_lean: bool) -> T:
    async with _opened(store, by_lean=by_lean) as frame:
        tx = MongoTx(read.Place(store.database, store.blobs, store.place.stems, frame), frame, store.known, store.horizon, store.queues, store.space)
        try:
            result = await body(tx)
            if tx.flight is not None and not store.horizon.valid(tx.flight):
                raise Fenced
            tx.committing = True
            await _commit(frame, deadline)
        except BaseException as error:
            await _abort(frame)
            if tx.flight is not None:
                _give_back(store.horizon, tx.flight, error, tx.committing)
            raise
        finally:
            guard.release(tx.held)
        if tx.flight is not None:
            store.horizon.land(tx.flight)
        return result


async def _abort(frame: Frame) -> None:
    with suppress(ConnectionFailure, OperationFailure):  # the transaction is gone already, or ends with its lifetime
        await frame.abort()


def _give_back(horizon: Horizon, flight: Flight, error: BaseException, committing: bool) -> None:
    lost = isinstance(error, asyncio.CancelledError) or (isinstance(error, PyMongoError) and error.has_error_label(UNKNOWN_COMMIT))
    unknown = committing and lost
    (horizon.lose if unknown else horizon.land)(flight)


async def _commit(frame: Frame, deadline: float) -> None:
    while True:
        try:
            await frame.commit()
        except PyMongoError as error:
            if not error.has_error_label(UNKNOWN_COMMIT) or time.monotonic() > deadline:
                raise
            await asyncio.sleep(FIRST_PAUSE)
        else:
            return
