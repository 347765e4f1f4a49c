"""Does a profile look through references? Then what they point at must be had before a resource is judged by it.

https://hl7.org/fhir/R4/profiling.html#discriminator, https://hl7.org/fhir/R4/fhirpath.html#functions (resolve)
"""

from collections.abc import Iterator
from typing import Any

from conformance.gate.profiles import CORE
from conformance.spec import Spec

THROUGH = "resolve()"


def looks_through(spec: Spec, url: str) -> bool:
    """True if a discriminator or constraint of the profile, of its bases, or of the profiles of its elements asks for resolve()."""
    known: dict[str, bool] = spec.memo.setdefault("asks", {})
    if url not in known:
        known[url] = any(_asks(row) for row in _elements(spec, url, set()))
    return known[url]


def _elements(spec: Spec, url: str, seen: set[str]) -> Iterator[dict[str, Any]]:
    structure = spec.definition(url, "StructureDefinition") if url not in seen else None
    seen.add(url)
    if structure is None or structure.get("derivation") != "constraint":
        return
    rows = structure.get("snapshot", {}).get("element") or structure.get("differential", {}).get("element", ())
    yield from rows
    others = [structure.get("baseDefinition", "")] + [each for row in rows for one in row.get("type", ()) for each in one.get("profile", ())]
    for other in others:
        if other and not other.removeprefix(CORE).isalpha():
            yield from _elements(spec, other, seen)


def _asks(row: dict[str, Any]) -> bool:
    paths = [each.get("path", "") for each in row.get("slicing", {}).get("discriminator", ())]
    return any(THROUGH in text for text in (*paths, *(each.get("expression", "") for each in row.get("constraint", ()))))
