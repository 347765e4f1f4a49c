"""Profiles stored over REST, live: what an administrator stores judges the next write in every process, what is deleted judges no more.

The stored ones are looked for when a write needs profiles, at most once in SECONDS; who writes one waits as long before it is answered (`settled`), so
that its answer is the promise. https://hl7.org/fhir/R4/profiling.html
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from conformance.codec import encode
from conformance.gate.usable import KIND, PARTS, judges
from conformance.package import Definition, Package
from conformance.valuesets import MAX_DEPTH
from fhir_server.context import Context, Resource
from fhir_server.query.clauses import EVERYTHING
from fhir_server.search import parse
from fhir_server.search.shelved import unshelved
from fhir_server.store import Sort, Store

log = logging.getLogger("fhir.profiles")
BOUND = ("ValueSet", "CodeSystem")
SECONDS = 0.25
PAGE, MOST = 500, 5000
MEMO = "profiles.seen"
NEWEST = (Sort("_lastUpdated", descending=True),)
NO_ROW = (0, None, frozenset[str]())
Row = tuple[int, Definition | None, frozenset[str]]
"""A stored StructureDefinition: version, the definition (None if it judges nothing), the value sets it binds to."""


@dataclass(slots=True)
class Seen:
    """What a process has seen of one store. rows: by id; bound: what the value sets and code systems were like; at: when (monotonic); taken:
    when something else came to count here."""

    store: Store
    rows: Mapping[str, Row] = field(default_factory=dict)
    bound: tuple[Any, ...] = ()
    at: float = -1e9
    taken: float = -1e9
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


async def renew(ctx: Context) -> None:
    """Make this process know the stored profiles; what it saw less than SECONDS ago is taken as it was."""
    seen = _seen(ctx)
    if time.monotonic() - seen.at < SECONDS:
        return
    async with seen.turn:
        started = time.monotonic()
        if started - seen.at < SECONDS:
            return
        rows = await _rows(ctx, seen)
        bound = await _mark(seen.store) if any(row[2] for row in rows.values()) else ()
        if (rows, bound) != (seen.rows, seen.bound) and await _take(ctx, seen.store, rows):
            seen.taken = time.monotonic()
        seen.rows, seen.bound, seen.at = rows, bound, started


def _seen(ctx: Context) -> Seen:
    store = unshelved(ctx.store)
    found: Seen | None = ctx.spec.memo.get(MEMO)
    if found is None or found.store is not store:
        found = ctx.spec.memo[MEMO] = Seen(store)
    return found


async def _rows(ctx: Context, seen: Seen) -> dict[str, Row]:
    """The stored constraints; read are those that changed."""
    clause = parse.criteria(ctx, KIND, [("derivation", "constraint")])
    found = await seen.store.find(KIND, clause, limit=MOST, only_ids=True)
    if len(found) == MOST:
        log.error("more than %s profiles are stored: the others judge nothing", MOST)
    rows = {one.rid: seen.rows[one.rid] for one in found if seen.rows.get(one.rid, NO_ROW)[0] == one.vid}
    changed = [(KIND, one.rid) for one in found if one.rid not in rows]
    for at in range(0, len(changed), PAGE):
        for one in (await seen.store.get_many(changed[at : at + PAGE])).values():
            if one.res is not None:
                rows[one.rid] = (one.vid, *(_counted(one.res) if judges(ctx.spec, one.res) else (None, frozenset())))
    return rows


def _counted(res: Resource) -> tuple[Definition, frozenset[str]]:
    return _definition(res), frozenset(_bindings(res))


def _definition(res: Resource) -> Definition:
    bare = {name: value for name, value in res.items() if name not in ("text", "meta")}
    return Definition(res["resourceType"], res["url"], str(res.get("version", "")), encode(bare))


def _bindings(res: Resource) -> Iterator[str]:
    for part in PARTS:
        for element in res.get(part, {}).get("element", ()):
            if url := element.get("binding", {}).get("valueSet"):
                yield url.partition("|")[0]


async def _mark(store: Store) -> tuple[Any, ...]:
    """Changes with every write of a value set or code system: the newest version, and how many there are."""
    mark: list[Any] = []
    for kind in BOUND:
        newest = await store.find(kind, EVERYTHING, sort=NEWEST, limit=1, only_ids=True)
        mark += [*((one.rid, one.vid, one.at) for one in newest), await store.count(kind, EVERYTHING)]
    return tuple(mark)


async def _take(ctx: Context, store: Store, rows: Mapping[str, Row]) -> bool:
    """Give the profiles and what they bind to to the Spec, if they are not what it has."""
    found = [definition for _, definition, _ in rows.values() if definition is not None]
    wanted = {url for _, _, urls in rows.values() for url in urls}
    found += [_definition(res) async for res in _bound(ctx, store, wanted)]
    index: dict[str, tuple[Definition, ...]] = {}
    for one in sorted(found, key=lambda one: (one.url, one.version, one.raw)):
        index[one.url] = (*index.get(one.url, ()), one)
    if index == (ctx.spec.stored.index if ctx.spec.stored is not None else {}):
        return False
    ctx.spec.take_stored(Package("stored", "", "stored over REST", "", {}, index) if index else None)
    log.info("stored profiles taken up", extra={"fields": {"definitions": len(found)}})
    return True


async def _bound(ctx: Context, store: Store, wanted: set[str]) -> Any:
    """The stored value sets of these urls, and the value sets and code systems that those include, where R4 and the packages define none."""
    asked: set[str] = set()
    for _ in range(MAX_DEPTH):
        unknown = [url for url in sorted(wanted - asked) if not ctx.spec.published(url)][:MOST]
        asked |= wanted
        wanted = set()
        for url in unknown:
            for kind in BOUND:
                for one in await store.find(kind, parse.criteria(ctx, kind, [("url", url)]), limit=2):
                    if one.res is not None:
                        wanted |= set(_included(one.res))
                        yield one.res
        if not wanted - asked:
            return


def _included(res: Resource) -> Iterator[str]:
    compose = res.get("compose", {})
    for row in (*compose.get("include", ()), *compose.get("exclude", ())):
        yield from (url.partition("|")[0] for url in row.get("valueSet", ()))
        if "system" in row and "concept" not in row:
            yield row["system"]


async def settled(ctx: Context, rtypes: Iterable[str]) -> None:
    """Returns when what was just written of these types judges in every process, also where a request beside this one took it up here first."""
    if not {KIND, *(BOUND if ctx.spec.stored is not None else ())}.isdisjoint(rtypes):
        seen = _seen(ctx)
        seen.at = -1e9
        await renew(ctx)
        await asyncio.sleep(max(0.0, seen.taken + SECONDS - time.monotonic()))
