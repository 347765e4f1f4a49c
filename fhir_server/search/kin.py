"""`:above` and `:below` on references: through the hierarchy of a type, or over the versions of a canonical. https://hl7.org/fhir/R4/search.html#recursive

A type has a hierarchy where one of its reference parameters names its whole (`Location.partOf`, `Specimen.parent`) and may point at the type itself.
"""

from collections.abc import Callable
from dataclasses import replace

from conformance.outcome import too_costly
from conformance.spec import Spec
from fhir_server.context import Context
from fhir_server.query.clauses import Clause, Ids, Keys, Prefix, both, either
from fhir_server.search.aliases import merged
from fhir_server.search.asked import Asked
from fhir_server.search.canonical import FOLLOWED
from fhir_server.search.escape import unescape
from fhir_server.search.plan import Kin, Node
from fhir_server.search.schema import Field, elements_of, schema
from fhir_server.search.types import reference

Visible = Callable[[str], Clause]
MOST_LEVELS = 50
WHOLES = ("partOf", "parent", "parentDevice")


def hierarchy(spec: Spec, rtype: str) -> Field | None:
    """The parameter of a type that points one level up; None if the type has no hierarchy."""
    paths = {f"{rtype}.{name}" for name in WHOLES}
    return next((one for one in schema(spec, rtype).fields.values() if one.param.expression in paths and rtype in one.param.targets), None)


def related(asked: Asked, text: str) -> Node:
    """What one value of a reference with `:above` or `:below` means. Raises 400 where there is neither a hierarchy nor versions."""
    wanted = unescape(text)
    if not wanted:
        raise asked.wrong("the value is empty")
    kinds = elements_of(asked.spec, asked.field.param)
    absolute = reference.ABSOLUTE.match(reference.normal(wanted, asked.base))
    if asked.modifier == "below" and absolute and (not kinds or FOLLOWED & kinds):
        return versions(asked.field, wanted)
    if not any(hierarchy(asked.spec, rtype) for rtype in reference.allowed(asked.spec, asked.field)):
        raise asked.unsupported("nothing that it may point at has a hierarchy")
    return Kin(asked.field, tuple(dict.fromkeys(reference.candidates(replace(asked, modifier=""), wanted))), asked.modifier == "above")


def versions(field: Field, wanted: str) -> Clause:
    """`:below` on canonicals: a url means all its versions, url|1 also 1.0 and 1.1 (https://hl7.org/fhir/R4/search.html#versions)."""
    exact = Keys(tuple(f"{name}={wanted}" for name in field.names))
    return either(exact, *(Prefix(f"{name}={wanted}{mark}") for name in field.names for mark in ".-")) if "|" in wanted else exact


async def resolve_kin(ctx: Context, node: Kin, visible: Visible) -> Clause:
    """The references that mean one of the given, or what the caller may see above or below it. Raises 400 too-costly."""
    found = dict.fromkeys(node.refs)
    for rtype in dict.fromkeys(ref.partition("/")[0] for ref in node.refs):
        up = hierarchy(ctx.spec, rtype) if rtype in ctx.spec.types else None
        fresh = [ref for ref in node.refs if ref.startswith(f"{rtype}/")] if up else []
        for level in range(MOST_LEVELS + 1):
            if up is None or not fresh:
                break
            if level == MOST_LEVELS or len(found) > ctx.settings.search_chain:
                raise too_costly(f"the hierarchy through '{node.field.code}' has too many levels or resources")
            fresh = [ref for ref in await _next(ctx, rtype, up, fresh, node.above, visible) if ref not in found]
            found |= dict.fromkeys(fresh)
    return reference.to(node.field, tuple(found))


async def _next(ctx: Context, rtype: str, up: Field, refs: list[str], above: bool, visible: Visible) -> list[str]:
    """One level up or down."""
    most = ctx.settings.search_chain + 1
    head = f"{rtype}/"
    if above:
        clause = both(Ids(tuple(ref.removeprefix(head) for ref in refs)), visible(rtype))
        return [head + rid for rid in await ctx.store.refs(rtype, clause, [f"{name}={head}" for name in up.names], most)]
    clause = both(merged(ctx, rtype, reference.to(up, tuple(refs))), visible(rtype))
    return [head + row.rid for row in await ctx.store.find(rtype, clause, limit=most, only_ids=True)]
