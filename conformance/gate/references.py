"""References: their form, what they may point at, what they point at inside the resource. https://hl7.org/fhir/R4/references.html"""

import re
from collections.abc import Callable
from typing import Any

from conformance.gate.primitives import is_uri
from conformance.gate.report import At, Report
from conformance.spec import Spec

Judge = Callable[[Any, At, Report], None]

_RESTFUL = re.compile(
    r"(?:(?:https?|ftp)://[^\s?#]+/)?([A-Z][A-Za-z]+)/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?(?:#[A-Za-z0-9\-.]+)?\Z"
)
_CONDITIONAL = re.compile(r"([A-Z][A-Za-z]+)\?\S+\Z")
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:\S+\Z")
CORE = "http://hl7.org/fhir/StructureDefinition/"


def target_judge(spec: Spec, targets: tuple[str, ...]) -> Judge:
    """The check of a Reference (already a well-formed object) against the resource types it may point at; 'Resource' means any."""
    anything = "Resource" in targets or not targets
    allowed = frozenset(targets)
    types = spec.types
    plain = re.compile(rf"(?:{'|'.join(types if anything else sorted(allowed & types))})/[A-Za-z0-9\-.]{{1,64}}\Z").match

    def check(value: Any, at: At, report: Report) -> None:
        text = value.get("reference")
        if type(text) is str and plain(text) and "type" not in value:
            return
        named = value.get("type")
        if type(text) is str:
            match = _RESTFUL.match(text)
            found = match[1] if match is not None and match[1] in types else _other_target(text, at, report, types)
            if found is not None:
                if not anything and found not in allowed:
                    _wrong(found, targets, at, report)
                if named is not None and type(named) is str and named.removeprefix(CORE) != found:
                    report.error("invariant", f"type says another resource type than the reference ({found})", (at, "type", None))
                return
        if type(named) is str and not anything and named.removeprefix(CORE) in types and named.removeprefix(CORE) not in allowed:
            _wrong(named.removeprefix(CORE), targets, at, report)

    return check


def named_target(value: dict[str, Any], report: Report) -> str | None:
    """The resource type that a Reference means: by its text, the contained resource or entry it points at, or its type; None if it does not say."""
    text, named = value.get("reference"), value.get("type")
    if isinstance(text, str) and text:
        if text[0] == "#":
            return contained_types(report).get(text[1:])
        match = _RESTFUL.match(text) or _CONDITIONAL.match(text)
        found = match[1] if match is not None else entry_type(report, text)
        if found is not None:
            return found
    return named.removeprefix(CORE) if isinstance(named, str) else None


def _wrong(found: str, targets: tuple[str, ...], at: At, report: Report) -> None:
    report.error("structure", f"a reference to {found} is not allowed here, only to {', '.join(targets)}", at)


def _other_target(text: str, at: At, report: Report, types: frozenset[str]) -> str | None:
    """The resource type that a reference of another form names, None if it does not say; its form is judged."""
    if not text or text[0] == "#":
        return _inside(text[1:], at, report)
    if text.startswith("urn:"):
        if not is_uri(text):
            report.error("value", "reference is a URN that is not well-formed", (at, "reference", None))
        return entry_type(report, text)
    conditional = _CONDITIONAL.match(text)
    if conditional and conditional[1] in types:
        return conditional[1]
    if not _ABSOLUTE.match(text):
        report.error(
            "value", "reference is neither Type/id, an absolute URL, #id of a contained resource, nor Type?criteria", (at, "reference", None)
        )
    return None


def _inside(rid: str, at: At, report: Report) -> str | None:
    """The type of a contained resource; an error if there is none of this id (ref-1). '#' alone is the container."""
    if not rid:  # '#', or an empty reference, which its form forbids
        return str(report.root.get("resourceType", "")) or None
    found = contained_types(report).get(rid)
    if found is None:
        report.error("invariant", "reference to a contained resource that is not there", at, "ref-1")
    return found


def contained_types(report: Report) -> dict[str, str]:
    """id -> type of the resources contained in the outermost resource."""
    key = ("contained", id(report.root))
    found = report.memo.get(key)
    if found is None:
        listed = report.root.get("contained")
        rows = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        found = {each["id"]: str(each.get("resourceType", "")) for each in rows if isinstance(each.get("id"), str)}
        report.memo[key] = found
    types: dict[str, str] = found
    return types


def entry_type(report: Report, url: str) -> str | None:
    """The type of the bundle entry with this fullUrl, None without a bundle or entry."""
    if report.bundle is None:
        return None
    found = report.memo.get(("entries", id(report.bundle)))
    if found is None:
        found = _entries(report.bundle)
        report.memo[("entries", id(report.bundle))] = found
    target: str | None = found.get(url)
    return target


def _entries(bundle: dict[str, Any]) -> dict[str, str]:
    listed = bundle.get("entry")
    rows = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    pairs = [(each.get("fullUrl"), each.get("resource")) for each in rows]
    return {url: str(res.get("resourceType", "")) for url, res in pairs if isinstance(url, str) and isinstance(res, dict)}
