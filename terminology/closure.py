"""ConceptMap $closure: which of the codes that a client has met subsume which, told as they are met.

https://hl7.org/fhir/R4/terminology-service.html#closure. A Table holds the codes and when each came; its entries follow from them, so that a replay from any
version is the entries of the codes that came later. An entry is read from source to target: `subsumes` means that the target is the broader one.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from terminology.concepts import Json, System, members
from terminology.library import Library
from terminology.lookup import find_system
from terminology.sets import shared
from terminology.trouble import Stop, stop

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
FHIR_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
MAX_CODES = 50_000
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Table:
    """One closure table. systems: code system -> the version its entries rest on; codes: (system, code) -> the table's version that brought it."""

    name: str
    version: int = 0
    systems: Mapping[str, str] = field(default_factory=dict)
    codes: Mapping[Key, int] = field(default_factory=dict)


def named(text: str) -> str:
    """The name of a table. Raises Stop 400 for one that is not allowed."""
    if NAME.fullmatch(text) is None:
        raise stop("closure-name", name=text[:80], status=400)
    return text


def since(text: str, table: Table) -> int:
    """The version to replay from. Raises Stop 400 unless the table has issued it."""
    if not text.isdecimal() or int(text) > table.version:
        raise stop("closure-version", name=table.name, status=400)
    return int(text)


def grown(library: Library, table: Table, codings: Sequence[Json]) -> Table:
    """The table's next version, with these codings. Raises Stop: a code or system that is not known, too many, or the terminology has changed."""
    systems, codes = dict(table.systems), dict(table.codes)
    for each in codings:
        url, code = str(each.get("system", "")), str(each.get("code", ""))
        if not url or not code:
            raise stop("bad-parameter", name="concept", reason="a Coding needs system and code", status=400)
        if url not in systems:
            systems[url] = find_system(library, url, str(each.get("version", ""))).meta.version
        system = _same(library, table.name, url, systems[url])
        if system.find(code) is None:
            raise stop("lookup-unknown", code=code, url=system.meta.canonical, status=404)
        codes.setdefault((url, code), table.version + 1)
    if len(codes) > MAX_CODES:
        raise stop("closure-full", name=table.name, limit=MAX_CODES, status=422)
    return replace(table, version=table.version + 1, systems=systems, codes=codes)


def _same(library: Library, name: str, url: str, version: str) -> System:
    """The code system the table rests on. Raises Stop 422 if that version is no longer the one in force."""
    try:
        system = find_system(library, url, version)
        newest = find_system(library, url, "").meta.version
    except Stop as gone:
        raise stop("closure-stale", name=name, status=422) from gone
    if version != newest:
        raise stop("closure-stale", name=name, status=422)
    return system


def entries(library: Library, table: Table, after: int, now: datetime) -> Json:
    """The ConceptMap of what came behind version `after`. Raises Stop 422 if the terminology has changed since."""
    groups = []
    for url, version in table.systems.items():
        system = _same(library, table.name, url, version)
        codes = {code: added for (of, code), added in table.codes.items() if of == url}
        elements = _elements(_pairs(system, codes, after))
        if elements:
            groups.append({"source": url, "target": url, "element": elements})
    head = f"Updates for Closure Table {table.name}" if table.version else f"Closure Table {table.name} Creation"
    made: Json = {"resourceType": "ConceptMap", "version": str(table.version), "name": head, "status": "active", "experimental": True}
    made |= {"date": now.isoformat(timespec="seconds")}
    made |= {"id": table.name} if FHIR_ID.fullmatch(table.name) else {}
    return made | ({"group": groups} if groups else {})


def _pairs(system: System, codes: Mapping[str, int], after: int) -> Iterable[tuple[str, str, str]]:
    """(code, equivalence, broader or equal code) of every entry that a code younger than `after` has part in."""
    spelled: dict[int, list[str]] = {}
    for code in codes:
        n = system.find(code)
        if n is not None:
            spelled.setdefault(n, []).append(code)
    known = members(spelled)
    young = members(n for n, names in spelled.items() if any(codes[name] > after for name in names))
    edges = {(int(n), int(above)) for n in young for above in shared(system.ancestors(int(n)), known)}
    edges |= {(int(below), int(n)) for n in young for below in shared(system.descendants(int(n)), known)}
    for low, high in sorted(edges):
        yield from ((a, "subsumes", b) for a in spelled[low] for b in spelled[high] if max(codes[a], codes[b]) > after)
    for n in young:
        first, *others = spelled[int(n)]
        yield from ((other, "equal", first) for other in others if max(codes[first], codes[other]) > after)


def _elements(pairs: Iterable[tuple[str, str, str]]) -> list[Json]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for source, equivalence, target in pairs:
        rows.setdefault(source, []).append({"code": target, "equivalence": equivalence})
    return [{"code": source, "target": targets} for source, targets in rows.items()]
