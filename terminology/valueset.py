"""ValueSet.compose as set algebra: which concepts of which code system versions a value set holds.

https://hl7.org/fhir/R4/valueset.html#compositions: an include is (system or concepts or filters) AND every imported value set; includes are OR-ed,
excludes taken away. Concepts of one system version are a sorted array; what a definition enumerates keeps its own order and wording.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from terminology.concepts import BadFilter, Json, System, contains, members
from terminology.constraint import select
from terminology.ecl import BadConstraint
from terminology.implicit import implicit_value_set
from terminology.index import IndexedSystem
from terminology.library import Library, Supplement, split
from terminology.patterns import BadPattern
from terminology.sets import Members, shared, united, without
from terminology.trouble import Stop, stop
from terminology.versions import key, matches

EXPANSION_PARAMETER = "http://hl7.org/fhir/StructureDefinition/valueset-expansion-parameter"
SUPPLEMENT = "http://hl7.org/fhir/StructureDefinition/valueset-supplement"
OPERATOR = (
    "http://hl7.org/fhir/5.0/StructureDefinition/extension-ValueSet.compose.include.filter.op",
    "http://hl7.org/fhir/StructureDefinition/alternate-codes",
)
MAX_DEPTH = 32
MOST_WORK = 300_000_000  # concepts that one evaluation may look at
PER_INCLUDE = 1000
CHEAP = frozenset({"constraint", "expression"})  # has a price of its own
COSTS = {"regex": 50, "in": 2, "not-in": 2, "=": 1, "exists": 1}  # how often a filter looks at each concept of its system
NO_ROWS: Mapping[int, Json] = MappingProxyType({})
NO_VERSIONS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Rules:
    """How versions and imports are chosen, from the parameters of the request.

    system: url -> version where an include names none; force: url -> version whatever it names; check: url -> pattern that must be met;
    value_sets: url -> version of imported value sets that name none; supplements: canonicals asked for; merge: one code of several versions is one concept.
    """

    system: Mapping[str, str] = field(default_factory=lambda: NO_VERSIONS)
    force: Mapping[str, str] = field(default_factory=lambda: NO_VERSIONS)
    check: Mapping[str, str] = field(default_factory=lambda: NO_VERSIONS)
    value_sets: Mapping[str, str] = field(default_factory=lambda: NO_VERSIONS)
    supplements: tuple[str, ...] = ()
    merge: bool | None = None

    def include_version(self, url: str, version: str) -> str:
        """The version (or pattern) to use for an include of `url` that names `version`."""
        if url in self.force:
            return self.force[url]
        return version or self.system.get(url, "") or self.check.get(url, "")

    def key(self) -> tuple[Any, ...]:
        """For memoising."""
        named = (self.system, self.force, self.check, self.value_sets)
        return (*(tuple(sorted(each.items())) for each in named), self.supplements, self.merge)


@dataclass(frozen=True, slots=True)
class Segment:
    """Concepts of one system version, in `numbers`; rows: what the value set says of some of them (display, designation, extension).

    nested: the hierarchy may be shown (no enumeration); unknown: enumerated codes that a fragment does not define; plain: no filters stood in the include.
    """

    system: System
    numbers: Members
    rows: Mapping[int, Json] = field(default_factory=lambda: NO_ROWS)
    order: tuple[int, ...] = ()
    nested: bool = False
    plain: bool = False


@dataclass(slots=True)
class Used:
    """What an evaluation met, in order: code systems, value sets, supplements, forced and checked versions that had a say."""

    systems: dict[str, System] = field(default_factory=dict)
    value_sets: dict[str, Json] = field(default_factory=dict)
    supplements: dict[str, Supplement] = field(default_factory=dict)
    parameters: dict[tuple[str, str], None] = field(default_factory=dict)
    named: dict[str, set[str]] = field(default_factory=dict)  # url -> the versions that includes name
    merged: bool = False  # codes of several versions counted as one

    def add(self, other: "Used") -> None:
        """Everything that `other` met."""
        self.systems |= other.systems
        self.value_sets |= other.value_sets
        self.supplements |= other.supplements
        self.parameters |= other.parameters
        self.merged = self.merged or other.merged
        for url, versions in other.named.items():
            self.named.setdefault(url, set()).update(versions)


@dataclass(frozen=True, slots=True)
class Selection:
    """An evaluated value set. Segments of different system versions; a system version appears once unless enumerations differ."""

    segments: tuple[Segment, ...]
    used: Used

    @property
    def total(self) -> int:
        """How many concepts there are."""
        return sum(len(segment.numbers) for segment in self.segments)


@dataclass(frozen=True, slots=True)
class Scope:
    """Where an evaluation stands: the library, the rules, the value sets above (against cycles), and the contained ones."""

    library: Library
    rules: Rules
    path: tuple[str, ...] = ()
    contained: Mapping[str, Json] = field(default_factory=dict)
    only: str | None = None  # judge codes of this system alone: includes of others are left out
    prefer: str = ""  # the version of that system that the code names
    keep_inactive: bool = False  # as if no definition said `inactive: false`
    left: list[int] = field(default_factory=lambda: [MOST_WORK], compare=False)  # what the evaluation may still look at, one number for all of it

    def spend(self, concepts: int) -> None:
        """Counts concepts that are looked at: a definition comes from outside, and nothing else is answered meanwhile. Raises Stop."""
        self.left[0] -= concepts
        if self.left[0] < 0:
            raise stop("too-costly", url=self.path[0] if self.path else "", limit=MOST_WORK, status=422)

    def inside(self, value_set: Json) -> "Scope":
        """The scope inside `value_set`. Raises Stop for a cycle."""
        name = canonical(value_set)
        if value_set.get("url") and name in self.path:
            raise stop("circular", url=name, path=", ".join(self.path), status=422)
        if len(self.path) >= MAX_DEPTH:
            raise stop("circular", url=name, path=", ".join(self.path[:3]), status=422)
        contained = {f"#{each['id']}": each for each in value_set.get("contained", ()) if "id" in each}
        return replace(self, path=(*self.path, name), contained=MappingProxyType({**self.contained, **contained}))


def canonical(res: Mapping[str, Any]) -> str:
    """'url|version' of a resource, as far as it has them."""
    url, version = res.get("url", ""), res.get("version", "")
    return f"{url}|{version}" if version else str(url)


def find_value_set(scope: Scope, reference: str) -> Json:
    """The ValueSet that an import names. Raises Stop if it is unknown."""
    if reference.startswith("#"):
        if reference in scope.contained:
            return scope.contained[reference]
        raise stop("unknown-value-set", url=reference)
    url, version = split(reference)
    pinned = version or scope.rules.value_sets.get(url, "")
    found = scope.library.value_set(url, pinned) or (_implicit(scope.library, url, version) if not pinned or version else None)
    if found is None:
        raise stop("unknown-value-set", url=f"{url}|{pinned}" if pinned else url)
    return found


def _implicit(library: Library, url: str, version: str) -> Json | None:
    """An implicit value set, the same one each time it is named, so that its evaluation is found again."""
    made: Json | None = library.selections.get(("implicit", url, version))
    if made is None:
        made = implicit_value_set(library, url, version)
        if made is not None:
            library.selections.put(("implicit", url, version), made)
    return made


def evaluate(scope: Scope, value_set: Json) -> Selection:
    """What a value set holds. Raises Stop (unknown system, value set, filter; cycle)."""
    name = ("select", canonical(value_set), scope.rules.key(), scope.only, scope.prefer, scope.keep_inactive)
    kept = scope.library.selections.get(name) if value_set.get("url") and not scope.contained else None
    if kept is not None and kept[0] is value_set:
        found: Selection = kept[1]
        return found
    made = _evaluate(scope.inside(value_set), value_set)
    if value_set.get("url") and not scope.contained:
        scope.library.selections.put(name, (value_set, made), (each.numbers for each in made.segments))
    return made


def _evaluate(scope: Scope, value_set: Json) -> Selection:
    used = Used()
    add_supplements(scope, value_set, used)
    compose = value_set.get("compose")
    if compose is None:
        return _from_expansion(scope, value_set, used)
    kept: list[Segment] = []
    for place, include in enumerate(compose.get("include", ())):
        kept += include_segments(scope, include, used, f"include[{place}]", value_set)
    gone: list[Segment] = []
    for place, exclude in enumerate(compose.get("exclude", ())):
        gone += include_segments(scope, exclude, used, f"exclude[{place}]", value_set)
    merge = merge_versions(scope.rules, value_set)
    segments = subtract(scope, unite(scope, kept, merge), gone, merge_excludes(scope.rules, value_set))
    used.merged = used.merged or merge or (merge_excludes(scope.rules, value_set) and _across(kept, gone))
    if compose.get("inactive") is False and not scope.keep_inactive:
        segments = [without_inactive(each) for each in segments]
    return Selection(tuple(each for each in segments if len(each.numbers)), used)


def add_supplements(scope: Scope, value_set: Json, used: Used) -> None:
    """Finds the supplements that the value set and the request ask for. Raises Stop if one is missing."""
    wanted = [each.get("valueCanonical", "") for each in value_set.get("extension", ()) if each.get("url") == SUPPLEMENT]
    for each in (*wanted, *scope.rules.supplements):
        found = scope.library.supplement(each)
        if found is None:
            raise stop("missing-supplement", url=each, status=422)
        used.supplements[found.meta.canonical] = found


def expansion_parameters(value_set: Json) -> dict[str, Any]:
    """What the definition itself asks of its expansion (valueset-expansion-parameter): name -> value."""
    found: dict[str, Any] = {}
    holders = (*value_set.get("extension", ()), *value_set.get("compose", {}).get("extension", ()))
    for extension in holders:
        if extension.get("url") == EXPANSION_PARAMETER:
            parts = {each.get("url"): next((v for k, v in each.items() if k.startswith("value")), None) for each in extension.get("extension", ())}
            found[str(parts.get("name"))] = parts.get("value")
    return found


def merge_versions(rules: Rules, value_set: Json) -> bool:
    """True if a code that several versions share counts once (versionsMatch)."""
    said = expansion_parameters(value_set).get("versionsMatch", rules.merge)
    return said in (True, "true")


def merge_excludes(rules: Rules, value_set: Json) -> bool:
    """True if an exclude takes a code away from every version, unless the definition says versionsMatch = false or enumerates."""
    said = expansion_parameters(value_set).get("versionsMatch", rules.merge)
    return said not in (False, "false")


def include_segments(scope: Scope, include: Json, used: Used, place: str, value_set: Json) -> list[Segment]:
    """The segments of one include or exclude."""
    url = include.get("system", "")
    if url and scope.only is not None and url != scope.only:
        return []
    imports = [evaluate(scope, _import(scope, each, used)) for each in include.get("valueSet", ())]
    for each in imports:
        used.add(each.used)
    if not url:
        return list(_intersection(scope, [list(each.segments) for each in imports]))
    system = resolve(scope, url, include.get("version", ""), used)
    scope.spend(_cost(system, include))
    used.named.setdefault(url, set()).add(include.get("version", ""))
    segment = system_segment(scope, system, include, place, value_set)
    return list(_intersection(scope, [[segment], *([list(each.segments) for each in imports])]))


def _cost(system: System, include: Json) -> int:
    """How many concepts an include looks at, roughly."""
    if include.get("concept"):
        return PER_INCLUDE + len(include["concept"])
    filters = include.get("filter", ())
    return PER_INCLUDE + system.size // 4 + sum(COSTS.get(operator(each), 0) * system.size for each in filters if each.get("property") not in CHEAP)


def _import(scope: Scope, reference: str, used: Used) -> Json:
    try:
        found = find_value_set(scope, reference)
    except Stop as missing:
        url, version = split(reference)
        pinned = version or scope.rules.value_sets.get(url, "")
        if pinned and not version:
            raise stop("unknown-import-pinned", url=url, version=pinned) from missing
        raise
    if not reference.startswith("#"):
        used.value_sets[canonical(found)] = found
        url, version = split(reference)
        if not version and url in scope.rules.value_sets:
            used.parameters["default-valueset-version", f"{url}|{scope.rules.value_sets[url]}"] = None
    return found


def resolve(scope: Scope, url: str, version: str, used: Used) -> System:
    """The system version of an include. Raises Stop if it is unknown, or not the one that a check demands."""
    wanted = scope.rules.include_version(url, version)
    if scope.prefer and (not wanted or matches(wanted, scope.prefer)) and scope.prefer in scope.library.versions(url):
        wanted = scope.prefer
    system = scope.library.system(url, wanted)
    if system is None:
        known = scope.library.versions(url)
        if wanted and known:
            raise stop("unknown-version-expansion", url=url, version=wanted, known=listed(known))
        raise stop("unknown-system-expansion", url=f"{url}|{wanted}" if wanted else url)
    check = scope.rules.check.get(url)
    if check is not None and not matches(check, system.meta.version):
        raise stop("version-check", version=system.meta.version, url=url, wanted=check, status=422)
    if url in scope.rules.force:
        used.parameters["force-system-version", f"{url}|{scope.rules.force[url]}"] = None
    elif not version and url in scope.rules.system:
        used.parameters["system-version", f"{url}|{scope.rules.system[url]}"] = None
    elif not version and check is not None:
        used.parameters["check-system-version", f"{url}|{check}"] = None
    used.systems[system.meta.canonical] = system
    return system


def listed(versions: Sequence[str]) -> str:
    """'a, b or c'."""
    return " or ".join([", ".join(versions[:-1]), versions[-1]]) if len(versions) > 1 else "".join(versions)


def system_segment(scope: Scope, system: System, include: Json, place: str, value_set: Json) -> Segment:
    """The concepts that `concept`, `filter` or neither select."""
    concepts, filters = include.get("concept"), include.get("filter", ())
    if concepts:
        found = [(n, row) for row in concepts if (n := system.find(row.get("code", ""))) is not None]
        return Segment(system, members(n for n, _ in found), dict(found), tuple(dict.fromkeys(n for n, _ in found)))
    numbers = system.everything()
    for number, each in enumerate(filters):
        chosen = filtered(system, each, f"ValueSet.compose.{place}.filter[{number}]", value_set)
        numbers = shared(numbers, chosen) if len(numbers) < system.size else chosen
    return Segment(system, numbers, nested=True, plain=not filters)


def filtered(system: System, row: Json, place: str, value_set: Json) -> Members:
    """The concepts of one filter. Raises Stop if the system does not understand it."""
    prop, value, op = row.get("property", ""), row.get("value"), operator(row)
    if value is None or value == "":
        raise stop("filter-without-value", place, url=system.meta.url, property=prop, op=op, status=422)
    try:
        if prop in ("constraint", "expression") and op == "=" and isinstance(system, IndexedSystem) and system.facts.get("kind") == "snomed":
            return select(system, str(value))
        return system.select(prop, op, str(value))
    except (BadFilter, BadPattern, BadConstraint) as bad:
        named = canonical(value_set)
        raise stop("bad-filter", place, property=prop, op=op, value=value, valueset=named, url=system.meta.url, reason=bad, status=422) from bad


def operator(row: Json) -> str:
    """The filter's operator; one that R4 does not have stands in an extension of `op`."""
    for extension in (*row.get("_op", {}).get("extension", ()), *row.get("extension", ())):
        if extension.get("url") in OPERATOR:
            return str(next((v for k, v in extension.items() if k.startswith("value")), ""))
    return str(row.get("op", ""))


def without_inactive(segment: Segment) -> Segment:
    """The segment's active concepts."""
    return narrow(segment, without(segment.numbers, segment.system.inactives()))


def narrow(segment: Segment, numbers: Members) -> Segment:
    """The segment with only `numbers` left."""
    order = tuple(n for n in segment.order if contains(numbers, n))
    return Segment(segment.system, numbers, segment.rows, order, segment.nested, segment.plain)


def _intersection(scope: Scope, groups: Sequence[Sequence[Segment]]) -> Iterable[Segment]:
    """The concepts that every group has; wording and order are those of the first group."""
    if not groups:
        return ()
    result = list(groups[0])
    for group in groups[1:]:
        result = [narrow(each, _shared(scope, each, group)) for each in result]
    return result


def _shared(scope: Scope, segment: Segment, group: Sequence[Segment]) -> Members:
    found = [members([])]
    for each in group:
        if each.system is segment.system:
            scope.spend(each.system.size // 4)
            found.append(shared(segment.numbers, each.numbers))
        elif each.system.meta.url == segment.system.meta.url:
            found.append(_translated(scope, segment, each))
    return np.unique(np.concatenate(found)).astype(np.int32)


def _translated(scope: Scope, segment: Segment, other: Segment) -> Members:
    """Those of `segment` whose code stands in `other`, which is another version of the system."""
    scope.spend(COSTS["regex"] * len(segment.numbers))  # one by one as well
    known = ((int(n), other.system.find(segment.system.code(int(n)))) for n in segment.numbers)
    return members(n for n, m in known if m is not None and contains(other.numbers, m))


def unite(scope: Scope, segments: Sequence[Segment], merge: bool) -> list[Segment]:
    """Each concept once: the first include that has it gives its wording. merge: over all versions of a system."""
    result: list[Segment] = []
    taken: dict[int, Members] = {}  # of each system, all that earlier includes have
    for segment in sorted(segments, key=lambda each: key(each.system.meta.version), reverse=True) if merge else segments:
        known, numbers = taken.get(id(segment.system)), segment.numbers
        if known is not None:
            numbers = without(numbers, known)
        taken[id(segment.system)] = segment.numbers if known is None else united(known, numbers)
        for earlier in result if merge else ():
            if earlier.system is not segment.system and earlier.system.meta.url == segment.system.meta.url:
                numbers = without(numbers, _translated(scope, Segment(segment.system, numbers), earlier))
        result.append(segment if numbers is segment.numbers else narrow(segment, numbers))
    return result


def _across(kept: Sequence[Segment], gone: Sequence[Segment]) -> bool:
    """True if an exclude that is no enumeration is about another version of a system that is included."""
    pairs = ((one.system, other) for one in kept for other in gone if not other.order)
    return any(one.meta.url == other.system.meta.url and one is not other.system for one, other in pairs)


def subtract(scope: Scope, segments: Sequence[Segment], gone: Sequence[Segment], merge: bool) -> list[Segment]:
    """The segments without what the excludes hold; an enumerated exclude of one version takes from that version alone.

    What is left of a hierarchy is listed flat, as the reference servers do.
    """
    result = []
    taken: dict[int, Members] = {}
    for each in gone:
        known = taken.get(id(each.system))
        taken[id(each.system)] = each.numbers if known is None else united(known, each.numbers)
    for segment in segments:
        numbers = without(segment.numbers, taken[id(segment.system)]) if id(segment.system) in taken else segment.numbers
        for each in gone if merge else ():
            if each.system is not segment.system and not each.order and each.system.meta.url == segment.system.meta.url:
                numbers = without(numbers, _translated(scope, Segment(segment.system, numbers), each))
        result.append(segment if numbers is segment.numbers else replace(narrow(segment, numbers), nested=False))
    return result


def _from_expansion(scope: Scope, value_set: Json, used: Used) -> Selection:
    """A value set that is only an expansion (https://hl7.org/fhir/R4/valueset.html#expansion) reads as an enumeration."""
    expansion = value_set.get("expansion")
    if expansion is None:
        raise stop("not-expandable", url=canonical(value_set), status=422)
    by_system: dict[tuple[str, str], list[Json]] = {}
    waiting = list(expansion.get("contains", ()))[::-1]
    while waiting:
        row = waiting.pop()
        waiting += row.get("contains", ())[::-1]
        if "code" in row and not row.get("abstract"):
            by_system.setdefault((row.get("system", ""), row.get("version", "")), []).append(row)
    segments = []
    for (url, version), rows in by_system.items():
        segments.append(system_segment(scope, resolve(scope, url, version, used), {"concept": rows}, "include", value_set))
    return Selection(tuple(segments), used)
