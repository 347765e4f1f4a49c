"""Patient/$everything, Encounter/$everything and Observation/$lastn: operations that are searches.

https://hl7.org/fhir/R4/patient-operation-everything.html, https://hl7.org/fhir/R4/encounter-operation-everything.html,
https://hl7.org/fhir/R4/observation-operation-lastn.html
"""

from typing import Any

from conformance.outcome import bad_request
from fhir_server.context import Context, Reply, Request
from fhir_server.interactions.access import current
from fhir_server.interactions.operation import Operation
from fhir_server.interactions.steps import checked_id
from fhir_server.query.clauses import Clause
from fhir_server.search.everything import everything
from fhir_server.search.lastn import lastn
from fhir_server.security.visible import required, shown, visible

BASE = "http://hl7.org/fhir/OperationDefinition/"


async def everything_of_one(ctx: Context, request: Request) -> Reply:
    """[Patient or Encounter]/[id]/$everything. Raises 404, 410 and 403 like a read of it."""
    rtype, rid = request.path[0], checked_id(request.path[1])
    await current(ctx, rtype, rid)
    return Reply(200, await everything(ctx, rtype, rid, pairs(request), visible=_seen(ctx), shown=_beside(ctx), path="/".join(request.path)))


async def everything_of_all(ctx: Context, request: Request) -> Reply:
    """Patient/$everything: of every patient that the caller sees."""
    required(ctx, request.path[0], "s")
    return Reply(
        200, await everything(ctx, request.path[0], None, pairs(request), visible=_seen(ctx), shown=_beside(ctx), path="/".join(request.path))
    )


async def last_observations(ctx: Context, request: Request) -> Reply:
    """Observation/$lastn."""
    required(ctx, "Observation", "s")
    return Reply(200, await lastn(ctx, pairs(request), visible=_seen(ctx), path="/".join(request.path)))


def _seen(ctx: Context) -> Any:
    def seen(rtype: str) -> Clause:
        return visible(ctx, rtype, "s")

    return seen


def _beside(ctx: Context) -> Any:
    def beside(rtype: str) -> Clause:
        return shown(ctx, rtype)

    return beside


def pairs(request: Request) -> tuple[tuple[str, str], ...]:
    """The operation's parameters: the query, or a Parameters resource of primitive values. Raises 400 for another body."""
    if request.res is None:
        return request.query
    rows = request.res.get("parameter", [])
    if request.res.get("resourceType") != "Parameters" or not isinstance(rows, list):
        raise bad_request("the operation takes a Parameters resource")
    return (*request.query, *(_pair(row) for row in rows))


def _pair(row: Any) -> tuple[str, str]:
    values = [value for name, value in row.items() if name.startswith("value")] if isinstance(row, dict) else []
    if len(values) != 1 or not isinstance(values[0], str | int) or not isinstance(row.get("name"), str):
        raise bad_request("each parameter needs a name and one primitive value", "Parameters.parameter")
    return row["name"], str(values[0])


INSTANCE, TYPE = frozenset({"instance"}), frozenset({"type"})
ROWS = (
    Operation("everything", f"{BASE}Patient-everything", INSTANCE, frozenset({"Patient"}), False, everything_of_one),
    Operation("everything", f"{BASE}Patient-everything", TYPE, frozenset({"Patient"}), False, everything_of_all),
    Operation("everything", f"{BASE}Encounter-everything", INSTANCE, frozenset({"Encounter"}), False, everything_of_one),
    Operation("lastn", f"{BASE}Observation-lastn", TYPE, frozenset({"Observation"}), False, last_observations),
)
