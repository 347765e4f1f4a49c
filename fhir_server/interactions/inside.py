"""The store as the reads of a transaction bundle see it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from conformance.outcome import not_supported
from fhir_server.query.clauses import Clause
from fhir_server.store import Change, Sort, Store, Stored, Tx

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Inside:
    """The store as reads inside a transaction see it: current versions through the transaction, the past from the store, no writes.

    A transaction answers one question at a time: reads that run side by side wait for each other.
    """

    tx: Tx
    outside: Store
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def get(self, rtype: str, rid: str) -> Stored | None:
        """As Reader.get."""
        async with self.turn:
            return await self.tx.get(rtype, rid)

    async def get_many(self, refs: Sequence[tuple[str, str]], *, tombstones: bool = False) -> dict[tuple[str, str], Stored]:
        """As Reader.get_many."""
        async with self.turn:
            return await self.tx.get_many(refs, tombstones=tombstones)

    async def find(
        self, rtype: str, clause: Clause, *, sort: Sequence[Sort] = (), limit: int = 0, after: tuple[Any, ...] = (), only_ids: bool = False
    ) -> list[Stored]:
        """As Reader.find."""
        async with self.turn:
            return await self.tx.find(rtype, clause, sort=sort, limit=limit, after=after, only_ids=only_ids)

    async def count(self, rtype: str, clause: Clause, limit: int = 0) -> int:
        """As Reader.count."""
        async with self.turn:
            return await self.tx.count(rtype, clause, limit)

    async def quick_count(self, rtype: str, clause: Clause, limit: int, seconds: float) -> int | None:
        """As Store.quick_count; a transaction answers in its own time."""
        return await self.count(rtype, clause, limit)

    async def refs(self, rtype: str, clause: Clause, heads: Sequence[str], limit: int) -> list[str]:
        """As Reader.refs."""
        async with self.turn:
            return await self.tx.refs(rtype, clause, heads, limit)

    async def explain(self, rtype: str, clause: Clause, sort: Sequence[Sort], limit: int) -> dict[str, Any]:
        """As Store.explain."""
        return await self.outside.explain(rtype, clause, sort, limit)

    async def insert(self, change: Change) -> Stored:
        """Refused: a read does not write."""
        raise not_supported("a read inside a transaction cannot write")

    async def insert_all(self, changes: Sequence[Change]) -> list[Stored]:
        """Refused: a read does not write."""
        raise not_supported("a read inside a transaction cannot write")

    async def transact(self, body: Callable[[Tx], Awaitable[T]]) -> T:
        """Refused: a read does not write."""
        raise not_supported("a read inside a transaction cannot write")

    async def version(self, rtype: str, rid: str, vid: int) -> Stored | None:
        """As Store.version, as committed before."""
        return await self.outside.version(rtype, rid, vid)

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
        """As Store.history, as committed before."""
        return await self.outside.history(rtype, rid, since=since, until=until, limit=limit, after=after, ascending=ascending, clause=clause)

    def export(self, rtype: str, clause: Clause) -> AsyncIterator[Stored]:
        """As Store.export, as committed before."""
        return self.outside.export(rtype, clause)

    async def types(self) -> frozenset[str]:
        """As Store.types."""
        return await self.outside.types()

    async def ready(self) -> None:
        """As Store.ready."""
        await self.outside.ready()
