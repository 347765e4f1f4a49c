"""$validate: what the gate says of a resource, without storing it. https://hl7.org/fhir/R4/resource-operation-validate.html"""

from typing import Any

from conformance.gate.blank import blanks
from conformance.gate.usable import problems
from conformance.outcome import Issue, Refusal, bad_request, failed, forbidden, not_supported, outcome, refuse
from conformance.validate import validate as judge
from fhir_server.context import Context, Reply, Request, Resource, first
from fhir_server.interactions.access import current, sees
from fhir_server.interactions.operation import Operation
from fhir_server.interactions.profiles import renew
from fhir_server.interactions.resolving import resolver
from fhir_server.interactions.steps import checked_id
from fhir_server.interactions.validity import codes_of, required_of
from fhir_server.security.visible import required
from terminology.ingest import codings_judge

MODES = ("create", "update", "delete", "profile")
URL = "http://hl7.org/fhir/OperationDefinition/Resource-validate"


async def validate(ctx: Context, request: Request) -> Reply:
    """POST [type]/$validate, [type]/[id]/$validate: 200 with an OperationOutcome, whatever it says."""
    rtype, rid = request.path[0], checked_id(request.path[1]) if len(request.path) > 2 else ""
    res, mode, profiles = _asked(request)
    if mode not in ("", *MODES):
        raise not_supported("mode is one of " + ", ".join(MODES))
    if res is None and mode != "delete":
        if not rid:
            raise refuse("required", "the operation needs a resource")
        res = (await current(ctx, rtype, rid)).res
    if mode == "delete":
        return await _deletion(ctx, rtype, rid)
    if res is None or res.get("resourceType") != rtype:
        raise bad_request("the resource's type is not the one in the URL")
    if mode == "profile" and not profiles:
        raise refuse("required", "mode profile needs the profile to judge by")
    await renew(ctx)
    issues = _mode_issues(ctx, mode, res, rid)
    issues += judge(ctx.spec, res, profiles=[*profiles, *_set(ctx, rtype)], check_code=codes_of(ctx), resolve=await resolver(ctx, res))
    issues += blanks(res)
    if not failed(issues):
        issues += problems(ctx.spec, res)
    if ctx.terms is not None:
        issues += codings_judge(ctx.terms, ctx.source)(res)
    return Reply(200, outcome(issues))


def _asked(request: Request) -> tuple[Resource | None, str, list[str]]:
    """(resource, mode, profiles) from Parameters, or from the bare resource and the query."""
    mode = first(request.query, "mode") or ""
    profiles = [value for name, value in request.query if name == "profile"]
    res = request.res
    if res is None or res.get("resourceType") != "Parameters" or request.path[0] == "Parameters":
        return res, mode, profiles
    found: Resource | None = None
    rows: Any = res.get("parameter", [])
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict):
            raise bad_request("a parameter is an object", "Parameters.parameter")
        if row.get("name") == "resource":
            found = row.get("resource")
            if not isinstance(found, dict):
                raise bad_request("the parameter 'resource' holds a resource", "Parameters.parameter.resource")
        elif row.get("name") == "mode":
            mode = str(row.get("valueCode", ""))
        elif row.get("name") == "profile":
            profiles.append(str(row.get("valueUri", row.get("valueCanonical", ""))))
    return found, mode, profiles


def _set(ctx: Context, rtype: str) -> list[str]:
    """The profiles that the server's settings ask of the type."""
    return [url for level, url in required_of(ctx.settings.profiles, rtype) if level == "enforce"]


def _mode_issues(ctx: Context, mode: str, res: Resource, rid: str) -> list[Issue]:
    """What create and update ask beyond the content: the right to do it, and the id."""
    if mode in ("create", "update"):
        try:
            required(ctx, res["resourceType"], mode[0])
        except Refusal as refusal:
            return list(refusal.issues)
    name = f"{res['resourceType']}.id"
    if mode == "update" and "id" not in res:
        return [Issue("error", "required", "an update needs the resource's id", name)]
    if mode == "update" and rid and res["id"] != rid:
        return [Issue("error", "invalid", "the resource's id is not the one in the URL", name)]
    return []


async def _deletion(ctx: Context, rtype: str, rid: str) -> Reply:
    """Mode delete: may this caller delete it, as far as can be told without doing it?"""
    if not rid:
        raise bad_request("mode delete is for one resource: [type]/[id]/$validate")
    stored = await current(ctx, rtype, rid)
    try:
        if not sees(ctx, "d", stored):
            raise forbidden(f"this caller may not delete this {rtype}")
    except Refusal as refusal:
        return Reply(200, outcome(refusal.issues))
    return Reply(200, outcome([]))


ROWS = (Operation("validate", URL, frozenset({"type", "instance"}), frozenset({"*"}), False, validate),)
