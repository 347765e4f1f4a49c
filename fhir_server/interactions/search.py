"""search on a type, in a compartment, over everything; by GET and POST. https://hl7.org/fhir/R4/http.html#search, #vsearch"""

from collections.abc import Callable

from conformance.outcome import bad_request, unsupported_media
from fhir_server.context import Context, Reply, Request
from fhir_server.interactions.stored_terms import for_search
from fhir_server.query.clauses import Clause
from fhir_server.search.run import search
from fhir_server.security.visible import required, shown, visible


async def search_type(ctx: Context, request: Request) -> Reply:
    """GET [type]?..., POST [type]/_search. Raises 400 naming the parameter, 403."""
    _form_only(request)
    rtype = request.path[0]
    required(ctx, rtype, "s")
    return Reply(200, await search(await for_search(ctx, request), rtype, request.query, visible=_seen(ctx), beside=_beside(ctx), path=rtype))


async def search_system(ctx: Context, request: Request) -> Reply:
    """GET [base]?..., POST _search: all types, or those of `_type`."""
    _form_only(request)
    if not request.query:
        raise bad_request("a search of all types needs parameters; the CapabilityStatement is at /metadata")
    return Reply(200, await search(await for_search(ctx, request), None, request.query, visible=_seen(ctx), beside=_beside(ctx), path=""))


async def search_compartment(ctx: Context, request: Request) -> Reply:
    """GET [compartment]/[id]/[type]?..., [compartment]/[id]/*, and the same by POST _search."""
    _form_only(request)
    name, rid, *rest = (part for part in request.path if part != "_search")
    rtype = rest[0] if rest and rest[0] != "*" else None
    if rtype is not None:
        required(ctx, rtype, "s")
    path = "/".join((name, rid, rtype or "*"))
    return Reply(
        200,
        await search(
            await for_search(ctx, request), rtype, request.query, visible=_seen(ctx), beside=_beside(ctx), path=path, compartment=(name, rid)
        ),
    )


def _form_only(request: Request) -> None:
    """Raises 415: what a search by POST asks for stands in a form, never in a resource that would be ignored."""
    if request.res is not None:
        raise unsupported_media("a search by POST takes its parameters as application/x-www-form-urlencoded")


def _seen(ctx: Context) -> Callable[[str], Clause]:
    return lambda rtype: visible(ctx, rtype, "s")


def _beside(ctx: Context) -> Callable[[str], Clause]:
    return lambda rtype: shown(ctx, rtype)
