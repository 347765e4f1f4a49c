"""patch: JSON Patch and FHIRPath Patch, plain and conditional. https://hl7.org/fhir/R4/http.html#patch, https://hl7.org/fhir/R4/fhirpatch.html"""

from collections.abc import Callable

from conformance.codec import decode_value
from conformance.outcome import bad_request, unsupported_media
from fhir_server.context import Context, Reply, Request, Resource
from fhir_server.interactions import answer, conditional, perform
from fhir_server.interactions.fhirpath_patch import fhirpath_patch
from fhir_server.interactions.json_patch import json_patch
from fhir_server.interactions.steps import ALONE, Step, checked_id, no_query
from fhir_server.security.visible import required

JSON_PATCH = "application/json-patch+json"
Patch = Callable[[Resource], Resource]


async def step(ctx: Context, request: Request, place: int = ALONE, full_url: str = "") -> Step:
    """The patch that PATCH [type]/[id] or PATCH [type]?criteria asks for. Raises 400, 403, 415."""
    rtype = request.path[0]
    required(ctx, rtype, "u")
    change = _patch_of(ctx, request)
    if len(request.path) == 1:
        found = await conditional.criteria(ctx, rtype, request.query)
        return Step("PATCH", rtype, patch=change, criteria=found, headers=request.headers, place=place, full_url=full_url)
    no_query(request)
    return Step("PATCH", rtype, checked_id(request.path[1]), patch=change, headers=request.headers, place=place, full_url=full_url)


def _patch_of(ctx: Context, request: Request) -> Patch:
    """The patch document as a function; checked before anything is read."""
    if request.content_type == JSON_PATCH:
        operations = decode_value(request.body)
        return lambda res: json_patch(res, operations)
    if request.res is not None and request.res.get("resourceType") == "Parameters":
        parameters = request.res
        return lambda res: fhirpath_patch(res, parameters, ctx.spec)
    if request.res is not None:
        raise bad_request("a FHIRPath Patch is a Parameters resource")
    raise unsupported_media(f"a patch is {JSON_PATCH}, or a FHIRPath Patch (Parameters) as application/fhir+json or application/fhir+xml")


async def patch(ctx: Context, request: Request) -> Reply:
    """200 with the new version; 404 if there is nothing to patch, 410 if it was deleted, 412 for a failed precondition or several matches."""
    (done,), _ = await perform.perform(ctx, [await step(ctx, request)])
    return answer.written(ctx, done)
