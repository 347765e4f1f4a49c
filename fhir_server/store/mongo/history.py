"""Versions in commit order: of one resource, a type, or everything.

Newest first is the order (at descending, type, id, vid descending); ascending is its exact reverse. The current collections are read before
the history collection: a version that is superseded between the two reads is then seen twice, never missed.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.asynchronous.collection import AsyncCollection

from fhir_server.query.clauses import And, Clause, Ids
from fhir_server.query.indexes import STAMPS
from fhir_server.store import Stored
from fhir_server.store.mongo.client import COMMITTED
from fhir_server.store.mongo.document import AS_STORED, SHOWN, Document
from fhir_server.store.mongo.lower import lower
from fhir_server.store.mongo.read import HISTORY, PAST, Place, past, version_id, with_blobs
from fhir_server.store.mongo.read import rows as rows_of

Row = TypeVar("Row", Document, RawBSONDocument)
ALL: Document = {}
FEW = 2000  # resources that are named in a query
PAGE = 200  # versions looked at per step when a clause filters them


@dataclass(frozen=True, slots=True)
class Window:
    """Which versions: stamps in [since, until), behind position `after` (at, rtype, rid, vid), in which direction, how many."""

    since: datetime | None
    until: datetime | None
    after: tuple[Any, ...]
    ascending: bool
    limit: int
    rids: tuple[str, ...] | None = None  # only of these resources


async def of_resource(place: Place, rtype: str, rid: str, window: Window) -> list[Stored]:
    """Versions of one resource, by version number (which is commit order)."""
    found: list[Stored] = []
    stamps = _stamps(window)
    current = await place.database[rtype].find_one({"_id": rid, **stamps}, SHOWN)
    if current is not None:
        found = await with_blobs(place, rtype, [current])
    low, high = version_id(rtype, rid, 0), f"{rtype}/{rid}0"
    if window.after:
        low, high = (version_id(rtype, rid, window.after[3]), high) if window.ascending else (low, version_id(rtype, rid, window.after[3]))
    found_past = place.database[HISTORY].find({"_id": {"$gt": low, "$lt": high}, **stamps}, PAST)
    rows = await found_past.sort("_id", 1 if window.ascending else -1).limit(window.limit).to_list()
    found += await past(place, rows)
    if window.after:
        found = [one for one in found if (one.vid > window.after[3]) == window.ascending and one.vid != window.after[3]]
    return _merged(found, window)


async def of_types(place: Place, rtypes: Iterable[str], window: Window, whole: bool) -> list[Stored]:
    """Versions of these types; `whole`: they are all types that there are (the history collection is then read as one)."""
    wanted = sorted(rtypes)
    found: list[Stored] = []
    if len(wanted) == 1:
        found = await _current(place, wanted[0], window)
    elif wanted:
        found = await _current_of_all(place, wanted, window)
    for chosen in [None] if whole else wanted:
        found += await _superseded(place, chosen, window)
    return _merged(found, window)


async def matching(place: Place, rtype: str, clause: Clause) -> tuple[str, ...] | None:
    """The resources that match now or did when they were deleted (and perhaps a few that did in an earlier life), None if they are many."""
    current = await rows_of(place, rtype, lower(clause), {"_id": 1}, limit=FEW + 1)
    gone = await rows_of(place, HISTORY, {"$and": [{"t": rtype, "m": "DELETE"}, lower(clause)]}, {"_id": 0, "i": 1}, limit=FEW + 1)
    found = {row["_id"] for row in current} | {row["i"] for row in gone}
    return tuple(sorted(found)) if len(found) <= FEW and len(current) <= FEW and len(gone) <= FEW else None


async def visible(place: Place, rtype: str, versions: Sequence[Stored], clause: Clause) -> list[Stored]:
    """Those versions whose resource's current index document, or the one it had when it was deleted, matches the clause."""
    rids = sorted({one.rid for one in versions})
    if not rids:
        return []
    current = await place.database[rtype].find({"_id": {"$in": rids}}, {"_id": 1}).to_list()
    here = {row["_id"] for row in current}
    matching = await place.database[rtype].find(lower(And((Ids(tuple(rids)), clause))), {"_id": 1}).to_list()
    shown = {row["_id"] for row in matching}
    shown |= await _last_matching(place, rtype, [rid for rid in rids if rid not in here], clause)
    return [one for one in versions if one.rid in shown]


async def _last_matching(place: Place, rtype: str, rids: list[str], clause: Clause) -> set[str]:
    """Of deleted resources, those whose newest tombstone's index matches. A clause on ids or stamps speaks of the resource: given as such."""
    if not rids:
        return set()
    stages: list[Document] = [
        {"$match": {"t": rtype, "i": {"$in": rids}, "m": "DELETE"}},
        {"$sort": {"t": 1, "i": 1, "v": -1}},
        {"$group": {"_id": "$i", "last": {"$first": "$$ROOT"}}},
        {"$replaceRoot": {"newRoot": {"$mergeObjects": ["$last", {"_id": "$_id"}]}}},
        {"$match": lower(clause)},
        {"$project": {"_id": 1}},
    ]
    rows = await (await place.database[HISTORY].aggregate(stages)).to_list()
    return {row["_id"] for row in rows}


async def _current(place: Place, rtype: str, window: Window) -> list[Stored]:
    return await with_blobs(place, rtype, await _current_rows(place, rtype, window, place.database.codec_options))


async def bytes_of_current(place: Place, rtype: str, clause: Clause, window: Window) -> list[RawBSONDocument]:
    """The current versions of a type in this window that match, as they are stored, without their index: `res`, `vid`, `at`, `_id`."""
    return await _current_rows(place, rtype, window, AS_STORED, lower(await place.stems.grafted(rtype, clause)))


async def _current_rows(place: Place, rtype: str, window: Window, codec: "CodecOptions[Row]", matching: Document = ALL) -> list[Row]:
    wanted = {"$and": [_stamps(window), _behind(window, rtype, "_id", "vid"), _of_few(window, "_id"), matching]}
    order = [("at", 1), ("_id", -1)] if window.ascending else [("at", -1), ("_id", 1)]
    collection: AsyncCollection[Any] = place.database.get_collection(rtype, codec_options=codec, read_concern=COMMITTED)
    cursor = collection.find(wanted, SHOWN).sort(order).limit(window.limit)
    return await (cursor.hint(STAMPS.name) if matching else cursor).to_list()


async def _current_of_all(place: Place, rtypes: Sequence[str], window: Window) -> list[Stored]:
    """Over many types: which ones they are, from the indexes in one request, then those documents.

    A document that is superseded between the two has another stamp then, and its former version is in history, which is read after this.
    """
    first, *others = (_stages(rtype, window) for rtype in rtypes)
    stages = first + [{"$unionWith": {"coll": rtype, "pipeline": inner}} for rtype, inner in zip(rtypes[1:], others)]
    down = -1 if window.ascending else 1
    stages += [{"$sort": {"at": -down, "t": down, "_id": down}}, {"$limit": window.limit}]
    collection = place.database.get_collection(rtypes[0], read_concern=COMMITTED)
    chosen: dict[str, dict[str, datetime]] = defaultdict(dict)
    async for row in await collection.aggregate(stages):
        chosen[row["t"]][row["_id"]] = row["at"]
    found: list[Stored] = []
    for rtype, stamps in chosen.items():
        collection = place.database.get_collection(rtype, read_concern=COMMITTED)
        rows = await collection.find({"_id": {"$in": list(stamps)}}, SHOWN).to_list()
        found += await with_blobs(place, rtype, [row for row in rows if row["at"] == stamps[row["_id"]]])
    return found


def _stages(rtype: str, window: Window) -> list[Document]:
    """One type's part, answered from the index on stamps alone."""
    order = {"at": 1, "_id": -1} if window.ascending else {"at": -1, "_id": 1}
    wanted = {"$and": [_stamps(window), _behind(window, rtype, "_id", "vid")]}
    return [{"$match": wanted}, {"$sort": order}, {"$limit": window.limit}, {"$project": {"at": 1, "t": {"$literal": rtype}}}]


async def _superseded(place: Place, rtype: str | None, window: Window) -> list[Stored]:
    chosen: Document = {"t": rtype} if rtype else {}
    wanted = {"$and": [chosen, _stamps(window), _behind(window, rtype, "i", "v"), _of_few(window, "i")]}
    down = [("at", -1), ("t", 1), ("i", 1), ("v", -1)]
    order = [(name, -direction) for name, direction in down] if window.ascending else down
    if rtype:
        order = [pair for pair in order if pair[0] != "t"]
    collection = place.database.get_collection(HISTORY, read_concern=COMMITTED)
    rows = await collection.find(wanted, PAST).sort(order).limit(window.limit).to_list()
    return await past(place, rows)


def _stamps(window: Window) -> Document:
    bounds = {operator: bound for operator, bound in (("$gte", window.since), ("$lt", window.until)) if bound is not None}
    return {"at": bounds} if bounds else {}


def _of_few(window: Window, rid_field: str) -> Document:
    return {} if window.rids is None else {rid_field: {"$in": list(window.rids)}}


def _behind(window: Window, rtype: str | None, rid_field: str, vid_field: str) -> Document:
    """Versions behind `after` in this direction; rtype None: in the history collection over all types."""
    if not window.after:
        return {}
    at, after_type, rid, vid = window.after
    beyond, later, newer = ("$gt", "$lt", "$gt") if window.ascending else ("$lt", "$gt", "$lt")
    inside = [{rid_field: {later: rid}}, {rid_field: rid, vid_field: {newer: vid}}]
    if rtype is None:
        same: list[Document] = [{"t": {later: after_type}}, *({"t": after_type, **one} for one in inside)]
    elif rtype == after_type:
        same = inside
    else:
        same = [{}] if (rtype < after_type) == window.ascending else []
    bound = {"at": {f"{beyond}e": at}}
    return {"$and": [bound, {"$or": [{"at": {beyond: at}}, *({"at": at, **one} for one in same)]}]}


def _merged(found: Iterable[Stored], window: Window) -> list[Stored]:
    """In order, each version once, at most `limit`, with positions."""
    once = {(one.rtype, one.rid, one.vid): one for one in found}
    ordered = sorted(once.values(), key=lambda one: (one.rtype, one.rid, -one.vid))
    ordered.sort(key=lambda one: one.at, reverse=True)
    if window.ascending:
        ordered.reverse()
    kept = ordered[: window.limit] if window.limit else ordered
    return [Stored(one.rtype, one.rid, one.vid, one.at, one.res, one.method, (one.at, one.rtype, one.rid, one.vid)) for one in kept]
