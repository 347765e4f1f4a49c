"""Codes judged as they come in: every Coding of a resource, by the policy of its code system and source; local codes translated where the policy says so;
and the callable the gate asks for bindings.

A finding becomes an Issue (warning, or error where the policy rejects); it names the element and the rule, never a patient's data.
"""

from collections.abc import Callable, Sequence
from typing import Any

from conformance.outcome import Issue
from terminology.service import Terms
from terminology.verdict import MALFORMED, OK, UNKNOWN_CODE, UNKNOWN_SYSTEM, Verdict

Json = dict[str, Any]
Judge = Callable[..., list[Issue]]
"""(resource, the codings in it if they are known already) -> issues"""
CheckCode = Callable[[str, str, str | None, str, str], list[Issue]]
STRENGTHS = {"required": "not-in-required", "extensible": "not-in-extensible"}
UNKNOWN_FINDINGS = (UNKNOWN_CODE, UNKNOWN_SYSTEM)
NO_ISSUES: list[Issue] = []


def codings_judge(terms: Terms, source: str = "", *, flag_only: bool = False) -> Judge:
    """Compiles `judge(res, codings_of(res)) -> issues` for one source; flag_only for HL7 v2 feeds, which are never refused. Costs a microsecond per coding."""
    check, action = terms.check, terms.policy.action

    def judge(res: Json, codings: Sequence[Json] | None = None) -> list[Issue]:
        terms.refresh()
        found: list[tuple[str, Verdict, Json]] = []
        for coding in codings_of(res) if codings is None else codings:
            system, display, version = coding["system"], coding.get("display"), coding.get("version")
            display = display if type(display) is str else None  # anything else is the gate's to refuse
            verdict = check(system, coding["code"], display, version if type(version) is str else None)
            if verdict.finding is OK:
                continue
            if verdict.finding in UNKNOWN_FINDINGS:
                terms.count_unknown(source, system, coding["code"], display)
            acts = action(verdict.finding, system, source, flag_only=flag_only)
            if acts != "off":
                found.append((acts, verdict, coding))
        places = _places(res) if found else {}
        return [_issue(acts, verdict.text, places[id(coding)], verdict.finding) for acts, verdict, coding in found]

    return judge


def codings_of(res: Json) -> list[Json]:
    """Every element with a system and a code: Coding, and Quantity with its unit."""
    found: list[Json] = []
    waiting: list[Any] = [res]
    while waiting:
        value = waiting.pop()
        if type(value) is dict:
            if "system" in value and type(value["system"]) is str and type(value.get("code")) is str:
                found.append(value)
            waiting += [each for each in value.values() if type(each) is dict or type(each) is list]
        elif type(value) is list:
            waiting += value
    return found


def _places(res: Json) -> dict[int, str]:
    """id of each element -> its FHIRPath; only for resources in which something is wrong."""
    found: dict[int, str] = {}
    waiting: list[tuple[str, Any]] = [(str(res.get("resourceType", "")), res)]
    while waiting:
        place, value = waiting.pop()
        if type(value) is dict:
            found[id(value)] = place
            waiting += [(f"{place}.{name}", each) for name, each in value.items()]
        elif type(value) is list:
            waiting += [(f"{place}[{n}]", each) for n, each in enumerate(value)]
    return found


def _issue(acts: str, text: str, place: str, details: str) -> Issue:
    return Issue("error" if acts == "reject" else "warning", "code-invalid", text, place, details)


def code_checker(terms: Terms, source: str = "", *, flag_only: bool = False) -> CheckCode:
    """The gate's `check_code(system, code, display, valueset, strength)`: no issue if the value set has the code, or nobody here knows the value set."""

    def check_code(system: str, code: str, display: str | None, valueset: str, strength: str) -> list[Issue]:
        finding = STRENGTHS.get(strength)
        if finding is None or not valueset:
            return NO_ISSUES
        acts = terms.policy.action(finding, system, source, flag_only=flag_only)
        if acts == "off" or terms.in_value_set(valueset, system, code) is not False:
            return NO_ISSUES
        if strength == "extensible" and terms.check(system, code).finding != MALFORMED and acts == "reject":
            acts = "warn"  # extensible: another code is allowed where no code of the set fits, which only a person can judge
        return [_issue(acts, f"the code is not in the value set {valueset} ({strength})", "", finding)]

    return check_code


def translator(terms: Terms, source: str = "") -> Callable[[Json], Json]:
    """Compiles `translated(res) -> res` for one source: a CodeableConcept with a code that the policy translates gets, behind its own codings, those that
    the concept maps equate with it (https://hl7.org/fhir/R4/datatypes.html#CodeableConcept). The resource itself is not changed; one without is returned as it is.
    """

    def more(codings: list[Any]) -> list[Json]:
        """The codings to add to those of one CodeableConcept."""
        present = dict.fromkeys((each.get("system"), each.get("code")) for each in codings if type(each) is dict)
        added: list[Json] = []
        for system, code in tuple(present):
            if type(system) is str and type(code) is str and terms.policy.translates(system, source):
                for target in terms.translated(system, code):
                    if (target.get("system"), target["code"]) not in present:
                        present[target.get("system"), target["code"]] = None
                        added.append(dict(target))
        return added

    def visit(value: Any) -> Any:
        if type(value) is list:
            made = [visit(each) if type(each) is dict or type(each) is list else each for each in value]
            return made if any(new is not old for new, old in zip(made, value, strict=True)) else value
        fresh: Json | None = None
        for name, each in value.items():
            if type(each) is dict or type(each) is list:
                seen = [*each, *added] if name == "coding" and type(each) is list and (added := more(each)) else visit(each)
                if seen is not each:
                    fresh = fresh if fresh is not None else dict(value)
                    fresh[name] = seen
        return value if fresh is None else fresh

    def translated(res: Json) -> Json:
        if not terms.policy.translating:
            return res
        terms.refresh()
        changed: Json = visit(res)
        return changed

    return translated
