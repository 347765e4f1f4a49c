"""Value sets that exist without a definition: all of a code system, and the query URLs of SNOMED CT and LOINC.

https://hl7.org/fhir/R4/snomedct.html#implicit, https://hl7.org/fhir/R4/loinc.html#implicit, https://hl7.org/fhir/R4/codesystem-definitions.html#CodeSystem.valueSet
"""

from typing import Any
from urllib.parse import unquote

from terminology.index import IndexedSystem
from terminology.library import Library

SNOMED = "http://snomed.info/sct"
LOINC = "http://loinc.org"


def implicit_value_set(library: Library, url: str, version: str = "") -> dict[str, Any] | None:
    """The ValueSet that an implicit url means; None if it is none, or its code system is unknown."""
    base, question, query = url.partition("?")
    if question and base.startswith(SNOMED):
        return _snomed(library, url, base, unquote(query))
    if url == f"{LOINC}/vs" or url.startswith(f"{LOINC}/vs/"):
        return _loinc(library, url, version)
    system, _, rest = url.partition("?fhir_vs")
    if question and not rest and library.versions(system):
        return _made(url, system, version, {})
    return None


def _made(url: str, system: str, version: str, rule: dict[str, Any]) -> dict[str, Any]:
    include = {"system": system} | ({"version": version} if version else {}) | rule
    return {"resourceType": "ValueSet", "url": url, "status": "active", "compose": {"include": [include]}}


def _filter(prop: str, op: str, value: str) -> dict[str, Any]:
    return {"filter": [{"property": prop, "op": op, "value": value}]}


def _snomed(library: Library, url: str, base: str, query: str) -> dict[str, Any] | None:
    """`?fhir_vs`, `=isa/id`, `=refset`, `=refset/id`, `=ecl/...`, of any edition or of the one that the url names."""
    name, _, value = query.partition("=")
    if name != "fhir_vs" or not library.versions(SNOMED):
        return None
    version = base if base != SNOMED else ""
    kind, _, argument = value.partition("/")
    if not value:
        return _made(url, SNOMED, version, {})
    system = library.system(SNOMED, version)
    if kind in ("isa", "refset") and argument and system is not None and system.find(argument) is None:
        return None
    if kind == "isa" and argument:
        return _made(url, SNOMED, version, _filter("concept", "is-a", argument))
    if kind == "refset":
        return _made(url, SNOMED, version, _filter("concept", "in", argument) if argument else _filter("constraint", "=", "<<900000000000455006"))
    if kind == "ecl" and argument:
        return _made(url, SNOMED, version, _filter("constraint", "=", argument))
    return None


def _loinc(library: Library, url: str, version: str) -> dict[str, Any] | None:
    """`/vs` (everything), `/vs/LL...` (an answer list), `/vs/LP...` (below a part), `/vs/LG...` (a group)."""
    code = url.removeprefix(f"{LOINC}/vs").removeprefix("/")
    system = library.system(LOINC, version)
    if system is None:
        return None
    if not code:
        return _made(url, LOINC, version, {})
    if system.find(code) is None:
        return None
    n = system.find(code)
    answers = system.listed(n) if n is not None and code[:2] == "LL" and isinstance(system, IndexedSystem) else []
    if answers:  # in the order of the list
        return _made(url, LOINC, version, {"concept": [{"code": system.code(each)} for each in answers]})
    prop = {"LL": "LIST", "LG": "GROUP"}.get(code[:2])
    if prop:
        return _made(url, LOINC, version, _filter(prop, "=", code))
    return _made(url, LOINC, version, _filter("concept", "descendent-of", code)) if code.startswith("LP") else None
