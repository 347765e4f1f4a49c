"""What the gate lends to FHIRPath while a profile is judged: resolve(), memberOf() and conformsTo(). https://hl7.org/fhir/R4/fhirpath.html#functions"""

from typing import Any

from conformance.fhirpath.context import Services
from conformance.gate.match import resolve
from conformance.gate.profiles import profile_check
from conformance.gate.report import UNRESOLVED, Report
from conformance.gate.slicing import conforms
from conformance.outcome import Refusal
from conformance.spec import Spec


def lend(spec: Spec, report: Report) -> Services:
    """The services of one validation."""

    def find(reference: str) -> dict[str, Any] | None:
        found = resolve(reference, report)
        if found is None:
            report.memo[UNRESOLVED] = report.memo.get(UNRESOLVED, 0) + 1
        return found

    def keeps(value: Any, url: str) -> bool:
        try:
            return conforms(lambda each: profile_check(spec, each), url, value, report)
        except Refusal as refusal:
            raise KeyError(url) from refusal

    return Services(resolve=find, member_of=lambda value, url: _member(spec, report, value, url), conforms=keeps)


def _member(spec: Spec, report: Report, value: Any, url: str) -> bool | None:
    """Whether a code, Coding or CodeableConcept is in a value set; None if nobody here can tell."""
    rows = value.get("coding", [value]) if isinstance(value, dict) else [{"code": value}]
    codings = [(str(row.get("system", "")), str(row.get("code", ""))) for row in rows if isinstance(row, dict)]
    listed = spec.codes(url)
    if listed is not None:
        return any(code in (listed.get(system, ()) if system else frozenset().union(*listed.values())) for system, code in codings)
    if report.check_code is None:
        return None
    return any(not report.check_code(system, code, None, url, "required") for system, code in codings)
