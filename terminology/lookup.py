"""CodeSystem $lookup, $subsumes and $find-matches.

https://hl7.org/fhir/R4/codesystem-operation-lookup.html, -subsumes.html, -find-matches.html
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from terminology import units, wording
from terminology.concepts import BadFilter, Json, System, contains, subsumes
from terminology.language import Designation, Languages, best
from terminology.library import Library, Supplement
from terminology.patterns import BadPattern
from terminology.sets import Members
from terminology.trouble import stop

MAX_MATCHES = 1000
OWN = frozenset({"inactive", "parent", "child"})  # told from the system itself, whatever its rows say


def find_system(library: Library, url: str, version: str) -> System:
    """The code system version asked for. Raises Stop."""
    system = library.system(url, version)
    if system is None:
        raise stop("unknown-system-lookup", url=f"{url}|{version}" if version else url, status=404)
    return system


def lookup(system: System, code: str, wanted: Sequence[str], languages: Languages, supplements: Sequence[Supplement]) -> Json:
    """The Parameters of $lookup. wanted: the `property` parameters ('*': all); an empty list gives what R4 gives by default."""
    n = system.find(code)
    if n is None:
        raise stop("lookup-unknown", code=code, url=system.meta.canonical, status=404)
    over = wording.applicable(system, supplements)
    names = wording.names(system, n, None, over)
    chosen = best(languages, names) or best(Languages(), names)
    meta = system.meta
    rows: list[Json] = [{"name": "name", "valueString": meta.name or meta.title or meta.url}]
    if meta.version:
        rows.append({"name": "version", "valueString": meta.version})
    rows += [{"name": "system", "valueUri": meta.url}, {"name": "code", "valueCode": system.code(n)}]
    rows.append({"name": "display", "valueString": chosen.value if chosen is not None else system.code(n)})
    rows.append({"name": "abstract", "valueBoolean": system.abstract(n)})
    if system.definition(n):
        rows.append({"name": "definition", "valueString": system.definition(n)})
    if not wanted or "designation" in wanted or "*" in wanted:
        rows += [_designation(each) for each in names]
    rows += _properties(system, n, wanted, over)
    rows += [{"name": "used-supplement", "valueCanonical": each.meta.canonical} for each in over]
    return {"resourceType": "Parameters", "parameter": rows}


def _designation(one: Designation) -> Json:
    parts: list[Json] = [{"name": "language", "valueCode": one.language}] if one.language else []
    if one.use:
        parts.append({"name": "use", "valueCoding": one.use})
    if one.source:
        parts.append({"name": "source", "valueCanonical": one.source})
    parts.append({"name": "value", "valueString": one.value})
    return {"name": "designation", "part": parts}


def _property(code: str, kind: str, value: Any, text: str) -> Json:
    parts = [{"name": "code", "valueCode": code}, {"name": "value", kind: value}]
    if text:
        parts.append({"name": "description", "valueString": text})
    return {"name": "property", "part": parts}


def _properties(system: System, n: int, wanted: Sequence[str], over: Sequence[Supplement]) -> list[Json]:
    """The `property` parameters: inactive always; the declared ones by default or by name; parent and child."""

    whole = not wanted or "*" in wanted
    code_of, shown = system.code, system.display
    rows: list[Json] = []
    if whole or "inactive" in wanted:
        rows.append(_property("inactive", "valueBoolean", system.inactive(n), ""))
    for name, linked in (("parent", system.parents(n)), ("child", system.children(n))):
        if whole or name in wanted:
            rows += [_property(name, "valueCode", code_of(each), shown(each)) for each in linked.tolist()]
    for prop in wording.properties(system, n, over):
        code = prop.get("code", "")
        if (whole or code in wanted) and code not in OWN:
            kind, value = value_of(prop)
            other = system.find(value) if kind == "valueCode" and isinstance(value, str) else None
            rows.append(_property(code, kind, value, shown(other) if other is not None else ""))
    return rows


def value_of(prop: Json) -> tuple[str, Any]:
    """(value name, value) of a property row."""
    for name, value in prop.items():
        if name.startswith("value"):
            return name, value
    return "valueString", None


def lookup_unit(code: str) -> Json:
    """$lookup of a UCUM expression: its readable name and its base units. Raises Stop if it is not UCUM."""
    try:
        unit = units.parse(code)
        shown = units.name(code)
    except units.BadUnit as bad:
        raise stop("lookup-unknown", code=code, url=units.SYSTEM, status=404) from bad
    rows = [
        {"name": "name", "valueString": "UCUM"},
        {"name": "system", "valueUri": units.SYSTEM},
        {"name": "code", "valueCode": code},
        {"name": "display", "valueString": shown},
        {"name": "abstract", "valueBoolean": False},
        _property("canonical", "valueString", units.base_code(unit), ""),
    ]
    return {"resourceType": "Parameters", "parameter": rows}


def subsumption(system: System, first: str, second: str) -> str:
    """equivalent | subsumes | subsumed-by | not-subsumed. Raises Stop for unknown codes."""
    a, b = system.find(first), system.find(second)
    for code, n in ((first, a), (second, b)):
        if n is None:
            raise stop("lookup-unknown", code=code, url=system.meta.canonical, status=404)
    if a is None or b is None or a == b:
        return "equivalent"
    if subsumes(system, a, b):
        return "subsumes"
    return "subsumed-by" if subsumes(system, b, a) else "not-subsumed"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One property that $find-matches looks for: its value as text, and as it was sent (value name, value)."""

    code: str
    text: str
    operator: str
    sent: tuple[str, Any]


def find_matches(system: System, properties: Sequence[Wanted], exact: bool) -> Json:
    """$find-matches: the concepts that have all the properties; if there are none, those that have the most of them, with what they lack.

    exact: a machine asks, and gets no comments. Raises Stop for a property that the system cannot search.
    """
    found: list[Members] = []
    for each in properties:
        try:
            found.append(system.select(each.code, each.operator, each.text))
        except (BadFilter, BadPattern) as bad:
            raise stop("bad-parameter", name="property", reason=bad, status=400) from bad
    counts = np.zeros(system.size, np.int32)
    for each_found in found:
        counts[each_found] += 1
    most = int(counts.max(initial=0))
    chosen = np.flatnonzero(counts == most)[:MAX_MATCHES].tolist() if most else []
    rows = [_match(system, n, [one for one, has in zip(properties, found, strict=True) if not contains(has, n)], exact) for n in chosen]
    return {"resourceType": "Parameters", "parameter": rows}


def _match(system: System, n: int, lacking: Sequence[Wanted], exact: bool) -> Json:
    coding = {"system": system.meta.url, "code": system.code(n)} | ({"display": system.display(n)} if system.display(n) else {})
    parts: list[Json] = [{"name": "code", "valueCoding": coding}]
    for each in lacking:
        kind, value = each.sent
        parts.append({"name": "unmatched", "part": [{"name": "code", "valueCode": each.code}, {"name": "value", kind: value}]})
    if lacking and not exact:
        parts.append({"name": "comment", "valueString": f"has {', '.join(each.code for each in lacking)} otherwise, or not at all"})
    return {"name": "match", "part": parts}
