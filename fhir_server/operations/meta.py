"""$meta, $meta-add, $meta-delete: profiles, tags and security labels.

https://hl7.org/fhir/R4/resource-operation-meta.html, resource-operation-meta-add.html, resource-operation-meta-delete.html
"""

from collections.abc import Callable, Sequence
from typing import Any

from conformance.outcome import bad_request, not_supported
from fhir_server.context import Context, Reply, Request, Resource
from fhir_server.interactions.access import current
from fhir_server.interactions.operation import Operation
from fhir_server.interactions.perform import perform
from fhir_server.interactions.read import vread
from fhir_server.interactions.steps import Step, checked_id
from fhir_server.query.clauses import NOTHING
from fhir_server.search.labels import in_use
from fhir_server.security.visible import required, shown

LISTS = ("profile", "security", "tag")
ALL, URL = frozenset({"*"}), "http://hl7.org/fhir/OperationDefinition/Resource-meta"


async def meta(ctx: Context, request: Request) -> Reply:
    """GET [type]/[id]/$meta, also on a version: the resource's meta; of a type or of everything the profiles, tags and labels in use."""
    target = request.path[:-1]
    if len(target) < 2:
        return await _meta_in_use(ctx, target)
    if len(target) == 4:
        res = (await vread(ctx, Request("GET", target))).res or {}
    else:
        res = (await current(ctx, target[0], checked_id(target[1]))).res or {}
    return _parameters(res.get("meta", {}))


async def _meta_in_use(ctx: Context, target: Sequence[str]) -> Reply:
    """[base]/$meta, [type]/$meta: of what the caller may see. Raises 403 where it may see nothing of the type."""
    if target and shown(ctx, target[0]) == NOTHING:
        required(ctx, target[0], "s")
    rtypes = target or sorted(await ctx.store.types() & ctx.spec.types)
    return _parameters(await in_use(ctx, rtypes, lambda rtype: shown(ctx, rtype)))


async def meta_add(ctx: Context, request: Request) -> Reply:
    """POST [type]/[id]/$meta-add: the given profiles, tags and labels are added; 200 with the new meta. Makes a new version."""
    return await _changed(ctx, request, _added)


async def meta_delete(ctx: Context, request: Request) -> Reply:
    """POST [type]/[id]/$meta-delete: the given profiles, tags and labels are taken away."""
    return await _changed(ctx, request, _taken)


async def _changed(ctx: Context, request: Request, change: Callable[[Sequence[Any], Sequence[Any]], list[Any]]) -> Reply:
    if len(request.path) > 3:
        raise not_supported("a version is never changed: the operation takes the resource itself")
    given = _given(request)
    rtype, rid = request.path[0], checked_id(request.path[1])
    required(ctx, rtype, "r")  # the answer shows the new meta

    def patched(old: Resource) -> Resource:
        meta = dict(old.get("meta", {}))
        for name in LISTS:
            meta[name] = change(meta.get(name, []), given.get(name, []))
        return {**old, "meta": {name: value for name, value in meta.items() if value != []}}

    (done,), _ = await perform(ctx, [Step("PATCH", rtype, rid, patch=patched, headers=request.headers)])
    return _parameters((done.stored.res or {}).get("meta", {}) if done.stored else {})


def _given(request: Request) -> Resource:
    """The parameter `meta` (valueMeta), or a Meta sent as it is by older clients' Parameters with one part."""
    rows = (request.res or {}).get("parameter", [])
    found = [row.get("valueMeta") for row in rows if isinstance(row, dict) and row.get("name") == "meta"] if isinstance(rows, list) else []
    if len(found) != 1 or not isinstance(found[0], dict):
        raise bad_request("the operation takes exactly one parameter 'meta' of type Meta", "Parameters.parameter")
    if any(not isinstance(found[0].get(name, []), list) for name in LISTS):
        raise bad_request("profile, security and tag are lists", "Parameters.parameter")
    return found[0]


def _key(value: Any) -> Any:
    """What makes two tags the same: system and code; a profile is its URL."""
    return (value.get("system"), value.get("code")) if isinstance(value, dict) else value


def _added(old: Sequence[Any], given: Sequence[Any]) -> list[Any]:
    known = {_key(value) for value in old}
    return [*old, *{_key(value): value for value in given if _key(value) not in known}.values()]


def _taken(old: Sequence[Any], given: Sequence[Any]) -> list[Any]:
    gone = {_key(value) for value in given}
    return [value for value in old if _key(value) not in gone]


def _parameters(meta: Resource) -> Reply:
    return Reply(200, {"resourceType": "Parameters", "parameter": [{"name": "return", "valueMeta": meta}]})


ROWS = (
    Operation("meta", URL, frozenset({"system", "type", "instance"}), ALL, False, meta),
    Operation("meta-add", f"{URL}-add", frozenset({"instance"}), ALL, True, meta_add),
    Operation("meta-delete", f"{URL}-delete", frozenset({"instance"}), ALL, True, meta_delete),
)
