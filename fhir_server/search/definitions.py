"""Published definitions searched like stored resources: their index documents, and the rows that match a clause, in the store's order.

The definitions of R4 and of the installed packages lie in no database (`conformance.published`). Their index documents are made at the first search
of a type; `query.match`, the oracle of the database's filters, then finds the rows. https://hl7.org/fhir/R4/search.html
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cmp_to_key
from typing import Any

from conformance.published import Source, published, read
from conformance.spec import Spec
from fhir_server.query.clauses import And, Clause, Ids, Index, Keys
from fhir_server.query.match import matches
from fhir_server.search.extract import extractor
from fhir_server.store import Sort, Stored

Resource = dict[str, Any]
Position = tuple[Any, ...]
RELEASED = datetime(2019, 11, 1, 9, 29, 23, tzinfo=UTC)  # R4 4.0.1, for what names no time of its own
VID = 1
BY_URL = "url="  # how a canonical stands among the keys
TURN = 10  # definitions indexed before others have their turn
MEMO = "search.definitions"


@dataclass(frozen=True, slots=True)
class Row:
    """One published definition: when it was changed last, and its index document."""

    at: datetime
    index: Index


def one(spec: Spec, kind: str, rid: str) -> Stored | None:
    """The published definition of this id, None if there is none."""
    source = published(spec, kind).get(rid)
    return None if source is None else stored(kind, rid, source)


def stored(kind: str, rid: str, source: Source, position: Position = (), *, bare: bool = False) -> Stored:
    """The definition as the store would give it: version 1, stamped. bare: without its content."""
    res = read(kind, source)
    at = _at(res)
    stamp = at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"
    meta = {**res.get("meta", {}), "versionId": str(VID), "lastUpdated": stamp}
    return Stored(
        kind, rid, VID, at, {} if bare else {"resourceType": kind, "id": rid, "meta": {}} | res | {"id": rid, "meta": meta}, "PUT", position
    )


def _at(res: Resource) -> datetime:
    text = res.get("meta", {}).get("lastUpdated")
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else RELEASED
    except ValueError:  # a package may say anything
        found = RELEASED
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    return found.astimezone(UTC).replace(microsecond=found.microsecond // 1000 * 1000)


async def prepare(spec: Spec, kind: str, clause: Clause) -> None:
    """Make the index documents that a clause needs, if they are not there: of a whole kind up to a second of work, in which other requests have their turns."""
    found: dict[str, Row] = spec.memo.setdefault(MEMO, {}).setdefault(kind, {})
    sources = published(spec, kind)
    missing = [rid for rid in candidates(spec, kind, clause) if rid not in found] if len(found) < len(sources) else []
    extract = extractor(spec)
    for at, rid in enumerate(missing):
        res = read(kind, sources[rid])
        index = extract({**res, "id": rid})
        if "k" in index:
            index["k"] = frozenset(index["k"])  # looked into far more often than read through
        found[rid] = Row(_at(res), index)
        if at % TURN == TURN - 1:
            await asyncio.sleep(0)


def candidates(spec: Spec, kind: str, clause: Clause) -> Iterable[str]:
    """The ids that could match: those named by a clause on `url` or `_id`, which is what most clients ask by; else all."""
    sources = published(spec, kind)
    if isinstance(clause, Ids):
        return [rid for rid in clause.values if rid in sources]
    if isinstance(clause, And):
        return min((candidates(spec, kind, part) for part in clause.parts), key=lambda found: len(list(found)))
    if isinstance(clause, Keys) and all(value.startswith(BY_URL) for value in clause.values):
        urls = [value.removeprefix(BY_URL).partition("|")[0] for value in clause.values]
        own = [str((Spec(spec.tables).definition(url, kind) or {}).get("id", "")) for url in urls]
        added = [rid for rid, source in sources.items() if isinstance(source, bytes) and any(url.encode() in source for url in urls)]
        return [rid for rid in dict.fromkeys([*own, *added]) if rid in sources]
    return sources


def rows(spec: Spec, kind: str) -> Mapping[str, Row]:
    """The published definitions of a kind that have been indexed, by id, after `prepare`."""
    made: Mapping[str, Row] = spec.memo[MEMO][kind]
    return made


def matching(spec: Spec, kind: str, clause: Clause) -> list[str]:
    """The ids of the published definitions that match."""
    known = rows(spec, kind)
    asked = ((rid, known[rid]) for rid in candidates(spec, kind, clause))
    return [rid for rid, row in asked if matches(clause, row.index, rid=rid, at=row.at)]


def placed(spec: Spec, kind: str, rid: str, sort: Sequence[Sort]) -> Position:
    """The position of a definition in an order, as the store gives it: the sort values, and the id unless it is one of them in an order of stamps."""
    row = rows(spec, kind)[rid]
    values = tuple(_value(each, rid, row) for each in sort)
    plain = all(each.param in ("_id", "_lastUpdated") for each in sort)
    return values if plain and any(each.param == "_id" for each in sort) else (*values, rid)


def _value(sort: Sort, rid: str, row: Row) -> Any:
    if sort.param in ("_id", "_lastUpdated"):
        return rid if sort.param == "_id" else row.at
    if sort.kind in ("d", "p"):
        return row.index.get(sort.kind)
    if sort.kind == "r":
        found = [each["l"] for each in row.index.get("r", ()) if each["k"] in sort.heads]
    else:
        found = [text for head in sort.heads for text in _after(row.index, head)]
    return (max if sort.descending else min)(found, default=None)


def _after(index: Index, head: str) -> Iterable[str]:
    """What follows `head` in the keys that start with it; of a token without system only keys without '|'."""
    bare = head.endswith("=")
    return (key[len(head) :] for key in index.get("k", ()) if key.startswith(head) and not (bare and "|" in key))


def in_order(found: Iterable[Stored], sort: Sequence[Sort]) -> list[Stored]:
    """Rows with positions in the order of `Reader.find`: missing values last, ties by id; all reversed for a page before a position."""

    def by(a: Stored, b: Stored) -> int:
        return compare(a.position, b.position, sort)

    return sorted(found, key=cmp_to_key(by))


def compare(first: Position, second: Position, sort: Sequence[Sort]) -> int:
    """-1 if `first` stands before `second`, 1 if behind, 0 at one place."""
    backward = any(each.backward for each in sort)
    for at, (one_, other) in enumerate(zip(first, second, strict=True)):
        if one_ == other:
            continue
        if one_ is None or other is None:
            before = other is None
        else:
            before = (one_ < other) != (at < len(sort) and sort[at].descending)
        return -1 if before != backward else 1
    return 0


def refs(spec: Spec, kind: str, clause: Clause, heads: Sequence[str]) -> set[str]:
    """The references of the definitions that match: what follows one of `heads` among their keys."""
    found = [rows(spec, kind)[rid].index for rid in matching(spec, kind, clause)]
    return {key[len(head) :] for index in found for head in heads if head for key in index.get("k", ()) if key.startswith(head)}
