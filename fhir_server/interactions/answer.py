"""Replies to writes: status, Location, ETag, Last-Modified, Prefer. https://hl7.org/fhir/R4/http.html#ops, #return"""

from conformance.outcome import outcome
from fhir_server.context import Context, Reply
from fhir_server.interactions.access import within
from fhir_server.interactions.headers import stamps
from fhir_server.interactions.perform import Done
from fhir_server.security.visible import visible
from fhir_server.store import Stored


def location(ctx: Context, stored: Stored) -> str:
    """The versioned URL of a resource, https://hl7.org/fhir/R4/http.html#create."""
    return f"{ctx.base}/{stored.rtype}/{stored.rid}/_history/{stored.vid}"


def readable(ctx: Context, stored: Stored) -> bool:
    """True if the caller may also read what it wrote: the right to change is not the right to be shown the outcome."""
    return within(ctx, visible(ctx, stored.rtype, "r"), stored)


def written(ctx: Context, done: Done) -> Reply:
    """The answer to a create, update or patch: 201 or 200, body as `Prefer: return` asks; without that header the stored resource."""
    if done.stored is None:
        return removed(ctx, done)
    headers = stamps(done.stored) | {"Location": location(ctx, done.stored)}
    wanted = ctx.prefer.get("return", "representation")
    if wanted == "minimal" or (wanted == "representation" and not readable(ctx, done.stored)):
        return Reply(done.status, None, headers)
    return Reply(done.status, outcome(done.issues) if wanted == "OperationOutcome" else done.stored.res, headers)


def removed(ctx: Context, done: Done) -> Reply:
    """The answer to a delete: 204, or 200 with an outcome where the client prefers one or there is something to say."""
    headers = {} if done.stored is None else stamps(done.stored)
    if done.issues or ctx.prefer.get("return") == "OperationOutcome":
        return Reply(200, outcome(done.issues), headers)
    return Reply(204, None, headers)
