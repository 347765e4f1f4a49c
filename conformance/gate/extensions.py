"""Extensions: their urls, and for those whose definition is known where they may stand and what they may hold.

https://hl7.org/fhir/R4/extensibility.html and https://hl7.org/fhir/R4/defining-extensions.html#context
"""

from collections.abc import Callable
from typing import Any

from conformance.gate.profiles import profile_check
from conformance.gate.report import At, Report
from conformance.gate.tree import profile_tree
from conformance.outcome import Refusal
from conformance.spec import Spec, errata

Judge = Callable[[Any, At, Report], None]

CORE = "http://hl7.org/fhir/StructureDefinition/"
# what an ElementDefinition may say of value[x] that asks nothing of the value beyond its type
HARMLESS = frozenset(
    [
        "id",
        "path",
        "base",
        "min",
        "max",
        "type",
        "condition",
        "constraint",
        "isSummary",
        "isModifier",
        "isModifierReason",
        "mustSupport",
        "short",
        "definition",
        "comment",
        "requirements",
        "alias",
        "mapping",
        "example",
        "label",
        "code",
        "meaningWhenMissing",
        "orderMeaning",
        "extension",
    ]
)
HOLDERS = ("entry", "parameter", "part")  # elements whose `resource` is a resource (CapabilityStatement.rest.resource is none)
NESTS = ("extension", "modifierExtension")


def check_extension(spec: Spec) -> Judge:
    """The check of one extension that is well-formed by itself."""
    known: dict[str, Judge | None] = spec.memo.setdefault("extensions", {})

    def check(value: Any, at: At, report: Report) -> None:
        url = value.get("url")
        if type(url) is not str:
            return
        nested = at[0] is not None and at[0][1] in NESTS
        if ":" not in url:
            if not nested:
                report.error("extension", "the url of an extension must be absolute", (at, "url", None))
            return
        if not known:
            known.update(dict.fromkeys(each.split("|")[0] for each in spec.urls("StructureDefinition")))
        if url in known:
            judge = known[url]
            if judge is None:
                judge = known[url] = _definition_judge(spec, url)
            judge(value, at, report)
        elif at[1] == "modifierExtension":
            report.add(
                "warning", "extension", "this server does not know the modifier extension, which may change the meaning of what it stands in", at
            )
        elif url.startswith(CORE):
            report.add("warning", "extension", "R4 and the installed packages define no extension of this url, which is in HL7's name", at)

    return check


def _definition_judge(spec: Spec, url: str) -> Judge:
    structure = spec.definition(url, "StructureDefinition") or {}
    if structure.get("type") != "Extension" or structure.get("derivation") != "constraint":
        return _no_extension
    content: Callable[..., None]
    try:
        content = profile_check(spec, url)
    except Refusal:  # its base is not installed: what it may hold cannot be told
        content = _anything
    contexts = _contexts(structure)
    anywhere = ("element", "Element") in contexts
    modifier = _is_modifier(structure)
    places: dict[str, bool] = {}
    plain = _plain(spec, url) if content is not _anything else frozenset()

    def judge(value: Any, at: At, report: Report) -> None:
        if modifier is not None and modifier != (at[1] == "modifierExtension"):
            report.error("extension", f"this extension stands in {'modifierExtension' if modifier else 'extension'}", at)
        if not anywhere:
            path = _place(at[0], report)
            allowed = places.get(path) if path is not None else True
            if allowed is None and path is not None:
                allowed = _stands(spec, path, contexts)
                if len(places) < 1000:
                    places[path] = allowed
            if not allowed:
                report.error("extension", "the definition of this extension does not allow it here", at)
        if len(value) != 2 or plain.isdisjoint(value):
            content(value, at[0], at[1], at[2], report)

    return judge


def _plain(spec: Spec, url: str) -> frozenset[str]:
    """The JSON names of the values that a definition allows without asking more of them: an extension of its url and one of these needs no closer look."""
    root = profile_tree(spec, url).root
    value, nested = root.children.get("value"), root.children.get("extension")
    rules = {row["key"] for row in root.definition.get("constraint", ())}
    if value is None or value.slices or value.children or rules - {"ele-1", "ext-1"}:
        return frozenset()
    if nested is not None and (nested.slices or nested.definition.get("min")):
        return frozenset()
    asked = value.definition
    rows = asked.get("type", ())
    if asked.get("max") == "0" or not rows or any(key not in HARMLESS for key in asked) or any(row.keys() - {"code"} for row in rows):
        return frozenset()
    return frozenset(f"value{row['code'][0].upper()}{row['code'][1:]}" for row in rows)


def _anything(*_: Any) -> None:
    """No content is asked for."""


def _no_extension(value: Any, at: At, report: Report) -> None:
    report.error("extension", "the url names a definition that is no extension", (at, "url", None))


def _is_modifier(structure: dict[str, Any]) -> bool | None:
    elements = structure.get("snapshot", {}).get("element") or structure.get("differential", {}).get("element") or [{}]
    return bool(elements[0].get("isModifier", False)) if elements[0].get("path") == "Extension" else None


def _contexts(structure: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """(type, expression) of each context."""
    published = [(str(each.get("type")), str(each.get("expression", ""))) for each in structure.get("context", ())]
    added = [("element", path) for path in errata("contexts").get(structure["url"], ())]
    return tuple(published + added) if published else ()


def _place(at: At | None, report: Report) -> str | None:
    """The path of the element that is extended below its resource ('Patient.contact.name'); None inside other extensions."""
    names: list[str] = []
    while at is not None:
        if at[1] in NESTS:
            return None
        names.append(at[1])
        if at[0] is None or at[1] == "contained" or (at[1] == "resource" and at[0][1] in HOLDERS):
            names[-1] = str(report.resource.get("resourceType", ""))
            break
        at = at[0]
    return ".".join(reversed(names))


def _stands(spec: Spec, path: str, contexts: tuple[tuple[str, str], ...]) -> bool:
    """True if one of the contexts allows the element at the path; what only FHIRPath or another extension could say is allowed."""
    names = frozenset(_names(spec, path))
    return not contexts or any(kind != "element" or text.split("#")[-1].removesuffix("[x]") in names for kind, text in contexts)


def _names(spec: Spec, path: str) -> list[str]:
    """Every name a context may call the element by: 'Element', its path, its types and their ancestors, and paths that begin at a type on the way."""
    first, *rest = path.split(".")
    names = [
        "Element",
        path,
        *([] if rest else _ancestors(spec, first)),
        *(f"{each}.{'.'.join(rest)}" for each in ("Resource", "DomainResource") if rest),
    ]
    contents = [first]
    for at, step in enumerate(rest):
        found = [element for each in contents if (element := spec.children(each).get(step)) is not None]
        tail = "".join(f".{each}" for each in rest[at + 1 :])
        for element in found:
            heads = [element.content, *(each for code in element.types for each in _ancestors(spec, code))]
            names += [head + tail for head in heads if head]
        contents = [each for element in found for each in ([element.content] if element.content else element.types)]
    return names


def _ancestors(spec: Spec, code: str) -> list[str]:
    found = []
    while code and code in spec.types | spec.datatypes | spec.primitives | {"Resource", "DomainResource"}:
        found.append(code)
        code = spec.parent(code)
    return found
