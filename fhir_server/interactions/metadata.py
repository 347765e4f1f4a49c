"""capabilities: what the route and operation tables serve, as a CapabilityStatement. https://hl7.org/fhir/R4/http.html#capabilities"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from conformance.capability import MODES, capability, terminology_capabilities
from conformance.outcome import bad_request
from conformance.spec import Param
from fhir_server.context import Context, Reply, Request, Resource, first
from fhir_server.interactions.read import trimmed
from fhir_server.search import custom
from fhir_server.search.parse import REFUSED
from fhir_server.security.authserver.discovery import oauth_uris
from fhir_server.security.authserver.place import place_of

NAME, VERSION, CHANGED = "FHIR Exchange", "0.1.0", "2026-11-21"
FORMATS = ("application/fhir+json", "application/fhir+xml", "json", "xml")
PATCH_FORMATS = ("application/json-patch+json", "application/fhir+json", "application/fhir+xml")
KEPT = 16  # statements kept: one for each base URL and mode
Table = Mapping[tuple[str, ...], Mapping[str, Any]]
# Which interaction of R4 a row of the route table is: on a type, and on the system.
TYPE_CODES: Mapping[tuple[tuple[str, ...], str], str] = {
    (("T", "I"), "GET"): "read",
    (("T", "I", "_history", "V"), "GET"): "vread",
    (("T", "I"), "PUT"): "update",
    (("T", "I"), "PATCH"): "patch",
    (("T", "I"), "DELETE"): "delete",
    (("T", "I", "_history"), "GET"): "history-instance",
    (("T", "_history"), "GET"): "history-type",
    (("T",), "POST"): "create",
    (("T",), "GET"): "search-type",
}
SYSTEM_CODES: Mapping[tuple[tuple[str, ...], str], tuple[str, ...]] = {
    ((), "POST"): ("transaction", "batch"),
    (("_history",), "GET"): ("history-system",),
    ((), "GET"): ("search-system",),
}
# What clients of the terminology ecosystem ask before they send code systems along (https://build.fhir.org/ig/HL7/fhir-tx-ecosystem-ig)
FEATURES = (
    ("http://hl7.org/fhir/uv/tx-tests/FeatureDefinition/test-version", "1.7.6"),
    ("http://hl7.org/fhir/uv/tx-ecosystem/FeatureDefinition/CodeSystemAsParameter", True),
)
TERMINOLOGY_SERVER = "http://hl7.org/fhir/CapabilityStatement/terminology-server"
SMART = {
    "coding": [{"system": "http://terminology.hl7.org/CodeSystem/restful-security-service", "code": "SMART-on-FHIR"}],
    "text": "OAuth2 using SMART on FHIR",
}


async def metadata(ctx: Context, request: Request, table: Table) -> Reply:
    """GET metadata?mode=full|normative|terminology. Made once per base URL and mode; `_summary` and `_elements` as on a read."""
    mode = first(request.query, "mode") or "full"
    if mode not in MODES:
        raise bad_request("mode is one of " + ", ".join(MODES))
    kept: dict[Any, Resource] = ctx.spec.memo.setdefault("interactions.metadata", {})
    key = (ctx.base, mode, ctx.settings.auth, ctx.settings.conditional_delete, _edition(ctx), len(ctx.operations))
    if key not in kept:
        if len(kept) >= KEPT:
            kept.clear()
        facts = enabled(ctx, table)
        kept[key] = terminology_capabilities(ctx.spec, facts) if mode == "terminology" else capability(ctx.spec, facts, mode)
    rest = tuple(pair for pair in request.query if pair[0] != "mode")
    return Reply(200, trimmed(ctx, kept[key]["resourceType"], kept[key], replace(request, query=rest)) if rest else kept[key])


def _edition(ctx: Context) -> Any:
    """What TerminologyCapabilities depends on: the terms, and what they hold now."""
    if ctx.terms is None:
        return None
    ctx.terms.refresh()
    return id(ctx.terms), ctx.terms.edition


def enabled(ctx: Context, table: Table) -> dict[str, Any]:
    """What `conformance.capability` is told, read off the tables."""
    of_type = [code for (shape, method), code in TYPE_CODES.items() if method in table.get(shape, {})]
    facts: dict[str, Any] = {
        "base": ctx.base,
        "name": NAME,
        "version": VERSION,
        "date": CHANGED,
        "interactions": dict.fromkeys(ctx.spec.types, of_type),
        "system": [code for (shape, method), codes in SYSTEM_CODES.items() if method in table.get(shape, {}) for code in codes],
        "params": {rtype: _served(ctx, rtype) for rtype in ctx.spec.types},
        "formats": FORMATS,
        "patch_formats": PATCH_FORMATS,
        "operations": [(row.name, row.definition, row.levels, row.types) for rows in ctx.operations.values() for row in rows],
        "conditional": {"conditionalDelete": ctx.settings.conditional_delete},
    }
    if ctx.terms is not None:
        facts |= {"terminology": ctx.terms.facts(), "features": FEATURES, "instantiates": [TERMINOLOGY_SERVER]}
    if ctx.settings.auth == "smart":
        facts["security"] = {"extension": [oauth_uris(place_of(ctx.base))], "cors": True, "service": [SMART]}
    return facts


def _served(ctx: Context, rtype: str) -> list[Param]:
    """The search parameters that queries may use now: not those whose values are still being indexed."""
    customs = custom.of(ctx.spec, rtype)
    known = {**ctx.spec.params(rtype), **{code: one.param for code, one in customs.items()}}
    return [param for code, param in known.items() if code not in REFUSED and (code not in customs or customs[code].ready)]
