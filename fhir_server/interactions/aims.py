"""What steps turn out to mean once the store is read: which resource each one creates, changes, deletes or finds, and whether it may.

The tables of http.html#ccreate, #cond-update, #cdelete and the preconditions of #concurrency, for one step or a whole bundle.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from conformance.outcome import Refusal, bad_request, conflict, forbidden, gone, not_found, precondition_failed, refuse
from fhir_server.context import Context
from fhir_server.interactions import conditional
from fhir_server.interactions.access import covered, quiet, sees, within
from fhir_server.interactions.commit import draft
from fhir_server.interactions.headers import check_if_match, check_if_none_match
from fhir_server.interactions.steps import Step, checked_id, missing, new_id, placed
from fhir_server.query.match import matches
from fhir_server.security.visible import WORDS, bounded, required, shown, visible
from fhir_server.store import Stored, Tx

CREATE, UPDATE, PATCH, DELETE, MATCHED, NOTHING = "create", "update", "patch", "delete", "matched", "nothing"
WRITES = frozenset({CREATE, UPDATE, PATCH, DELETE})
Identity = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Aim:
    """Do `deed` to the resource `rid`, whose current version or tombstone is `prior`. `number`: the step's position among the steps."""

    number: int
    step: Step
    deed: str
    rid: str
    prior: Stored | None = None

    @property
    def identity(self) -> Identity:
        """(type, id)."""
        return self.step.rtype, self.rid


async def resolve(ctx: Context, tx: Tx, steps: Sequence[Step]) -> list[Aim]:
    """The aims of all steps, in their order; a conditional delete may have several. Raises Refusal with the place of the step."""
    hits = await _hits(ctx, tx, steps)
    priors = await _priors(tx, steps, hits)
    aims: list[Aim] = []
    for number, step in enumerate(steps):
        with placed(step.place):
            if step.method == "DELETE":
                aims += await _delete(ctx, tx, number, step, priors)
            else:
                aims.append(await _aim(ctx, number, step, hits.get(number), priors))
    if len(aims) > 1:
        aims = _settle(ctx, aims)
        _distinct(aims)
    return aims


async def _hits(ctx: Context, tx: Tx, steps: Sequence[Step]) -> dict[int, list[Stored]]:
    """Matches (two at the most) of the criteria of creates, updates and patches."""
    asked = [(number, step.criteria) for number, step in enumerate(steps) if step.criteria is not None and step.method != "DELETE"]
    found = await conditional.find_all(ctx, tx, [wanted for _, wanted in asked])
    return {number: rows for (number, _), rows in zip(asked, found, strict=True)}


async def _priors(tx: Tx, steps: Sequence[Step], hits: dict[int, list[Stored]]) -> dict[Identity, Stored]:
    """Current versions and tombstones of the identities that steps name."""
    wanted = {(step.rtype, step.rid) for step in steps if step.rid and step.method != "POST"}
    for number, rows in hits.items():
        step = steps[number]
        if step.method == "PUT" and not rows and step.res is not None and isinstance(step.res.get("id"), str):
            wanted.add((step.rtype, checked_id(step.res["id"])))
    if len(wanted) == 1:
        (identity,) = wanted
        stored = await tx.get(*identity)
        return {} if stored is None else {identity: stored}
    return await tx.get_many(sorted(wanted), tombstones=True)


async def _aim(ctx: Context, number: int, step: Step, hits: list[Stored] | None, priors: dict[Identity, Stored]) -> Aim:
    if step.method == "POST":
        return _post(number, step, hits)
    if hits is None:
        prior, rid = priors.get((step.rtype, step.rid)), step.rid
    else:
        prior, rid = _conditional_target(ctx, step, conditional.only(hits), priors)
    return await (_put if step.method == "PUT" else _patch)(ctx, number, step, prior, rid)


def _post(number: int, step: Step, hits: list[Stored] | None) -> Aim:
    """https://hl7.org/fhir/R4/http.html#ccreate"""
    match = conditional.only(hits or [])
    return Aim(number, step, CREATE, step.rid or new_id()) if match is None else Aim(number, step, MATCHED, match.rid, match)


def _conditional_target(ctx: Context, step: Step, match: Stored | None, priors: dict[Identity, Stored]) -> tuple[Stored | None, str]:
    """(prior, id) of a conditional update or patch. https://hl7.org/fhir/R4/http.html#cond-update"""
    named = step.res.get("id") if step.res is not None else None
    if match is not None:
        if named not in (None, match.rid):
            raise bad_request("the resource's id is not that of the resource that the criteria match", f"{step.rtype}.id")
        return match, match.rid
    if named is None:
        return None, new_id()
    prior = priors.get((step.rtype, named))
    if prior is not None and prior.res is not None and sees(ctx, "u", prior):
        raise conflict("the criteria match nothing, but the resource's id is in use", f"{step.rtype}.id")
    return prior, named


async def _put(ctx: Context, number: int, step: Step, prior: Stored | None, rid: str) -> Aim:
    """https://hl7.org/fhir/R4/http.html#update, #upsert

    Who may not know of the prior state is answered like for an id never used. Whose rights are bounded may not choose the id of a new
    resource either, else taken ids could be told from free ones.
    """
    live = prior is not None and prior.res is not None
    if prior is not None and not await covered(ctx, required(ctx, step.rtype, "u"), prior):
        raise await _beyond(ctx, step, "u", prior)
    check_if_match(step.headers, prior)
    chosen = step.criteria is None or (step.res is not None and "id" in step.res)
    if prior is None and chosen and bounded(ctx, step.rtype, "u"):
        await quiet(ctx, visible(ctx, step.rtype, "u"))
        raise not_found(step.rtype, rid)
    check_if_none_match(step.headers, prior)
    return Aim(number, step, UPDATE if live else CREATE, rid, prior)


async def _beyond(ctx: Context, step: Step, action: str, prior: Stored) -> Refusal:
    """The refusal of a change to what the caller may not change: 403 if it may see it, else as if it were not there."""
    if prior.res is not None and within(ctx, shown(ctx, step.rtype), prior):
        return forbidden(f"this caller may not {WORDS[action]} this {step.rtype}")
    await quiet(ctx, visible(ctx, step.rtype, action))
    check_if_match(step.headers, None)
    return not_found(step.rtype, prior.rid)


async def _patch(ctx: Context, number: int, step: Step, prior: Stored | None, rid: str) -> Aim:
    """https://hl7.org/fhir/R4/http.html#patch"""
    if prior is None:
        await quiet(ctx, visible(ctx, step.rtype, "u"))
        check_if_match(step.headers, None)
        raise missing(step)
    if not await covered(ctx, required(ctx, step.rtype, "u"), prior):
        raise await _beyond(ctx, step, "u", prior)
    check_if_match(step.headers, prior)
    check_if_none_match(step.headers, prior)
    if prior.res is None:
        raise gone(step.rtype, rid)
    return Aim(number, step, PATCH, rid, prior)


async def _delete(ctx: Context, tx: Tx, number: int, step: Step, priors: dict[Identity, Stored]) -> list[Aim]:
    """https://hl7.org/fhir/R4/http.html#delete: deleting what is not there (any more), or is not the caller's to know of, changes nothing."""
    required(ctx, step.rtype, "d")
    if step.criteria is None:
        found = priors.get((step.rtype, step.rid))
        if found is not None and found.res is not None and not sees(ctx, "d", found) and within(ctx, shown(ctx, step.rtype), found):
            raise forbidden(f"this caller may not delete this {step.rtype}")
        hits = [found] if found is not None and found.res is not None and sees(ctx, "d", found) else []
    else:
        hits = await _delete_hits(ctx, tx, step.criteria)
    if not hits:
        await quiet(ctx, visible(ctx, step.rtype, "d"))
        check_if_match(step.headers, None)
    for hit in hits:
        check_if_match(step.headers, hit)
    return [Aim(number, step, DELETE, hit.rid, hit) for hit in hits] or [Aim(number, step, NOTHING, step.rid)]


async def _delete_hits(ctx: Context, tx: Tx, criteria: conditional.Criteria) -> list[Stored]:
    """One or many, by FHIR_CONDITIONAL_DELETE and FHIR_MAX_DELETE."""
    if ctx.settings.conditional_delete == "single":
        match = conditional.only(await conditional.find(tx, criteria))
        return [match] if match else []
    most = ctx.settings.max_delete
    hits = await conditional.find(tx, criteria, most + 1)
    if len(hits) > most:
        raise refuse("too-costly", f"the criteria match more than {most} resources", status=412)
    return hits


def _settle(ctx: Context, aims: Sequence[Aim]) -> list[Aim]:
    """Aims of a bundle judged against each other, in processing order: deletions first, then creates, then updates.

    A conditional create does not see what the bundle deletes, and finds what an earlier create of the bundle makes; a conditional
    update or patch that such a create would match is refused, since its outcome would depend on the order.
    """
    deleted = {aim.identity for aim in aims if aim.deed == DELETE}
    if not any(aim.step.criteria is not None and aim.step.method != "DELETE" for aim in aims):
        return list(aims)
    settled: list[Aim] = []
    made: dict[str, list[Aim]] = {}
    for aim in aims:
        with placed(aim.step.place):
            if aim.deed == MATCHED and aim.identity in deleted:
                aim = Aim(aim.number, aim.step, CREATE, new_id())
            twin = _twin(ctx, aim, made) if aim.step.criteria is not None and aim.deed == CREATE else None
            if twin is not None and aim.step.method != "POST":
                raise precondition_failed("another entry creates a resource that these criteria match", "multiple-matches")
            settled.append(aim if twin is None else Aim(aim.number, aim.step, MATCHED, twin.rid))
            if twin is None and aim.deed == CREATE and aim.step.res is not None:
                own = aim.step.criteria.guards if aim.step.criteria else frozenset[str]()
                for key in own | conditional.identity_guards(aim.step.res):
                    made.setdefault(key, []).append(aim)
    return settled


def _twin(ctx: Context, aim: Aim, made: Mapping[str, list[Aim]]) -> Aim | None:
    """An earlier create of the bundle that the criteria of this one match. `made`: those creates by guard key; only one that shares a guard can."""
    criteria = aim.step.criteria
    for key in criteria.guards if criteria else ():
        for other in made.get(key, ()):
            if criteria and other.step.res and other.step.rtype == aim.step.rtype:
                with placed(other.step.place):
                    made_of = draft(ctx, other.step.res, other.rid, "POST").change
                if matches(criteria.clause, made_of.index, rid=other.rid, at=ctx.now):
                    return other
    return None


def _distinct(aims: Iterable[Aim]) -> None:
    """400 if two steps are about the same resource: to write or delete it, there or not, resolved identities of conditional ones included."""
    seen: dict[Identity, int] = {}
    for aim in aims:
        if aim.rid and aim.deed != MATCHED and seen.setdefault(aim.identity, aim.number) != aim.number:
            with placed(aim.step.place):
                raise bad_request(f"entry {seen[aim.identity]} of the bundle is about the same resource")
