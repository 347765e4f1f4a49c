"""The face of the package: one `Terms` per process knows every loaded code system and answers what a code means.

`open_terms(folder)` reads what `terminology load` wrote there; with nothing loaded, the code systems and value sets that R4 publishes are there, and
UCUM, and the check digits of SNOMED CT and LOINC. https://hl7.org/fhir/R4/terminology-service.html
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from conformance import codec
from conformance.spec import Spec, load_spec
from terminology import units
from terminology.concepts import Json, contains
from terminology.honoured import EXPANSION_PARAMETERS
from terminology.library import KINDS, Library, split, tabulate
from terminology.mapping import Sought, translate
from terminology.policy import Policy, open_policy
from terminology.shelf import read_resources, read_systems, stamp
from terminology.trouble import Stop
from terminology.unitsystem import UnitSystem
from terminology.valueset import Rules, Scope, Selection, evaluate, find_value_set
from terminology.verdict import Verdict, judge

MAX_CACHE = 65_536
MAX_UNKNOWN = 10_000
LONGEST = 500  # characters of a coding whose verdict is remembered, and of a code that is listed as unknown
MAX_ANSWERS = 2048
LARGEST = 65_536  # bytes of an answer that is remembered
MAX_NAME = 200


@dataclass(frozen=True, eq=False)
class Terms:
    """The terminology of this process. policy: what to do about findings; seen: verdicts kept; unknown: (source, system, code) -> [count, first display];
    answers: those of operations, as long as the same terminology is in force;
    maps: concept maps of the site that were not loaded, before all others where codes are translated as they come in.

    awaited: the names of the cluster's terminology that had not come here when this process started, and still have not;
    live: the one library in force, replaced by `refresh` when another load has been switched in; stamped: (stamp of the shelf, when it was looked at).
    """

    live: list[Library]
    policy: Policy
    folder: Path | None = None
    ground: list[Library] = field(default_factory=list)  # what lies below the loads, one at a time
    lay: Callable[[Spec], Library] = field(default=lambda spec: Library(definitions=definitions_of(spec, None)), compare=False, repr=False)
    stamped: list[float] = field(default_factory=lambda: [0, 0.0], compare=False, repr=False)
    seen: dict[tuple[str, str, str | None, str | None], Verdict] = field(default_factory=dict, compare=False, repr=False)
    maps: list[Json] = field(default_factory=list, compare=False, repr=False)
    mapped: dict[tuple[str, str], list[Json]] = field(default_factory=dict, compare=False, repr=False)
    awaited: list[str] = field(default_factory=list, compare=False, repr=False)
    asked: set[int] = field(default_factory=set, compare=False, repr=False)
    answers: dict[Any, Json] = field(default_factory=dict, compare=False, repr=False)
    unknown: dict[tuple[str, str, str], list[Any]] = field(default_factory=dict, compare=False, repr=False)
    under: "Terms | None" = field(default=None, compare=False, repr=False)  # whose library this one's follows

    @property
    def library(self) -> Library:
        """What is known now."""
        return self.live[0]

    def refresh(self, *, at_once: bool = False) -> None:
        """Takes up what was loaded since; looks at the disk once a second at the most, or at once."""
        if self.under is not None:
            self.under.refresh(at_once=at_once)
            if self.under.library is not self.library.base:
                self.live[0], self.stamped[0] = Library(base=self.under.library), self.under.stamped[0]
                self.forget()
            return
        now = time.monotonic()
        if self.folder is None or (now - self.stamped[1] < 1 and not at_once):
            return
        self.stamped[1] = now
        fresh = stamp(self.folder)
        if fresh != self.stamped[0] and self.ground:
            self.stamped[0] = fresh
            self.live[0] = shelved(self.folder, self.ground[0])
            self.forget()

    def apart(self) -> "Terms":
        """The terms of another organisation on the same loaded terminology: its own concept maps, counts, and all that is remembered of its questions."""
        return Terms([Library(base=self.library)], self.policy, stamped=[self.stamped[0], 0.0], under=self)

    def forget(self) -> None:
        """Drops what was remembered about codes: the library has changed."""
        self.seen.clear()
        self.mapped.clear()
        self.answers.clear()

    def remember(self, key: Any, res: Json) -> None:
        """Keeps the Parameters that answer a question asked for the second time and follow from the loaded terminology alone, until that changes.

        All are dropped before there are too many. What is kept is written already.
        """
        mark = hash(key)
        if mark not in self.asked:
            if len(self.asked) >= MAX_CACHE:
                self.asked.clear()
            self.asked.add(mark)
            return
        if len(self.answers) >= MAX_ANSWERS:
            self.answers.clear()
        rows = res["parameter"]
        written = rows if isinstance(rows, codec.Written) else codec.Written(codec.encode(rows))
        if memoryview(written).nbytes <= LARGEST:
            self.answers[key] = {**res, "parameter": written}

    def renew(self, spec: Spec) -> None:
        """Takes up what the Spec's packages define now."""
        self.ground[:] = [self.lay(spec)]
        self.live[0] = shelved(self.folder, self.ground[0]) if self.folder is not None and stamp(self.folder) else self.ground[0]
        self.forget()

    def knows(self, url: str) -> bool:
        """True if a code system, value set or concept map of this url is there."""
        library = self.library
        return bool(library.versions(url)) or library.value_set(url) is not None or library.concept_map(url) is not None

    @property
    def edition(self) -> float:
        """Changes whenever other code systems have come into force."""
        return self.stamped[0]

    def facts(self) -> dict[str, Any]:
        """What TerminologyCapabilities says: the code systems with content that are there, with their versions, and the parameters of $expand."""
        library = self.library
        versions = library.published_versions()
        versions |= {url: [each for each in library.versions(url)[::-1] if each] for url in library.urls("CodeSystem")}
        return {"codeSystems": sorted(versions.items()), "parameters": list(EXPANSION_PARAMETERS)}

    def check(self, system: str, code: str, display: str | None = None, version: str | None = None) -> Verdict:
        """Judges one coding: its form and check digit, whether it exists, is active, and is called by one of its names in any language."""
        key = (system, code, display, version)
        found = self.seen.get(key)
        if found is None:
            found = judge(self.library, system, code, display, version or "")
            if len(system) + len(code) + len(display or "") + len(version or "") > LONGEST:
                return found  # long texts are rare in codings, and could fill the memory
            if len(self.seen) >= MAX_CACHE:
                self.seen.clear()
            self.seen[key] = found
        return found

    def in_value_set(self, url: str, system: str, code: str) -> bool | None:
        """True or False for a coding and a value set ('url' or 'url|version'); None if the value set is unknown or cannot be evaluated."""
        selection = self.selection({"url": url})
        return None if selection is None else holds(selection, system, code)

    def selection(self, parameters: Mapping[str, Any]) -> Selection | None:
        """The evaluated value set that `url` names or `valueSet` is; None if it is unknown or cannot be evaluated."""
        scope = Scope(self.library, Rules())
        try:
            given = parameters.get("valueSet")
            return evaluate(scope, given if given is not None else find_value_set(scope, str(parameters["url"])))
        except Stop:
            return None

    def members(self, parameters: Mapping[str, Any], limit: int) -> list[tuple[str, str]] | None:
        """At most `limit` (system, code) pairs of a value set given by `url` or `valueSet`; None if it is unknown or cannot be evaluated.

        A value set that only lists codes needs no code systems: the systems it names may be unknown here (LOINC without a licence).
        """
        selection = self.selection(parameters)
        if selection is None:
            return self._listed(parameters, limit)
        pairs: dict[tuple[str, str], None] = {}
        for segment in selection.segments:
            url = segment.system.meta.url
            for n in segment.numbers[: max(limit - len(pairs), 0)]:
                pairs[url, segment.system.code(int(n))] = None
        return list(pairs)

    def _listed(self, parameters: Mapping[str, Any], limit: int) -> list[tuple[str, str]] | None:
        try:
            found = parameters.get("valueSet") or find_value_set(Scope(self.library, Rules()), str(parameters["url"]))
        except Stop:
            return None
        compose = found.get("compose", {})
        includes = compose.get("include", ())
        if (
            "exclude" in compose
            or not includes
            or not all(each.get("system") and each.get("concept") and "valueSet" not in each for each in includes)
        ):
            return None
        return list(dict.fromkeys((each["system"], one["code"]) for each in includes for one in each["concept"] if "code" in one))[:limit]

    def translate(self, system: str, code: str) -> list[Json]:
        """The codings that the concept maps equate with a code (equal, equivalent, or the target is the wider one), in the order of the maps."""
        found = translate([*self.maps, *self.library.concept_maps()], Sought(system, code), {})
        return [match.target for match in found if match.equivalence in ("equal", "equivalent", "wider") and match.target.get("code")]

    def use_maps(self, maps: Iterable[Json]) -> None:
        """From now on codes are translated with these concept maps before the loaded ones."""
        self.maps[:] = maps
        self.mapped.clear()

    def translated(self, system: str, code: str) -> list[Json]:
        """`translate`, remembered: for codes as they come in."""
        found = self.mapped.get((system, code))
        if found is None:
            found = self.translate(system, code)
            if len(self.mapped) >= MAX_CACHE:
                self.mapped.clear()
            self.mapped[system, code] = found
        return found

    def to_ucum(self, unit_text: str) -> str | None:
        """The UCUM code that a unit written by a laboratory means, None if it could mean two things or none."""
        return units.to_ucum(unit_text)

    def canonical(self, value: Decimal, ucum: str) -> tuple[Decimal, str] | None:
        """The quantity in UCUM base units, None if the unit is not UCUM."""
        return units.canonical(value, ucum)

    def count_unknown(self, source: str, system: str, code: str, display: str | None = None) -> None:
        """Notes that `source` sent a code that nothing knows, for the list of codes to map."""
        key = (source, system[:LONGEST], code[:LONGEST])
        known = self.unknown.get(key)
        if known is not None:
            known[0] += 1
        elif len(self.unknown) < MAX_UNKNOWN:
            self.unknown[key] = [1, display[:MAX_NAME] if isinstance(display, str) else ""]

    def take_unknown(self) -> dict[tuple[str, str, str], tuple[int, str]]:
        """What was counted since the last call, which is forgotten here: whoever takes it keeps it."""
        taken = {key: (count, display) for key, (count, display) in self.unknown.items()}
        self.unknown.clear()
        return taken

    def with_resources(self, resources: Iterable[Json]) -> "Terms":
        """These terms with more CodeSystems, ValueSets and ConceptMaps on top."""
        return Terms([self.library.with_resources(resources)], self.policy)


def holds(selection: Selection, system: str, code: str) -> bool:
    """True if the evaluated value set has the coding; a bare code ('' as system) may be of any of its systems."""
    for segment in selection.segments:
        if system in ("", segment.system.meta.url):
            n = segment.system.find(code)
            if n is not None and contains(segment.numbers, n):
                return True
    return False


Definitions = Callable[[str, str], Sequence[Json]]


def definitions_of(spec: Spec, aside: Definitions | None) -> Definitions:
    """(kind, url) -> the resources that R4 or an installed package publishes under that url, and those of `aside`."""

    def definitions(kind: str, url: str) -> Sequence[Json]:
        found = spec.definition(url, kind)
        more = tuple(aside(kind, url)) if aside is not None else ()
        return (found, *more) if found is not None else more

    return definitions


def open_terms(
    folder: Path | None = None,
    *,
    spec: Spec | None = None,
    policy: Path | None = None,
    resources: Iterable[Json] = (),
    aside: Definitions | None = None,
) -> Terms:
    """The terms of a data folder (None: nothing but R4's own and UCUM). Raises ValueError for a malformed policy table.

    resources: what the server itself brings (tables of other standards), below what was loaded; aside: what is found by its url alone.
    """
    kept = list(resources)
    ucum = {units.SYSTEM: (UnitSystem(),)}

    def lay(spec: Spec) -> Library:
        published = tabulate([*_every(spec, "ConceptMap"), *kept])
        return Library(ucum, published, definitions=definitions_of(spec, aside), published=tuple(spec.urls("CodeSystem")))

    ground = lay(spec if spec is not None else load_spec())
    library = shelved(folder, ground) if stamp(folder) and folder is not None else ground
    return Terms([library], open_policy(policy), folder, [ground], lay, [stamp(folder), time.monotonic()])


def shelved(folder: Path, ground: Library) -> Library:
    """What a data folder has in force, on top of R4's own."""
    definitions, urls = read_resources(folder)
    maps = tabulate(each for url in urls.get("ConceptMap", ()) for each in definitions("ConceptMap", url))
    systems = read_systems(folder)
    return Library(systems=systems, resources=maps, base=ground, definitions=definitions, listed={kind: tuple(found) for kind, found in urls.items()})


def _every(spec: Spec, kind: str) -> Iterable[Json]:
    found = (spec.definition(url, kind) for url in spec.urls(kind))
    return [each for each in found if each is not None]


__all__ = ["KINDS", "Terms", "Verdict", "judge", "open_terms", "split"]
