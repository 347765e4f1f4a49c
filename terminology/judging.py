"""The parts of $validate-code: the request, what was found of one coding, and the rules on systems, versions and status."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from terminology.concepts import STANDARDS_STATUS, Json, System
from terminology.language import Languages
from terminology.library import Library, Supplement
from terminology.trouble import Stop, Trouble, stop, trouble
from terminology.valueset import Rules, Scope, Used, canonical, find_value_set, listed
from terminology.versions import matches

MOST_CODINGS = 1000
DEPRECATED_ROW = "http://hl7.org/fhir/StructureDefinition/valueset-deprecated"


@dataclass(frozen=True, slots=True)
class Request:
    """A $validate-code request, read. value_set: None for CodeSystem; one of coding, concept or (code in) coding with `bare` is set.

    system: the code system that the codes must be of ('' for any); abstract: abstract codes are fine; lenient: a wrong display is a warning; membership_only: nothing but membership is judged.
    """

    library: Library
    rules: Rules
    value_set: Json | None
    coding: Json | None = None
    concept: Json | None = None
    bare: bool = False
    infer: bool = False
    languages: Languages = field(default_factory=Languages)
    abstract: bool = True
    active_only: bool = False
    lenient: bool = False
    membership_only: bool = False
    supplements: Sequence[Supplement] = ()
    system: str = ""

    def codings(self) -> Iterator[tuple[Json, str]]:
        """Each coding with its place. Raises Stop if there are too many."""
        if self.concept is not None:
            if len(self.concept.get("coding", ())) > MOST_CODINGS:
                raise stop("bad-parameter", name="codeableConcept", reason=f"it has more than {MOST_CODINGS} codings", status=422)
            for number, each in enumerate(self.concept.get("coding", ())):
                yield each, f"CodeableConcept.coding[{number}]"
        elif self.coding is not None:
            yield self.coding, "" if self.bare else "Coding"

    def fallback(self, url: str) -> str:
        """The version of a system to show where the one asked for is unknown."""
        return self.rules.force.get(url) or self.rules.system.get(url) or self.rules.check.get(url, "")


@dataclass(slots=True)
class Finding:
    """What was found of one coding. inside: the value set (or system) has it; caused, unknown: the unknown system behind or of it; blocked: not judged;
    guessed: its version is unknown, what is shown is another's.
    """

    coding: Json
    place: str
    troubles: list[Trouble] = field(default_factory=list)
    system: System | None = None
    n: int | None = None
    display: str = ""
    normalized: str = ""
    status: str = ""
    inside: bool = False
    blocked: bool = False
    guessed: bool = False
    caused: str = ""
    unknown: str = ""
    used: Used | None = None

    def at(self, name: str) -> str:
        """The place of an element of the coding."""
        return f"{self.place}.{name}" if self.place else name

    def add(self, found: Trouble) -> None:
        """One more trouble."""
        self.troubles.append(found)

    def outside(self, request: Request) -> None:
        """Says that the value set does not have the coding: an error, or a note where another coding of the concept may be right."""
        name = "coding-not-in-value-set" if request.concept is not None else "not-in-value-set"
        named = canonical(request.value_set or {}) or "(unidentified)"
        self.add(trouble(name, self.at("code"), coding=spelt(self.coding), valueset=named))


def spelt(coding: Json) -> str:
    """system|version#code ('display')."""
    version = f"|{coding['version']}" if coding.get("version") else ""
    display = f" ('{coding['display']}')" if coding.get("display") else ""
    return f"{coding.get('system', '')}{version}#{coding.get('code', '')}{display}"


def judge_system(request: Request, finding: Finding) -> bool:
    """Troubles of the system itself: relative, a value set, a supplement. True if nothing more can be said of the coding."""
    url, version = finding.coding["system"], finding.coding.get("version", "")
    relative = ":" not in url
    value_set = request.library.value_set(url) is not None and not request.library.versions(url)
    supplements = [] if request.library.versions(url) else request.library.supplements(url)
    if not (relative or value_set or supplements):
        return False
    if request.value_set is not None:
        finding.outside(request)
    if relative:
        finding.add(trouble("relative-system", finding.at("system")))
        finding.add(unknown_system(request.library, url, version, finding.at("system")))
        finding.unknown = url
    elif value_set:
        finding.add(trouble("system-is-value-set", finding.at("system"), url=url))
    else:
        finding.add(trouble("system-is-supplement", finding.at("system"), url=supplements[-1].meta.canonical))
        finding.caused = url
    return True


def unknown_system(library: Library, url: str, version: str, place: str) -> Trouble:
    """The trouble with a code system, or a version of it, that nobody here knows."""
    known = library.versions(url)
    if version and known:
        return trouble("unknown-version", place, url=url, version=version, known=listed(known))
    if version:
        return trouble("unknown-version-none", place, url=url, version=version)
    return trouble("unknown-system", place, url=url)


def mismatch(scope: Scope, value_set: Json, finding: Finding) -> list[Trouble]:
    """The version that the coding names against those that the value set's includes mean."""
    url, given = finding.coding["system"], finding.coding.get("version", "")
    includes = [each.get("version", "") for each in _includes(scope, value_set, url)]
    if not given or not includes:
        return []
    library, rules = scope.library, scope.rules
    known = given in library.versions(url)
    meant = [(rules.include_version(url, each), each) for each in includes]
    if any((wanted and matches(wanted, given)) or (not wanted and known) for wanted, _ in meant):
        return []
    wanted, named = meant[-1]
    place = finding.at("version")
    if not wanted:
        newest = library.system(url)
        found = [trouble("version-mismatch-default", place, url=url, version=newest.meta.version if newest else "", value=given)]
    elif wanted != named:
        found = [trouble("version-mismatch-changed", place, url=url, version=wanted, include=named, value=given)]
    else:
        found = [trouble("version-mismatch", place, url=url, version=wanted, value=given)]
    if not known:
        found.append(unknown_system(library, url, given, finding.at("system")))
        finding.caused = f"{url}|{given}"
    return found


def _includes(scope: Scope, value_set: Json, url: str, depth: int = 0) -> list[Json]:
    """The includes of a system, those of imported value sets too."""
    found = []
    for include in value_set.get("compose", {}).get("include", ()):
        if include.get("system") == url:
            found.append(include)
        elif not include.get("system") and depth < 8:
            for each in include.get("valueSet", ()):
                if not each.startswith("#"):
                    found += _includes(scope, _imported(scope, each), url, depth + 1)
    return found


def _imported(scope: Scope, reference: str) -> Json:
    """An imported value set; an empty one if it is unknown, which the evaluation reports."""
    try:
        return find_value_set(scope, reference)
    except Stop:
        return {}


def status_troubles(request: Request, finding: Finding, row: Json | None, extensions: Sequence[Json]) -> list[Trouble]:
    """Inactive and deprecated concepts, and concepts that the value set itself marks as deprecated."""
    system, n = finding.system, finding.n
    if system is None or n is None:
        return []
    code, status = system.code(n), system.status(n) or _standards(extensions)
    found = []
    if system.inactive(n):
        finding.status = status
        said = f"{status} and inactive" if status and status != "inactive" else "inactive"
        found.append(trouble("inactive", finding.place or "code", code=code, status=said))
    elif status == "deprecated":
        finding.status = status
        found.append(trouble("deprecated", finding.place or "code", code=code))
    if row and any(_marks(each) for each in row.get("extension", ())):
        named = canonical(request.value_set or {})
        found.append(trouble("deprecated-in-value-set", finding.at("code"), code=code, url=system.meta.url, valueset=named))
    return found


def _standards(extensions: Sequence[Json]) -> str:
    return next((str(each.get("valueCode", "")) for each in extensions if each.get("url") == STANDARDS_STATUS), "")


def _marks(extension: Json) -> bool:
    url: Any = extension.get("url")
    value = next((v for k, v in extension.items() if k.startswith("value")), None)
    return (url == DEPRECATED_ROW and value in (True, "true")) or (url == STANDARDS_STATUS and value in ("deprecated", "withdrawn"))
