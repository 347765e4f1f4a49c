"""Conditions that need searches of their own (chains, `_has`, `_list`) -> clauses. Every such search is limited by the caller's visibility."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from conformance.outcome import too_costly
from fhir_server.context import Context
from fhir_server.query.clauses import NOTHING, And, Clause, Dated, Ids, Keys, Or, Patient, both, either, negated
from fhir_server.query.indexes import HOT
from fhir_server.search import canonical
from fhir_server.search.aliases import merged, same
from fhir_server.search.kin import resolve_kin
from fhir_server.search.plan import AllOf, AnyOf, Chain, Has, Kin, Listed, Node, NotOf
from fhir_server.search.types import reference
from fhir_server.store import Sort

Visible = Callable[[str], Clause]
SIDE_BY_SIDE = 4
INSIDE_SECONDS = 0.1  # to see whether anything inside matches; what takes longer is asked for with the rest
T = TypeVar("T")


async def resolve(ctx: Context, node: Node, visible: Visible) -> Clause:
    """The clause of a condition. Raises Refusal (too-costly) if a step goes through more resources than the setting allows."""
    if isinstance(node, Clause):
        return node
    if isinstance(node, AllOf):
        return both(*await _all(ctx, node.parts, visible))
    if isinstance(node, AnyOf):
        return either(*await _all(ctx, node.parts, visible))
    if isinstance(node, NotOf):
        return negated(await resolve(ctx, node.part, visible))
    if isinstance(node, Chain):
        return await _chain(ctx, node, visible)
    if isinstance(node, Has):
        return await _has(ctx, node, visible)
    if isinstance(node, Kin):
        return await resolve_kin(ctx, node, visible)
    return await _listed(ctx, node, visible)


async def _all(ctx: Context, parts: tuple[Node, ...], visible: Visible) -> list[Clause]:
    return await together([resolve(ctx, part, visible) for part in parts])


async def together(questions: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The answers, a few questions side by side: one search of many types or chains must not take all connections to the database."""
    if len(questions) == 1:
        return [await questions[0]]
    found: list[T] = []
    try:
        for start in range(0, len(questions), SIDE_BY_SIDE):
            found += await asyncio.gather(*questions[start : start + SIDE_BY_SIDE])
    finally:
        for question in questions:
            question.close()  # those that were not asked any more because another one failed
    return found


async def steps(ctx: Context, node: Node, visible: Visible) -> list[tuple[str, Clause]]:
    """(type, clause) of the searches of its own that a condition needs, for explanations."""
    if isinstance(node, AllOf | AnyOf):
        return [step for part in node.parts for step in await steps(ctx, part, visible)]
    if isinstance(node, NotOf):
        return await steps(ctx, node.part, visible)
    if not isinstance(node, Chain | Has):
        return []
    rtype = node.target if isinstance(node, Chain) else node.source
    own = both(await resolve(ctx, node.inner, visible), visible(rtype))
    return [*await steps(ctx, node.inner, visible), *([] if own == NOTHING else [(rtype, own)])]


async def _chain(ctx: Context, node: Chain, visible: Visible) -> Clause:
    """What points at a resource that meets the condition: a stored one that the caller may see, or one inside the resource itself."""
    condition = await resolve(ctx, node.inner, visible)
    outside, inside = await together([_pointing(ctx, node, condition, visible), _holding(ctx, node, condition)])
    return either(outside, inside)


async def _holding(ctx: Context, node: Chain, condition: Clause) -> Clause:
    """Chains look into contained resources too (https://hl7.org/fhir/R4/search.html#contained); Nothing where no resource holds one that matches."""
    if _ids_of(condition) is not None:
        return NOTHING
    inside = reference.within(node.field, node.source, node.target, condition)
    if inside == NOTHING:
        return NOTHING
    return NOTHING if await ctx.store.quick_count(node.source, inside, 1, INSIDE_SECONDS) == 0 else inside


async def _pointing(ctx: Context, node: Chain, condition: Clause, visible: Visible) -> Clause:
    inner = both(merged(ctx, node.target, condition), visible(node.target))
    if inner == NOTHING:
        return NOTHING
    if canonical.follows(ctx.spec, node.field, node.target):
        return either(*await together([_by_id(ctx, node, inner), _by_url(ctx, node, inner)]))
    return await _by_id(ctx, node, inner)


async def _by_url(ctx: Context, node: Chain, inner: Clause) -> Clause:
    """What names the url of a definition that meets the clause, with its version or none."""
    most = ctx.settings.search_chain
    found = await ctx.store.refs(node.target, inner, [canonical.DEFINED], most + 1)
    if len(found) > most:
        raise _too_costly(node.field.code, most)
    return canonical.naming(node.field, found)


async def _by_id(ctx: Context, node: Chain, inner: Clause) -> Clause:
    """What names a resource that meets the clause by type and id."""
    known = _ids_of(inner)
    if known is not None:
        return reference.to(node.field, tuple(f"{node.target}/{rid}" for rid in known)) if known else NOTHING
    most = ctx.settings.search_chain
    found = await ctx.store.find(node.target, inner, sort=natural(node.target, inner), limit=most + 1, only_ids=True)
    if len(found) > most:
        raise _too_costly(node.field.code, most)
    return reference.to(node.field, tuple(f"{node.target}/{one.rid}" for one in found)) if found else NOTHING


def _ids_of(clause: Clause) -> tuple[str, ...] | None:
    """The ids, if that is all the clause asks for: `subject:Patient._id=1` needs no search."""
    return clause.values if isinstance(clause, Ids) else None


async def _has(ctx: Context, node: Has, visible: Visible) -> Clause:
    inner = both(merged(ctx, node.source, await resolve(ctx, node.inner, visible)), visible(node.source))
    if inner == NOTHING:
        return NOTHING
    most = ctx.settings.search_chain
    head = f"{node.rtype}/"
    own = node.field.patient and node.rtype == "Patient"
    heads = [""] if own and node.field.single else [f"{name}={head}" for name in node.field.names] + ([""] if own else [])
    found = [ref if ref.startswith(head) else head + ref for ref in await ctx.store.refs(node.source, inner, heads, most + 1)]
    if len(found) > most:
        raise _too_costly(node.field.code, most)
    ids = tuple(dict.fromkeys(one.removeprefix(head) for ref in found for one in same(ctx.store, ref)))
    by_id = Ids(ids) if ids else NOTHING
    return either(by_id, await _named(ctx, node, inner)) if canonical.follows(ctx.spec, node.field, node.rtype) else by_id


async def _named(ctx: Context, node: Has, inner: Clause) -> Clause:
    """The definitions that the canonical references of what meets the clause name."""
    most = ctx.settings.search_chain
    found = await ctx.store.refs(node.source, inner, [f"{name}=" for name in node.field.names], 2 * most + 1)
    if len(found) > 2 * most:
        raise _too_costly(node.field.code, most)
    return canonical.named(text for text in found if "|" in text)


def _too_costly(code: str, most: int) -> Exception:
    return too_costly(f"the chain through '{code}' goes through more than {most} resources; narrow it")


async def _listed(ctx: Context, node: Listed, visible: Visible) -> Clause:
    rows = await ctx.store.find("List", both(Ids((node.rid,)), visible("List")), limit=1)
    entries = rows[0].res.get("entry", ()) if rows and rows[0].res else ()
    refs = [each.get("item", {}).get("reference", "") for each in entries if not each.get("deleted")]
    head = f"{node.rtype}/"
    ids = [rid.removeprefix(head) for rid in (reference.normal(ref, ctx.base) for ref in refs) if rid.startswith(head)]
    return Ids(tuple(dict.fromkeys(ids))) if ids else NOTHING


def selective(clause: Clause) -> bool:
    """The clause asks for one key, one patient or bounds of the hot date, so the index gives the rows by date."""
    parts = clause.parts if hasattr(clause, "parts") else (clause,)
    return any((isinstance(part, Keys | Patient) and len(part.values) == 1) or _bounds_date(part) for part in parts)


def natural(rtype: str, clause: Clause) -> tuple[Sort, ...]:
    """Newest first where the index gives the rows by date, else () for by id."""
    return (Sort(HOT[rtype], True, "d"),) if HOT.get(rtype) and selective(clause) else ()


def _bounds_date(clause: Clause) -> bool:
    if isinstance(clause, Or | And):
        return any(_bounds_date(part) for part in clause.parts)
    return isinstance(clause, Dated)
