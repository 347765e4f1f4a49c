"""Contained resources: dom-2 to dom-5 and their ids. https://hl7.org/fhir/R4/references.html#contained"""

from collections.abc import Iterator
from typing import Any

from conformance.gate.report import At, Report


def check_contained(resource: dict[str, Any], at: At, report: Report) -> None:
    """Judge the contained resources of one resource that is not contained itself."""
    listed = resource.get("contained")
    if not isinstance(listed, list):
        return
    referred = set(_links(resource))
    seen: set[str] = set()
    for index, each in enumerate(listed):
        if isinstance(each, dict):
            _one(each, (at, "contained", index), report, referred)
            _unique(each.get("id"), (at, "contained", index), report, seen)


def _unique(rid: Any, at: At, report: Report, seen: set[str]) -> None:
    if isinstance(rid, str):
        if rid in seen:
            report.error("structure", "another contained resource has the same id", (at, "id", None))
        seen.add(rid)


def _one(res: dict[str, Any], at: At, report: Report, referred: set[str]) -> None:
    if "contained" in res:
        report.error("invariant", "a contained resource may not contain resources", (at, "contained", None), "dom-2")
    meta = res.get("meta")
    if isinstance(meta, dict):
        if "versionId" in meta or "lastUpdated" in meta:
            report.error("invariant", "a contained resource has no meta.versionId and no meta.lastUpdated", (at, "meta", None), "dom-4")
        if "security" in meta:
            report.error("invariant", "a contained resource has no security labels", (at, "meta", None), "dom-5")
    rid = res.get("id")
    if not (isinstance(rid, str) and f"#{rid}" in referred) and "#" not in set(_links(res)):
        text = "a contained resource must be referred to from the resource that holds it" if rid else "a contained resource must have an id"
        report.error("invariant", text, at, "dom-3")


def _links(value: Any) -> Iterator[str]:
    """Every string of this value that could refer to a contained resource: those that begin with '#'."""
    if isinstance(value, dict):
        for each in value.values():
            yield from _links(each)
    elif isinstance(value, list):
        for each in value:
            yield from _links(each)
    elif isinstance(value, str) and value[:1] == "#":
        yield value
