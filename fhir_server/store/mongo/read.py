"""Reads of current versions, inside or outside a transaction."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pymongo.errors import AutoReconnect

from fhir_server.store import Stored
from fhir_server.store.mongo.blob import Blobs
from fhir_server.store.mongo.client import Database
from fhir_server.store.mongo.document import RAW, SHOWN, Document, decoded, stored
from fhir_server.store.mongo.frame import Frame
from fhir_server.store.mongo.lean import Lean
from fhir_server.store.mongo.stems import Stems

HISTORY = "history"
PAST = {"_id": 0, "t": 1, "i": 1, "v": 1, "at": 1, "m": 1, "res": 1, "x": 1, "blob": 1}
VID_DIGITS = 10
MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Place:
    """Where to read: a tenant's database, its blobs, what its index documents have in common, and the transaction (None outside)."""

    database: Database
    blobs: Blobs
    stems: Stems
    frame: Frame | None = None
    lean: Lean | None = None  # the channel of the embedded server, outside of transactions


def version_id(rtype: str, rid: str, vid: int) -> str:
    """`_id` in the history collection; sorts by version within a resource."""
    return f"{rtype}/{rid}/{vid:0{VID_DIGITS}d}"


async def get(place: Place, rtype: str, rid: str) -> Stored | None:
    """See `Reader.get`."""
    row = await _current(place, rtype, rid)
    if row is not None:
        return (await with_blobs(place, rtype, [row]))[0]
    return await _tombstone(place, rtype, rid)


async def _current(place: Place, rtype: str, rid: str) -> Document | None:
    """The commonest read of all, as a bare command: a cursor object costs PyMongo a quarter more time. It is then not retried by itself.

    The answer is taken as raw BSON, because PyMongo decodes a command's answer without our decimals.
    """
    if place.lean is not None or place.frame is not None:
        found = await rows(place, rtype, {"_id": rid}, SHOWN, limit=1)
        return found[0] if found else None
    command = {"find": rtype, "filter": {"_id": rid}, "projection": SHOWN, "limit": 1, "singleBatch": True}
    try:
        reply = await place.database.command(command, codec_options=RAW)
    except AutoReconnect:
        reply = await place.database.command(command, codec_options=RAW)
    batch = reply["cursor"]["firstBatch"]
    return decoded(batch[0].raw) if batch else None


async def rows(
    place: Place, collection: str, wanted: Document, shown: Document, order: Sequence[tuple[str, int]] = (), limit: int = 0
) -> list[Document]:
    """Rows of a collection that match a filter, in order, at most `limit` (0: all)."""
    command: Document = {"find": collection, "filter": wanted, "projection": shown}
    if order:
        command["sort"] = dict(order)
    if limit:
        command |= {"limit": limit, "batchSize": limit + 1}
    if place.frame is not None:
        return await place.frame.rows(command)
    if place.lean is not None:
        with suppress(AutoReconnect):  # then PyMongo's way, which waits for the server
            return await place.lean.rows(command)
    cursor = place.database[collection].find(wanted, shown).limit(limit)
    return await (cursor.sort(order) if order else cursor).to_list()


async def _tombstone(place: Place, rtype: str, rid: str) -> Stored | None:
    """The newest superseded version is a tombstone if there is no current one; a live version there means a change that we read half of."""
    wanted = {"_id": {"$gt": f"{rtype}/{rid}/", "$lt": f"{rtype}/{rid}0"}, "m": "DELETE"}
    found = await rows(place, HISTORY, wanted, PAST, [("_id", -1)], 1)
    return superseded(found[0]) if found else None


def superseded(row: Document, res: Document | None = None) -> Stored:
    """A row of the history collection; its blob, if any, is given as `res`."""
    document = {"_id": row["i"], "vid": row["v"], "at": row["at"], "m": row["m"], "res": res or row["res"]}
    if "x" in row:
        document["x"] = row["x"]
    return stored(row["t"], document, (row["at"], row["t"], row["i"], row["v"]))


async def past_version(place: Place, rtype: str, rid: str, vid: int) -> Stored | None:
    """A superseded version or tombstone."""
    row = await place.database[HISTORY].find_one({"_id": version_id(rtype, rid, vid)}, PAST)
    return None if row is None else (await past(place, [row]))[0]


async def past(place: Place, rows: Sequence[Document]) -> list[Stored]:
    """Rows of the history collection as versions, large bodies loaded."""
    bodies = [await loaded(place.blobs, row) if "blob" in row else None for row in rows]
    return [superseded(row, body) for row, body in zip(rows, bodies)]


async def get_many(place: Place, refs: Sequence[tuple[str, str]], tombstones: bool = False) -> dict[tuple[str, str], Stored]:
    """See `Reader.get_many`."""
    by_type: dict[str, list[str]] = defaultdict(list)
    for rtype, rid in dict.fromkeys(refs):
        by_type[rtype].append(rid)
    found: dict[tuple[str, str], Stored] = {}
    for rtype, rids in by_type.items():
        current = await rows(place, rtype, {"_id": {"$in": rids}}, SHOWN)
        for one in await with_blobs(place, rtype, current):
            found[rtype, one.rid] = one
        missing = [rid for rid in rids if (rtype, rid) not in found] if tombstones else []
        if missing:
            found |= await _tombstones(place, rtype, missing)
    return found


async def loaded(blobs: Blobs, row: Document) -> Document:
    """The whole resource of a row whose body is a blob; its meta is in the row."""
    body = decoded(await blobs.get(row["blob"]))
    body["meta"] = row["res"]["meta"]
    return body


async def _tombstones(place: Place, rtype: str, rids: Sequence[str]) -> dict[tuple[str, str], Stored]:
    """The newest tombstone of each of these ids that has one."""
    wanted = {"t": rtype, "i": {"$in": list(rids)}, "m": "DELETE"}
    found = await rows(place, HISTORY, wanted, PAST, [("i", 1), ("v", 1)])
    return {(rtype, row["i"]): superseded(row) for row in found}


async def with_blobs(place: Place, rtype: str, rows: Sequence[Document], position: tuple[Any, ...] = ()) -> list[Stored]:
    """Rows of a type's collection as versions, large bodies loaded."""
    for row in rows:
        if "blob" in row:
            row["res"] = await loaded(place.blobs, row)
    return [stored(rtype, row, position) for row in rows]
