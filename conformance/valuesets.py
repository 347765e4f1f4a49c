"""Value sets that can be listed from definitions alone, without a terminology service: explicit codes and whole small code systems.

https://hl7.org/fhir/R4/valueset.html#compositions. What needs a filter, or a code system whose content is not here, is not listed (None): the terminology
service answers for it.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

MAX_DEPTH = 10
Codes = Mapping[str, frozenset[str]]


class Definitions(Protocol):
    """Where definitions are found by canonical."""

    def definition(self, url: str, rtype: str = "") -> dict[str, Any] | None:
        """The definition, None if unknown."""
        ...


def listed(spec: Definitions, url: str, depth: int = 0) -> Codes | None:
    """System -> codes of a value set, None if it cannot be told from the definitions."""
    found = spec.definition(url, "ValueSet")
    compose = found.get("compose") if found else None
    if not isinstance(compose, dict) or depth > MAX_DEPTH:
        return None
    total: dict[str, set[str]] = {}
    for row in compose.get("include", ()):
        part = _include(spec, row, depth)
        if part is None:
            return None
        for system, codes in part.items():
            total.setdefault(system, set()).update(codes)
    for row in compose.get("exclude", ()):
        part = _include(spec, row, depth)
        if part is None:
            return None
        for system, codes in part.items():
            total.get(system, set()).difference_update(codes)
    return {system: frozenset(codes) for system, codes in total.items()}


def _include(spec: Definitions, row: Mapping[str, Any], depth: int) -> Codes | None:
    """One include or exclude: its own codes, in common with every value set that it names."""
    parts = [listed(spec, url, depth + 1) for url in row.get("valueSet", ())]
    if "system" in row:
        parts.append(_system(spec, row))
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or not known:
        return None
    first, *others = known
    return {system: frozenset(codes).intersection(*(each.get(system, frozenset()) for each in others)) for system, codes in first.items()}


def _system(spec: Definitions, row: Mapping[str, Any]) -> Codes | None:
    if "concept" in row:
        return {row["system"]: frozenset(each["code"] for each in row["concept"])}
    if "filter" in row:
        return None
    found = spec.definition(row["system"], "CodeSystem")
    if found is None or found.get("content") != "complete" or "concept" not in found:
        return None
    return {row["system"]: frozenset(_codes(found["concept"]))}


def _codes(concepts: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for each in concepts:
        yield each["code"]
        yield from _codes(each.get("concept", ()))
