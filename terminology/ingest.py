"""Codes judged as they come in: every Coding of a resource, by the policy of its code system and source; and the callable the gate asks for bindings.

A finding becomes an Issue (warning, or error where the policy rejects); it names the element and the rule, never a patient's data.
"""

from collections.abc import Callable
from typing import Any

from conformance.outcome import Issue
from terminology.service import MALFORMED, OK, UNKNOWN_CODE, UNKNOWN_SYSTEM, Terms, Verdict

Json = dict[str, Any]
CheckCode = Callable[[str, str, str | None, str, str], list[Issue]]
STRENGTHS = {"required": "not-in-required", "extensible": "not-in-extensible"}
NO_ISSUES: list[Issue] = []


def codings_judge(terms: Terms, source: str = "", *, flag_only: bool = False) -> Callable[[Json], list[Issue]]:
    """Compiles `judge(res) -> issues` for one source; flag_only for HL7 v2 feeds, which are never refused. Costs a few microseconds per coding."""
    check, action = terms.check, terms.policy.action

    def judge(res: Json) -> list[Issue]:
        terms.refresh()
        issues: list[Issue] = []
        waiting: list[tuple[str, Any]] = [(res.get("resourceType", ""), res)]
        while waiting:
            place, value = waiting.pop()
            if type(value) is list:
                waiting += [(f"{place}[{n}]", each) for n, each in enumerate(value) if type(each) is dict]
                continue
            code, system = value.get("code"), value.get("system")
            if type(code) is str and type(system) is str:
                verdict = check(system, code, value.get("display"))
                if verdict.finding is not OK:
                    issues += report(verdict, system, code, place)
            waiting += [(f"{place}.{name}", each) for name, each in value.items() if type(each) in (dict, list)]
        return issues

    def report(verdict: Verdict, system: str, code: str, place: str) -> list[Issue]:
        if verdict.finding in (UNKNOWN_CODE, UNKNOWN_SYSTEM):
            terms.count_unknown(source, system, code)
        acts = action(verdict.finding, system, source, flag_only=flag_only)
        return [] if acts == "off" else [_issue(acts, verdict.text, place, verdict.finding)]

    return judge


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
