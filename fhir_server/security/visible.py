"""The one visibility rule: what a grant lets its caller see or do, as a clause. The only reader of `Grant.rights`.

Every path that reads or writes asks here; a caller without a right gets Nothing, never an error that could be overlooked.
Actions are the letters of SMART scopes, https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html:
c create, r read (also vread, history of an instance), u update and patch, d delete, s search (also history of a type).
"""

from conformance.outcome import forbidden
from fhir_server.context import Context, Grant
from fhir_server.query.clauses import EVERYTHING, Clause, Index, Nothing, either
from fhir_server.query.match import matches

WORDS = {"c": "create", "r": "read", "u": "update", "d": "delete", "s": "search"}


def visible(ctx: Context, rtype: str, action: str) -> Clause:
    """The clause that limits `action` on `rtype`: Everything, Nothing, or the union of the grant's rows."""
    rows = [right.clause for right in ctx.grant.rights if action in right.actions and right.rtype in (rtype, "*")]
    return either(*(EVERYTHING if clause is None else clause for clause in rows))


def required(ctx: Context, rtype: str, action: str) -> Clause:
    """`visible`, refused with 403 where the caller has no such right at all on the type."""
    clause = visible(ctx, rtype, action)
    if isinstance(clause, Nothing):
        raise forbidden(f"this caller may not {WORDS[action]} {rtype}")
    return clause


def covers(ctx: Context, rtype: str, action: str, index: Index, rid: str) -> bool:
    """True if the caller may do `action` on the resource rtype/rid that has this index document."""
    return matches(visible(ctx, rtype, action), index, rid=rid)


def may_feed(grant: Grant) -> bool:
    """True if the caller may send HL7 v2 messages: they create and update resources of any type, so the right must be on all types."""
    return any(right.rtype == "*" and right.clause is None and {"c", "u"} <= right.actions for right in grant.rights)
