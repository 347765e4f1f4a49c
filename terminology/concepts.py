"""A code system version in memory: the concepts of a FHIR CodeSystem, and the face that every code system shows to the rest of the package.

https://hl7.org/fhir/R4/codesystem.html. Concepts are numbered in the order of the definition; sets of concepts are sorted numpy arrays of these
numbers, so that small systems (here) and large ones (`index.py`) share one algebra.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from terminology.language import Designation
from terminology.patterns import whole
from terminology.sets import NOTHING, Members, united, without

Json = dict[str, Any]

CONCEPT_PROPERTIES = "http://hl7.org/fhir/concept-properties#"
STANDARDS_STATUS = "http://hl7.org/fhir/StructureDefinition/structuredefinition-standards-status"
NO_PROPERTIES: Mapping[str, str] = MappingProxyType({})
INACTIVE_STATUS = frozenset({"retired", "inactive"})


class BadFilter(ValueError):
    """A filter that this code system cannot evaluate; the text says why."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What stands above the concepts. content: complete | fragment | example | not-present | supplement; properties: declared code -> uri."""

    url: str
    version: str = ""
    name: str = ""
    title: str = ""
    status: str = "active"
    experimental: bool = False
    content: str = "complete"
    case_sensitive: bool = True
    language: str = ""
    standards: str = ""
    value_set: str = ""
    hierarchy: str = ""
    properties: Mapping[str, str] = field(default_factory=lambda: NO_PROPERTIES)
    types: Mapping[str, str] = field(default_factory=lambda: NO_PROPERTIES)  # declared property -> its type
    supplements: str = ""
    date: str = ""

    @property
    def canonical(self) -> str:
        """'url|version', or the url where there is no version."""
        return f"{self.url}|{self.version}" if self.version else self.url


class System(Protocol):
    """One version of a code system. Numbers (`n`) run from 0 in the order of the definition; arrays are sorted."""

    @property
    def meta(self) -> Meta:
        """What stands above the concepts."""

    @property
    def size(self) -> int:
        """How many concepts there are."""

    def find(self, code: str) -> int | None:
        """The number of a code (ignoring case where the system does), None if it is unknown."""

    def code(self, n: int) -> str:
        """The code, as the system writes it."""

    def display(self, n: int) -> str:
        """The display, '' if there is none."""

    def definition(self, n: int) -> str:
        """The definition, '' if there is none."""

    def names(self, n: int) -> Sequence[Designation]:
        """The display (first, if there is one) and all designations."""

    def properties(self, n: int) -> Sequence[Json]:
        """CodeSystem.concept.property elements, hierarchy left out."""

    def extensions(self, n: int) -> Sequence[Json]:
        """CodeSystem.concept.extension."""

    def inactive(self, n: int) -> bool:
        """True if the concept must not be used any more."""

    def abstract(self, n: int) -> bool:
        """True if the concept groups others and is not for data."""

    def status(self, n: int) -> str:
        """The concept's status property, '' if it has none."""

    def parents(self, n: int) -> Members:
        """Direct parents."""

    def children(self, n: int) -> Members:
        """Direct children."""

    def descendants(self, n: int) -> Members:
        """All below, itself left out."""

    def ancestors(self, n: int) -> Members:
        """All above, itself left out."""

    def select(self, prop: str, op: str, value: str) -> Members:
        """The concepts that a ValueSet filter selects. Raises BadFilter."""

    def everything(self) -> Members:
        """All concepts."""

    def inactives(self) -> Members:
        """All inactive concepts."""

    def abstracts(self) -> Members:
        """All abstract concepts."""

    def search(self, text: str) -> Members:
        """The concepts with a name that holds all words of `text` (each as the start of a word)."""


def members(numbers: Iterable[int]) -> Members:
    """A sorted array without duplicates."""
    return np.unique(np.fromiter(numbers, np.int32))


def subsumes(system: System, above: int, below: int) -> bool:
    """True if `above` is `below` or one of its ancestors."""
    return above == below or contains(system.ancestors(below), above)


def contains(numbers: Members, n: int) -> bool:
    """True if the sorted array holds `n`."""
    at = int(numbers.searchsorted(np.int32(n)))
    return at < len(numbers) and int(numbers[at]) == n


def read_meta(res: Json) -> Meta:
    """The Meta of a CodeSystem resource."""
    declared = [each for each in res.get("property", ()) if "code" in each]
    standards = [each.get("valueCode", "") for each in res.get("extension", ()) if each.get("url") == STANDARDS_STATUS]
    return Meta(
        url=res.get("url", ""),
        version=res.get("version", ""),
        name=res.get("name", ""),
        title=res.get("title", ""),
        status=res.get("status", ""),
        experimental=bool(res.get("experimental", False)),
        content=res.get("content", "complete"),
        case_sensitive=res.get("caseSensitive", True) is not False,
        language=res.get("language", ""),
        standards=standards[0] if standards else "",
        value_set=res.get("valueSet", ""),
        hierarchy=res.get("hierarchyMeaning", ""),
        properties={each["code"]: each.get("uri", "") for each in declared},
        types={each["code"]: each.get("type", "code") for each in declared},
        supplements=res.get("supplements", ""),
        date=str(res.get("date", "")),
    )


def property_value(prop: Json) -> Any:
    """The value of a concept property, None if it has none."""
    return next((value for name, value in prop.items() if name.startswith("value")), None)


def as_text(value: Any) -> str:
    """A property's value as a filter spells it: true, 5, code, the code of a Coding."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return str(value.get("code", ""))
    return str(value)


@dataclass(slots=True)
class _Build:
    """What the walk over the concepts collects."""

    rows: list[Json] = field(default_factory=list)
    up: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True)
class FhirSystem:
    """The System of a CodeSystem resource."""

    meta: Meta
    rows: Sequence[Json]
    up: Sequence[Sequence[int]]
    down: Sequence[Sequence[int]]
    by_code: Mapping[str, int]
    known: Mapping[str, str]  # concept-properties name ('status', 'inactive' ...) -> the property code that carries it here
    memo: dict[Any, Members] = field(default_factory=dict, compare=False, repr=False)

    @property
    def size(self) -> int:
        """How many concepts there are."""
        return len(self.rows)

    def find(self, code: str) -> int | None:
        """The number of a code, None if it is unknown."""
        found = self.by_code.get(code)
        return found if found is not None or self.meta.case_sensitive else self.by_code.get(code.lower())

    def code(self, n: int) -> str:
        """The code."""
        return str(self.rows[n]["code"])

    def display(self, n: int) -> str:
        """The display."""
        return str(self.rows[n].get("display", ""))

    def definition(self, n: int) -> str:
        """The definition."""
        return str(self.rows[n].get("definition", ""))

    def names(self, n: int) -> Sequence[Designation]:
        """The display and all designations."""
        row = self.rows[n]
        first = [Designation(row["display"], self.meta.language, display=True)] if row.get("display") else []
        return [*first, *(read_designation(each) for each in row.get("designation", ()))]

    def properties(self, n: int) -> Sequence[Json]:
        """The concept's properties."""
        return list(self.rows[n].get("property", ()))

    def extensions(self, n: int) -> Sequence[Json]:
        """The concept's extensions."""
        return list(self.rows[n].get("extension", ()))

    def _known(self, n: int, name: str) -> Any:
        wanted = self.known[name]
        for prop in self.rows[n].get("property", ()):
            if prop.get("code") == wanted:
                return property_value(prop)
        return None

    def inactive(self, n: int) -> bool:
        """Inactive by its property, or by its status."""
        said = self._known(n, "inactive")
        return bool(said) if said is not None else self.status(n) in INACTIVE_STATUS

    def abstract(self, n: int) -> bool:
        """notSelectable."""
        return self._known(n, "notSelectable") in (True, "true")

    def status(self, n: int) -> str:
        """The status property."""
        return as_text(self._known(n, "status") or "")

    def parents(self, n: int) -> Members:
        """Direct parents."""
        return members(self.up[n])

    def children(self, n: int) -> Members:
        """Direct children."""
        return members(self.down[n])

    def descendants(self, n: int) -> Members:
        """All below."""
        return self._reach(n, self.down, "down")

    def ancestors(self, n: int) -> Members:
        """All above."""
        return self._reach(n, self.up, "up")

    def _reach(self, n: int, edges: Sequence[Sequence[int]], way: str) -> Members:
        found = self.memo.get((way, n))
        if found is None:
            seen: set[int] = set()
            waiting = list(edges[n])
            while waiting:
                each = waiting.pop()
                if each not in seen:
                    seen.add(each)
                    waiting.extend(edges[each])
            found = self.memo[way, n] = members(seen - {n})
        return found

    def everything(self) -> Members:
        """All concepts."""
        return np.arange(len(self.rows), dtype=np.int32)

    def inactives(self) -> Members:
        """All inactive concepts."""
        found = self.memo.get("inactive")
        if found is None:
            found = self.memo["inactive"] = members(n for n in range(len(self.rows)) if self.inactive(n))
        return found

    def abstracts(self) -> Members:
        """All abstract concepts."""
        found = self.memo.get("abstract")
        if found is None:
            found = self.memo["abstract"] = members(n for n in range(len(self.rows)) if self.abstract(n))
        return found

    def search(self, text: str) -> Members:
        """The concepts whose code or a name matches all words; those with this text in them where it has none ("%")."""
        words = folded_words(text)
        if not words:
            part = text.strip().casefold()
            texts = ((n, (self.code(n), *(one.value for one in self.names(n)))) for n in range(len(self.rows)))
            return members(n for n, found in texts if any(part in each.casefold() for each in found))
        return members(n for n in range(len(self.rows)) if any(_holds(each, words) for each in self._searched[n]))

    @cached_property
    def _searched(self) -> list[list[list[str]]]:
        return [[folded_words(self.code(n)), *(folded_words(one.value) for one in self.names(n))] for n in range(len(self.rows))]

    def select(self, prop: str, op: str, value: str) -> Members:
        """The concepts that a filter selects."""
        if prop in ("concept", "code"):
            return select_concepts(self, op, value)
        if prop in ("parent", "child"):
            return self._select_edges(prop, op, value)
        return select_property(self, prop, op, value)

    def _select_edges(self, prop: str, op: str, value: str) -> Members:
        edges = self.parents if prop == "parent" else self.children
        if op == "exists":
            return members(n for n in range(len(self.rows)) if bool(len(edges(n))) == (value == "true"))
        if op not in ("=", "in"):
            raise BadFilter(f"the property {prop} has no operator {op}")
        found = [self.find(code.strip()) for code in (value.split(",") if op == "in" else [value])]
        ends = self.children if prop == "parent" else self.parents
        return members(int(n) for end in found if end is not None for n in ends(end))


def read_designation(row: Json, source: str = "") -> Designation:
    """A Designation of a CodeSystem or ValueSet designation element."""
    return Designation(row.get("value", ""), row.get("language", ""), row.get("use"), source, tuple(row.get("extension", ())))


def folded_words(text: str) -> list[str]:
    """Lower-case words of letters and digits."""
    return "".join(char if char.isalnum() else " " for char in text.casefold()).split()


def _holds(name: list[str], words: list[str]) -> bool:
    return all(any(part.startswith(word) for part in name) for word in words)


def select_concepts(system: System, op: str, value: str) -> Members:
    """Filters on the concept itself: is-a, descendent-of, is-not-a, generalizes, child-of, descendent-leaf, =, in, not-in, regex, exists."""
    if op in ("in", "not-in"):
        found = members(n for code in value.split(",") if (n := system.find(code.strip())) is not None)
        return found if op == "in" else without(system.everything(), found)
    if op == "regex":
        test = whole(value)
        return members(n for n in range(system.size) if test(system.code(n)))
    if op == "exists":
        return system.everything() if value == "true" else NOTHING
    select = _HIERARCHY.get(op)
    if select is None:
        raise BadFilter(f"the operator {op} is not one of R4")
    n = system.find(value)
    if n is None:
        return system.everything() if op == "is-not-a" else NOTHING
    return select(system, n)


def _leaves(system: System, n: int) -> Members:
    return members(int(each) for each in system.descendants(n) if not len(system.children(int(each))))


def _with(numbers: Members, n: int) -> Members:
    return united(numbers, np.array([n], np.int32))


_HIERARCHY: Mapping[str, Callable[[System, int], Members]] = {
    "=": lambda system, n: members([n]),
    "is-a": lambda system, n: _with(system.descendants(n), n),
    "descendent-of": lambda system, n: system.descendants(n),
    "is-not-a": lambda system, n: without(system.everything(), _with(system.descendants(n), n)),
    "generalizes": lambda system, n: _with(system.ancestors(n), n),
    "child-of": lambda system, n: system.children(n),
    "descendent-leaf": _leaves,
}


def select_property(system: System, prop: str, op: str, value: str) -> Members:
    """Filters on a property, the display or the status of each concept: =, in, not-in, regex, exists."""
    test = _test(op, value)

    def values(n: int) -> list[str]:
        if prop == "display":
            return [system.display(n)] if system.display(n) else []
        if prop == "designation":
            return [one.value for one in system.names(n)]
        if prop == "inactive":
            return ["true" if system.inactive(n) else "false"]
        return [as_text(property_value(each)) for each in system.properties(n) if each.get("code") == prop]

    if op == "exists":
        return members(n for n in range(system.size) if bool(values(n)) == (value == "true"))
    if op == "not-in":
        return members(n for n in range(system.size) if not any(map(test, values(n))))
    return members(n for n in range(system.size) if any(map(test, values(n))))


def _test(op: str, value: str) -> Callable[[str], bool]:
    if op == "=":
        return lambda text: text == value
    if op in ("in", "not-in"):
        listed = {part.strip() for part in value.split(",")}
        return lambda text: text in listed
    if op == "regex":
        return whole(value)
    if op == "exists":
        return bool
    raise BadFilter(f"the operator {op} does not apply to a property")


def open_system(res: Json) -> FhirSystem:
    """The System of a CodeSystem resource: nested concepts, and the hierarchy that parent, child and subsumedBy properties state."""
    meta = read_meta(res)
    build = _Build()
    _walk(res.get("concept", ()), [], build)
    known = _known_properties(meta)
    by_code: dict[str, int] = {}
    for n, row in enumerate(build.rows):
        by_code.setdefault(row["code"], n)
    if not meta.case_sensitive:
        for code, n in list(by_code.items()):
            by_code.setdefault(code.lower(), n)
    _link(build, by_code, known)
    down: list[list[int]] = [[] for _ in build.rows]
    for n, parents in enumerate(build.up):
        for parent in parents:
            down[parent].append(n)
    return FhirSystem(meta, build.rows, build.up, down, by_code, known)


def _walk(concepts: Iterable[Json], above: list[int], build: _Build) -> None:
    for concept in concepts:
        if "code" not in concept:
            continue
        n = len(build.rows)
        build.rows.append(concept)
        build.up.append(list(above))
        _walk(concept.get("concept", ()), [n], build)


def _known_properties(meta: Meta) -> Mapping[str, str]:
    """Which declared property means status, inactive, notSelectable, parent ...: by its uri first, else by its own name."""
    known = {name: name for name in ("status", "inactive", "notSelectable", "parent", "child", "subsumedBy", "deprecated", "deprecationDate")}
    for code, uri in meta.properties.items():
        name = uri.removeprefix(CONCEPT_PROPERTIES) if uri.startswith(CONCEPT_PROPERTIES) else ""
        if name in known:
            known[name] = code
    return known


def _link(build: _Build, by_code: Mapping[str, int], known: Mapping[str, str]) -> None:
    """Adds the edges that properties state."""
    upward, downward = {known["parent"], known["subsumedBy"]}, known["child"]
    above = [dict.fromkeys(each) for each in build.up]
    for n, row in enumerate(build.rows):
        for prop in row.get("property", ()):
            other = by_code.get(as_text(property_value(prop))) if prop.get("code") in upward | {downward} else None
            if other is None or other == n:
                continue
            low, high = (n, other) if prop["code"] in upward else (other, n)
            above[low][high] = None
    build.up[:] = [list(each) for each in above]
