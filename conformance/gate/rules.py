"""Invariants as judges: native closures, or FHIRPath. https://hl7.org/fhir/R4/conformance-rules.html#constraints"""

from collections.abc import Callable
from typing import Any

from conformance.gate.report import UNRESOLVED, At, Report
from conformance.path import ExecutionProblem, compile_invariant
from conformance.spec import Rule, Spec

Judge = Callable[[Any, At, Report], None]
Native = tuple[Callable[[Any, Report], bool], Callable[[At, Report], None]]
"""(is the rule kept, what is reported if not)"""


def native(rule: Rule, kept: Callable[[Any, Report], bool]) -> Native:
    """An invariant by a native closure, ready to be run in a loop without a call in between."""
    key, severity = rule.key.partition("@")[0], rule.severity
    text = f"{key}: {rule.human}"

    def fault(at: At, report: Report) -> None:
        report.add(severity, "invariant", text, at, key)

    return kept, fault


def judge_rule(rule: Rule, kept: Callable[[Any, Report], bool]) -> Judge:
    """The same as a judge."""
    _, fault = native(rule, kept)

    def check(value: Any, at: At, report: Report) -> None:
        if not kept(value, report):
            fault(at, report)

    return check


def judge_path(spec: Spec, rule: Rule, type_: str) -> Judge:
    """An invariant on elements of a type by its FHIRPath, compiled when it is first needed. One that cannot be run is reported, never passed over."""
    key, severity = rule.key.partition("@")[0], rule.severity
    text = f"{key}: {rule.human}"
    compiled: list[Callable[..., bool]] = []

    def check(value: Any, at: At, report: Report) -> None:
        if severity != "error" and not report.warnings:
            return
        if not compiled:
            compiled.append(compile_invariant(rule.expression, type_, spec=spec))
        missed = report.memo.get(UNRESOLVED, 0)
        try:
            if compiled[0](value, report.resource, report.root, services=report.services):
                return
            if report.memo.get(UNRESOLVED, 0) != missed:
                report.add("warning", "incomplete", f"{key} cannot be told without resolving references", at, key)
            else:
                report.add(severity, "invariant", text, at, key)
        except ExecutionProblem:
            report.add("warning", "incomplete", f"{key} could not be evaluated here", at, key)

    return check
