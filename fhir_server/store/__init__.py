"""The store's contract: versions of resources, their index, transactions. `store/mongo` implements it; nothing else imports pymongo.

Rules every implementation keeps: writes are durable (majority, journaled) before a call returns; a transaction is all or nothing
and sees one snapshot; the order of `history_of_type` and `history_of_all` is commit order (nothing appears behind a position already
given out); transient failures of the database raise `Refusal` 503, a full disk 507; a client's mistake never surfaces as a driver error.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

from fhir_server.query.clauses import Clause, Index

Resource = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of a resource. `res` is None for a tombstone, whose `method` is DELETE.

    vid: 1, 2, ... (continues after a delete); at: commit stamp, UTC, whole milliseconds, equal to meta.lastUpdated;
    method: POST | PUT | PATCH | DELETE, what made this version; position: opaque place in a sort or history order, for cursors.
    """

    rtype: str
    rid: str
    vid: int
    at: datetime
    res: Resource | None
    method: str = "PUT"
    position: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One new version to write. `res` (None: delete) already carries id; the store sets meta.versionId and meta.lastUpdated.

    prior: the version it supersedes as read in the same transaction (a tombstone for a re-creation, None if the id was never used).
    index: the index document of `res` ({} for a delete). method: as in Stored.
    """

    rtype: str
    rid: str
    res: Resource | None
    index: Index
    prior: Stored | None
    method: str


@dataclass(frozen=True, slots=True)
class Sort:
    """One sort key: '_lastUpdated', '_id', or a search parameter. Missing values come last in both directions; ties are ordered by id.

    kind: '' for the two above; 'd' the index document's `d`; 'p' its `p`; 'k' the first key that starts with one of `heads` (for tokens only
    without '|'); 'r' the first low bound under one of the keys `heads`. Of several values ascending takes the least, descending the greatest.
    """

    param: str
    descending: bool = False
    kind: str = ""
    heads: tuple[str, ...] = ()
    backward: bool = False  # the whole order reversed, ids too: the page before a position


class Reader(Protocol):
    """Reads, inside or outside a transaction."""

    async def get(self, rtype: str, rid: str) -> Stored | None:
        """The current version, the tombstone if it is deleted, None if the id was never used."""

    async def get_many(self, refs: Sequence[tuple[str, str]], *, tombstones: bool = False) -> dict[tuple[str, str], Stored]:
        """The current versions of (rtype, rid) pairs that exist; with `tombstones` also those of deleted ones."""

    async def find(
        self, rtype: str, clause: Clause, *, sort: Sequence[Sort] = (), limit: int = 0, after: tuple[Any, ...] = (), only_ids: bool = False
    ) -> list[Stored]:
        """At most `limit` current versions that match, in sort order (ties by id), behind position `after`; `only_ids` leaves res as {}."""

    async def refs(self, rtype: str, clause: Clause, heads: Sequence[str], limit: int) -> list[str]:
        """At most `limit` distinct references of the current versions that match: what follows one of `heads` ('performer=') among their keys; '' means `p`."""

    async def count(self, rtype: str, clause: Clause, limit: int = 0) -> int:
        """How many current versions match, counted to `limit` at the most (0: no limit)."""


class Tx(Reader, Protocol):
    """One transaction."""

    async def guard(self, keys: Iterable[str]) -> None:
        """Touch these guard documents: of two transactions that share a key, one waits or is retried. Call it before reading."""

    async def put(self, changes: Sequence[Change]) -> list[Stored]:
        """Write these versions and supersede their priors; at most one change per resource in a transaction."""


class Store(Reader, Protocol):
    """One tenant's resources."""

    async def insert(self, change: Change) -> Stored:
        """A plain create with a new server-assigned id: one insert, no transaction. `change.prior` is None."""

    async def insert_all(self, changes: Sequence[Change]) -> list[Stored]:
        """Plain creates (as `insert`) that belong together, in one transaction: all of them or none."""

    async def transact(self, body: Callable[[Tx], Awaitable[T]]) -> T:
        """Run `body` in a transaction and commit; on a transient conflict the whole of `body` runs again, so it has no side effects."""

    async def version(self, rtype: str, rid: str, vid: int) -> Stored | None:
        """One version, current or superseded; a tombstone if that version is a deletion; None if there is no such version."""

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
        """Versions of one resource (both given), one type (rid None) or all types (both None), newest first unless `ascending`.

        since: at >= since; until: at < until (for `_at`). `clause` limits a type's versions to resources whose *current or last* index
        document matches (visibility). Never shows a version that something committed later could still precede.
        """

    async def quick_count(self, rtype: str, clause: Clause, limit: int, seconds: float) -> int | None:
        """As `count`, None if the database takes longer: for a number that is nice to have."""

    def export(self, rtype: str, clause: Clause) -> AsyncIterator[Stored]:
        """All current versions that match, streamed in id order."""

    async def explain(self, rtype: str, clause: Clause, sort: Sequence[Sort], limit: int) -> dict[str, Any]:
        """How the database answers `find`: its filter, sort and plan, for administrators."""

    async def types(self) -> frozenset[str]:
        """Resource types that have (or had) stored resources."""

    async def ready(self) -> None:
        """Returns when the database can be written to; raises Refusal 503 within about a second if not."""
