"""Can resources be judged by a StructureDefinition? Asked before one is stored. https://hl7.org/fhir/R4/profiling.html"""

from collections.abc import Iterator
from typing import Any

from conformance.gate.profiles import MISSHAPEN, compiled
from conformance.gate.tree import tree_of
from conformance.outcome import Issue, Refusal
from conformance.spec import Spec

Json = dict[str, Any]
KIND = "StructureDefinition"
PARTS = ("snapshot", "differential")


def judges(spec: Spec, res: Json) -> bool:
    """True for a definition that other resources are judged by: it constrains a type of R4, is not retired, and has not the url of one of R4's own."""
    url = res.get("url")
    if res.get("derivation") != "constraint" or res.get("status") == "retired" or not isinstance(url, str):
        return False
    return res.get("type") in spec.tables["elements"] and not spec.own(url, KIND)


def problems(spec: Spec, res: Json) -> list[Issue]:
    """What keeps it from judging: errors where it names what its type does not have, a warning where a base is not known (yet)."""
    if res.get("resourceType") != KIND or not judges(spec, res):
        return []
    try:
        found = list(_paths(spec, res))
        if not found:
            compiled(spec, tree_of(spec, res))
    except Refusal as refusal:
        return [
            Issue("warning", "incomplete", f"no resource can be judged by it yet: {each.text}", f"{KIND}.baseDefinition") for each in refusal.issues
        ]
    except MISSHAPEN:
        return [Issue("error", "business-rule", "an element of the profile has a shape that cannot be used", KIND)]
    return found


def _paths(spec: Spec, res: Json) -> Iterator[Issue]:
    for part in PARTS:
        for at, element in enumerate(res.get(part, {}).get("element", ())):
            if not _named(spec, str(res["type"]), str(element.get("path", ""))):
                text = "the path names no element of the type that the profile constrains"
                yield Issue("error", "business-rule", text, f"{KIND}.{part}.element[{at}].path")


def _named(spec: Spec, rtype: str, path: str) -> bool:
    """True if a path leads to an element of R4, or to where the type of an element is open."""
    head, *rest = path.split(".")
    content = rtype
    if head != rtype:
        return False
    for name in rest:
        element = spec.children(content).get(name.removesuffix("[x]"))
        found = (element, "") if element is not None else spec.properties(content).get(name)
        if found is None:
            return False
        types = (found[1],) if found[1] else found[0].types
        if found[0].content:
            content = found[0].content
        elif len(types) != 1 or types[0] == "Resource" or not spec.children(types[0]):
            return True
        else:
            content = types[0]
    return True
