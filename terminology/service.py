"""The face of the package: one `Terms` per process knows every loaded code system and answers what a code means.

`open_terms(folder)` reads what `terminology load` wrote there; with nothing loaded, the code systems and value sets that R4 publishes are there, and
UCUM, and the check digits of SNOMED CT and LOINC. https://hl7.org/fhir/R4/terminology-service.html
"""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from conformance.spec import Spec, load_spec
from terminology import digits, units
from terminology.concepts import Json, System, contains
from terminology.honoured import EXPANSION_PARAMETERS
from terminology.implicit import LOINC, SNOMED
from terminology.library import KINDS, Library, split, tabulate
from terminology.mapping import Sought, translate
from terminology.policy import Policy, open_policy
from terminology.shelf import read_resources, read_systems, stamp
from terminology.trouble import Stop
from terminology.valueset import Rules, Scope, Selection, evaluate, find_value_set

OK, UNKNOWN_SYSTEM, UNKNOWN_CODE = "ok", "unknown-system", "unknown-code"
INACTIVE, WRONG_DISPLAY, MALFORMED = "inactive", "wrong-display", "malformed"
MAX_CACHE = 65_536
MAX_ISSUE_DISPLAYS = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of a coding. finding: ok | unknown-system | unknown-code | inactive | wrong-display | malformed.

    text: for the sender, '' if ok (it never repeats what was sent); display: the right display, '' if none is known; replacement: the code that took
    the place of an inactive one, '' if none is known.
    """

    finding: str
    text: str = ""
    display: str = ""
    replacement: str = ""


FINE = Verdict(OK)
UNKNOWN = Verdict(UNKNOWN_SYSTEM, "the code system is not loaded")
EXPRESSION, IDENTIFIER = re.compile(r"[:+={}(]"), re.compile(r"\d{6,18}")
FORMS = {SNOMED: digits.sctid, LOINC: digits.loinc}


@dataclass(frozen=True, eq=False)
class Terms:
    """The terminology of this process. policy: what to do about findings; seen: verdicts kept; unknown: counts of unknown codes.

    live: the one library in force, replaced by `refresh` when another load has been switched in; stamped: (stamp of the shelf, when it was looked at).
    """

    live: list[Library]
    policy: Policy
    folder: Path | None = None
    ground: Library | None = None
    stamped: list[float] = field(default_factory=lambda: [0, 0.0], compare=False, repr=False)
    seen: dict[tuple[str, str, str | None], Verdict] = field(default_factory=dict, compare=False, repr=False)
    unknown: dict[tuple[str, str, str], int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def library(self) -> Library:
        """What is known now."""
        return self.live[0]

    def refresh(self) -> None:
        """Takes up what was loaded since; looks at the disk once a second at the most."""
        now = time.monotonic()
        if self.folder is None or now - self.stamped[1] < 1:
            return
        self.stamped[1] = now
        fresh = stamp(self.folder)
        if fresh != self.stamped[0] and self.ground is not None:
            self.stamped[0] = fresh
            self.live[0] = shelved(self.folder, self.ground)
            self.seen.clear()

    def knows(self, url: str) -> bool:
        """True if a code system, value set or concept map of this url is there."""
        library = self.library
        return bool(library.versions(url)) or library.value_set(url) is not None or library.concept_map(url) is not None

    def facts(self) -> dict[str, Any]:
        """What TerminologyCapabilities says: the loaded code systems with their versions, the parameters of $expand."""
        library = self.library
        listed = sorted({*library.urls("CodeSystem"), units.SYSTEM})
        return {"codeSystems": [(url, library.versions(url)[::-1]) for url in listed], "parameters": list(EXPANSION_PARAMETERS)}

    def check(self, system: str, code: str, display: str | None = None) -> Verdict:
        """Judges one coding: its form and check digit, whether it exists, is active, and is called by one of its names in any language."""
        key = (system, code, display)
        found = self.seen.get(key)
        if found is None:
            found = judge(self.library, system, code, display)
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
        """At most `limit` (system, code) pairs of a value set given by `url` or `valueSet`; None if it is unknown or cannot be evaluated."""
        selection = self.selection(parameters)
        if selection is None:
            return None
        pairs: dict[tuple[str, str], None] = {}
        for segment in selection.segments:
            url = segment.system.meta.url
            for n in segment.numbers[: max(limit - len(pairs), 0)]:
                pairs[url, segment.system.code(int(n))] = None
        return list(pairs)

    def translate(self, system: str, code: str) -> list[Json]:
        """The codings that the concept maps equate with a code (equal, equivalent or narrower in the target), best first; for codes of a feed."""
        found = translate(self.library.concept_maps(), Sought(system, code), {})
        return [match.target for match in found if match.equivalence in ("equal", "equivalent", "wider") and match.target.get("code")]

    def to_ucum(self, unit_text: str) -> str | None:
        """The UCUM code that a unit written by a laboratory means, None if it could mean two things or none."""
        return units.to_ucum(unit_text)

    def canonical(self, value: Decimal, ucum: str) -> tuple[Decimal, str] | None:
        """The quantity in UCUM base units, None if the unit is not UCUM."""
        return units.canonical(value, ucum)

    def count_unknown(self, source: str, system: str, code: str) -> None:
        """Notes that `source` sent a code that nothing knows, for the list of codes to map."""
        key = (source, system, code)
        if key in self.unknown or len(self.unknown) < MAX_CACHE:
            self.unknown[key] = self.unknown.get(key, 0) + 1

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


def judge(library: Library, system: str, code: str, display: str | None = None) -> Verdict:
    """The verdict on a coding, not kept."""
    if system == SNOMED and EXPRESSION.search(code) is not None:
        return _expression(library, code)
    if system == units.SYSTEM:
        return FINE if units.valid(code) else Verdict(MALFORMED, "the code is not a UCUM unit")
    form = FORMS.get(system)
    wrong = form(code) if form is not None and code.replace("-", "").isalnum() else ""
    if wrong:
        return Verdict(MALFORMED, wrong)
    known = library.system(system) if system else None
    if known is None:
        return UNKNOWN
    n = known.find(code)
    if n is None:
        whole = known.meta.content in ("complete", "")
        return Verdict(UNKNOWN_CODE, "the code system has no such code") if whole else FINE
    right = known.display(n)
    if known.inactive(n):
        return _inactive(known, n, right)
    if display and not _named(known, n, display):
        return Verdict(WRONG_DISPLAY, _displays(known, n), right)
    return Verdict(OK, "", right) if right else FINE


def _expression(library: Library, code: str) -> Verdict:
    """A post-coordinated expression: each concept in it is judged, its grammar is not. https://hl7.org/fhir/R4/snomedct.html"""
    verdicts = [judge(library, SNOMED, each) for each in IDENTIFIER.findall(code)]
    if not verdicts:
        return Verdict(MALFORMED, "the expression names no concept")
    return next((each for each in verdicts if each.finding != OK), FINE)


def _inactive(system: System, n: int, right: str) -> Verdict:
    named = [
        each for each in system.properties(n) if each.get("code") in ("replacedBy", "REPLACED BY", "REPLACED_BY", "MAP_TO", "SAME AS", "SAME_AS")
    ]
    replacement = str(next((v for each in named for k, v in each.items() if k.startswith("value")), ""))
    text = "the code is inactive" + (f"; {replacement} replaces it" if replacement else "")
    return Verdict(INACTIVE, text, right, replacement)


def _named(system: System, n: int, display: str) -> bool:
    given = " ".join(display.split()).casefold()
    return any(" ".join(each.value.split()).casefold() == given for each in system.names(n)) or not system.names(n)


def _displays(system: System, n: int) -> str:
    names = list(system.names(n))[:MAX_ISSUE_DISPLAYS]
    return "the display is not one of the code's; it is called " + " or ".join(f"'{each.value}'" for each in names)


def r4_definitions(spec: Spec) -> Any:
    """(kind, url) -> the resources that R4 or an installed package publishes under that url."""

    def definitions(kind: str, url: str) -> Sequence[Json]:
        found = spec.definition(url, kind)
        return (found,) if found is not None else ()

    return definitions


def open_terms(folder: Path | None = None, *, spec: Spec | None = None, policy: Path | None = None) -> Terms:
    """The terms of a data folder (None: nothing but R4's own and UCUM). Raises ValueError for a malformed policy table."""
    chosen = spec if spec is not None else load_spec()
    published = {"ConceptMap": tabulate(_every(chosen, "ConceptMap")).get("ConceptMap", {})}
    ground = Library(resources=published, definitions=r4_definitions(chosen))
    library = shelved(folder, ground) if stamp(folder) and folder is not None else ground
    return Terms([library], open_policy(policy), folder, ground, [stamp(folder), time.monotonic()])


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
