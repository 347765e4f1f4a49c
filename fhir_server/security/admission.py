"""What the store must say before a caller is known: whom a RelatedPerson acts for. Asked once per request, before the route.

The rule itself (`visible`) stays a function of the grant: what is looked up here is written into the grant's rights. A user who is a
RelatedPerson sees what the patient of that RelatedPerson sees, while it is active and within its period
(https://hl7.org/fhir/R4/relatedperson.html); without admission such a right reaches nothing.
"""

from dataclasses import replace
from datetime import datetime

from conformance.dates import interval
from fhir_server.context import Context, Resource
from fhir_server.search.types import reference

RELATED = "RelatedPerson"


async def admit(ctx: Context) -> Context:
    """The context with a grant that says whom each right is for."""
    if not any(reference.normal(right.who, ctx.base).startswith(f"{RELATED}/") for right in ctx.grant.rights):
        return ctx
    rights = [replace(right, who=await _patient_of(ctx, reference.normal(right.who, ctx.base))) for right in ctx.grant.rights]
    return replace(ctx, grant=replace(ctx.grant, rights=tuple(rights)))


async def _patient_of(ctx: Context, who: str) -> str:
    """The patient that a RelatedPerson acts for ('' if none, or not now); any other reference as it is."""
    kind, _, rid = who.partition("/")
    if kind != RELATED:
        return who
    stored = await ctx.store.get(kind, rid)
    res = stored.res if stored is not None else None
    if res is None or res.get("active") is False or not _within(res.get("period"), ctx.now):
        return ""
    found = res.get("patient")
    patient = reference.normal(str(found.get("reference", "")), ctx.base) if isinstance(found, dict) else ""
    return patient if patient.startswith("Patient/") else ""


def _within(period: Resource | None, now: datetime) -> bool:
    """True if a moment lies in a Period (no period, no side: open)."""
    if not isinstance(period, dict):
        return True
    try:
        started = "start" not in period or interval(str(period["start"]))[0] <= now
        return started and ("end" not in period or now < interval(str(period["end"]))[1])
    except ValueError:
        return False
