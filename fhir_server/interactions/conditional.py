"""Criteria of conditional interactions: what they match, and the guards that make racing writers exclude each other.

https://hl7.org/fhir/R4/http.html#ccreate, #cond-update, #cdelete. Two conditional writers that could create the same resource touch a
common guard document, so that one of them waits and then finds what the other wrote:
- a writer touches a guard for every identifier *value* in its criteria and in the resource it writes (the value alone, so that
  `identifier=sys|1`, `identifier=1` and `identifier=sys|1&active=true` all share one);
- criteria without an identifier value touch a guard for each of their terms.
Plain creates and updates touch none: who wants uniqueness says so with criteria.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl

from conformance.outcome import NO_HEADERS, bad_request, precondition_failed, refuse
from fhir_server.context import Context, Resource
from fhir_server.interactions.indexing import index_of
from fhir_server.query.clauses import Clause, both, either
from fhir_server.query.match import matches
from fhir_server.search.run import criteria as search_criteria
from fhir_server.security.visible import required, visible
from fhir_server.store import Reader, Stored

CHUNK = 50  # criteria that share one query
MAX_GUARDED = 20  # identifiers of one resource that are guarded
RESULT_PARAMS = frozenset({"_format", "_pretty", "_summary", "_elements", "_count", "_sort", "_total"})


@dataclass(frozen=True, slots=True)
class Criteria:
    """Parsed criteria: clause already limited to what the caller may search; guards: keys that exclude rival writers."""

    rtype: str
    clause: Clause
    guards: frozenset[str]


async def criteria(ctx: Context, rtype: str, pairs: Sequence[tuple[str, str]]) -> Criteria:
    """Criteria from parameters; chains are resolved now, before any transaction.

    Raises 400 for none at all or unsupported ones, 403 without the right to search.
    """
    wanted = [(name, value) for name, value in pairs if name not in RESULT_PARAMS]
    if not wanted:
        raise bad_request("a conditional interaction needs search criteria")
    if any(not value for _, value in wanted):
        raise refuse("invalid", "criteria of a conditional interaction need values", status=412)
    limit = required(ctx, rtype, "s")
    strict = replace(ctx, prefer=NO_HEADERS)  # an unknown criterion must never be dropped: it would widen a delete
    clause = await search_criteria(strict, rtype, wanted, lambda other: visible(ctx, other, "s"))
    return Criteria(rtype, both(clause, limit), frozenset(_guards(rtype, wanted)))


async def from_text(ctx: Context, rtype: str, text: str) -> Criteria:
    """Criteria from a query string: If-None-Exist, a conditional reference. A leading 'Patient?' or '?' is dropped."""
    query = text.removeprefix(rtype).removeprefix("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=100)
    except ValueError as error:
        raise bad_request("the criteria are not a query string") from error
    return await criteria(ctx, rtype, pairs)


def _guards(rtype: str, pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    terms = [(name, value) for name, value in pairs]
    identifiers = [value for name, value in terms if name == "identifier"]
    values = [token.rpartition("|")[2] for value in identifiers for token in value.split(",")]
    if any(values):
        yield from (guard(rtype, "identifier", value) for value in values if value)
    else:
        yield from (guard(rtype, name, value) for name, value in terms)


def guard(rtype: str, name: str, value: str) -> str:
    """The guard key of a term; hashed, so that no patient's number stands in a guard document."""
    return hashlib.sha256(f"{rtype}?{name}={value.casefold()}".encode()).hexdigest()[:32]


def identity_guards(res: Resource) -> set[str]:
    """Guards for the identifiers that a resource carries (`identifier`, one or many)."""
    found = res.get("identifier")
    rows = found if isinstance(found, list) else [found]
    values = [row["value"] for row in rows[:MAX_GUARDED] if isinstance(row, dict) and isinstance(row.get("value"), str)]
    return {guard(str(res["resourceType"]), "identifier", value) for value in values}


async def find(reader: Reader, wanted: Criteria, limit: int = 2) -> list[Stored]:
    """At most `limit` current resources that match."""
    return await reader.find(wanted.rtype, wanted.clause, limit=limit)


async def find_all(ctx: Context, reader: Reader, wanted: Sequence[Criteria]) -> list[list[Stored]]:
    """At most two matches of each, asked for CHUNK at a time with one query per type."""
    found: dict[Criteria, list[Stored]] = {}
    by_type: dict[str, list[Criteria]] = {}
    for one in dict.fromkeys(wanted):
        by_type.setdefault(one.rtype, []).append(one)
    for rows in by_type.values():
        for start in range(0, len(rows), CHUNK):
            found.update(await _find_chunk(ctx, reader, rows[start : start + CHUNK]))
    return [found[one] for one in wanted]


async def _find_chunk(ctx: Context, reader: Reader, rows: list[Criteria]) -> dict[Criteria, list[Stored]]:
    if len(rows) == 1:
        return {rows[0]: await find(reader, rows[0])}
    limit = 2 * len(rows) + 1
    hits = await reader.find(rows[0].rtype, either(*(row.clause for row in rows)), limit=limit)
    if len(hits) == limit:  # a criterion with many matches may hide another's
        return {row: await find(reader, row) for row in rows}
    indexes = [(hit, index_of(ctx, hit.res or {})) for hit in hits]
    return {row: [hit for hit, index in indexes if matches(row.clause, index, rid=hit.rid, at=hit.at)] for row in rows}


def only(hits: Sequence[Stored]) -> Stored | None:
    """The one match, None if there is none. Raises 412 if there are several: the criteria are not selective enough."""
    if len(hits) > 1:
        raise precondition_failed("the criteria match more than one resource", "multiple-matches")
    return hits[0] if hits else None
