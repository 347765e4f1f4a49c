"""The invariants that most resources meet, as native closures; all others run as FHIRPath. https://hl7.org/fhir/R4/conformance-rules.html#constraints

NATIVE: key -> `(element, report) -> bool`, True if the rule is kept. The element is an object whose own shape was already found sound; the caller
guards against shapes deeper inside. A test holds each row against the published expression. Where a native rule is milder than the published text on
purpose (dates of different precision, quantities of different units), its comment says so.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from conformance.dates import interval
from conformance.gate.report import Report

Native = Callable[[Any, Report], bool]
UCUM = "http://unitsofmeasure.org"
THO = "http://terminology.hl7.org/CodeSystem/"


def has(element: Mapping[str, Any], name: str) -> bool:
    """`name.exists()` of an element that is no choice: a value, or id and extensions of a primitive."""
    return name in element or f"_{name}" in element


def has_choice(element: Mapping[str, Any], name: str) -> bool:
    """`name.exists()` of a choice element; only for types where no other element's name begins so."""
    return any(key.startswith((name, f"_{name}")) for key in element)


def items(element: Mapping[str, Any], name: str) -> list[Any]:
    """The repetitions of an element, [] if there are none."""
    found = element.get(name)
    return found if isinstance(found, list) else []


def has_code(concept: Any, system: str, *codes: str) -> bool:
    """True if a CodeableConcept has a coding of this system with one of the codes."""
    codings = concept.get("coding", ()) if isinstance(concept, dict) else ()
    return any(each.get("system") == system and each.get("code") in codes for each in codings if isinstance(each, dict))


def distinct(values: list[Any]) -> bool:
    """True if no two are equal."""
    return len(set(values)) == len(values)


def any_of(*names: str) -> Native:
    """At least one of the elements exists."""
    keys = frozenset([*names, *(f"_{name}" for name in names)])
    return lambda element, _: not keys.isdisjoint(element)


def not_both(first: str, second: str) -> Native:
    """At most one of the two exists."""
    return lambda element, _: not (has(element, first) and has(element, second))


def needs(first: str, second: str) -> Native:
    """The first exists only beside the second."""
    return lambda element, _: not has(element, first) or has(element, second)


def one_of(first: str, second: str) -> Native:
    """Exactly one of the two exists."""
    return lambda element, _: has(element, first) != has(element, second)


def ordered(low: str, high: str) -> Native:
    """`low <= high` of two dates; it fails only if it is certain, whatever the precision (the end includes all of its day, month or year)."""
    return lambda element, _: low not in element or high not in element or _before(element[low], element[high])


def _before(start: str, end: str) -> bool:
    if len(start) == len(end) and start[19:] == end[19:]:
        return start <= end
    try:
        return interval(start)[0] < interval(end)[1]
    except ValueError:  # not dates: their form is reported where they stand
        return True


def not_negative(name: str) -> Native:
    """A decimal of 0 or more."""
    return lambda element, _: name not in element or element[name] >= 0


def _extension(element: Any, _: Report) -> bool:
    nested = "extension" in element
    return nested != (len(element) - nested - ("url" in element) - ("id" in element) - ("_url" in element) > 0)


def _ratio(element: Any, _: Report) -> bool:
    top, bottom = "numerator" in element, "denominator" in element
    return top == bottom and (top or "extension" in element)


def _range(element: Any, _: Report) -> bool:
    """Compared only where both have the same unit; other units would need UCUM, and the published rule is empty there."""
    low, high = element.get("low"), element.get("high")
    if not isinstance(low, dict) or not isinstance(high, dict) or "value" not in low or "value" not in high:
        return True
    same = low.get("code") == high.get("code") if "code" in low and "code" in high else low.get("unit") == high.get("unit")
    return not same or bool(low["value"] <= high["value"])


def _ucum_only(element: Any) -> bool:
    return (has(element, "code") or not has(element, "value")) and element.get("system", UCUM) == UCUM


def _age(element: Any, _: Report) -> bool:
    return _ucum_only(element) and ("value" not in element or element["value"] > 0)


def _count(element: Any, _: Report) -> bool:
    value = element.get("value")
    whole = not isinstance(value, Decimal) or value == value.to_integral_value()
    return _ucum_only(element) and element.get("code", "1") == "1" and whole


def _duration(element: Any, _: Report) -> bool:
    return not has(element, "code") or (element.get("system") == UCUM and has(element, "value"))


def _offset(element: Any, _: Report) -> bool:
    return not has(element, "offset") or ("when" in element and not {"C", "CM", "CD", "CV"} & set(items(element, "when")))


def _no_home(element: Any, _: Report) -> bool:
    return bool(element.get("use") != "home")


def _observation_value(element: Any, _: Report) -> bool:
    return not has(element, "dataAbsentReason") or not has_choice(element, "value")


def _observation_codes(element: Any, _: Report) -> bool:
    """obs-7: no component repeats a coding of the observation that has a value itself."""
    if "component" not in element or not has_choice(element, "value"):
        return True
    own = items(element.get("code", {}), "coding")
    return not any(coding in own for each in items(element, "component") for coding in items(each.get("code", {}), "coding"))


def _allergy_status(element: Any, _: Report) -> bool:
    return "clinicalStatus" in element or has_code(element.get("verificationStatus"), THO + "allergyintolerance-verification", "entered-in-error")


def _allergy_error(element: Any, _: Report) -> bool:
    return "clinicalStatus" not in element or not has_code(
        element.get("verificationStatus"), THO + "allergyintolerance-verification", "entered-in-error"
    )


def _condition_abated(element: Any, _: Report) -> bool:
    return not has_choice(element, "abatement") or has_code(
        element.get("clinicalStatus"), THO + "condition-clinical", "resolved", "remission", "inactive"
    )


def _condition_error(element: Any, _: Report) -> bool:
    return "clinicalStatus" not in element or not has_code(element.get("verificationStatus"), THO + "condition-ver-status", "entered-in-error")


def _appointment_times(element: Any, _: Report) -> bool:
    return (has(element, "start") and has(element, "end")) or element.get("status") in ("proposed", "cancelled", "waitlist")


def _appointment_cancelled(element: Any, _: Report) -> bool:
    """app-4; the published text spells the code `no-show`, the code system `noshow`: both are taken."""
    return "cancelationReason" not in element or element.get("status") in ("noshow", "no-show", "cancelled")


def _list_mode(name: str, mode: str) -> Native:
    return lambda element, _: element.get("mode") == mode or not any(has(each, name) for each in items(element, "entry"))


def _participant_member(element: Any, _: Report) -> bool:
    """ctm-1: the member is a practitioner; judged by what the reference says, without fetching it."""
    member = element.get("member", {}).get("reference", "") if "onBehalfOf" in element else ""
    return not member.startswith(("Patient/", "RelatedPerson/", "Organization/", "CareTeam/", "PractitionerRole/"))


def _task_times(element: Any, _: Report) -> bool:
    return "lastModified" not in element or "authoredOn" not in element or _before(element["authoredOn"], element["lastModified"])


def _parameter(element: Any, _: Report) -> bool:
    part, value, resource = "part" in element, has_choice(element, "value"), "resource" in element
    return part + value + resource == 1


def _risk(element: Any, _: Report) -> bool:
    probability = element.get("probabilityDecimal")
    return probability is None or probability <= 100


def _dispensed(element: Any, _: Report) -> bool:
    return "whenHandedOver" not in element or "whenPrepared" not in element or _before(element["whenPrepared"], element["whenHandedOver"])


def _dose(element: Any, _: Report) -> bool:
    return "dose" in element or has_choice(element, "rate")


def elsewhere(element: Any, _: Report) -> bool:
    """For rules that are judged elsewhere in the gate, where the reason can be told better."""
    return True


NATIVE: Mapping[str, Native] = MappingProxyType(
    {
        "ele-1": elsewhere,  # compiler: no empty object, no object of an id alone
        "ext-1": _extension,
        "ref-1": elsewhere,  # references
        "txt-1": elsewhere,  # narrative
        "txt-2": elsewhere,
        "dom-2": elsewhere,  # contained
        "dom-3": elsewhere,
        "dom-4": elsewhere,
        "dom-5": elsewhere,
        "dom-6": any_of("text"),
        "bdl-1": elsewhere,  # bundle
        "bdl-2": elsewhere,
        "bdl-3": elsewhere,
        "bdl-4": elsewhere,
        "bdl-5": elsewhere,
        "bdl-7": elsewhere,
        "bdl-8": elsewhere,
        "bdl-9": elsewhere,
        "bdl-10": elsewhere,
        "bdl-11": elsewhere,
        "bdl-12": elsewhere,
        "per-1": ordered("start", "end"),
        "qty-3": needs("code", "system"),
        "sqty-1": lambda element, _: not has(element, "comparator"),
        "cpt-2": needs("value", "system"),
        "rat-1": _ratio,
        "rng-2": _range,
        "att-1": needs("data", "contentType"),
        "age-1": _age,
        "cnt-3": _count,
        "dis-1": lambda element, _: _ucum_only(element),
        "drt-1": _duration,
        "exp-1": any_of("expression", "reference"),
        "tim-1": needs("duration", "durationUnit"),
        "tim-2": needs("period", "periodUnit"),
        "tim-4": not_negative("duration"),
        "tim-5": not_negative("period"),
        "tim-6": needs("periodMax", "period"),
        "tim-7": needs("durationMax", "duration"),
        "tim-8": needs("countMax", "count"),
        "tim-9": _offset,
        "tim-10": not_both("timeOfDay", "when"),
        "pat-1": any_of("name", "telecom", "address", "organization"),
        "org-1": any_of("identifier", "name"),
        "org-2": _no_home,
        "org-3": _no_home,
        "obs-3": any_of("low", "high", "text"),
        "obs-6": _observation_value,
        "obs-7": _observation_codes,
        "ait-1": _allergy_status,
        "ait-2": _allergy_error,
        "con-1": any_of("summary", "assessment"),
        "con-2": any_of("code", "detail"),
        "con-4": _condition_abated,
        "con-5": _condition_error,
        "prr-1": needs("orderDetail", "code"),
        "app-1": any_of("type", "actor"),
        "app-2": lambda element, _: has(element, "start") == has(element, "end"),
        "app-3": _appointment_times,
        "app-4": _appointment_cancelled,
        "apr-1": any_of("participantType", "actor"),
        "cmp-1": any_of("text", "entry", "section"),
        "cmp-2": not_both("emptyReason", "entry"),
        "cpl-3": not_both("detail", "reference"),
        "ctm-1": _participant_member,
        "imm-1": any_of("documentType", "reference"),
        "imr-1": any_of("vaccineCode", "targetDisease"),
        "lnk-1": lambda element, _: len(items(element, "item")) > 1,
        "lst-1": not_both("emptyReason", "entry"),
        "lst-2": _list_mode("deleted", "changes"),
        "lst-3": _list_mode("date", "working"),
        "mad-1": _dose,
        "mdd-1": _dispensed,
        "sev-1": not_both("name", "query"),
        "qrs-1": not_both("answer", "item"),
        "rqg-1": one_of("resource", "action"),
        "ras-2": _risk,
        "inv-1@Task": _task_times,
        "inv-1@Parameters": _parameter,
        "ppc-1": any_of("policy", "policyRule"),
        "grp-1": lambda element, _: "member" not in element or element.get("actual") is True,
        "fhs-1": lambda element, _: not (has_choice(element, "age") and has_choice(element, "born")),
        "fhs-2": lambda element, _: has_choice(element, "age") or not has(element, "estimatedAge"),
        "gol-1": lambda element, _: not has_choice(element, "detail") or "measure" in element,
    }
)
