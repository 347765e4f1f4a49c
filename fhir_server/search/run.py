"""A search from its pairs to its Bundle. https://hl7.org/fhir/R4/search.html, https://hl7.org/fhir/R4/http.html#search

The caller's visibility comes in as a function `visible(rtype) -> Clause`, and limits every search this one needs: chains, `_has`, includes.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from conformance.outcome import bad_request, too_costly
from conformance.published import kinds
from fhir_server.context import Context
from fhir_server.query.clauses import EVERYTHING, NOTHING, Clause, Contained, both, either
from fhir_server.query.indexes import HOT
from fhir_server.search import bundle, contained, parse
from fhir_server.search.aliases import merged
from fhir_server.search.cursor import seal, unseal
from fhir_server.search.explain import explained
from fhir_server.search.include import include
from fhir_server.search.keys import compartment as member_of
from fhir_server.search.pace import turn
from fhir_server.search.plan import Plan
from fhir_server.search.resolve import natural, resolve, selective, steps, together
from fhir_server.store import Sort, Stored

Resource = dict[str, Any]
Pair = tuple[str, str]
Visible = Callable[[str], Clause]
FORWARD, BACKWARD = "n", "p"
MOST_CONTAINERS = 5000  # that are read to count what they contain
STRETCH = 50  # rows made into entries before others have their turn
TOTAL_SECONDS = 0.1  # for a total that nobody asked for
BEHIND_ALL_IDS, BEFORE_ALL_IDS = "\U0010ffff", ""


@dataclass(frozen=True, slots=True)
class Scope:
    """One type to search: its clause and its order."""

    rtype: str
    clause: Clause
    sort: tuple[Sort, ...]
    inside: Clause = EVERYTHING  # what contained resources must meet, for `_contained`


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of one page, and whether there are others before and behind."""

    rows: list[Stored]
    before: bool
    behind: bool


async def search(
    ctx: Context,
    rtype: str | None,
    pairs: Sequence[Pair],
    *,
    visible: Visible,
    beside: Visible | None = None,
    path: str,
    compartment: tuple[str, str] | None = None,
) -> Resource:
    """The searchset Bundle.

    rtype: None for all types (or those of `_type`); beside: what may be included (None: as `visible`); path: what stands behind the base in links ('Observation', 'Patient/1/Observation', '');
    compartment: (name, id) to search in. Raises Refusal 400 naming the parameter.
    """
    async with turn(pairs):
        plan = parse.parse(ctx, rtype, pairs)
        bound = bundle.url(ctx.base, path, plan.applied)
        position = unseal(ctx, bound, plan.cursor) if plan.cursor else ()
        scopes = await _scopes(ctx, plan, visible, compartment, str(position[1]) if position else None)
        return await answer(ctx, plan, scopes, bound, position, beside or visible)


async def answer(ctx: Context, plan: Plan, scopes: list[Scope], bound: str, position: tuple[Any, ...], visible: Visible) -> Resource:
    """The page of these scopes at a position (() for the first). bound: the URL that cursors are bound to; scopes are read in their order."""
    inside = plan.contained != "false" and not plan.container
    if plan.summary == "count" or plan.count == 0:
        counted = await (_inside_total(ctx, plan, scopes) if inside else _total(ctx, scopes))
        return bundle.searchset(await _explanation(ctx, plan, scopes, visible) + _told(ctx, plan), {"self": bound}, counted)
    if inside:
        return await _inside(ctx, plan, scopes, bound, position, visible)
    page = await _page(ctx, plan, scopes, position)
    included = await include(ctx, page.rows, plan.includes, plan.revincludes, visible)
    total = await _stated_total(ctx, plan, scopes, page, position)
    trim = bundle.trimmer(ctx.spec, plan)
    if len(page.rows) > STRETCH:
        await asyncio.sleep(0)  # a long page is read, then made: others have their turn between
    entries = await _entries(ctx, page.rows, "match", trim)
    entries += await _entries(ctx, list(included.found.values()), "include", bundle.trimmer(ctx.spec, replace(plan, elements=())))
    entries += await _explanation(ctx, plan, scopes, visible)
    found = bundle.searchset(entries + _told(ctx, plan), _links(ctx, plan, bound, scopes, page, position), total)
    found["link"] += [{"relation": "related", "url": one} for one in included.links]
    return found


async def _inside(ctx: Context, plan: Plan, scopes: list[Scope], bound: str, position: tuple[Any, ...], visible: Visible) -> Resource:
    """The page where contained resources are asked for alone: forwards only, since a page may begin within a container."""
    rows = await _rows(ctx, plan, scopes, position[2:], plan.count + 1, False)
    entries, done, rest = contained.cut(_held(ctx, plan, scopes, rows), contained.shown(position), plan.count)
    behind = done < len(rows) or len(rows) > plan.count
    included = await include(ctx, rows[: done + bool(rest)], plan.includes, plan.revincludes, visible)
    entries += await _entries(ctx, list(included.found.values()), "include", bundle.trimmer(ctx.spec, replace(plan, elements=())))
    total = len(entries) if not position and not behind else None
    if total is None and plan.total in ("accurate", "estimate"):
        total = await _inside_total(ctx, plan, scopes)
    links = {"self": bound if not plan.cursor else _with(bound, plan.cursor)}
    if behind:
        after = (rows[done - 1].rtype, *rows[done - 1].position) if done else position[2:]
        links |= {"first": bound, "next": _with(bound, seal(ctx, bound, (FORWARD, f"{contained.WITHIN}{rest}", *after)))}
    found = bundle.searchset(
        entries + await _explanation(ctx, plan, scopes, visible) + _told(ctx, plan), links, None if plan.total == "none" else total
    )
    found["link"] += [{"relation": "related", "url": one} for one in included.links]
    return found


def _held(ctx: Context, plan: Plan, scopes: list[Scope], rows: list[Stored]) -> list[list[Resource]]:
    """The entries that each container brings."""
    wanted, trim = {one.rtype: one.inside for one in scopes}, bundle.trimmer(ctx.spec, plan)
    return [contained.inner_matches(ctx, plan, row, wanted[row.rtype], trim) for row in rows]


async def _inside_total(ctx: Context, plan: Plan, scopes: list[Scope]) -> int:
    """How many contained resources match: all containers are read. Raises 400 too-costly for more than MOST_CONTAINERS."""
    if await _total(ctx, scopes) > MOST_CONTAINERS:
        raise too_costly(f"contained resources are not counted in more than {MOST_CONTAINERS} others; ask for _total=none, or for containers")
    total = 0
    for scope in scopes:
        after: tuple[Any, ...] = ()
        while rows := await _of(ctx, scope, after, STRETCH, False):
            total += sum(map(len, _held(ctx, plan, scopes, rows)))
            after = rows[-1].position
    return total


async def criteria(ctx: Context, rtype: str, pairs: Sequence[Pair], visible: Visible) -> Clause:
    """The clause of criteria that may use chains, `_has` and `_list`."""
    return merged(ctx, rtype, await resolve(ctx, parse.condition_of(ctx, rtype, pairs), visible))


async def _explanation(ctx: Context, plan: Plan, scopes: list[Scope], visible: Visible) -> list[Resource]:
    """`_explain=true`: the searches of chains and `_has`, then the search itself (for a count too: the one that would find what is counted)."""
    if not plan.explain:
        return []
    inner = [step for one in plan.types for step in await steps(ctx, parse.where(ctx, plan, one), visible)]
    searches = [*((rtype, clause, natural(rtype, clause)) for rtype, clause in inner), *((one.rtype, one.clause, one.sort) for one in scopes)]
    return [bundle.outcome_entry(ctx.base, await explained(ctx, searches, plan.count))]


def _told(ctx: Context, plan: Plan) -> list[Resource]:
    return [bundle.outcome_entry(ctx.base, plan.ignored)] if plan.ignored else []


async def _scopes(ctx: Context, plan: Plan, visible: Visible, compartment: tuple[str, str] | None, given: str | None) -> list[Scope]:
    """What to search, type by type, in the order of their names. given: the order named by a cursor."""
    if plan.contained != "false":
        return await _contained_scopes(ctx, plan, visible, given)
    types: Sequence[str] = plan.types
    if len(types) != 1:
        stored = await ctx.store.types() | (set(types) & kinds(ctx.spec))  # published definitions are searched where their type is named
        types = sorted(one for one in stored & ctx.spec.types if not types or one in types)
    clauses = await together([_clause(ctx, plan, one, visible, compartment) for one in types])
    return [Scope(one, clause, _order(ctx, plan, one, clause, given, len(types) > 1)) for one, clause in zip(types, clauses) if clause != NOTHING]


async def _clause(ctx: Context, plan: Plan, rtype: str, visible: Visible, compartment: tuple[str, str] | None) -> Clause:
    seen = visible(rtype)
    within = member_of(ctx.spec, *compartment, rtype) if compartment else EVERYTHING
    if NOTHING in (seen, within):
        parse.where(ctx, plan, rtype)  # a malformed query is refused whatever its caller may see
        return NOTHING
    return both(merged(ctx, rtype, both(await resolve(ctx, parse.where(ctx, plan, rtype), visible), within)), seen)


async def _contained_scopes(ctx: Context, plan: Plan, visible: Visible, given: str | None) -> list[Scope]:
    """`_contained=true|both`: types whose resources contain what is searched."""
    if len(plan.types) != 1:
        raise bad_request("search parameter '_contained' needs a search on one type")
    rtype = plan.types[0]
    wanted = await resolve(ctx, parse.where(ctx, plan, rtype), visible)
    scopes = []
    for one in sorted(await ctx.store.types() & ctx.spec.types):
        inside: Clause = Contained(rtype, wanted)
        clause = both(either(inside, wanted) if plan.contained == "both" and one == rtype else inside, visible(one))
        if clause != NOTHING:
            scopes.append(Scope(one, clause, _order(ctx, plan, rtype, clause, given, True), wanted))
    return scopes


def _order(ctx: Context, plan: Plan, rtype: str, clause: Clause, given: str | None, several: bool) -> tuple[Sort, ...]:
    """As asked; else newest first where the index gives that, else by id."""
    if plan.sort:
        return parse.order(ctx, plan, rtype)
    by_date = given == "d" if given is not None else not several and bool(HOT.get(rtype)) and selective(clause)
    return (Sort(HOT[rtype], True, "d"),) if by_date else ()


async def _page(ctx: Context, plan: Plan, scopes: list[Scope], position: tuple[Any, ...]) -> Page:
    """The rows behind (or, backwards, before) a position: (direction, order, type, sort values ..., id)."""
    backward = bool(position) and position[0] == BACKWARD
    rows = await _rows(ctx, plan, scopes, position[2:], plan.count + 1, backward)
    more = len(rows) > plan.count
    rows = rows[: plan.count]
    if backward:
        return Page(rows[::-1], more, True)
    return Page(rows, bool(position), more)


async def _rows(ctx: Context, plan: Plan, scopes: list[Scope], after: tuple[Any, ...], limit: int, backward: bool) -> list[Stored]:
    if len(scopes) == 1:
        return await _of(ctx, scopes[0], after[1:], limit, backward)
    if not plan.sort:
        return await _type_by_type(ctx, scopes, after, limit, backward)
    lists = await together([_of(ctx, one, _behind(one.rtype, after, backward), limit, backward) for one in scopes])
    rows = [row for found in lists for row in found]
    return _merged(rows, scopes[0].sort, backward)[:limit]


async def _of(ctx: Context, scope: Scope, after: tuple[Any, ...], limit: int, backward: bool) -> list[Stored]:
    sort = scope.sort or (Sort("_id"),)
    if backward:
        sort = tuple(Sort(one.param, one.descending, one.kind, one.heads, True) for one in sort)
    return await ctx.store.find(scope.rtype, scope.clause, sort=sort, limit=limit, after=after)


async def _type_by_type(ctx: Context, scopes: list[Scope], after: tuple[Any, ...], limit: int, backward: bool) -> list[Stored]:
    """All of one type by id, then the next type."""
    rows: list[Stored] = []
    ordered = scopes[::-1] if backward else scopes
    for scope in ordered[_place(ordered, after) :]:
        start = after[1:] if after and scope.rtype == after[0] else ()
        rows += await _of(ctx, scope, start, limit - len(rows), backward)
        if len(rows) >= limit:
            break
    return rows


def _place(scopes: list[Scope], after: tuple[Any, ...]) -> int:
    """Where to go on: the scope of the position's type (the first, if nobody sees that type any more)."""
    return next((at for at, scope in enumerate(scopes) if after and scope.rtype == after[0]), 0)


def _behind(rtype: str, after: tuple[Any, ...], backward: bool) -> tuple[Any, ...]:
    """The position in one type's order that a position in the merged order (values, type, id) means."""
    if not after:
        return ()
    kind, values = after[0], after[1:-1]
    if rtype == kind:
        return after[1:]
    return (*values, BEFORE_ALL_IDS if (rtype > kind) != backward else BEHIND_ALL_IDS)


def _merged(rows: list[Stored], sort: tuple[Sort, ...], backward: bool) -> list[Stored]:
    """Rows of several types in one order: values, missing last, then type and id."""
    rows = sorted(rows, key=lambda row: (row.rtype, row.rid), reverse=backward)
    for at in range(len(sort) - 1, -1, -1):
        present = [row for row in rows if row.position[at] is not None]
        absent = [row for row in rows if row.position[at] is None]
        present.sort(key=lambda row: row.position[at], reverse=sort[at].descending != backward)
        rows = absent + present if backward else present + absent
    return rows


async def _total(ctx: Context, scopes: list[Scope]) -> int:
    return sum(await together([ctx.store.count(one.rtype, one.clause) for one in scopes]))


async def _small_total(ctx: Context, scopes: list[Scope], most: int) -> int | None:
    """The number of matches if it is not above `most` and the database knows it in a moment."""
    counts = await together([ctx.store.quick_count(one.rtype, one.clause, most + 1, TOTAL_SECONDS) for one in scopes])
    total = sum(found for found in counts if found is not None)
    return None if None in counts or total > most else total


async def _stated_total(ctx: Context, plan: Plan, scopes: list[Scope], page: Page, position: tuple[Any, ...]) -> int | None:
    """The number of matches, if it is asked for, known already, or small enough to be counted."""
    if plan.total == "none":
        return None
    if not position and not page.behind:
        return len(page.rows)
    if plan.total in ("accurate", "estimate"):
        return await _total(ctx, scopes)
    most = ctx.settings.search_total
    return None if position or not most or _newest(plan, scopes) else await _small_total(ctx, scopes, most)


def _newest(plan: Plan, scopes: list[Scope]) -> bool:
    """The newest are asked for (`_sort=-date`), not how many there are: counting would cost half as much again as finding them."""
    return bool(plan.sort) and [(key.kind, key.descending) for one in scopes for key in one.sort] == [("d", True)]


async def _entries(ctx: Context, rows: list[Stored], mode: str, trim: bundle.Trim) -> list[Resource]:
    """Some rows at a stretch: others have their turns between."""
    entries: list[Resource] = []
    for start in range(0, len(rows), STRETCH):
        if start:
            await asyncio.sleep(0)
        entries += [bundle.entry(ctx.base, trim(row.res), mode) for row in rows[start : start + STRETCH] if row.res is not None]
    return entries


def _links(ctx: Context, plan: Plan, bound: str, scopes: list[Scope], page: Page, position: tuple[Any, ...]) -> dict[str, str]:
    """first, self, next, previous."""
    links = {"self": bound if not plan.cursor else _with(bound, plan.cursor)}
    if not page.rows or not (page.before or page.behind):
        return links
    order = "d" if scopes and not plan.sort and scopes[0].sort else ""
    links["first"] = bound
    if page.behind:
        links["next"] = _with(bound, seal(ctx, bound, (FORWARD, order, page.rows[-1].rtype, *page.rows[-1].position)))
    if page.before:
        links["previous"] = _with(bound, seal(ctx, bound, (BACKWARD, order, page.rows[0].rtype, *page.rows[0].position)))
    return links


def _with(bound: str, cursor: str) -> str:
    return f"{bound}{'&' if '?' in bound else '?'}_cursor={cursor}"
