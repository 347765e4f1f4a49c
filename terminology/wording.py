"""How a concept is shown: its names, properties and extensions with the value set's own wording and the supplements laid over them.

https://hl7.org/fhir/R4/codesystem.html#supplements; concept properties that R5 names (order, weight, label, status) are taken from the extensions by
which R4 carries them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from terminology.concepts import CONCEPT_PROPERTIES, STANDARDS_STATUS, Json, System, read_designation
from terminology.language import Designation
from terminology.library import Supplement, split

STRUCTURE = "http://hl7.org/fhir/StructureDefinition/"
# extension of a concept -> (property, name of its value in an expansion)
AS_PROPERTY: Mapping[str, tuple[str, str]] = {
    f"{STRUCTURE}codesystem-label": ("label", "valueString"),
    f"{STRUCTURE}valueset-label": ("label", "valueString"),
    f"{STRUCTURE}codesystem-conceptOrder": ("order", "valueDecimal"),
    f"{STRUCTURE}valueset-conceptOrder": ("order", "valueDecimal"),
    f"{STRUCTURE}itemWeight": ("weight", "valueDecimal"),
    f"{STRUCTURE}ordinalValue": ("weight", "valueDecimal"),
    STANDARDS_STATUS: ("status", "valueCode"),
}
URIS = {"label": "label", "order": "order", "weight": "itemWeight", "status": "status", "definition": "definition"}
KEPT = frozenset(
    f"{STRUCTURE}{name}" for name in ("rendering-style", "rendering-xhtml", "valueset-deprecated", "valueset-concept-definition", "coding-sctdescid")
)


def applicable(system: System, supplements: Iterable[Supplement]) -> list[Supplement]:
    """The supplements that are laid over this system version."""
    found = []
    for each in supplements:
        url, version = split(each.meta.supplements)
        if url == system.meta.url and version in ("", system.meta.version):
            found.append(each)
    return found


def names(system: System, n: int, row: Json | None, supplements: Sequence[Supplement]) -> list[Designation]:
    """The display first, then every designation: the system's, the supplements', the value set's."""
    found = list(system.names(n))
    if not supplements and not row:
        return found
    code = system.code(n)
    for each in supplements:
        extra = each.rows.get(code, {})
        source = each.meta.canonical
        if extra.get("display"):
            found.append(Designation(extra["display"], each.meta.language, None, source))
        found += [read_designation(one, source) for one in extra.get("designation", ())]
    if row:
        if row.get("display"):
            worded = Designation(row["display"], system.meta.language, display=True)
            found = [worded, *(one for one in found if not one.display)]
        found += [read_designation(one) for one in row.get("designation", ())]
    return found


def extensions(system: System, n: int, row: Json | None, supplements: Sequence[Supplement]) -> list[Json]:
    """Every extension of the concept but a value set's own standards-status, each url once; the value set's word goes first, then the supplements', then the system's."""
    code = system.code(n)
    layers = [(row or {}).get("extension", ()), *(each.rows.get(code, {}).get("extension", ()) for each in supplements), system.extensions(n)]
    found: dict[str, Json] = {}
    for place, layer in enumerate(layers):
        for each in layer:
            if place or each.get("url") != STANDARDS_STATUS:
                found.setdefault(each.get("url", ""), each)
    return list(found.values())


def extension_properties(found: Iterable[Json]) -> dict[str, tuple[str, Any]]:
    """property -> (value name, value) of the extensions that stand for a property."""
    made: dict[str, tuple[str, Any]] = {}
    for each in found:
        meaning = AS_PROPERTY.get(each.get("url", ""))
        if meaning is not None:
            made.setdefault(meaning[0], (meaning[1], next((v for k, v in each.items() if k.startswith("value")), None)))
    return made


def properties(system: System, n: int, supplements: Sequence[Supplement]) -> list[Json]:
    """The properties of the concept, those of supplements included."""
    if not supplements:
        return list(system.properties(n))
    code = system.code(n)
    found = list(system.properties(n))
    for each in supplements:
        found += each.rows.get(code, {}).get("property", ())
    return found


def uri_of(prop: str, system: System, supplements: Sequence[Supplement]) -> str:
    """The uri by which a property is declared, '' if it is not."""
    for meta in (system.meta, *(each.meta for each in supplements)):
        if meta.properties.get(prop):
            return meta.properties[prop]
    return CONCEPT_PROPERTIES + URIS[prop] if prop in URIS else ""
