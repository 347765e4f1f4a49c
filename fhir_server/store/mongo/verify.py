"""Is the store whole? Every index document is made again and compared, every version is accounted for.

Reads only, while the exchange serves; a resource that changes meanwhile is looked at again before it is reported.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pymongo.errors import OperationFailure

from conformance.dates import instant
from fhir_server.query.clauses import Index
from fhir_server.store.mongo.document import Document, decoded, encoded, stored
from fhir_server.store.mongo.errors import surfaced
from fhir_server.store.mongo.read import HISTORY, loaded, version_id
from fhir_server.store.mongo.store import MongoStore

Extract = Callable[[Document], Index]
OWN = frozenset({"_id", "vid", "at", "m", "res", "x", "blob"})
PAGE = 200
BLOBS = "blobs.files"


@dataclass(frozen=True, slots=True)
class Fault:
    """One disagreement. place: 'Patient/1/_history/2' or a collection's name; rule: what does not hold."""

    place: str
    rule: str


async def verify(store: MongoStore, extract: Extract, rtypes: Iterable[str] | None = None) -> AsyncIterator[Fault]:
    """All faults of these types (all types by default); none at all is the good answer."""
    for rtype in sorted(rtypes if rtypes is not None else await store.types()):
        fault = await _structure(store, rtype)
        if fault is not None:
            yield fault
        async for row in _rows(store, rtype):
            for rule in await _broken(store, extract, rtype, row):
                yield Fault(f"{rtype}/{row['_id']}/_history/{row['vid']}", rule)
        async for fault in _orphans(store, rtype):
            yield fault


async def _structure(store: MongoStore, collection: str) -> Fault | None:
    """The database's own check of its collection and index structures (a quick one; it takes no lock for long)."""
    try:
        answer = await store.database.command("validate", collection, background=True)
    except OperationFailure as error:  # not permitted to this user, or not while the collection is in a checkpoint's way
        return None if error.code in (13, 20, 26) else Fault(collection, f"the database could not check the collection (code {error.code})")
    return None if answer.get("valid", True) else Fault(collection, "the database reports damage in the collection or its indexes")


async def _rows(store: MongoStore, rtype: str) -> AsyncIterator[Document]:
    last = ""
    while True:
        with surfaced():
            rows = await store.database[rtype].find({"_id": {"$gt": last}}).sort("_id", 1).limit(PAGE).to_list()
        for row in rows:
            yield row
        if len(rows) < PAGE:
            return
        last = rows[-1]["_id"]


async def _broken(store: MongoStore, extract: Extract, rtype: str, row: Document) -> list[str]:
    """The rules that the current document of a resource breaks, also at a second look."""
    rules = await _rules(store, extract, rtype, dict(row))
    if rules:
        with surfaced():
            again = await store.database[rtype].find_one({"_id": row["_id"], "vid": row["vid"]})
            rules = await _rules(store, extract, rtype, again) if again is not None else []
    return rules


async def _rules(store: MongoStore, extract: Extract, rtype: str, row: Document) -> list[str]:
    index = {name: value for name, value in row.items() if name not in OWN}
    broken: list[str] = []
    with surfaced():
        if "blob" in row:
            if await store.database[BLOBS].find_one({"_id": row["blob"]}, {"_id": 1}) is None:
                return ["its large body is missing"]
            row["res"] = await loaded(store.blobs, row)
        past = await store.database[HISTORY].find(_past_of(rtype, row["_id"]), {"v": 1}).to_list()
    res = stored(rtype, row).res or {}
    meta = res.get("meta", {})
    if res.get("resourceType") != rtype or res.get("id") != row["_id"]:
        broken.append("type or id of the resource are not those it is stored under")
    if meta.get("versionId") != str(row["vid"]) or meta.get("lastUpdated") != instant(row["at"]):
        broken.append("meta.versionId or meta.lastUpdated are not those of the version")
    if {one["v"] for one in past} != set(range(1, row["vid"])):
        broken.append("earlier versions are missing, or one too many is there")
    if not same_index(extract(res), await store.place.stems.spelt(index)):
        broken.append("the index document is not the one its content gives")
    return broken


def same_index(made: Index, kept: Index) -> bool:
    """Equal as stored (datetimes in whole milliseconds, decimals exact), in any order of the lists."""
    return bool(_unordered(decoded(encoded(dict(made)))) == _unordered(kept))


def _unordered(index: Index) -> Any:
    return {name: sorted(map(repr, value)) if isinstance(value, list) and name != "g" else value for name, value in index.items()}


def _past_of(rtype: str, rid: str) -> Document:
    return {"_id": {"$gt": version_id(rtype, rid, 0), "$lt": f"{rtype}/{rid}0"}}


async def _orphans(store: MongoStore, rtype: str) -> AsyncIterator[Fault]:
    """Resources of which only superseded versions are left: a live one at the end means that the current version is lost."""
    stages: list[Document] = [
        {"$match": {"t": rtype}},
        {"$sort": {"t": 1, "i": 1, "v": -1}},
        {"$group": {"_id": "$i", "v": {"$first": "$v"}, "m": {"$first": "$m"}, "n": {"$sum": 1}}},
        {"$match": {"$or": [{"m": {"$ne": "DELETE"}}, {"$expr": {"$ne": ["$v", "$n"]}}]}},
        {"$lookup": {"from": rtype, "localField": "_id", "foreignField": "_id", "pipeline": [{"$project": {"_id": 1}}], "as": "here"}},
        {"$match": {"here": []}},
    ]
    with surfaced():
        rows = await (await store.database[HISTORY].aggregate(stages, allowDiskUse=True)).to_list()
        for row in rows:
            if await store.get(rtype, row["_id"]) is None or row["m"] == "DELETE":
                yield Fault(f"{rtype}/{row['_id']}/_history/{row['v']}", "the current version is lost, or an earlier one is missing")
