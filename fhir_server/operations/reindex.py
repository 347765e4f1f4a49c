"""SearchParameter/[id]/$reindex: index all resources for a definition stored here; the same by GET tells how far it is.

An operation of this server: POST starts it (202) or starts it again, GET answers Parameters with state (none, indexing, ready), done and total.
The work is done by `jobs/reindex.py`; the parameter is not used in answers before it is ready.
"""

from datetime import UTC, datetime
from typing import Any

from conformance.outcome import forbidden, not_supported
from fhir_server.context import Context, Reply, Request
from fhir_server.interactions.access import current
from fhir_server.interactions.operation import Operation
from fhir_server.interactions.steps import checked_id
from fhir_server.search import custom
from fhir_server.search.shelved import unshelved
from fhir_server.store.mongo import reindexing
from fhir_server.store.mongo.store import MongoStore

URL = "urn:fhir-exchange:OperationDefinition:SearchParameter-reindex"
"""ours: R4 publishes no such operation"""


async def reindex(ctx: Context, request: Request) -> Reply:
    """POST starts, GET tells. Raises 403 but for administrators, 404, 422 for a definition that cannot be served."""
    if not ctx.grant.admin:
        raise forbidden("reindexing is for administrators")
    store = unshelved(ctx.store)
    if not isinstance(store, MongoStore):
        raise not_supported("this store keeps no custom search parameters")
    rid = checked_id(request.path[1])
    res = (await current(ctx, "SearchParameter", rid)).res or {}
    if request.method == "POST":
        now = datetime.now(UTC)
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        await reindexing.begin(store.database, custom.row_of(rid, custom.read(ctx.spec, res), now))
    row = await reindexing.one(store.database, str(res.get("url")))
    where = {"Content-Location": f"{ctx.base}/{'/'.join(request.path)}"}
    return Reply(202 if request.method == "POST" else 200, _parameters(row), where)


def _parameters(row: dict[str, Any] | None) -> dict[str, Any]:
    found = row or {"state": "none", "done": 0, "total": 0}
    parts: list[dict[str, Any]] = [{"name": "state", "valueCode": found["state"]}]
    parts += [{"name": name, "valueInteger": int(found[name])} for name in ("done", "total")]
    return {"resourceType": "Parameters", "parameter": parts}


ROWS = (Operation("reindex", URL, frozenset({"instance"}), frozenset({"SearchParameter"}), False, reindex),)
