"""Find and count current versions by clause, in a stable order that a cursor can continue: sort keys, missing values last, ties by id.

Three ways to the same order: `_id` and stamps from their indexes; one hot date from the indexes of keys (`by_date`: ties at the edge of a page are
ordered by id in a second query, so the index need not hold ids); any other key computed from the index document (`computed`).
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bson.codec_options import DatetimeConversion

from fhir_server.query.clauses import Clause, Index
from fhir_server.query.indexes import HOT
from fhir_server.store import Sort, Stored
from fhir_server.store.mongo import ask
from fhir_server.store.mongo.document import CODEC, HIDDEN, SHOWN, stored
from fhir_server.store.mongo.lower import Filter, index_by_date, index_by_id, lower
from fhir_server.store.mongo.read import Place, with_blobs
from fhir_server.store.mongo.stems import STEMMED

FIELDS = {"_lastUpdated": "at", "_id": "_id"}
Row = dict[str, Any]
Position = tuple[Any, ...]
NO_PARTS: Mapping[str, Index] = MappingProxyType({})


async def find(place: Place, rtype: str, clause: Clause, sort: Sequence[Sort], limit: int, after: Position, only_ids: bool) -> list[Stored]:
    """See `Reader.find`."""
    by_index = [one.kind for one in sort] == ["d"] and not sort[0].backward
    clause = await place.stems.grafted(rtype, clause)
    wanted, shown = lower(clause, by_index), dict(HIDDEN if only_ids else SHOWN)
    if all(one.param in FIELDS for one in sort):
        keys = _keys(sort)
        index = index_by_id(clause) if keys[0][0] == "_id" and rtype not in HOT else ""
        rows = await _plain(place, rtype, Ordered(wanted, keys, index), limit, after, shown)
        positions = [tuple(row[name] for name, _ in keys) for row in rows]
    elif by_index:
        rows = await by_date(Dates(place, rtype, shown, sort[0].descending, index_by_date(clause)), wanted, limit, after)
        positions = [(row.get("d"), row["_id"]) for row in rows]
    else:
        rows = await computed(place, rtype, wanted, sort, limit, after, shown)
        positions = [(*row.pop("s"), row["_id"]) for row in rows]
    if any("blob" in row for row in rows):
        return [one for row, position in zip(rows, positions, strict=True) for one in await with_blobs(place, rtype, [row], position)]
    found: list[Stored] = []
    for start in range(0, len(rows), ask.BATCH):
        if start:
            await asyncio.sleep(0)  # a long page is made in pieces, so that others have their turns
        found += [stored(rtype, row, position) for row, position in zip(rows[start : start + ask.BATCH], positions[start : start + ask.BATCH])]
    return found


async def count(place: Place, rtype: str, clause: Clause, limit: int) -> int:
    """See `Reader.count`."""
    return await ask.count(place, _counting(rtype, await place.stems.grafted(rtype, clause), limit))


async def quick_count(place: Place, rtype: str, clause: Clause, limit: int, seconds: float) -> int | None:
    """See `Reader.quick_count`."""
    return await ask.quick_count(place, _counting(rtype, await place.stems.grafted(rtype, clause), limit), seconds)


def _counting(rtype: str, clause: Clause, limit: int) -> Row:
    index = index_by_date(clause) if rtype in HOT else ""
    command: Row = {"count": rtype, "query": lower(clause, bool(index)), **({"limit": limit} if limit else {})}
    return command | ({"hint": index} if index else {})


async def refs(place: Place, rtype: str, clause: Clause, heads: Sequence[str], limit: int) -> list[str]:
    """See `Reader.refs`."""
    clause = await place.stems.grafted(rtype, clause)
    parts = place.stems.known if rtype in STEMMED else NO_PARTS
    index = index_by_date(clause) if rtype in HOT else ""
    stages: list[Filter] = [{"$match": lower(clause, bool(index))}]
    if list(heads) == [""]:
        stages.append({"$group": {"_id": "$p"}})
    else:
        lists: list[Any] = [_after_head(head, parts=parts) if head else {"$cond": [{"$gt": ["$p", None]}, ["$p"], []]} for head in heads]
        stages += [{"$project": {"_id": 0, "v": {"$concatArrays": lists}}}, {"$unwind": "$v"}, {"$group": {"_id": "$v"}}]
    if limit:
        stages.append({"$limit": limit})
    rows = await ask.rows(place, {"aggregate": rtype, "pipeline": stages, **({"hint": index} if index else {})})
    return sorted(row["_id"] for row in rows if row["_id"] is not None)


async def explain(place: Place, rtype: str, clause: Clause, sort: Sequence[Sort], limit: int) -> Row:
    """The database's plan for `find`: {filter, sort, plan}."""
    clause = await place.stems.grafted(rtype, clause)
    wanted = lower(clause, [one.kind for one in sort] == ["d"])
    by_index = all(one.param in FIELDS or one.kind == "d" for one in sort)
    order = {"d" if one.kind == "d" else FIELDS[one.param]: -1 if one.descending else 1 for one in sort} if by_index else {}
    command = {"find": rtype, "filter": wanted, "sort": order or {"_id": 1}, "limit": limit}
    index = index_by_date(clause) if "d" in order else index_by_id(clause) if order in ({}, {"_id": 1}) and rtype not in HOT else ""
    if index:
        command["hint"] = index
    question = {"explain": command, "verbosity": "executionStats"}
    answer: Row = await place.database.command(question, codec_options=CODEC.with_options(datetime_conversion=DatetimeConversion.DATETIME_CLAMP))
    return {"filter": wanted, "sort": order, "plan": answer}


@dataclass(frozen=True, slots=True)
class Ordered:
    """A filter, the keys of an order that an index gives, and the name of the index to use, '' for the database's choice."""

    wanted: Filter
    keys: list[tuple[str, int]]
    index: str


async def _plain(place: Place, rtype: str, asked: Ordered, limit: int, after: Position, shown: Row) -> list[Row]:
    wanted = {"$and": [asked.wanted, _behind(asked.keys, after)]} if after else asked.wanted
    projection = shown | {name: 1 for name, _ in asked.keys}
    command = {"find": rtype, "filter": wanted, "projection": projection, "sort": dict(asked.keys), "limit": limit}
    return await ask.rows(place, command | ({"hint": asked.index} if asked.index else {}))


def _keys(sort: Sequence[Sort]) -> list[tuple[str, int]]:
    keys = [(FIELDS[one.param], -1 if one.descending != one.backward else 1) for one in sort]
    backward = any(one.backward for one in sort)
    return keys if any(name == "_id" for name, _ in keys) else [*keys, ("_id", -1 if backward else 1)]


def _behind(keys: list[tuple[str, int]], after: Position) -> Filter:
    branches: list[Filter] = []
    for place, (name, direction) in enumerate(keys):
        ties = {earlier: after[index] for index, (earlier, _) in enumerate(keys[:place])}
        branches.append({**ties, name: {"$gt" if direction > 0 else "$lt": after[place]}})
    return branches[0] if len(branches) == 1 else {"$or": branches}


@dataclass(frozen=True, slots=True)
class Dates:
    """Where and how to read rows by date; index: name of the index to use, '' for the database's choice."""

    place: Place
    rtype: str
    shown: Row
    descending: bool
    index: str

    async def find(self, wanted: Filter, order: Row, limit: int) -> list[Row]:
        """The rows of a filter, at most `limit` (0: all)."""
        command = {"find": self.rtype, "filter": wanted, "projection": self.shown | {"d": 1}, "sort": order, "limit": limit}
        return await ask.rows(self.place, command | ({"hint": self.index} if self.index else {}))


async def by_date(dates: Dates, wanted: Filter, limit: int, after: Position) -> list[Row]:
    """Rows by (d, id), those without d last."""
    rows: list[Row] = []
    bare = wanted
    if after:
        rows = await _tied(dates, wanted, after[0], limit, after[1])
        if after[0] is None or (limit and len(rows) >= limit):
            return rows
        wanted = {"$and": [wanted, {"d": {"$not": {"$gte": after[0]}} if dates.descending else {"$gt": after[0]}}]}
    elif not dates.descending:
        wanted = {"$and": [wanted, {"d": {"$ne": None}}]}
    rows += await _dated(dates, wanted, limit and limit - len(rows))
    if not dates.descending and (not limit or len(rows) < limit):
        rows += await _tied(dates, bare, None, limit and limit - len(rows), "")
    return rows


async def _tied(dates: Dates, wanted: Filter, moment: Any, limit: int, after: str) -> list[Row]:
    """Rows of one date (None: without) by id, behind id `after`."""
    keys = {"$and": [wanted, {"d": moment}, {"_id": {"$gt": after}}]}
    return await dates.find(keys, {"_id": 1}, limit)


async def _dated(dates: Dates, wanted: Filter, limit: int) -> list[Row]:
    """Rows in the order of the index, one more than wanted to see whether the last date goes on; then each date's rows by id."""
    rows = await dates.find(wanted, {"d": -1 if dates.descending else 1}, limit and limit + 1)
    if limit and len(rows) > limit:
        edge = rows[limit - 1].get("d")
        split = rows[limit].get("d") == edge
        rows = [row for row in rows[:limit] if not split or row.get("d") != edge]
        if split:
            return _by_id_within_date(rows) + await _tied(dates, wanted, edge, limit - len(rows), "")
    return _by_id_within_date(rows)


def _by_id_within_date(rows: list[Row]) -> list[Row]:
    """The same order of dates, ids ascending within each."""
    out: list[Row] = []
    start = 0
    for at in range(1, len(rows) + 1):
        if at == len(rows) or rows[at].get("d") != rows[start].get("d"):
            out += sorted(rows[start:at], key=lambda row: row["_id"]) if at - start > 1 else rows[start:at]
            start = at
    return out


async def computed(place: Place, rtype: str, wanted: Filter, sort: Sequence[Sort], limit: int, after: Position, shown: Row) -> list[Row]:
    """Rows by keys computed from the index document; the whole of what matches is looked at, the best rows are kept."""
    backward = any(one.backward for one in sort)
    parts = place.stems.known if rtype in STEMMED else NO_PARTS
    added: Row = {f"s{at}": _sort_value(one, parts) for at, one in enumerate(sort)}
    flags: Row = {f"m{at}": {"$cond": [{"$gt": [f"$s{at}", None]}, 0, 1]} for at in range(len(sort))}
    order: dict[str, int] = {}
    for at, one in enumerate(sort):
        order |= {f"m{at}": -1 if backward else 1, f"s{at}": -1 if one.descending != backward else 1}
    order["_id"] = -1 if backward else 1
    stages: list[Filter] = [{"$match": wanted}, {"$addFields": added}, {"$addFields": flags}]
    if after:
        stages.append({"$match": _behind_computed(list(order.items()), after)})
    stages.append({"$sort": order})
    if limit:
        stages.append({"$limit": limit})
    stages.append({"$project": shown | {"s": [{"$ifNull": [f"$s{at}", None]} for at in range(len(sort))]}})
    return await ask.rows(place, {"aggregate": rtype, "pipeline": stages, "allowDiskUse": True})


def _behind_computed(order: list[tuple[str, int]], after: Position) -> Filter:
    """Behind a position (values, id) in the order (flag, value)*, id."""
    flat: list[Any] = [part for value in after[:-1] for part in (1 if value is None else 0, value)] + [after[-1]]
    branches: list[Filter] = []
    for place, (name, direction) in enumerate(order):
        if flat[place] is None:  # a missing value ties with every missing value
            continue
        ties = {earlier: flat[index] for index, (earlier, _) in enumerate(order[:place])}
        branches.append({**ties, name: {"$gt" if direction > 0 else "$lt": flat[place]}})
    return {"$or": branches}


def _sort_value(sort: Sort, parts: Mapping[str, Index]) -> Any:
    if sort.param in FIELDS:
        return f"${FIELDS[sort.param]}"
    if sort.kind in ("d", "p"):
        return f"${sort.kind}"
    pick = "$max" if sort.descending else "$min"
    if sort.kind == "r":
        kept = {"$filter": {"input": {"$ifNull": ["$r", []]}, "cond": {"$in": ["$$this.k", list(sort.heads)]}}}
        return {pick: {"$map": {"input": kept, "in": "$$this.l"}}}
    return {pick: {"$concatArrays": [_after_head(head, LEFT_OUT.get(head[-1], ""), parts=parts) for head in sort.heads]}}


LEFT_OUT = {"=": "|", "~": "\x02"}  # no sort value: tokens with their system, later parts of family names


def _after_head(head: str, without: str = "", parts: Mapping[str, Index] = NO_PARTS) -> Filter:
    """What follows `head` in the keys that start with it, also those in stems; without: only of keys that do not hold that."""
    tests: list[Filter] = [{"$eq": [{"$indexOfBytes": ["$$this", head]}, 0]}]
    if without:
        tests.append({"$eq": [{"$indexOfBytes": ["$$this", without]}, -1]})
    kept = {"$filter": {"input": {"$concatArrays": [{"$ifNull": ["$k", []]}, *_of_stems(head, parts)]}, "cond": {"$and": tests}}}
    return {"$map": {"input": kept, "in": {"$substrBytes": ["$$this", len(head.encode()), -1]}}}


def _of_stems(head: str, parts: Mapping[str, Index]) -> list[Filter]:
    """The keys under `head` of each stem that a document has; stems with the same keys together, of which there are few."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, part in parts.items():
        if keys := tuple(key for key in part["k"] if key.startswith(head)):
            groups.setdefault(keys, []).append(name)
    return [
        {"$cond": [{"$gt": [{"$size": {"$setIntersection": [{"$ifNull": ["$k", []]}, {"$literal": having}]}}, 0]}, {"$literal": list(keys)}, []]}
        for keys, having in groups.items()
    ]
