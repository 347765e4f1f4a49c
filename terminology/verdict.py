"""What is to be said of one coding as it comes in: form and check digit, existence, activity, display. https://hl7.org/fhir/R4/terminologies.html"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from terminology import digits, units
from terminology.concepts import System, property_value
from terminology.expression import COMPOSED, BadExpression, read
from terminology.implicit import LOINC, SNOMED
from terminology.index import IndexedSystem
from terminology.library import Library

OK, UNKNOWN_SYSTEM, UNKNOWN_CODE = "ok", "unknown-system", "unknown-code"
INACTIVE, WRONG_DISPLAY, MALFORMED = "inactive", "wrong-display", "malformed"
SHOWN = 3
# properties that lead from an inactive concept to what took its place; the second row only says what it may have meant
REPLACED = frozenset({"replacedBy", "REPLACED BY", "REPLACED_BY", "sameAs", "SAME AS", "SAME_AS", "MAP_TO", "replaced-by"})
POSSIBLE = frozenset({"possiblyEquivalentTo", "POSSIBLY EQUIVALENT TO", "alternative", "ALTERNATIVE", "partiallyEquivalentTo"})


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
FORMS: Mapping[str, Callable[[str], str]] = {SNOMED: digits.sctid, LOINC: digits.loinc}


def judge(library: Library, system: str, code: str, display: str | None = None, version: str = "") -> Verdict:
    """The verdict on a coding, not kept. version: that of the Coding; the newest one known counts where it is not loaded."""
    if system == SNOMED and COMPOSED.search(code) is not None:
        return expression(library, code, version)
    if system == units.SYSTEM:
        return FINE if units.valid(code) else Verdict(MALFORMED, "the code is not a UCUM unit")
    form = FORMS.get(system)
    wrong = form(code) if form is not None and _formed(system, code) else ""
    if wrong:
        return Verdict(MALFORMED, wrong)
    known = _system(library, system, version)
    if known is None:
        return UNKNOWN
    n = known.find(code)
    if n is None:
        whole = known.meta.content in ("complete", "")
        return Verdict(UNKNOWN_CODE, "the code system has no such code") if whole else FINE
    right = known.display(n)
    if known.inactive(n):
        return _inactive(known, n, right)
    if display and not named(known, n, display):
        return Verdict(WRONG_DISPLAY, _displays(known, n), right)
    return Verdict(OK, "", right) if right else FINE


def _formed(system: str, code: str) -> bool:
    """True if the check digit is to be looked at. LOINC also has codes without one (MTHU parts of its hierarchy, `{component}` answers of forms)."""
    return system == SNOMED or code.replace("-", "").isalnum()


def _system(library: Library, url: str, version: str) -> System | None:
    if not url:
        return None
    return (library.system(url, version) if version else None) or library.system(url)


def expression(library: Library, code: str, version: str) -> Verdict:
    """A post-coordinated expression: its grammar, then each concept in it with its term."""
    try:
        references = read(code)
    except BadExpression as bad:
        return Verdict(MALFORMED, f"not an expression of SNOMED CT: {bad}")
    verdicts = [judge(library, SNOMED, each.code, each.term, version) for each in references]
    order = (MALFORMED, UNKNOWN_SYSTEM, UNKNOWN_CODE, INACTIVE, WRONG_DISPLAY)
    return next((each for finding in order for each in verdicts if each.finding == finding), FINE)


def _inactive(system: System, n: int, right: str) -> Verdict:
    rows = system.stated(n) if isinstance(system, IndexedSystem) else system.properties(n)
    sure = [str(property_value(each)) for each in rows if each.get("code") in REPLACED]
    possible = [str(property_value(each)) for each in rows if each.get("code") in POSSIBLE]
    if sure:
        return Verdict(INACTIVE, f"the code is inactive; {' or '.join(sure[:SHOWN])} replaces it", right, sure[0])
    if possible:
        return Verdict(INACTIVE, f"the code is inactive; it may have meant {' or '.join(possible[:SHOWN])}", right)
    return Verdict(INACTIVE, "the code is inactive", right)


def named(system: System, n: int, display: str) -> bool:
    """True if the concept is called so in any language; case and blanks do not count. A concept without names may be called anything."""
    given = " ".join(display.split()).casefold()
    names = system.names(n)
    return not names or any(" ".join(each.value.split()).casefold() == given for each in names)


def _displays(system: System, n: int) -> str:
    listed = [each.value for each in list(system.names(n))[:SHOWN]]
    return "the display is not one of the code's; it is called " + " or ".join(f"'{each}'" for each in listed)
