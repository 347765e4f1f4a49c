"""Writes, one or many, in one transaction: resolve what they aim at, check preconditions, rewrite references, draft, commit.

create, update, patch and delete are this with one step; a transaction bundle is this with many.
https://hl7.org/fhir/R4/http.html#trules
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conformance.outcome import Issue, Refusal, precondition_failed
from fhir_server.context import Context
from fhir_server.interactions import commit, conditional, profiles, references
from fhir_server.interactions.aims import CREATE, DELETE, MATCHED, NOTHING, WRITES, Aim, resolve
from fhir_server.interactions.commit import Draft
from fhir_server.interactions.references import Links
from fhir_server.interactions.resolving import prepared
from fhir_server.interactions.steps import ALONE, Step, placed
from fhir_server.interactions.survey import Survey, rewrite, survey
from fhir_server.query.match import matches
from fhir_server.security.register import settled
from fhir_server.store import Stored, Tx

BREATH = 50  # resources drafted before other requests get their turn
MAX_ISSUES = 100
STATUS = {CREATE: 201, DELETE: 204, NOTHING: 204}
FOUND = (Issue("information", "informational", "the criteria match an existing resource; nothing was created"),)
Look = Callable[[Tx], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a step. status: HTTP; stored: the new (or matched) version, of several deletions the last; issues: what to say."""

    status: int
    stored: Stored | None
    issues: tuple[Issue, ...] = ()


async def perform(ctx: Context, steps: Sequence[Step], look: Look | None = None) -> tuple[list[Done], Any]:
    """Do all steps or none; (what became of each, what `look` returned, which reads inside the same transaction after the writes).

    Raises Refusal, with the entry's place in a bundle.
    """
    ready = await _drafted_before(ctx, steps)
    cascade = any(step.cascade for step in steps)

    async def body(tx: Tx) -> tuple[list[Done], Any]:
        if guards := _guards(steps):
            await tx.guard(sorted(guards))
        aims = await resolve(ctx, tx, steps)
        writes = [aim for aim in aims if aim.deed in WRITES]
        drafts = await _drafts(ctx, tx, aims, writes, ready)
        stored = await commit.write(ctx, tx, drafts, cascade=cascade) if drafts else []
        done = _done(steps, aims, stored, drafts)
        return done, await look(tx) if look else None

    performed = await ctx.store.transact(body)
    await _settled(ctx, {step.rtype for step in steps})
    return performed


async def create(ctx: Context, step: Step) -> Done:
    """A create without criteria: one insert and no transaction, unless a reference is conditional."""
    ready = await _drafted_before(ctx, [step])
    if 0 not in ready:
        return (await perform(ctx, [step]))[0][0]
    stored = await commit.create(ctx, ready[0])
    await _settled(ctx, {step.rtype})
    return Done(201, stored, ready[0].issues)


async def _settled(ctx: Context, rtypes: set[str]) -> None:
    """Before the answer: what was written of these types counts in every process."""
    await settled(ctx, rtypes)
    await profiles.settled(ctx, rtypes)


def _guards(steps: Iterable[Step]) -> set[str]:
    keys: set[str] = set()
    for step in steps:
        if step.criteria is not None:
            keys |= step.criteria.guards
            keys |= conditional.identity_guards(step.res) if step.res else set()
    return keys


# What can be drafted before anything is read: then a retried transaction does not validate again, and none is held open meanwhile.


async def _drafted_before(ctx: Context, steps: Sequence[Step]) -> dict[int, Draft]:
    """Drafts, by position, of the steps whose new state depends on nothing stored."""
    if any(step.full_url and not step.rid for step in steps):
        return {}
    links = _links(ctx, ((step, step.rid) for step in steps))
    made = {f"{step.rtype}/{step.rid}": step.res for step in steps if step.rid and step.res is not None}
    drafts: dict[int, Draft] = {}
    refusals: list[Refusal] = []
    for number, step in enumerate(steps):
        if step.res is None or not step.rid or step.criteria is not None:
            continue
        try:
            with placed(step.place):
                seen = survey(step.res, ctx.spec, links, references.root_of(step.full_url))
                if references.conditional(seen.sent, links.base, ctx.spec.types):
                    continue
                resolve = await prepared(ctx, seen.res, made)
                drafts[number] = commit.draft(ctx, seen.res, step.rid, step.method, seen=seen, resolve=resolve)
        except Refusal as refusal:
            refusals.append(refusal)
        if number % BREATH == BREATH - 1:
            await asyncio.sleep(0)
    if refusals:
        raise joined(refusals)
    return drafts


def _links(ctx: Context, targets: Iterable[tuple[Step, str]], found: Mapping[str, str] = references.NO_LINKS) -> Links:
    """The links of the entries that these steps came from, each with the id it has on this server."""
    urls: dict[str, str] = {}
    local: dict[str, str] = {}
    for step, rid in targets:
        if step.full_url and rid:
            urls[step.full_url] = f"{step.rtype}/{rid}"
        elif step.place != ALONE and step.method == "POST" and step.res is not None and isinstance(step.res.get("id"), str):
            local[f"{step.rtype}/{step.res['id']}"] = f"{step.rtype}/{rid}"
    return Links(f"{ctx.base}/", urls, local, found)


# Drafting inside the transaction: what depends on the stored state.


async def _drafts(ctx: Context, tx: Tx, aims: Sequence[Aim], writes: Sequence[Aim], ready: Mapping[int, Draft]) -> list[Draft]:
    """A draft for each write, upon its prior version."""
    links = _links(ctx, ((aim.step, aim.rid) for aim in aims if aim.deed not in (DELETE, NOTHING)))
    made = {"/".join(aim.identity): aim.step.res for aim in writes if aim.step.res is not None}
    drafts: list[Draft] = []
    asked: dict[int, set[str]] = {}  # position among the drafts -> conditional references in it
    for aim in writes:
        if aim.number in ready or aim.deed == DELETE:
            drafts.append(commit.onto(ready[aim.number], aim.prior) if aim.deed != DELETE else _deletion(aim))
            continue
        with placed(aim.step.place):
            seen = _new_state(ctx, aim, links)
            if found := references.conditional(seen.texts, links.base, ctx.spec.types):
                asked[len(drafts)] = found
            resolve = await prepared(ctx, seen.res, made)
            drafts.append(commit.draft(ctx, seen.res, aim.rid, aim.step.method, aim.prior, seen=seen, resolve=resolve))
        if len(drafts) % BREATH == 0:
            await asyncio.sleep(0)
    if asked:
        links = _links(ctx, (), await _conditional_references(ctx, tx, set().union(*asked.values()), drafts))
        for position in asked:
            aim, change = writes[position], drafts[position].change
            res = rewrite(change.res or {}, links, ctx.spec)
            with placed(aim.step.place):
                resolve = await prepared(ctx, res, made)
                drafts[position] = commit.draft(ctx, res, aim.rid, aim.step.method, aim.prior, resolve=resolve)
    return drafts


def _deletion(aim: Aim) -> Draft:
    if aim.prior is None:
        raise ValueError("a deletion has a prior version")
    return commit.draft_delete(aim.prior)


def _new_state(ctx: Context, aim: Aim, links: Links) -> Survey:
    """What the resource shall be, its links rewritten except conditional ones."""
    res = aim.step.res
    if aim.step.patch is not None and aim.prior is not None and aim.prior.res is not None:
        res = aim.step.patch(aim.prior.res)
    return survey(res or {}, ctx.spec, links, references.root_of(aim.step.full_url))


async def _conditional_references(ctx: Context, tx: Tx, asked: Iterable[str], drafts: Sequence[Draft]) -> dict[str, str]:
    """What each conditional reference means: exactly one resource, stored or written by this bundle; else 412.

    https://hl7.org/fhir/R4/http.html#trules: resolved after the writes, so what the bundle deletes or changes counts as it is then.
    """
    texts = sorted(asked)
    wanted = [await conditional.from_text(ctx, text.partition("?")[0], text) for text in texts]
    stored = await conditional.find_all(ctx, tx, wanted)
    changes = [made.change for made in drafts]
    rewritten = {(change.rtype, change.rid) for change in changes}
    found: dict[str, str] = {}
    for text, criteria, hits in zip(texts, wanted, stored, strict=True):
        targets = {(hit.rtype, hit.rid) for hit in hits} - rewritten
        targets |= {
            (change.rtype, change.rid)
            for change in changes
            if change.res is not None and change.rtype == criteria.rtype and matches(criteria.clause, change.index, rid=change.rid, at=ctx.now)
        }
        if len(targets) != 1:
            code = "multiple-matches" if targets else "not-found"
            raise precondition_failed(f"a conditional reference to {criteria.rtype} must match exactly one resource", code)
        found[text] = "/".join(targets.pop())
    return found


# The answer.


def _done(steps: Sequence[Step], aims: Sequence[Aim], stored: Sequence[Stored], drafts: Sequence[Draft]) -> list[Done]:
    """One Done per step; `stored` stands in the order of `drafts`, deletions of a cascade behind."""
    versions = {(one.rtype, one.rid): one for one in stored}
    issues = {(made.change.rtype, made.change.rid): made.issues for made in drafts}
    by_step: dict[int, list[Aim]] = {}
    for aim in aims:
        by_step.setdefault(aim.number, []).append(aim)
    done = []
    for number in range(len(steps)):
        last = by_step[number][-1]
        version = versions.get(last.identity, last.prior)
        done.append(Done(STATUS.get(last.deed, 200), version, _told(by_step[number]) + issues.get(last.identity, ())))
    extra = len(stored) - len(drafts)
    if extra and len(steps) == 1:
        done[0] = Done(
            done[0].status,
            done[0].stored,
            (*done[0].issues, Issue("information", "informational", f"{extra} referring resources were deleted along")),
        )
    return done


def _told(aims: Sequence[Aim]) -> tuple[Issue, ...]:
    """What a client should know that the status does not say."""
    if len(aims) > 1:
        return (Issue("information", "informational", f"{len(aims)} resources were deleted"),)
    return FOUND if aims[0].deed == MATCHED else ()


def joined(refusals: Sequence[Refusal]) -> Refusal:
    """One refusal with the issues of all; 400 if any is."""
    issues = tuple(issue for refusal in refusals for issue in refusal.issues)
    return Refusal(min(refusal.status for refusal in refusals), issues[:MAX_ISSUES], refusals[0].headers)
