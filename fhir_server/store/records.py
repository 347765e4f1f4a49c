"""Small documents beside resources, under unique keys that expire: what security remembers (clients, users, codes, refresh tokens, replays).

Every promise that two workers must agree on rests on one of three atomic calls: `insert` (a key is taken once), `change` (compare and
set), `count` (add one). `store/mongo/records.py` implements it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of record. collection: its collection (lower case: resource types start with a capital); indexed: fields that `find` looks by."""

    collection: str
    indexed: tuple[str, ...] = ()


class Records(Protocol):
    """One tenant's records. A record whose `until` has passed is as good as not there, whether or not the database has removed it yet."""

    async def prepare(self, kinds: tuple[Kind, ...]) -> None:
        """Create collections and indexes; once at start."""

    async def insert(self, kind: Kind, key: str, document: Mapping[str, Any], until: datetime | None = None) -> bool:
        """Keep a document under a new key; False if the key is taken."""

    async def get(self, kind: Kind, key: str) -> Document | None:
        """The document."""

    async def find(self, kind: Kind, name: str = "", value: Any = None, *, limit: int = 1000) -> list[Document]:
        """Documents whose field `name` is `value`; all of the kind without a name. Each carries its key as `_id`; ordered by key."""

    async def change(
        self, kind: Kind, key: str, changes: Mapping[str, Any], *, where: Mapping[str, Any] | None = None, until: datetime | None = None
    ) -> Document | None:
        """Set fields if those of `where` have these values now; the document as it was before, None if it did not match."""

    async def count(self, kind: Kind, key: str, until: datetime, step: int = 1) -> int:
        """Add to the record's `count`; the new number. The first call makes the record and sets when it ends."""

    async def remove(self, kind: Kind, key: str) -> Document | None:
        """Remove the document; what it was, None if there was none (of two that remove it one gets it)."""

    async def since(self, kind: Kind, at: datetime) -> list[Document]:
        """Documents made at or after `at` by the database's clock (field `made`)."""
