"""What references point at, for profiles that look through them with resolve(). https://hl7.org/fhir/R4/fhirpath.html#functions

Looked up before a resource is judged, in one read, and only where a profile asks: most never do.
"""

from collections.abc import Iterable, Mapping

from conformance.gate.looks import looks_through
from conformance.validate import Resolve, claimed
from fhir_server.context import Context, Resource
from fhir_server.interactions.access import within
from fhir_server.interactions.profiles import renew
from fhir_server.interactions.references import NO_MADE, literal, references
from fhir_server.interactions.validity import needs_profiles, required_of
from fhir_server.security.visible import visible

MAX_RESOLVED = 500  # references looked up for one resource


async def prepared(ctx: Context, res: Resource, made: Mapping[str, Resource] = NO_MADE) -> Resolve | None:
    """Before a resource is judged: the stored profiles known, and what its references point at if a profile of it asks; None if none does.

    made: what the same transaction writes, by 'Type/id'.
    """
    if not needs_profiles(ctx, res):
        return None
    await renew(ctx)
    if not any(looks_through(ctx.spec, url) for url in _profiles(ctx, res)):
        return None
    return await resolver(ctx, res, made)


def _profiles(ctx: Context, res: Resource) -> Iterable[str]:
    yield from claimed(ctx.spec, res)
    if ctx.settings.profiles:
        yield from (url for _, url in required_of(ctx.settings.profiles, res["resourceType"]))


async def resolver(ctx: Context, res: Resource, made: Mapping[str, Resource] = NO_MADE) -> Resolve:
    """What references of the resource, and of the entries of a Bundle, point at, as far as this caller may see it."""
    entries = res.get("entry") if res["resourceType"] == "Bundle" else None
    inner = [each.get("resource") for each in entries if isinstance(each, dict)] if isinstance(entries, list) else []
    texts = dict.fromkeys(text for each in (res, *inner) if isinstance(each, dict) for text in references(each))
    named = {text: ref for text in texts if (ref := literal(text, f"{ctx.base}/", ctx.spec.types)) is not None}
    asked = [ref for ref in dict.fromkeys(named.values()) if "/".join(ref) not in made][:MAX_RESOLVED]
    found = await ctx.store.get_many(asked) if asked else {}
    seen = {ref: one.res for ref, one in found.items() if one.res is not None and within(ctx, visible(ctx, one.rtype, "r"), one)}

    def resolve(text: str) -> Resource | None:
        ref = named.get(text)
        return None if ref is None else made.get("/".join(ref)) or seen.get(ref)

    return resolve
