"""CodeSystem $lookup, $subsumes and $find-matches.

https://hl7.org/fhir/R4/codesystem-operation-lookup.html, -subsumes.html, -find-matches.html
"""

from collections.abc import Sequence
from typing import Any

from terminology import units, wording
from terminology.concepts import BadFilter, Json, System, subsumes
from terminology.language import Designation, Languages, best
from terminology.library import Library, Supplement
from terminology.patterns import BadPattern
from terminology.sets import shared
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


def find_matches(system: System, properties: Sequence[tuple[str, str, str]], exact: bool, compositional: bool) -> Json:
    """$find-matches: the concepts that have all the properties (code, value, operator). Raises Stop for a property that the system cannot search."""
    if compositional:
        raise stop("not-supported", reason="compositional matching is not supported", status=400)
    found = system.everything()
    for code, value, op in properties:
        try:
            found = shared(found, system.select(code, op, value))
        except (BadFilter, BadPattern) as bad:
            raise stop("bad-parameter", name="property", reason=bad, status=400) from bad
    rows = [_match(system, int(n)) for n in found[: 2 if exact else MAX_MATCHES]]
    return {"resourceType": "Parameters", "parameter": rows if not exact or len(rows) == 1 else []}


def _match(system: System, n: int) -> Json:
    coding = {"system": system.meta.url, "code": system.code(n)} | ({"display": system.display(n)} if system.display(n) else {})
    return {"name": "match", "part": [{"name": "code", "valueCoding": coding}]}
