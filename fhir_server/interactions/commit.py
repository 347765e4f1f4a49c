"""The one door to disk: validate, index, authorise, keep references whole, write.

Whoever stores a resource (REST, bundles, feeds, operations, loaders) drafts it here and writes it here.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from conformance.outcome import Issue, forbidden, refuse
from conformance.validate import Resolve
from fhir_server.context import Context, Resource
from fhir_server.interactions import integrity, together
from fhir_server.interactions.access import within
from fhir_server.interactions.audited import records
from fhir_server.interactions.indexing import MISSHAPEN, index_of
from fhir_server.interactions.retired import redirected
from fhir_server.interactions.survey import Survey, survey
from fhir_server.interactions.validity import judge, level_of, translated
from fhir_server.query.clauses import Clause
from fhir_server.query.match import matches
from fhir_server.search.aliases import known_of
from fhir_server.security.audit import kept
from fhir_server.security.visible import WORDS, measure, required
from fhir_server.store import Change, Stored, Tx

BREATH = 100  # changes authorised before other requests have their turn
MANY = 1000  # changes whose audit trail is made beside the event loop
SERVER_META = ("versionId", "lastUpdated")


@dataclass(frozen=True, slots=True)
class Draft:
    """A version ready to be written: validated and indexed.

    change: what the store gets (res None: a delete; prior as far as known); issues: warnings of the gate.
    """

    change: Change
    issues: tuple[Issue, ...] = ()


def draft(
    ctx: Context,
    res: Resource,
    rid: str,
    method: str,
    prior: Stored | None = None,
    *,
    feed: bool = False,
    seen: Survey | None = None,
    as_is: bool = False,
    resolve: Resolve | None = None,
) -> Draft:
    """A draft of `res` under id `rid`; `res` itself is not changed. The client's versionId and lastUpdated are dropped, its profiles, tags
    and security labels replace those of the prior version (https://hl7.org/fhir/R4/http.html#update).

    feed: it comes from an HL7 v2 message (see `validity.judge`); seen: the survey whose `res` this is, if there was one; as_is: references to merged
    resources stay (else see `redirected`); resolve: what `resolving.prepared` gave for it. Raises Refusal 400/422: not valid.
    """
    told: tuple[Issue, ...] = ()
    seen = survey(res, ctx.spec) if seen is None else seen
    if not as_is and (known := known_of(ctx.store)) is not None:
        seen, told = redirected(ctx, known, seen)
    own = _with_id(seen.res, rid)
    fresh = translated(ctx, own)
    if fresh is not own:  # it has codings and texts that the survey did not see
        seen = Survey(fresh, seen.sent, seen.texts)
    issues = judge(ctx, fresh, feed=feed, resolve=resolve, codings=seen.codings)
    try:
        index = index_of(ctx, fresh, seen.texts, seen.prose)
    except MISSHAPEN as error:
        if level_of(ctx.settings.validation, ctx.source) == "enforce":
            raise
        raise refuse("structure", "an element has a shape that R4 does not give it, so that the resource cannot be indexed") from error
    return Draft(Change(str(res["resourceType"]), rid, fresh, index, prior, method), (*issues, *told))


def draft_delete(prior: Stored) -> Draft:
    """A draft that deletes the current version."""
    return Draft(Change(prior.rtype, prior.rid, None, {}, prior, "DELETE"))


def onto(made: Draft, prior: Stored | None) -> Draft:
    """The draft upon the version it supersedes, read later than the draft was made."""
    return made if prior is None else replace(made, change=replace(made.change, prior=prior))


async def create(ctx: Context, made: Draft) -> Stored:
    """Write a plain create: one insert, unless references must be kept whole."""
    if ctx.settings.referential_integrity == "enforce":
        return (await ctx.store.transact(lambda tx: write(ctx, tx, [made])))[0]
    _authorise(ctx, [made.change])
    if kept(ctx):
        return (await together.put(ctx.store, [made.change, *records(ctx, [made.change])]))[0]
    return await ctx.store.insert(made.change)


async def write(ctx: Context, tx: Tx, drafts: Sequence[Draft], *, cascade: bool = False) -> list[Stored]:
    """Write drafts in an open transaction; at most one per resource. Answers in their order, the further deletions of a cascade behind.

    Raises Refusal 403 (a prior state is not the caller's to change), 409 and 422 (references, see `integrity`).
    """
    changes = [made.change for made in drafts]
    changes += await integrity.keep(ctx, tx, changes, cascade)
    for start in range(0, len(changes), BREATH):
        _authorise(ctx, changes[start : start + BREATH])
        if start:
            await asyncio.sleep(0)
    told = records(ctx, changes) if len(changes) <= MANY else await asyncio.to_thread(records, ctx, changes)
    return (await tx.put([*changes, *told]))[: len(changes)]


def _with_id(res: Resource, rid: str) -> Resource:
    """A copy with this id and without the elements of meta that are the server's."""
    fresh: Resource = {"resourceType": res["resourceType"], "id": rid}
    fresh.update(res)
    fresh["id"] = rid
    if "meta" in res:
        meta = res["meta"]
        if not isinstance(meta, dict):
            raise refuse("structure", "meta is an object", expression=f"{res['resourceType']}.meta")
        kept = {name: value for name, value in meta.items() if name.lstrip("_") not in SERVER_META}
        if kept:
            fresh["meta"] = kept
        else:
            del fresh["meta"]
    return fresh


def _authorise(ctx: Context, changes: Iterable[Change]) -> None:
    """403 unless the caller may change each prior state and write each new one."""
    asked: dict[tuple[str, str], tuple[Clause, Clause]] = {}
    for change in changes:
        prior = change.prior if change.prior is not None and change.prior.res is not None else None
        action = "d" if change.res is None else "c" if change.method == "POST" else "u"  # the update scope covers update-as-create
        found = asked.get((change.rtype, action))
        if found is None:
            found = asked[change.rtype, action] = required(ctx, change.rtype, action), measure(ctx, change.rtype, action)
        clause, content = found
        if prior is not None and not within(ctx, clause, prior):
            raise forbidden(f"this caller may not {WORDS[action]} this {change.rtype}")
        if change.res is not None and not matches(content, change.index, rid=change.rid, at=ctx.now):
            raise forbidden(f"this caller may not {WORDS[action]} {change.rtype} with this content")
