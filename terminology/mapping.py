"""ConceptMap $translate.

https://hl7.org/fhir/R4/conceptmap-operation-translate.html. Maps in the shape of R5
(`relationship`, `sourceCode`) are read as well; the answer carries R4's `equivalence`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from terminology.concepts import Json
from terminology.valueset import canonical

EQUIVALENCE = {
    "related-to": "relatedto",
    "equivalent": "equivalent",
    "source-is-narrower-than-target": "wider",
    "source-is-broader-than-target": "narrower",
    "not-related-to": "disjoint",
}
FAILING = frozenset({"unmatched", "disjoint"})
REVERSED = {"wider": "narrower", "narrower": "wider", "subsumes": "specializes", "specializes": "subsumes"}


@dataclass(frozen=True, slots=True)
class Match:
    """One row of a map that fits. reverse: found from its target; then concept is the source that is asked for."""

    equivalence: str
    target: Json
    source: Json
    row: Json
    origin: str
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Sought:
    """What $translate looks for: the coding, its version and its side; the systems and value sets of the other side ('' for any)."""

    system: str
    code: str
    target_system: str = ""
    source_set: str = ""
    target_set: str = ""
    reverse: bool = False
    version: str = ""


Find = Callable[[str, str], Json | None]


def translate(maps: Iterable[Json], sought: Sought, dependencies: Mapping[str, str], find: Find = lambda url, version: None) -> list[Match]:
    """The matches in order of the maps. find(url, version): the map that another one names for what it does not map itself."""
    search = _Search(sought, dependencies, find)
    return [match for each in maps if _fits(each, sought) for match in _matches(each, search)]


@dataclass(frozen=True, slots=True)
class _Search:
    """What is looked for, and the maps gone through on the way from map to map (`other-map` may lead in a circle)."""

    sought: Sought
    dependencies: Mapping[str, str]
    find: Find
    path: tuple[str, ...] = ()


def _fits(res: Json, sought: Sought) -> bool:
    source = str(res.get("sourceUri") or res.get("sourceCanonical") or res.get("sourceScopeUri") or res.get("sourceScopeCanonical") or "")
    target = str(res.get("targetUri") or res.get("targetCanonical") or res.get("targetScopeUri") or res.get("targetScopeCanonical") or "")
    fits_source = not sought.source_set or not source or _same(source, sought.source_set)
    return fits_source and (not sought.target_set or not target or _same(target, sought.target_set))


def _same(left: str, right: str) -> bool:
    return left.partition("|")[0] == right.partition("|")[0]


def _matches(res: Json, search: _Search) -> Iterator[Match]:
    sought = search.sought
    for group in res.get("group", ()):
        near, far = (group.get("target"), group.get("source")) if sought.reverse else (group.get("source"), group.get("target"))
        if (sought.system and near and not _same(near, sought.system)) or (sought.target_system and far and not _same(far, sought.target_system)):
            continue
        stated = group.get("targetVersion" if sought.reverse else "sourceVersion") or str(near or "").partition("|")[2]
        if sought.version and stated and stated != sought.version:
            continue
        if sought.reverse:
            yield from _backward(group, sought, canonical(res))
        else:
            yield from _forward(group, search, canonical(res))


def _coding(system: Any, row: Mapping[str, Any]) -> Json:
    made = {"system": str(system).partition("|")[0]} if system else {}
    made |= {"code": row["code"]} if row.get("code") else {}
    return made | ({"display": row["display"]} if row.get("display") else {})


def _equivalence(row: Json) -> str:
    return str(row.get("equivalence") or EQUIVALENCE.get(row.get("relationship", ""), "relatedto"))


def _forward(group: Json, search: _Search, origin: str) -> Iterator[Match]:
    rows = [each for each in group.get("element", ()) if each.get("code") == search.sought.code]
    for element in rows:
        if element.get("noMap"):
            yield Match("unmatched", {}, _coding(group.get("source"), element), {}, origin)
        for target in element.get("target", ()):
            if _depends(target, search.dependencies):
                yield Match(_equivalence(target), _coding(group.get("target"), target), _coding(group.get("source"), element), target, origin)
    if not rows:
        yield from _unmapped(group, search, origin)


def _depends(target: Json, given: Mapping[str, str]) -> bool:
    """True if every dependsOn of the row is given with its value (https://hl7.org/fhir/R4/conceptmap-definitions.html#ConceptMap.group.element.target.dependsOn)."""
    needed = [(str(each.get("property") or each.get("attribute", "")), each) for each in target.get("dependsOn", ())]
    return all(given.get(name) == str(next((v for k, v in each.items() if k.startswith("value")), "")) for name, each in needed)


def _unmapped(group: Json, search: _Search, origin: str) -> Iterator[Match]:
    """What the map says of codes it does not name (https://hl7.org/fhir/R4/conceptmap-definitions.html#ConceptMap.group.unmapped)."""
    rule, sought = group.get("unmapped"), search.sought
    source = _coding(group.get("source"), {"code": sought.code})
    if not rule:
        return
    if rule.get("mode") in ("provided", "use-source-code"):
        yield Match("equal", _coding(group.get("target"), {"code": sought.code}), source, {}, origin)
    elif rule.get("mode") == "fixed":
        yield Match(rule.get("equivalence", "inexact"), _coding(group.get("target"), rule), source, {}, origin)
    elif rule.get("mode") in ("other-map", "use-other-map"):
        url, _, version = str(rule.get("url") or rule.get("otherMap") or "").partition("|")
        other = search.find(url, version) if url not in search.path else None
        if other is not None:
            yield from _matches(other, replace(search, path=(*search.path, url)))


def _backward(group: Json, sought: Sought, origin: str) -> Iterator[Match]:
    for element in group.get("element", ()):
        for target in element.get("target", ()):
            if target.get("code") == sought.code:
                said = _equivalence(target)
                source = _coding(group.get("source"), element)
                yield Match(REVERSED.get(said, said), _coding(group.get("target"), target), source, target, origin, True)


def answer(matches: Sequence[Match], *, modern: bool) -> Json:
    """The Parameters of $translate. modern: the request spoke R5's parameter names, so a reverse match shows the target as `concept` and `source`."""
    good = [each for each in matches if each.equivalence not in FAILING]
    rows: list[Json] = [{"name": "result", "valueBoolean": bool(good)}]
    if not matches:
        rows.append({"name": "message", "valueString": "no map has a match for this code"})
    rows += [{"name": "match", "part": _parts(each, modern)} for each in matches]
    return {"resourceType": "Parameters", "parameter": rows}


def _parts(match: Match, modern: bool) -> list[Json]:
    parts: list[Json] = [{"name": "equivalence", "valueCode": match.equivalence}]
    concept = match.source if match.reverse and not modern else match.target
    if concept.get("code"):
        parts.append({"name": "concept", "valueCoding": concept})
    if match.reverse and modern:
        parts.append({"name": "source", "valueCoding": match.source})
    if match.row.get("comment"):
        parts.append({"name": "message", "valueString": match.row["comment"]})
    for product in match.row.get("product", ()):
        inner: list[Json] = [{"name": "element", "valueUri": product.get("property") or product.get("attribute", "")}]
        value = product.get("value", product.get("valueCode", ""))
        coding = _coding(product.get("system"), {"code": value, "display": product.get("display")})
        parts.append({"name": "product", "part": [*inner, {"name": "concept", "valueCoding": coding}]})
    if match.origin:
        parts.append({"name": "originMap" if modern else "source", "valueCanonical" if modern else "valueUri": match.origin})
    return parts
