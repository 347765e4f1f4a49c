"""Find and count current versions by clause, in a stable order that a cursor can continue."""

from collections.abc import Sequence
from typing import Any

from fhir_server.query.clauses import Clause
from fhir_server.store import Sort, Stored
from fhir_server.store.mongo.document import HIDDEN, SHOWN
from fhir_server.store.mongo.lower import Filter, lower
from fhir_server.store.mongo.read import Place, with_blobs

FIELDS = {"_lastUpdated": "at", "_id": "_id"}


async def find(place: Place, rtype: str, clause: Clause, sort: Sequence[Sort], limit: int, after: tuple[Any, ...], only_ids: bool) -> list[Stored]:
    """See `Reader.find`."""
    keys = _keys(sort)
    wanted = lower(clause)
    if after:
        wanted = {"$and": [wanted, _behind(keys, after)]}
    shown = dict(HIDDEN if only_ids else SHOWN) | {name: 1 for name, _ in keys}
    found = place.database[rtype].find(wanted, shown, session=place.session).sort(keys).limit(limit)
    rows = await found.to_list()
    return [one for row in rows for one in await with_blobs(place, rtype, [row], tuple(_value(row, name) for name, _ in keys))]


async def count(place: Place, rtype: str, clause: Clause, limit: int) -> int:
    """See `Reader.count`."""
    options = {"limit": limit} if limit else {}
    return int(await place.database[rtype].count_documents(lower(clause), session=place.session, **options))


def _keys(sort: Sequence[Sort]) -> list[tuple[str, int]]:
    keys = [(FIELDS.get(one.param, f"s.{one.param}"), -1 if one.descending else 1) for one in sort]
    return keys if any(name == "_id" for name, _ in keys) else [*keys, ("_id", 1)]


def _value(row: dict[str, Any], name: str) -> Any:
    value: Any = row
    for step in name.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _behind(keys: list[tuple[str, int]], after: tuple[Any, ...]) -> Filter:
    branches: list[Filter] = []
    for place, (name, direction) in enumerate(keys):
        ties = {earlier: after[index] for index, (earlier, _) in enumerate(keys[:place])}
        branches.append({**ties, name: {"$gt" if direction > 0 else "$lt": after[place]}})
    return {"$or": branches}
