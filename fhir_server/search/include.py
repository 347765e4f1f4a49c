"""`_include` and `_revinclude`. https://hl7.org/fhir/R4/search.html#include

Bounded: at most `search_includes` resources a page; what is beyond is reachable by links of relation `related`. Every included resource passes the caller's visibility.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from conformance.path import search_path
from fhir_server.context import Context
from fhir_server.query.clauses import NOTHING, Clause, Ids, both, either
from fhir_server.search import canonical
from fhir_server.search.aliases import merged
from fhir_server.search.bundle import url
from fhir_server.search.plan import Include
from fhir_server.search.schema import Field, schema
from fhir_server.search.types import reference
from fhir_server.store import Stored

Resource = dict[str, Any]
Visible = Callable[[str], Clause]
ANYWHERE = ""  # for a parameter: references wherever they stand (`$everything`)
MOST_ROUNDS = 8
MOST_REFS = 200  # references in one overflow link


@dataclass(slots=True)
class Included:
    """What was found: resources by (type, id), and links to what did not fit."""

    found: dict[tuple[str, str], Stored] = field(default_factory=dict)
    links: list[str] = field(default_factory=list)


async def include(ctx: Context, matches: list[Stored], includes: Iterable[Include], revincludes: Iterable[Include], visible: Visible) -> Included:
    """The resources to include beside the matches."""
    included = Included()
    forward, backward = tuple(includes), tuple(revincludes)
    if not (forward or backward) or not matches:
        return included
    seen = {(one.rtype, one.rid) for one in matches}
    stored = await ctx.store.types() if any(one.source == "*" for one in backward) else ctx.spec.types
    fresh = list(matches)
    for round_ in range(MOST_ROUNDS):
        now = [one for one in forward if one.iterate or round_ == 0]
        back = [one for one in backward if one.iterate or round_ == 0]
        rows = await _forward(ctx, fresh, now, seen, included, visible) if now else []
        rows += await _backward(ctx, fresh, back, seen, included, visible, stored) if back else []
        fresh = rows
        if not fresh or not any(one.iterate for one in (*forward, *backward)):
            break
    return included


def _room(ctx: Context, included: Included) -> int:
    return ctx.settings.search_includes - len(included.found)


def _keep(rows: Iterable[Stored], seen: set[tuple[str, str]], included: Included) -> list[Stored]:
    fresh = [one for one in rows if (one.rtype, one.rid) not in seen]
    for one in fresh:
        seen.add((one.rtype, one.rid))
        included.found[one.rtype, one.rid] = one
    return fresh


async def _forward(
    ctx: Context, rows: list[Stored], wanted: list[Include], seen: set[tuple[str, str]], included: Included, visible: Visible
) -> list[Stored]:
    """Targets of the references of these rows."""
    by_type: dict[str, dict[str, None]] = {}
    for row in rows:
        for ref in _references(ctx, row, wanted):
            kind, _, rid = ref.partition("/")
            if kind in ctx.spec.types and (kind, rid) not in seen and reference.ID.fullmatch(rid):
                by_type.setdefault(kind, {})[rid] = None
    fresh = await _defined(ctx, rows, wanted, seen, included, visible)
    for kind, ids in by_type.items():
        room = max(_room(ctx, included), 0)
        now, later = tuple(ids)[:room], tuple(ids)[room:]
        if later and visible(kind) != NOTHING:
            included.links.append(url(ctx.base, kind, [("_id", ",".join(later[:MOST_REFS]))]))
        if now and visible(kind) != NOTHING:
            fresh += _keep(await ctx.store.find(kind, both(Ids(now), visible(kind)), limit=len(now)), seen, included)
    return fresh


async def _defined(
    ctx: Context, rows: list[Stored], wanted: list[Include], seen: set[tuple[str, str]], included: Included, visible: Visible
) -> list[Stored]:
    """Targets of the canonical references of these rows."""
    named: canonical.Wanted = {}
    for row in rows:
        for one in wanted:
            if row.res is not None and one.source in ("*", row.rtype):
                for asked in fields_of(ctx, row.rtype, one.param):
                    canonical.collect(ctx.spec, asked, one.target, values_of(ctx, row.rtype, asked)(row.res), named)
    fresh: list[Stored] = []
    for kind, texts in named.items():
        room = max(_room(ctx, included), 0)
        if visible(kind) == NOTHING:
            continue
        if room:
            fresh += _keep(await canonical.defined(ctx, kind, texts, visible(kind), room), seen, included)
        else:
            included.links.append(url(ctx.base, kind, [("url", ",".join(tuple(texts)[:MOST_REFS]))]))
    return fresh


def _references(ctx: Context, row: Stored, wanted: list[Include]) -> Iterable[str]:
    for one in wanted:
        if row.res is None or one.source not in ("*", row.rtype):
            continue
        if one.param == ANYWHERE:
            yield from anywhere(row.res, ctx.base)
        for asked in fields_of(ctx, row.rtype, one.param):
            for value in values_of(ctx, row.rtype, asked)(row.res):
                for ref in reference.targets(value, ctx.base):
                    head = ref.partition("/")[0]
                    if one.target in ("", head) and asked.only in ("", head):
                        yield ref


def anywhere(res: Resource, base: str) -> Iterable[str]:
    """Every literal reference in a resource, whatever element it stands in, and the Binaries of its attachments."""
    waiting: list[Any] = [res]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            waiting += one.values()
            url = one.get("url")
            yield from reference.targets(one, base)
            if isinstance(url, str) and reference.normal(url, base).startswith("Binary/"):
                yield reference.normal(url, base)


def fields_of(ctx: Context, rtype: str, code: str) -> list[Field]:
    """The reference parameters that an include names; all for '*'."""
    fields = schema(ctx.spec, rtype).fields
    if code == "*":
        return [one for one in fields.values() if one.type == "reference" and one.code in one.names]
    return [fields[code]] if code in fields else []


def values_of(ctx: Context, rtype: str, asked: Field) -> Callable[[Resource], list[Any]]:
    """The closure that reads a reference parameter from a resource."""
    memo: dict[tuple[str, str], Callable[[Resource], list[Any]]] = ctx.spec.memo.setdefault("search.references", {})
    if (rtype, asked.code) not in memo:
        memo[rtype, asked.code] = search_path(asked.param.expression, spec=ctx.spec)
    return memo[rtype, asked.code]


async def _backward(
    ctx: Context, rows: list[Stored], wanted: list[Include], seen: set[tuple[str, str]], included: Included, visible: Visible, stored: frozenset[str]
) -> list[Stored]:
    """Resources whose references point at these rows."""
    refs: dict[str, list[str]] = {}
    for row in rows:
        refs.setdefault(row.rtype, []).extend((f"{row.rtype}/{row.rid}", *canonical.canonicals_of(row)))
    fresh: list[Stored] = []
    for one in wanted:
        for source in sorted(stored) if one.source == "*" else [one.source]:
            pointed: list[tuple[Field, tuple[str, ...]]] = []
            for asked in fields_of(ctx, source, one.param) if source in stored else ():
                found = tuple(ref for kind, rows_ in refs.items() if _points(ctx, asked, kind, one.target) for ref in rows_)
                if found:
                    pointed.append((asked, found))
            if pointed:
                fresh += await _referrers(ctx, source, pointed, seen, included, visible)
    return fresh


def _points(ctx: Context, asked: Field, kind: str, target: str) -> bool:
    return target in ("", kind) and kind in reference.allowed(ctx.spec, asked)


async def _referrers(
    ctx: Context, source: str, pointed: list[tuple[Field, tuple[str, ...]]], seen: set[tuple[str, str]], included: Included, visible: Visible
) -> list[Stored]:
    """Resources of one type that point at these references by one of the parameters, in one search."""
    room = max(_room(ctx, included), 0)
    clause = both(merged(ctx, source, either(*(reference.to(asked, refs) for asked, refs in pointed))), visible(source))
    rows = await ctx.store.find(source, clause, limit=room + 1)
    if len(rows) > room:
        for asked, refs in pointed:
            for start in range(0, len(refs), MOST_REFS):
                included.links.append(url(ctx.base, source, [(asked.code, ",".join(refs[start : start + MOST_REFS]))]))
    rows = [row for row in rows[:room] if not canonical.of_another_version(partial(_values_in, ctx, row), pointed)]
    return _keep(rows, seen, included)


def _values_in(ctx: Context, row: Stored, asked: Field) -> list[Any]:
    return [] if row.res is None else values_of(ctx, row.rtype, asked)(row.res)
