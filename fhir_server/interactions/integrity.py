"""Referential integrity: what is referred to is not deleted under the referrer, and (if configured) a reference must resolve.

https://hl7.org/fhir/R4/http.html#delete. Deletions are always checked: 409 names the referrers the caller may see, `_cascade=delete` deletes
them along, all or nothing. With FHIR_REFERENTIAL_INTEGRITY=enforce every literal reference to this server must resolve when it is
written. Snapshot isolation alone would let a deletion and a new reference pass each other: then both touch a guard of the target.
A writer touches one of SHARDS guards, a deletion touches all of them, so that writers about one patient do not wait for each other.
"""

import secrets
from collections.abc import Iterable, Iterator, Sequence

from conformance.outcome import Issue, Refusal, conflict, refuse
from fhir_server.context import Context
from fhir_server.interactions.access import within
from fhir_server.interactions.references import literal, references
from fhir_server.query.clauses import Everything, Ids, Nothing, both
from fhir_server.query.match import matches
from fhir_server.search.keys import refers
from fhir_server.security.visible import referable, visible
from fhir_server.store import Change, Tx

SHARDS = 8
NAMED = 10  # referrers named in a refusal
RECORDS = frozenset({"AuditEvent", "Provenance"})  # they tell of the past: what they name may be gone
Target = tuple[str, str]


async def keep(ctx: Context, tx: Tx, changes: Sequence[Change], cascade: bool = False) -> list[Change]:
    """Check that these changes leave every reference whole; the further deletions that a cascade needs.

    Raises Refusal 409 (referrers, or a cascade beyond FHIR_MAX_DELETE), 422 (a reference that does not resolve, under `enforce`).
    """
    enforce = ctx.settings.referential_integrity == "enforce"
    leaving = {(change.rtype, change.rid): change for change in changes if change.res is None}
    if enforce:
        await _resolve(ctx, tx, changes, leaving)
    if not leaving:
        return []
    if enforce:
        await tx.guard([f"ref:{rtype}/{rid}:{shard}" for rtype, rid in sorted(leaving) for shard in range(SHARDS)])
    if cascade:
        return await _cascade(ctx, tx, changes, leaving)
    await _refuse_referrers(ctx, tx, changes, list(leaving))
    return []


async def _resolve(ctx: Context, tx: Tx, changes: Sequence[Change], leaving: Iterable[Target]) -> None:
    written = {(change.rtype, change.rid) for change in changes if change.res is not None}
    wanted = {target for change in changes for target in _targets(ctx, change)} - written
    if not wanted:
        return
    await tx.guard([f"ref:{rtype}/{rid}:{secrets.randbelow(SHARDS)}" for rtype, rid in sorted(wanted)])
    found = await tx.get_many(sorted(wanted))
    known = {place for place, stored in found.items() if within(ctx, referable(ctx, place[0]), stored)}
    lost = sorted((wanted - known) | (wanted & set(leaving)))
    if lost:
        issues = [Issue("error", "not-found", f"the reference to {rtype}/{rid} does not resolve") for rtype, rid in lost[:NAMED]]
        raise Refusal(422, tuple(issues))


def _targets(ctx: Context, change: Change) -> Iterator[Target]:
    if change.res is not None and change.rtype not in RECORDS:
        for text in references(change.res):
            if target := literal(text, f"{ctx.base}/", ctx.spec.types):
                yield target


async def _types(ctx: Context) -> list[str]:
    return sorted((await ctx.store.types()) - RECORDS)


async def _refuse_referrers(ctx: Context, tx: Tx, changes: Sequence[Change], leaving: Sequence[Target]) -> None:
    """409 if a resource outside the changes, or the new state of one inside, refers to what leaves."""
    inside = {(change.rtype, change.rid) for change in changes}
    found: list[Target] = [
        (change.rtype, change.rid)
        for change in changes
        if change.res is not None and change.rtype not in RECORDS and matches(refers(ctx.spec, change.rtype, leaving), change.index)
    ]
    hidden = False
    for rtype in await _types(ctx):
        hits = await tx.find(rtype, refers(ctx.spec, rtype, leaving), limit=NAMED + len(inside) + 1, only_ids=True)
        others = [(hit.rtype, hit.rid) for hit in hits if (hit.rtype, hit.rid) not in inside]
        seen = await _seen(ctx, tx, rtype, others)
        hidden = hidden or len(seen) < len(others)
        found += seen
    if found or hidden:
        raise _referred(found, hidden)


async def _seen(ctx: Context, tx: Tx, rtype: str, others: Sequence[Target]) -> list[Target]:
    """Those the caller may read."""
    limit = visible(ctx, rtype, "r")
    if not others or isinstance(limit, Everything):
        return list(others)
    if isinstance(limit, Nothing):
        return []
    hits = await tx.find(rtype, both(limit, Ids(tuple(rid for _, rid in others))), limit=len(others), only_ids=True)
    return [(hit.rtype, hit.rid) for hit in hits]


def _deletable(ctx: Context, extra: Iterable[Change]) -> None:
    """409 like without a cascade, if it would reach what the caller may not read and delete."""
    rows = [(change, change.prior) for change in extra if change.prior is not None]
    seen = [change for change, prior in rows if within(ctx, visible(ctx, change.rtype, "r"), prior)]
    if len(seen) < len(rows) or not all(within(ctx, visible(ctx, change.rtype, "d"), prior) for change, prior in rows):
        raise _referred([(change.rtype, change.rid) for change in seen], len(seen) < len(rows))


def _referred(found: Sequence[Target], hidden: bool) -> Refusal:
    """Names referrers that the caller may read; of others it learns no more than that there are some."""
    names = ", ".join(f"{rtype}/{rid}" for rtype, rid in sorted(set(found))[:NAMED])
    more = " and others" if hidden or len(set(found)) > NAMED else ""
    return conflict(f"it is referred to by {names + more if names else 'other resources'}; delete those first, or all at once with _cascade=delete")


async def _cascade(ctx: Context, tx: Tx, changes: Sequence[Change], leaving: dict[Target, Change]) -> list[Change]:
    """Deletions of all that refers, directly or not, to what leaves. What the bundle itself rewrites must no longer refer to it."""
    kept = {(change.rtype, change.rid) for change in changes if change.res is not None}
    bound = ctx.settings.max_delete
    frontier, extra = list(leaving), dict[Target, Change]()
    types = await _types(ctx)
    while frontier:
        following: list[Target] = []
        for rtype in types:
            hits = await tx.find(rtype, refers(ctx.spec, rtype, frontier), limit=bound + len(kept) + len(leaving) + 1)
            for hit in hits:
                place = (hit.rtype, hit.rid)
                if place not in kept and place not in leaving and place not in extra:
                    extra[place] = Change(hit.rtype, hit.rid, None, {}, hit, "DELETE")
                    following.append(place)
        if len(extra) + len(leaving) > bound:
            raise refuse("too-costly", f"the cascade would delete more than {bound} resources", status=409)
        frontier = following
    _deletable(ctx, extra.values())
    await _refuse_referrers(ctx, tx, [*changes, *extra.values()], [*leaving, *extra])
    return list(extra.values())
