"""The one visibility rule: what a grant lets its caller see or do, as a clause. The only reader of `Grant.rights`.

Every path that reads or writes asks here; a caller without a right gets Nothing, never an error that could be overlooked. DECISIONS.md has
the table of who sees what. Actions are the letters of SMART scopes,
https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html:
c create, r read (also vread, history of an instance), u update and patch, d delete, s search (also history of a type).
"""

from conformance.outcome import Refusal, forbidden
from conformance.spec import DEFINITIONS
from fhir_server.context import Context, Grant, Right
from fhir_server.query.clauses import EVERYTHING, NOTHING, Clause, Everything, Ids, Index, Nothing, both, either, negated
from fhir_server.query.match import matches
from fhir_server.search import aliases, parse
from fhir_server.search.keys import token_clause
from fhir_server.search.types import reference
from fhir_server.security import audit
from fhir_server.security.reach import of_patient

WORDS = {"c": "create", "r": "read", "u": "update", "d": "delete", "s": "search"}
CLEARANCE = "clearance"  # the level of a right that only raises what labels allow: `exchange/clearance.R`
STAFF = frozenset({"Practitioner", "PractitionerRole", "Organization"})
COMPILED, MOST_COMPILED = "security.rights", 20_000


def visible(ctx: Context, rtype: str, action: str) -> Clause:
    """The clause that limits `action` on `rtype`: Everything, Nothing, or the union of the grant's rows without what consents and labels withhold.

    Those rule what is shown. They also keep apps and users from changing what is not theirs to see; not who feeds the record (`system/`).
    Compiled once per admission: that is made anew when consents change, and by the minute where there are any.
    """
    admission = ctx.admission
    if admission is None or admission.grant is not ctx.grant:
        return _visible(ctx, rtype, action)
    found = admission.clauses.get((rtype, action))
    if found is None:
        found = admission.clauses[(rtype, action)] = _visible(ctx, rtype, action)
    return found


def _visible(ctx: Context, rtype: str, action: str) -> Clause:
    if ctx.admission is None or action == "c" or _reserved(ctx, rtype, action):
        return both(scoped(ctx, rtype, action), _changeable(ctx, rtype, action))
    hidden = ctx.admission.withheld(rtype)
    if isinstance(hidden, Nothing):
        return both(scoped(ctx, rtype, action), _changeable(ctx, rtype, action))
    kept = negated(hidden)
    rows = [(right, _meaning(ctx, right, rtype, action)) for right in ctx.grant.rights if action in right.actions and right.rtype in (rtype, "*")]
    free = either(*(clause if action in "ud" and right.level == "system" else both(clause, kept) for right, clause in rows))
    return both(free, _changeable(ctx, rtype, action))


def measure(ctx: Context, rtype: str, action: str) -> Clause:
    """What new content must be: within the grant, and not posing as this exchange's audit trail."""
    return both(scoped(ctx, rtype, action), _changeable(ctx, rtype, "u"))


def _changeable(ctx: Context, rtype: str, action: str) -> Clause:
    """Not the AuditEvents that this exchange made: nobody changes or deletes them."""
    if rtype != audit.RTYPE or action not in "ud" or not audit.kept(ctx):
        return EVERYTHING
    return negated(token_clause(ctx.spec, rtype, "_tag", audit.TAGS, audit.MADE))


def scoped(ctx: Context, rtype: str, action: str) -> Clause:
    """What the grant alone covers."""
    if _reserved(ctx, rtype, action):
        return NOTHING
    return either(*(_meaning(ctx, right, rtype, action) for right in ctx.grant.rights if action in right.actions and right.rtype in (rtype, "*")))


def shown(ctx: Context, rtype: str) -> Clause:
    """What of a type the caller may be shown beside what it asked for (includes, referrers): what it may read or search."""
    return either(visible(ctx, rtype, "r"), visible(ctx, rtype, "s"))


def referable(ctx: Context, rtype: str) -> Clause:
    """What the caller may refer to, where references are checked: what it is shown, and the patient it acts for."""
    patients = [right.who.removeprefix("Patient/") for right in ctx.grant.rights if right.who.startswith("Patient/")] if rtype == "Patient" else []
    return either(shown(ctx, rtype), Ids(tuple(dict.fromkeys(patients))) if patients else NOTHING)


def required(ctx: Context, rtype: str, action: str) -> Clause:
    """`visible`, refused with 403 where the caller has no such right at all on the type."""
    clause = visible(ctx, rtype, action)
    if isinstance(clause, Nothing):
        why = ": definitions change the server for everyone, which takes an administrator" if _reserved(ctx, rtype, action) else ""
        raise forbidden(f"this caller may not {WORDS[action]} {rtype}{why}")
    return clause


def _reserved(ctx: Context, rtype: str, action: str) -> bool:
    """True for writing what defines how this server judges, searches and expands: only administrators may."""
    return rtype in DEFINITIONS and action in "cud" and not ctx.grant.admin


def bounded(ctx: Context, rtype: str, action: str) -> bool:
    """True if the caller's rights are not for all resources of the type: it may then not learn which ids are taken, so it cannot choose one."""
    return not isinstance(scoped(ctx, rtype, action), Everything)


def covers(ctx: Context, rtype: str, action: str, index: Index, rid: str) -> bool:
    """True if the caller may do `action` on the resource rtype/rid that has this index document."""
    return matches(visible(ctx, rtype, action), index, rid=rid)


def may_feed(grant: Grant) -> bool:
    """True if the caller may send HL7 v2 messages: they create and update resources of any type, so the right must be on all types."""
    return any(
        right.level == "system" and right.rtype == "*" and right.clause is None and not right.criteria and {"c", "u"} <= right.actions
        for right in grant.rights
    )


def _meaning(ctx: Context, right: Right, rtype: str, action: str) -> Clause:
    """What one row of a grant covers of a type; compiled once."""
    if right.level == "system" and not right.criteria:
        return EVERYTHING if right.clause is None else right.clause
    compiled: dict[tuple[Right, str, str, str, int], Clause] = ctx.spec.memo.setdefault(COMPILED, {})
    key = (right, rtype, action, ctx.base, aliases.generation(ctx.store))
    if key not in compiled:
        if len(compiled) >= MOST_COMPILED:
            compiled.clear()
        meant = both(_bound(ctx, right, rtype, action), EVERYTHING if right.clause is None else right.clause, _criteria(ctx, right, rtype))
        compiled[key] = aliases.merged(ctx, rtype, meant)
    return compiled[key]


def _bound(ctx: Context, right: Right, rtype: str, action: str) -> Clause:
    """What the right's level reaches: all, one patient's, or what its user may see. A level or user that is none of these reaches nothing."""
    if right.level == "system":
        return EVERYTHING
    who = reference.normal(right.who, ctx.base)
    kind, _, rid = who.partition("/")
    if not rid or not reference.ID.fullmatch(rid):
        return NOTHING
    if kind == "Patient":
        return of_patient(ctx.spec, who, rtype, action)
    return EVERYTHING if right.level == "user" and kind in STAFF else NOTHING


def _criteria(ctx: Context, right: Right, rtype: str) -> Clause:
    """The clause of a granular scope; Nothing where the type does not have such a parameter."""
    if not right.criteria:
        return EVERYTHING
    try:
        return parse.criteria(ctx, rtype, right.criteria)
    except Refusal:
        return NOTHING
