"""A store with the published definitions beside what is stored in it: one view for read, search, include, chains.

A stored resource of the same id (or its tombstone) hides the published one. Writes, transactions, exports and the history of a type or of everything know only
what is stored: the definitions of R4 never came in through this server.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from conformance.published import kinds, published
from conformance.spec import Spec
from fhir_server.query.clauses import Clause
from fhir_server.search import definitions
from fhir_server.store import Change, Sort, Store, Stored, Tx

T = TypeVar("T")
BY_ID = (Sort("_id"),)


def unshelved(store: Store) -> Store:
    """What lies behind the views: the database."""
    if isinstance(store, Shelved):
        return store.stored
    outside: Store | None = getattr(store, "outside", None)  # of the reads inside a transaction
    return store if outside is None else unshelved(outside)


@dataclass(frozen=True, slots=True)
class Shelved:
    """The store with definitions: `stored` is the database, `spec` says what is published."""

    stored: Store
    spec: Spec

    def get(self, rtype: str, rid: str) -> Coroutine[Any, Any, Stored | None]:
        """As Reader.get."""
        return self._get(rtype, rid) if rtype in self._kinds() else self.stored.get(rtype, rid)

    def _kinds(self) -> frozenset[str]:
        found: frozenset[str] | None = self.spec.memo.get("search.shelved")
        if found is None:
            found = self.spec.memo["search.shelved"] = kinds(self.spec)
        return found

    async def _get(self, rtype: str, rid: str) -> Stored | None:
        found = await self.stored.get(rtype, rid)
        return definitions.one(self.spec, rtype, rid) if found is None else found

    async def get_many(self, refs: Sequence[tuple[str, str]], *, tombstones: bool = False) -> dict[tuple[str, str], Stored]:
        """As Reader.get_many."""
        asked = [ref for ref in refs if ref[0] in self._kinds()]
        found = await self.stored.get_many(refs, tombstones=tombstones or bool(asked))
        for rtype, rid in asked:
            if (rtype, rid) not in found and (one := definitions.one(self.spec, rtype, rid)) is not None:
                found[(rtype, rid)] = one
        return found if tombstones else {ref: one for ref, one in found.items() if one.res is not None}

    def find(
        self, rtype: str, clause: Clause, *, sort: Sequence[Sort] = (), limit: int = 0, after: tuple[Any, ...] = (), only_ids: bool = False
    ) -> Coroutine[Any, Any, list[Stored]]:
        """As Reader.find."""
        if rtype in self._kinds():
            return self._find(rtype, clause, sort or BY_ID, limit, after, only_ids)
        return self.stored.find(rtype, clause, sort=sort, limit=limit, after=after, only_ids=only_ids)

    async def _find(self, rtype: str, clause: Clause, sort: Sequence[Sort], limit: int, after: tuple[Any, ...], only_ids: bool) -> list[Stored]:
        """The first `limit` of both, behind the position; only those are read."""
        found = await self.stored.find(rtype, clause, sort=sort, limit=limit, after=after, only_ids=only_ids)
        await definitions.prepare(self.spec, rtype, clause)
        shown = await self._unhidden(rtype, definitions.matching(self.spec, rtype, clause))
        places = [(definitions.placed(self.spec, rtype, rid, sort), rid) for rid in shown]
        sources = published(self.spec, rtype)
        marks = [Stored(rtype, rid, 0, definitions.RELEASED, None, "", place) for place, rid in places if _behind(place, after, sort)]
        page = definitions.in_order([*found, *marks], sort)
        page = page[:limit] if limit else page
        return [one if one.vid else definitions.stored(rtype, one.rid, sources[one.rid], one.position, bare=only_ids) for one in page]

    async def _unhidden(self, rtype: str, rids: list[str]) -> list[str]:
        """Those of the ids under which nothing was ever stored."""
        hidden = await self.stored.get_many([(rtype, rid) for rid in rids], tombstones=True) if rids else {}
        return [rid for rid in rids if (rtype, rid) not in hidden]

    def count(self, rtype: str, clause: Clause, limit: int = 0) -> Coroutine[Any, Any, int]:
        """As Reader.count."""
        return self._count(rtype, clause, limit) if rtype in self._kinds() else self.stored.count(rtype, clause, limit)

    async def _count(self, rtype: str, clause: Clause, limit: int) -> int:
        await definitions.prepare(self.spec, rtype, clause)
        total = await self.stored.count(rtype, clause, limit) + len(await self._unhidden(rtype, definitions.matching(self.spec, rtype, clause)))
        return min(total, limit) if limit else total

    async def quick_count(self, rtype: str, clause: Clause, limit: int, seconds: float) -> int | None:
        """As Reader.quick_count."""
        total = await self.stored.quick_count(rtype, clause, limit, seconds)
        if total is not None and rtype in self._kinds():
            await definitions.prepare(self.spec, rtype, clause)
            total += len(await self._unhidden(rtype, definitions.matching(self.spec, rtype, clause)))
        return min(total, limit) if total is not None and limit else total

    async def refs(self, rtype: str, clause: Clause, heads: Sequence[str], limit: int) -> list[str]:
        """As Reader.refs."""
        found = await self.stored.refs(rtype, clause, heads, limit)
        if rtype in self._kinds():
            await definitions.prepare(self.spec, rtype, clause)
            found = sorted({*found, *definitions.refs(self.spec, rtype, clause, heads)})
        return found[:limit] if limit else found

    async def version(self, rtype: str, rid: str, vid: int) -> Stored | None:
        """As Store.version."""
        return await self.stored.version(rtype, rid, vid)

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
        """As Store.history; a published definition has the one version it was published in."""
        found = await self.stored.history(rtype, rid, since=since, until=until, limit=limit, after=after, ascending=ascending, clause=clause)
        if found or after or rtype is None or rid is None or rtype not in self._kinds() or await self.stored.get(rtype, rid) is not None:
            return found
        one = definitions.one(self.spec, rtype, rid)
        shown = one is not None and (since is None or one.at >= since) and (until is None or one.at < until)
        return [one] if one is not None and shown else []

    def insert(self, change: Change) -> Coroutine[Any, Any, Stored]:
        """As Store.insert."""
        return self.stored.insert(change)

    def insert_all(self, changes: Sequence[Change]) -> Coroutine[Any, Any, list[Stored]]:
        """As Store.insert_all."""
        return self.stored.insert_all(changes)

    def transact(self, body: Callable[[Tx], Awaitable[T]]) -> Coroutine[Any, Any, T]:
        """As Store.transact."""
        return self.stored.transact(body)

    def export(self, rtype: str, clause: Clause) -> AsyncIterator[Stored]:
        """As Store.export."""
        return self.stored.export(rtype, clause)

    async def explain(self, rtype: str, clause: Clause, sort: Sequence[Sort], limit: int) -> dict[str, Any]:
        """As Store.explain."""
        return await self.stored.explain(rtype, clause, sort, limit)

    async def types(self) -> frozenset[str]:
        """As Store.types."""
        return await self.stored.types()

    async def ready(self) -> None:
        """As Store.ready."""
        await self.stored.ready()


def _behind(place: tuple[Any, ...], after: tuple[Any, ...], sort: Sequence[Sort]) -> bool:
    return not after or definitions.compare(place, after, sort) > 0
