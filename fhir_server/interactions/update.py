"""update, update-as-create, conditional update. https://hl7.org/fhir/R4/http.html#update, #upsert, #cond-update

Every update makes a new version, also one that changes nothing: a client that counts on the version it wrote finds it.
"""

from conformance.outcome import bad_request, refuse
from fhir_server.context import Context, Reply, Request
from fhir_server.interactions import answer, conditional, perform
from fhir_server.interactions.steps import ALONE, Step, body_of, checked_id, no_query
from fhir_server.security.visible import required


async def step(ctx: Context, request: Request, place: int = ALONE, full_url: str = "") -> Step:
    """The update that PUT [type]/[id] or PUT [type]?criteria asks for. Raises 400, 403."""
    rtype = request.path[0]
    required(ctx, rtype, "u")
    res = body_of(request, rtype)
    if len(request.path) == 1:
        if "id" in res:
            _checked(res["id"], rtype)
        found = await conditional.criteria(ctx, rtype, request.query)
        return Step("PUT", rtype, "", res, criteria=found, headers=request.headers, place=place, full_url=full_url)
    no_query(request)
    rid = checked_id(request.path[1])
    if "id" not in res:
        raise refuse("required", "an update needs the resource's id in its body", expression=f"{rtype}.id")
    if _checked(res["id"], rtype) != rid:
        raise bad_request("the resource's id is not the one in the URL", f"{rtype}.id")
    return Step("PUT", rtype, rid, res, headers=request.headers, place=place, full_url=full_url)


def _checked(rid: object, rtype: str) -> str:
    if not isinstance(rid, str):
        raise bad_request("the resource's id is not a string", f"{rtype}.id")
    return checked_id(rid)


async def update(ctx: Context, request: Request) -> Reply:
    """200, or 201 where the resource did not exist (any more); 412 for a failed precondition or several matches."""
    (done,), _ = await perform.perform(ctx, [await step(ctx, request)])
    return answer.written(ctx, done)
