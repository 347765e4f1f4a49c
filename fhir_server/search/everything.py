"""All of a compartment, page by page, with what it refers to: the searches behind `$everything`.

https://hl7.org/fhir/R4/patient-operation-everything.html, https://hl7.org/fhir/R4/encounter-operation-everything.html
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from conformance.dates import interval
from conformance.outcome import bad_request, not_supported
from fhir_server.context import Context
from fhir_server.query.clauses import EVERYTHING, NOTHING, Clause, Updated, both, either, negated
from fhir_server.query.indexes import HOT
from fhir_server.search import bundle, parse
from fhir_server.search.aliases import merged
from fhir_server.search.condition import Pair, ask, presence, short
from fhir_server.search.cursor import unseal
from fhir_server.search.include import ANYWHERE
from fhir_server.search.keys import compartment as member_of
from fhir_server.search.plan import Include, Plan
from fhir_server.search.run import Scope, Visible, answer
from fhir_server.search.schema import schema
from fhir_server.search.types import date

Resource = dict[str, Any]
NAMES = ("start", "end", "_since", "_type", "_count", "_cursor", "_format", "_pretty")


async def everything(
    ctx: Context, name: str, rid: str | None, pairs: Sequence[Pair], *, visible: Visible, shown: Visible | None = None, path: str
) -> Resource:
    """The compartment of one resource (rid None: of all that the caller sees), the focal resource first. Raises Refusal 400 naming the parameter."""
    given = _given(pairs)
    types = await _types(ctx, name, given.get("_type", ""))
    scopes = [Scope(rtype, clause, ()) for rtype in types if (clause := _clause(ctx, name, rid, rtype, given, visible)) != NOTHING]
    applied = tuple(pair for pair in pairs if pair[0] not in ("_cursor", "_format", "_pretty"))
    bound = bundle.url(ctx.base, path, applied)
    plan = Plan(
        (), count=_count(ctx, given), cursor=given.get("_cursor", ""), includes=(Include("*", "*", ""), Include("*", ANYWHERE, "")), applied=applied
    )
    position = unseal(ctx, bound, plan.cursor) if plan.cursor else ()
    if plan.count == 0:
        plan = replace(plan, summary="count")
    members = {rtype for rtype, codes in ctx.spec.compartments[name].items() if codes} | {name}
    asked = {one for one in given.get("_type", "").split(",") if one}

    def beside(rtype: str) -> Clause:
        """What is referred to is included if the compartment cannot bring it as its own."""
        return NOTHING if rtype in members or (asked and rtype not in asked) else (shown or visible)(rtype)

    return await answer(ctx, plan, scopes, bound, position, beside)


def _given(pairs: Sequence[Pair]) -> dict[str, str]:
    given: dict[str, str] = {}
    for key, value in pairs:
        if key not in NAMES:
            raise not_supported(f"parameter '{short(key)}' is not supported by $everything")
        given[key] = f"{given[key]},{value}" if key == "_type" and key in given else value
    return given


def _count(ctx: Context, given: dict[str, str]) -> int:
    text = given.get("_count", "")
    if text and not text.isdecimal():
        raise bad_request("parameter '_count': the value must be a whole number of 0 or more")
    return min(int(text), ctx.settings.max_page_size) if text else ctx.settings.max_page_size


async def _types(ctx: Context, name: str, wanted: str) -> list[str]:
    """The focal type, then the others of the compartment by name."""
    asked = [one for one in wanted.split(",") if one]
    for one in asked:
        if one not in ctx.spec.types:
            raise bad_request(f"parameter '_type': '{short(one)}' is not a resource type")
    members = {rtype for rtype, codes in ctx.spec.compartments[name].items() if codes} | {name}
    stored = await ctx.store.types()
    return [one for one in (name, *sorted(members - {name})) if one in stored and (not asked or one in asked)]


def _clause(ctx: Context, name: str, rid: str | None, rtype: str, given: dict[str, str], visible: Visible) -> Clause:
    member = merged(ctx, rtype, member_of(ctx.spec, name, rid, rtype)) if rid is not None else EVERYTHING
    since = Updated(ge=_bound("_since", given["_since"])[0]) if "_since" in given else EVERYTHING
    return both(member, visible(rtype), since, _dated(ctx, rtype, given) if rtype != name else EVERYTHING)


def _dated(ctx: Context, rtype: str, given: dict[str, str]) -> Clause:
    """`start` and `end`: the type's clinical date overlaps; what has no such date stays."""
    code = HOT.get(rtype, "")
    if not code or not ({"start", "end"} & set(given)):
        return EVERYTHING
    low = _bound("start", given["start"])[0] if "start" in given else None
    high = _bound("end", given["end"])[1] if "end" in given else None
    field = schema(ctx.spec, rtype).fields[code]
    overlapping = date.of(field, (date.Bounds(low_lt=high, high_gt=low),))
    return either(overlapping, negated(presence(ask(parse.reading(ctx), rtype, code))))


def _bound(name: str, text: str) -> tuple[Any, Any]:
    try:
        return interval(text.replace(" ", "+"))
    except ValueError as error:
        raise bad_request(f"parameter '{name}': the value must be a date or an instant") from error
