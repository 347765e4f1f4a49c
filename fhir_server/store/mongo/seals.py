"""The seals on the audit trail: a chain of blocks, each with the digests of its AuditEvents and the keyed hash of the block before.

Collection `audit_seals`: {_id: n, prev, hash, events: [[id, digest], ...], of: what the digests are made of, until: position of the last one in commit order,
newest, key: which secret, gone: removed by retention}; and one row `lease` {owner, until}, so that one process at a time seals. AuditEvents themselves
are never touched, and read as the bytes they are stored as: to decode them would be most of what sealing costs.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from fhir_server.query.clauses import Clause
from fhir_server.store.mongo.client import Database
from fhir_server.store.mongo.document import AS_STORED
from fhir_server.store.mongo.errors import surfaced
from fhir_server.store.mongo.history import Window, bytes_of_current
from fhir_server.store.mongo.store import MongoStore

SEALS, LEASE = "audit_seals", "lease"
Row = dict[str, Any]


async def lease(database: Database, owner: str, now: datetime, length: timedelta) -> bool:
    """Take or keep the right to seal; False if another process has it."""
    free = {"_id": LEASE, "$or": [{"owner": owner}, {"until": {"$lt": now}}]}
    change = {"$set": {"owner": owner, "until": now + length}}
    with surfaced():
        try:
            row = await database[SEALS].find_one_and_update(free, change, upsert=True, return_document=ReturnDocument.AFTER)
        except DuplicateKeyError:
            return False
    return row is not None


async def release(database: Database, owner: str) -> None:
    """Give the right to seal back."""
    with surfaced():
        await database[SEALS].delete_one({"_id": LEASE, "owner": owner})


async def last(database: Database) -> Row | None:
    """The newest block."""
    with surfaced():
        return await database[SEALS].find_one({"_id": {"$type": "number"}}, sort=[("_id", -1)])


@dataclass(frozen=True, slots=True)
class Event:
    """A stored resource: data: its bytes; position: its place in commit order."""

    rid: str
    data: bytes
    position: tuple[Any, ...]


async def unsealed(store: MongoStore, rtype: str, clause: Clause, after: tuple[Any, ...], limit: int) -> list[Event]:
    """The next resources that match behind a position, in commit order, of those that nothing committed later can precede."""
    with surfaced():
        edge = await store.horizon.complete_until()
        rows = await bytes_of_current(store.place, rtype, clause, Window(None, edge, after, True, limit))
    return [Event(row["_id"], row["res"].raw, (row["at"], rtype, row["_id"], row["vid"])) for row in rows]


async def by_id(database: Database, rtype: str, rids: Sequence[str]) -> dict[str, bytes]:
    """Those of these resources that are there, as the bytes they are stored as."""
    with surfaced():
        rows = await database.get_collection(rtype, codec_options=AS_STORED).find({"_id": {"$in": list(rids)}}, {"res": 1}).to_list()
    return {row["_id"]: row["res"].raw for row in rows}


async def add(database: Database, row: Row) -> bool:
    """Append a block; False if another process was quicker (the number is taken)."""
    with surfaced():
        try:
            await database[SEALS].insert_one(row)
        except DuplicateKeyError:
            return False
    return True


async def blocks(database: Database) -> AsyncIterator[Row]:
    """All blocks, oldest first."""
    with surfaced():
        async for row in database[SEALS].find({"_id": {"$type": "number"}}).sort("_id", 1):
            yield row


async def aged(database: Database, before: datetime, limit: int) -> Sequence[Row]:
    """Blocks whose newest event is older than a moment and whose events are still there."""
    with surfaced():
        return await database[SEALS].find({"newest": {"$lt": before}, "gone": False}).sort("_id", 1).limit(limit).to_list()


async def remove(database: Database, collection: str, block: Row) -> None:
    """Remove the events of a block, for good; its digests stay, so that the chain can still be followed."""
    with surfaced():
        await database[collection].delete_many({"_id": {"$in": [rid for rid, _ in block["events"]]}})
        await database[SEALS].update_one({"_id": block["_id"]}, {"$set": {"gone": True}})
