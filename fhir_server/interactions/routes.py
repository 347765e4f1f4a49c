"""The one route table: every interaction of R4 by the shape of its path and its method, for HTTP and for bundle entries alike.

https://hl7.org/fhir/R4/http.html#summary. A shape has one word per path segment: T a resource type, I an id, V a version id, C a type
that has a compartment, * the wildcard, and the literal words of the standard; $ is an operation.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from conformance.outcome import bad_request, method_not_allowed, refuse
from fhir_server.context import Context, Reply, Request
from fhir_server.interactions.batch import batch
from fhir_server.interactions.create import create
from fhir_server.interactions.delete import delete
from fhir_server.interactions.entries import rows_of
from fhir_server.interactions.history import history
from fhir_server.interactions.metadata import metadata
from fhir_server.interactions.patch import patch
from fhir_server.interactions.read import read, vread
from fhir_server.interactions.search import search_compartment, search_system, search_type
from fhir_server.interactions.transaction import transaction
from fhir_server.interactions.update import update

Handler = Callable[[Context, Request], Awaitable[Reply]]
Row = Mapping[str, Handler]


async def route(ctx: Context, request: Request) -> Reply:
    """The answer to one FHIR request. Raises Refusal: 404 for a path that is none of R4's, 405 with Allow, and what the interaction says."""
    if request.path and request.path[-1].startswith("$"):
        return await _operation(ctx, request)
    row = TABLE.get(shape(ctx, request.path))
    if row is None:
        raise _unknown(ctx, request)
    handler = row.get("GET" if request.method == "HEAD" else request.method)
    if handler is None:
        raise method_not_allowed(", ".join(sorted({*row, "HEAD"} if "GET" in row else row)))
    return await handler(ctx, request)


async def bundle(ctx: Context, request: Request) -> Reply:
    """POST [base]: a batch or a transaction (https://hl7.org/fhir/R4/http.html#transaction)."""
    res = request.res
    if res is None or res.get("resourceType") != "Bundle":
        raise bad_request("POST to the base takes a Bundle of type batch or transaction")
    process = PROCESSES.get(str(res.get("type")))
    if process is None:
        raise refuse("value", "the Bundle's type must be batch or transaction here", expression="Bundle.type")
    inner = replace(ctx, prefer={"return": "minimal", **ctx.prefer})
    entries = await process(inner, rows_of(ctx, res), route)
    answer = {"resourceType": "Bundle", "type": f"{res['type']}-response"}
    return Reply(200, answer | ({"entry": entries} if entries else {}))


async def capabilities(ctx: Context, request: Request) -> Reply:
    """GET metadata, made from the table below."""
    return await metadata(ctx, request, TABLE)


PROCESSES = {"batch": batch, "transaction": transaction}
INSTANCE: Row = {"GET": read, "PUT": update, "PATCH": patch, "DELETE": delete}
TABLE: Mapping[tuple[str, ...], Row] = {
    (): {"GET": search_system, "POST": bundle},
    ("metadata",): {"GET": capabilities},
    ("_history",): {"GET": history},
    ("_search",): {"POST": search_system},
    ("T",): {"GET": search_type, "POST": create, "PUT": update, "PATCH": patch, "DELETE": delete},
    ("T", "_search"): {"POST": search_type},
    ("T", "_history"): {"GET": history},
    ("T", "I"): INSTANCE,
    ("T", "I", "_history"): {"GET": history},
    ("T", "I", "_history", "V"): {"GET": vread},
    ("C", "I", "T"): {"GET": search_compartment},
    ("C", "I", "T", "_search"): {"POST": search_compartment},
    ("C", "I", "*"): {"GET": search_compartment},
    ("C", "I", "_search"): {"POST": search_compartment},
}
WORDS = frozenset({"metadata", "_history", "_search", "*"})


def shape(ctx: Context, path: tuple[str, ...]) -> tuple[str, ...]:
    """('Patient', '1', '_history') -> ('T', 'I', '_history'); a shape that is not in the table for what R4 does not know."""
    if not path:
        return ()
    if path[0] not in ctx.spec.types:
        return path if path[0] in WORDS and len(path) == 1 else ("?",)
    if len(path) == 1:
        return ("T",)
    if len(path) == 2:
        return ("T", path[1] if path[1] in WORDS else "I")
    if path[2] == "_history":
        return ("T", "I", "_history", "V")[: len(path)] if len(path) < 5 else ("?",)
    if path[0] not in ctx.spec.compartments:
        return ("?",)
    third = "T" if path[2] in ctx.spec.types else path[2]
    return ("C", "I", third, *path[3:])


def _unknown(ctx: Context, request: Request) -> Exception:
    if request.path[0] not in ctx.spec.types and request.path[0] not in WORDS:
        return refuse("not-found", "the path does not begin with a resource type of R4", status=404)
    return refuse("not-found", "there is no such path below the FHIR base", status=404)


async def _operation(ctx: Context, request: Request) -> Reply:
    """Call the row of the operation table for [base]/$x, [type]/$x, [type]/[id]/$x (also on a version)."""
    name, target = request.path[-1][1:], request.path[:-1]
    kind = shape(ctx, target)
    if kind not in LEVELS:
        raise _unknown(ctx, request)
    level, rtype = LEVELS[kind], target[0] if target else ""
    rows = [row for row in ctx.operations.get(name, ()) if row.serves(level, rtype)]
    if not rows:
        raise refuse("not-supported", f"there is no operation ${name} here", status=404)
    if request.method not in ("GET", "POST"):
        raise method_not_allowed("POST" if rows[0].changes else "GET, HEAD, POST")
    if request.method == "GET" and rows[0].changes:
        raise method_not_allowed("POST")
    reply: Reply = await rows[0].handler(ctx, request)
    return reply


LEVELS = {(): "system", ("T",): "type", ("T", "I"): "instance", ("T", "I", "_history", "V"): "instance"}
