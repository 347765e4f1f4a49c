"""The gate: a resource (dict) in, issues out. https://hl7.org/fhir/R4/validation.html

`checker` is what a write calls: R4 itself, compiled per type on first use. `validate` adds profiles and whatever level is asked for.
"""

from collections.abc import Callable
from typing import Any

from conformance.gate.compiler import type_check
from conformance.gate.report import Report
from conformance.outcome import Issue
from conformance.spec import Spec

CheckCode = Callable[[str, str, str | None, str | None, str], list[Issue]]
"""(system, code, display, value set, strength) -> issues; terminology supplies it."""
Resolve = Callable[[str], dict[str, Any] | None]
"""Reference -> the resource it points at, None if it cannot be had; for rules that look through references."""


def checker(spec: Spec, rtype: str, *, warnings: bool = True) -> Callable[[dict[str, Any]], list[Issue]]:
    """The base gate of a resource type: R4's elements, bindings, references, invariants, extensions, narrative. KeyError for no type of R4."""
    if rtype not in spec.types:
        raise KeyError(rtype)
    check = type_check(spec, rtype)

    def run(res: dict[str, Any]) -> list[Issue]:
        report = Report(res, warnings=warnings)
        check(res, None, rtype, None, report)
        return report.issues

    return run
