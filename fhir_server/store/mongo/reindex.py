"""Give stored resources the index document that today's search parameters make of them; versions stay as they are."""

from collections.abc import Callable
from typing import Any

from pymongo import UpdateOne

from fhir_server.query.clauses import Index
from fhir_server.store.mongo.document import Document, decoded, encoded, stored
from fhir_server.store.mongo.errors import surfaced
from fhir_server.store.mongo.read import loaded
from fhir_server.store.mongo.store import MongoStore
from fhir_server.store.mongo.verify import OWN, same_index


async def reindex(store: MongoStore, rtype: str, extract: Callable[[Document], Index], *, after: str = "", limit: int = 200) -> tuple[str, int, int]:
    """One step: the next `limit` resources behind id `after`. (last id, '' at the end; looked at; changed). Resume with the last id.

    A resource that is updated meanwhile is left alone: its writer indexed it anew.
    """
    with surfaced():
        rows = await store.database[rtype].find({"_id": {"$gt": after}}).sort("_id", 1).limit(limit).to_list()
        writes: list[UpdateOne] = []
        for row in rows:
            writes += await _write(store, rtype, row, extract)
        changed = (await store.database[rtype].bulk_write(writes, ordered=False)).modified_count if writes else 0
    return (rows[-1]["_id"] if len(rows) == limit else "", len(rows), changed)


async def _write(store: MongoStore, rtype: str, row: Document, extract: Callable[[Document], Index]) -> list[UpdateOne]:
    kept = {name: value for name, value in row.items() if name not in OWN}
    if "blob" in row:
        row["res"] = await loaded(store.blobs, row)
    made: dict[str, Any] = extract(stored(rtype, row).res or {})
    if same_index(made, await store.place.stems.spelt(kept)):
        return []
    change: Document = {"$set": decoded(encoded(made))} if made else {}
    gone = {name: "" for name in kept if name not in made}
    if gone:
        change["$unset"] = gone
    return [UpdateOne({"_id": row["_id"], "vid": row["vid"]}, change)]
