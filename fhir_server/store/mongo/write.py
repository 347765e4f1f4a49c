"""New versions: what a change does to the current collection and to history."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from conformance.outcome import conflict
from fhir_server.store import Change, Stored
from fhir_server.store.mongo.document import INLINE_BYTES, Document, bare, encoded, raw
from fhir_server.store.mongo.errors import TRANSIENT
from fhir_server.store.mongo.frame import Frame, delete, insert, update
from fhir_server.store.mongo.read import HISTORY, Place, version_id

INDEX_FIELDS_LEFT_OUT = {"res": 0, "x": 0, "blob": 0, "vid": 0, "at": 0, "m": 0}
BREATH = 50  # documents encoded before other requests have their turn


@dataclass(slots=True)
class Plan:
    """What a transaction writes: per type's collection the new documents, replacements and removals (as commands have them); the rows of history."""

    inserts: dict[str, list[RawBSONDocument]] = field(default_factory=lambda: defaultdict(list))
    replaces: dict[str, list[Document]] = field(default_factory=lambda: defaultdict(list))
    removals: dict[str, list[Document]] = field(default_factory=lambda: defaultdict(list))
    history: list[RawBSONDocument] = field(default_factory=list)
    blobs: list[tuple[str, str]] = field(default_factory=list)
    versions: list[Stored] = field(default_factory=list)


async def packed(place: Place, document: Document, owner: str, blobs: list[tuple[str, str]]) -> RawBSONDocument:
    """The document ready for the driver; a body near MongoDB's limit is stored as a blob first and noted in `blobs` as (digest, owner)."""
    data = encoded(document)
    if len(data) <= INLINE_BYTES:
        return raw(data)
    res = document["res"]
    digest = await place.blobs.put(encoded({**res, "meta": None}))  # the same bytes for every version and attempt that differs in meta only
    blobs.append((digest, owner))
    head = {name: res[name] for name in ("resourceType", "id", "meta") if name in res}
    data = encoded({**document, "res": head, "blob": digest})
    if len(data) > INLINE_BYTES:
        raise conflict("the index of the resource is larger than the database can hold in one document")
    return raw(data)


async def put(place: Place, frame: Frame, changes: Sequence[Change], at: datetime) -> list[Stored]:
    """Write the changes inside the transaction of `place`; all get the stamp `at`, which is later than that of every prior."""
    plan = Plan()
    lost = await _last_indexes(frame, [change for change in changes if change.res is None])
    for number, change in enumerate(changes):
        await _plan(place, plan, change, at, lost)
        if number % BREATH == BREATH - 1:
            await asyncio.sleep(0)
    for digest, owner in plan.blobs:
        await place.blobs.own(digest, owner, frame)
    for rtype, documents in plan.inserts.items():
        await insert(frame, rtype, documents)
    for rtype, writes in plan.replaces.items():
        if await update(frame, rtype, writes) != len(writes):
            raise superseded_meanwhile()
    for rtype, writes in plan.removals.items():
        if await delete(frame, rtype, writes) != len(writes):
            raise superseded_meanwhile()
    await insert(frame, HISTORY, plan.history)
    return plan.versions


def superseded_meanwhile() -> OperationFailure:
    """A prior is not the current version any more: the transaction runs again. The server mostly says so itself, as a write conflict."""
    return OperationFailure("a prior version was superseded", 112, {"errorLabels": [TRANSIENT]})


async def _last_indexes(frame: Frame, deletes: Iterable[Change]) -> dict[tuple[str, str], Document]:
    """The index documents of what is deleted: a tombstone keeps the last one, so that history is filtered by what the resource was."""
    by_type: dict[str, list[str]] = defaultdict(list)
    for change in deletes:
        by_type[change.rtype].append(change.rid)
    found: dict[tuple[str, str], Document] = {}
    for rtype, rids in by_type.items():
        rows = await frame.rows({"find": rtype, "filter": {"_id": {"$in": rids}}, "projection": INDEX_FIELDS_LEFT_OUT})
        found.update({(rtype, row.pop("_id")): row for row in rows})
    return found


async def _plan(place: Place, plan: Plan, change: Change, at: datetime, lost: dict[tuple[str, str], Document]) -> None:
    prior = change.prior
    vid = prior.vid + 1 if prior is not None else 1
    if prior is not None and prior.res is not None:
        plan.history.append(await _past(place, prior, plan.blobs))
        current = {"_id": change.rid, "vid": prior.vid}
    elif change.res is None:
        raise ValueError("a resource that is not there cannot be deleted")
    if change.res is None:
        plan.removals[change.rtype].append({"q": current, "limit": 1})
        row = lost.get((change.rtype, change.rid), {}) | _row(change.rtype, change.rid, vid, at, "DELETE", None)  # the row's own fields win
        plan.history.append(raw(encoded(row)))
        plan.versions.append(Stored(change.rtype, change.rid, vid, at, None, "DELETE"))
        return
    document = bare(change, vid, at)
    data = await packed(place, document, f"{change.rtype}/{change.rid}/{vid}", plan.blobs)
    if prior is not None and prior.res is not None:
        plan.replaces[change.rtype].append({"q": current, "u": data})
    else:
        plan.inserts[change.rtype].append(data)
    plan.versions.append(Stored(change.rtype, change.rid, vid, at, document["res"], change.method))


def _row(rtype: str, rid: str, vid: int, at: datetime, method: str, res: Document | None) -> Document:
    return {"_id": version_id(rtype, rid, vid), "t": rtype, "i": rid, "v": vid, "at": at, "m": method, "res": res}


async def _past(place: Place, prior: Stored, blobs: list[tuple[str, str]]) -> RawBSONDocument:
    """The row of history of a version that is superseded."""
    row = _row(prior.rtype, prior.rid, prior.vid, prior.at, prior.method, prior.res)
    return await packed(place, row, f"{prior.rtype}/{prior.rid}/{prior.vid}", blobs)
