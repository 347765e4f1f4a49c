"""delete, conditional delete, cascade. https://hl7.org/fhir/R4/http.html#delete, #cdelete

`_cascade=delete` (or the header `X-Cascade: delete`) deletes what refers to the resource as well; it is not part of R4.
A conditional delete with several matches deletes them all, up to FHIR_MAX_DELETE, unless FHIR_CONDITIONAL_DELETE=single.
"""

from conformance.outcome import bad_request
from fhir_server.context import Context, Reply, Request, first
from fhir_server.interactions import answer, conditional, perform
from fhir_server.interactions.steps import ALONE, Step, checked_id, no_query
from fhir_server.security.visible import required

CASCADE = "_cascade"


async def step(ctx: Context, request: Request, place: int = ALONE, full_url: str = "") -> Step:
    """The deletion that DELETE [type]/[id] or DELETE [type]?criteria asks for. Raises 400, 403."""
    rtype = request.path[0]
    required(ctx, rtype, "d")
    cascade = _cascades(request)
    rest = Request(request.method, request.path, tuple(pair for pair in request.query if pair[0] != CASCADE))
    if len(request.path) == 1:
        found = await conditional.criteria(ctx, rtype, rest.query)
        return Step("DELETE", rtype, criteria=found, headers=request.headers, cascade=cascade, place=place, full_url=full_url)
    no_query(rest)
    rid = checked_id(request.path[1])
    return Step("DELETE", rtype, rid, headers=request.headers, cascade=cascade, place=place, full_url=full_url)


def _cascades(request: Request) -> bool:
    asked = first(request.query, CASCADE) or request.headers.get("x-cascade")
    if asked not in (None, "delete", "none"):
        raise bad_request("_cascade must be 'delete' or 'none'")
    return asked == "delete"


async def delete(ctx: Context, request: Request) -> Reply:
    """204 (or 200 with an outcome), also when there was nothing to delete; 409 naming referrers; 412 for several matches, if so configured."""
    (done,), _ = await perform.perform(ctx, [await step(ctx, request)])
    return answer.removed(ctx, done)
