"""`store.Store` on MongoDB: one tenant's database."""

import asyncio
import logging
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

from bson.raw_bson import RawBSONDocument
from pymongo.errors import AutoReconnect, DuplicateKeyError, NotPrimaryError, PyMongoError, WriteConcernError

from conformance.outcome import Refusal, unavailable
from fhir_server.query.clauses import Clause
from fhir_server.store import Change, Sort, Stored, Tx
from fhir_server.store.mongo import find, history, lean_tx, read, transaction
from fhir_server.store.mongo.blob import Blobs
from fhir_server.store.mongo.client import MAJORITY, Client, Database, check, connect, database
from fhir_server.store.mongo.document import INLINE_BYTES, SHOWN, bare, encoded, raw
from fhir_server.store.mongo.errors import as_refusal, surfaced
from fhir_server.store.mongo.guard import Queues
from fhir_server.store.mongo.history import Window
from fhir_server.store.mongo.horizon import MARGIN_SECONDS, Flight, Horizon
from fhir_server.store.mongo.indexes import create_own, create_type, is_type
from fhir_server.store.mongo.lean import Lean, lean_for
from fhir_server.store.mongo.lean_tx import Fenced, Unknown
from fhir_server.store.mongo.space import Space
from fhir_server.store.mongo.stems import Stems

T = TypeVar("T")
log = logging.getLogger("fhir.store")
READY_SECONDS = 1.0
SILENT_SECONDS = 5.0  # of preparing, before the operator is told what takes so long
TIDY_SECONDS = 3600.0
CHANGEOVER_PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0)  # seconds
CONCERN = MAJORITY.document
EXPORT_PAGE = 500


@dataclass(slots=True, eq=False, weakref_slot=True)
class MongoStore:
    """One tenant's resources. Made by `open_store`; `close` it at the end."""

    client: Client
    database: Database
    blobs: Blobs
    horizon: Horizon
    transaction_seconds: float
    place: read.Place
    space: Space
    owner: bool = True  # of the client: closes it
    later: frozenset[str] = frozenset()  # types whose collections this process creates without indexes: somebody else makes them (indexes.py)
    queues: Queues = field(default_factory=Queues)
    known: set[str] = field(default_factory=set)
    _creating: asyncio.Lock = field(default_factory=asyncio.Lock)
    _tidying: "asyncio.Task[None] | None" = None

    def tidy(self) -> None:
        """From now on remove, once an hour, blobs that nothing refers to. Several processes may do so."""
        self._tidying = asyncio.get_running_loop().create_task(self._tidy())

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_SECONDS * (0.5 + random.random()))
            try:
                removed = await self.blobs.collect()
            except PyMongoError as error:  # the next hour is as good
                log.warning("blobs could not be collected", extra={"fields": {"error": type(error).__name__}})
            else:
                log.info("blobs collected", extra={"fields": {"removed": removed}})

    async def ensure(self, rtypes: Iterable[str]) -> None:
        """Create the collections and indexes of these types, unless this process knows that they exist."""
        with surfaced():
            for rtype in sorted(set(rtypes) - self.known):
                async with self._creating:
                    if rtype not in self.known:
                        await create_type(self.database, rtype, indexed=rtype not in self.later)
                        self.known.add(rtype)

    async def get(self, rtype: str, rid: str) -> Stored | None:
        """See `Reader.get`."""
        with surfaced():
            return await read.get(self.place, rtype, rid)

    async def get_many(self, refs: Sequence[tuple[str, str]], *, tombstones: bool = False) -> dict[tuple[str, str], Stored]:
        """See `Reader.get_many`."""
        with surfaced():
            return await read.get_many(self.place, refs, tombstones)

    async def find(
        self, rtype: str, clause: Clause, *, sort: Sequence[Sort] = (), limit: int = 0, after: tuple[Any, ...] = (), only_ids: bool = False
    ) -> list[Stored]:
        """See `Reader.find`."""
        with surfaced():
            return await find.find(self.place, rtype, clause, sort, limit, after, only_ids)

    async def count(self, rtype: str, clause: Clause, limit: int = 0) -> int:
        """See `Reader.count`."""
        with surfaced():
            return await find.count(self.place, rtype, clause, limit)

    async def quick_count(self, rtype: str, clause: Clause, limit: int, seconds: float) -> int | None:
        """See `Reader.quick_count`."""
        with surfaced():
            return await find.quick_count(self.place, rtype, clause, limit, seconds)

    async def refs(self, rtype: str, clause: Clause, heads: Sequence[str], limit: int) -> list[str]:
        """See `Reader.refs`."""
        with surfaced():
            return await find.refs(self.place, rtype, clause, heads, limit)

    async def explain(self, rtype: str, clause: Clause, sort: Sequence[Sort], limit: int) -> dict[str, Any]:
        """See `Store.explain`."""
        with surfaced():
            return await find.explain(self.place, rtype, clause, sort, limit)

    async def insert(self, change: Change) -> Stored:
        """See `Store.insert`. A body beyond the inline limit goes through a transaction, which references its blob."""
        if change.rtype not in self.known:
            await self.ensure([change.rtype])
        with surfaced():
            await self.space.check()
            (change,) = await self.place.stems.settled([change])
            flight = await self.horizon.take()
        lost = False
        try:
            document = bare(change, 1, flight.at)
            data = encoded(document)
            if len(data) > INLINE_BYTES:
                return (await self.transact(lambda tx: tx.put([change])))[0]
            await self._insert(change.rtype, data)
        except PyMongoError as error:
            lost = isinstance(error, AutoReconnect | WriteConcernError)
            raise as_refusal(error) from error
        except asyncio.CancelledError:
            lost = True
            raise
        finally:
            (self.horizon.lose if lost else self.horizon.land)(flight)
        return Stored(change.rtype, change.rid, 1, document["at"], document["res"], change.method)

    async def _insert(self, rtype: str, data: bytes) -> None:
        """By the lean channel; where that fails on the way, by PyMongo, which waits for the server. Then a taken key may be our own first try."""
        document, tried = raw(data), False
        if self.place.lean is not None:
            try:
                return await self.place.lean.insert(rtype, document, CONCERN)
            except AutoReconnect:
                tried = True
        try:
            await self.database[rtype].insert_one(document)
        except DuplicateKeyError:
            if not tried or await self.database[rtype].count_documents({"_id": document["_id"], "vid": 1, "at": document["at"]}) != 1:
                raise

    async def insert_all(self, changes: Sequence[Change]) -> list[Stored]:
        """See `Store.insert_all`. By the lean channel where there is one; where that fails before its commit, by PyMongo, which waits and retries."""
        lean = self.place.lean
        if lean is None:
            return await self.transact(lambda tx: tx.put(changes))
        await self.ensure({change.rtype for change in changes})
        with surfaced():
            await self.space.check()
            changes = await self.place.stems.settled(changes)
            flight = await self.horizon.take()
        lost = False
        try:
            documents = [bare(change, 1, flight.at) for change in changes]
            rows: dict[str, list[RawBSONDocument]] = {}
            for change, document in zip(changes, documents, strict=True):
                rows.setdefault(change.rtype, []).append(raw(encoded(document)))
            small = sum(len(one.raw) for group in rows.values() for one in group) < INLINE_BYTES
            done = small and await self._insert_all(lean, rows, flight)
        except Unknown as error:
            lost = True
            raise as_refusal(error) from error
        except asyncio.CancelledError:
            lost = True
            raise
        finally:
            (self.horizon.lose if lost else self.horizon.land)(flight)
        if not done:
            return await self.transact(lambda tx: tx.put(changes))
        return [
            Stored(change.rtype, change.rid, 1, document["at"], document["res"], change.method)
            for change, document in zip(changes, documents, strict=True)
        ]

    async def _insert_all(self, lean: Lean, rows: Mapping[str, Sequence[RawBSONDocument]], flight: Flight) -> bool:
        """False: nothing was written."""
        try:
            await lean_tx.insert_all(lean, rows, lambda: self.horizon.valid(flight), CONCERN)
        except Unknown:
            raise
        except (PyMongoError, Fenced) as error:
            log.info("a lean transaction was not made", extra={"fields": {"error": type(error).__name__}})
            return False
        return True

    async def transact(self, body: Callable[[Tx], Awaitable[T]]) -> T:
        """See `Store.transact`."""
        return await transaction.transact(self, body)

    async def version(self, rtype: str, rid: str, vid: int) -> Stored | None:
        """See `Store.version`. The current version is looked at first: one that is superseded meanwhile is then found in history."""
        with surfaced():
            row = await self.database[rtype].find_one({"_id": rid, "vid": vid}, SHOWN)
            if row is not None:
                return (await read.with_blobs(self.place, rtype, [row]))[0]
            return await read.past_version(self.place, rtype, rid, vid)

    async def history(
        self,
        rtype: str | None,
        rid: str | None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int,
        after: tuple[Any, ...] = (),
        ascending: bool = False,
        clause: Clause | None = None,
    ) -> list[Stored]:
        """See `Store.history`."""
        window = Window(since, until, after, ascending, limit)
        with surfaced():
            clause = None if clause is None or rtype is None else await self.place.stems.grafted(rtype, clause)
            if rtype is not None and rid is not None:
                found = await history.of_resource(self.place, rtype, rid, window)
                return found if clause is None else await history.visible(self.place, rtype, found, clause)
            if ascending or not after:  # a later page backwards in time lies behind an edge that was complete already
                edge = await self.horizon.complete_until()
                window = replace(window, until=min(until, edge) if until else edge)
            rtypes = await self.types() if rtype is None else [rtype]
            if clause is None or rtype is None:
                return await history.of_types(self.place, rtypes, window, rtype is None)
            return await self._filtered(rtype, window, clause)

    async def _filtered(self, rtype: str, window: Window, clause: Clause) -> list[Stored]:
        """Versions that the clause shows: those of few matching resources, or, where many match, all versions looked through in turn."""
        few = await history.matching(self.place, rtype, clause)
        window = replace(window, rids=few)
        found: list[Stored] = []
        step = replace(window, limit=max(history.PAGE, window.limit))
        while True:
            page = await history.of_types(self.place, [rtype], step, False)
            found += await history.visible(self.place, rtype, page, clause)
            if len(page) < step.limit or len(found) >= window.limit:
                return found[: window.limit]
            step = replace(step, after=page[-1].position)

    async def export(self, rtype: str, clause: Clause) -> AsyncIterator[Stored]:
        """See `Store.export`."""
        after: tuple[Any, ...] = ()
        while True:
            page = await self.find(rtype, clause, sort=[Sort("_id")], limit=EXPORT_PAGE, after=after)
            for one in page:
                yield one
            if len(page) < EXPORT_PAGE:
                return
            after = page[-1].position

    async def types(self) -> frozenset[str]:
        """See `Store.types`."""
        with surfaced():
            names = await self.database.list_collection_names()
        return frozenset(name for name in names if is_type(name))

    async def ready(self) -> None:
        """See `Store.ready`."""
        with surfaced():
            async with asyncio.timeout(READY_SECONDS):
                hello = await self.client.admin.command("hello")
        if not hello.get("isWritablePrimary"):
            raise unavailable("the database has no primary now")

    async def close(self) -> None:
        """Say that this process writes no more, and disconnect."""
        if self._tidying is not None:
            self._tidying.cancel()
        await self.horizon.close()
        if self.place.lean is not None:
            self.place.lean.close()
        if self.owner:
            await self.client.close()


async def open_store(
    uri: str, *, name: str = "fhir", transaction_seconds: float = 30, later: frozenset[str] = frozenset(), **options: Any
) -> MongoStore:
    """The store of tenant database `name`; collections and indexes are ready when it returns, but for the indexes of the types in `later`.

    Raises WrongDatabase (standalone, unusable URI), Refusal 503 if the database cannot be reached. To be called in the process that uses it.
    """
    horizon_id = f"fhir-{uuid.uuid4().hex}"
    client = connect(uri, name=horizon_id, **options)
    try:
        store = _store(client, name, transaction_seconds, await check(client), horizon_id, lean_for(uri, name, horizon_id))
        store.later = later
        await _prepare(store)
        store.tidy()
    except BaseException:
        await client.close()
        raise
    return store


async def open_beside(store: MongoStore, uri: str, name: str, later: frozenset[str] = frozenset()) -> MongoStore:
    """The store of another tenant's database over the same connections; it is closed before `store` is. As `open_store`."""
    known = store.horizon
    made = _store(store.client, name, store.transaction_seconds, known.members, known.id, lean_for(uri, name, known.id))
    made.owner, made.later = False, later
    try:
        await _prepare(made)
    except BaseException:
        await made.close()
        raise
    made.tidy()
    return made


def _store(client: Client, name: str, transaction_seconds: float, members: int, writer: str, lean: Lean | None) -> MongoStore:
    tenant = database(client, name)
    blobs = Blobs(tenant)
    horizon = Horizon(tenant, transaction_seconds + MARGIN_SECONDS, members, writer, lean)
    return MongoStore(client, tenant, blobs, horizon, transaction_seconds, read.Place(tenant, blobs, Stems(tenant, lean), None, lean), Space(tenant))


async def _prepare(store: MongoStore) -> None:
    """Create what is missing; again while a replica set is changing over, because creating is not among what PyMongo retries."""
    pauses = iter(CHANGEOVER_PAUSES)
    slow = asyncio.get_running_loop().call_later(
        SILENT_SECONDS, log.warning, "indexes are being made: a load ended early, or this version has new ones"
    )
    try:
        while True:
            try:
                with surfaced():
                    return await _prepare_once(store)
            except Refusal as refusal:
                pause = next(pauses, None)
                if pause is None or not isinstance(refusal.__cause__, NotPrimaryError):
                    raise
                await asyncio.sleep(pause)
    finally:
        slow.cancel()


async def _prepare_once(store: MongoStore) -> None:
    await create_own(store.database)
    await store.blobs.prepare()
    await store.horizon.prepare()
    await store.ensure(await store.types())
