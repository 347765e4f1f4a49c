"""The parameter `context` of ValueSet $expand and $validate-code: an element of a profile, whose bound value set is meant.

`http://hl7.org/fhir/StructureDefinition/Patient#Patient.gender`; https://hl7.org/fhir/R4/valueset-operation-expand.html
"""

from typing import Any

from conformance.outcome import bad_request, refuse
from conformance.spec import Spec
from fhir_server.context import Resource

DIRECTIONS = ("incoming", "outgoing")  # an element is bound to one value set, whichever way data flow
BASE = "http://hl7.org/fhir/StructureDefinition/"


def resolved(spec: Spec, parameters: Resource) -> Resource:
    """The parameters with the `url` that their context means, where they name no value set. Raises Refusal 400, 404."""
    rows: list[dict[str, Any]] = parameters["parameter"]
    named = {str(row.get("name")) for row in rows}
    if "contextDirection" in named and (_given(rows, "contextDirection") not in DIRECTIONS or "context" not in named):
        raise bad_request("'contextDirection' is incoming or outgoing, and goes with a 'context'")
    if "context" not in named or named & {"url", "valueSet"}:
        return parameters
    return {**parameters, "parameter": [*rows, {"name": "url", "valueUri": bound(spec, _given(rows, "context"))}]}


def _given(rows: list[dict[str, Any]], name: str) -> str:
    row = next(row for row in rows if row.get("name") == name)
    return str(next((value for key, value in row.items() if key.startswith("value")), ""))


def bound(spec: Spec, context: str) -> str:
    """The canonical of the value set bound to an element. Raises Refusal: the context has another form, or there is no such binding."""
    url, mark, path = context.partition("#")
    if not mark or not path:
        raise bad_request("'context' is [StructureDefinition url]#[element path]")
    definition = spec.definition(url.partition("|")[0], "StructureDefinition") or {}
    for element in definition.get("snapshot", {}).get("element", ()):
        if path in (element.get("path"), element.get("id"), element.get("sliceName")) and "valueSet" in element.get("binding", {}):
            return str(element["binding"]["valueSet"])
    own = spec.element(path) if url == BASE + path.partition(".")[0] and path.partition(".")[0] in spec.types else None
    if own is None or own.binding is None:
        raise refuse("not-found", "the context names no element with a bound value set", status=404)
    return str(own.binding[1])
