"""The gate: a resource (dict) in, issues out. https://hl7.org/fhir/R4/validation.html

`checker` is what a write calls: R4 itself, compiled per type on first use. `validate` adds profiles, codes that only terminology knows, and
references that can be resolved.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from conformance.gate.compiler import type_check
from conformance.gate.profiles import profile_check
from conformance.gate.report import At, Report
from conformance.gate.services import lend
from conformance.gate.support import must_support
from conformance.outcome import Issue, Refusal
from conformance.spec import Spec, is_resource

CheckCode = Callable[[str, str, str | None, str, str], list[Issue]]
"""(system, code, display, value set, strength) -> issues; terminology supplies it."""
Resolve = Callable[[str], dict[str, Any] | None]
"""Reference -> the resource it points at, None if it cannot be had; for rules that look through references."""
CLAIMS = ("enforce", "warn", "off")


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


def validate(
    spec: Spec,
    res: dict[str, Any],
    *,
    profiles: Iterable[str] = (),
    claims: str = "enforce",
    check_code: CheckCode | None = None,
    resolve: Resolve | None = None,
    warnings: bool = True,
    support: bool = False,
) -> list[Issue]:
    """Everything that is wrong with a resource, all at once.

    profiles: canonicals it must conform to (an unknown one is an error); claims: what becomes of those in meta.profile: 'enforce' (errors), 'warn' or
    'off' (an unknown one is a warning); support: also list must-support elements that are absent, as information.
    """
    own, others = layered(
        spec, res, profiles=profiles, advised=(), claims=claims, check_code=check_code, resolve=resolve, warnings=warnings, support=support
    )
    return own + others


def layered(
    spec: Spec,
    res: dict[str, Any],
    *,
    profiles: Iterable[str] = (),
    advised: Iterable[str] = (),
    claims: str = "enforce",
    check_code: CheckCode | None = None,
    resolve: Resolve | None = None,
    warnings: bool = True,
    support: bool = False,
) -> tuple[list[Issue], list[Issue]]:
    """As `validate`, what R4 says and what the profiles say apart: the one makes a resource malformed, the other unprocessable.

    advised: profiles whose errors are only warnings.
    """
    rtype = res.get("resourceType")
    if not isinstance(rtype, str) or rtype not in spec.types:
        return [Issue("error", "structure", "resourceType must name a resource type of R4", "")], []
    report = Report(res, warnings=warnings, check_code=check_code, resolve=resolve)
    type_check(spec, rtype)(res, None, rtype, None, report)
    own = len(report.issues)
    report.services = lend(spec, report)
    levels = dict.fromkeys(profiles, "enforce")
    levels = {**dict.fromkeys(advised, "warn"), **levels}
    unknown = dict.fromkeys(levels, "error")
    if claims != "off":
        for url in _claimed(res):
            unknown.setdefault(url, "warning")
            levels[url] = "enforce" if "enforce" in (claims, levels.get(url)) else "warn"
    for url, level in levels.items():
        _at_level(level, report, partial(_profile, spec, url, (res, (None, rtype, None)), report, unknown[url]))
    if claims != "off":
        for inner in _inside(spec, res):
            for url in _claimed(inner[0]):
                _at_level(claims, report, partial(_profile, spec, url, inner, report, "warning"))
    if support:
        for url in levels:
            must_support(spec, url, res, report)
    return report.issues[:own], report.issues[own:]


Placed = tuple[dict[str, Any], At]
"""A resource and its place."""


def _inside(spec: Spec, res: dict[str, Any]) -> Iterator[Placed]:
    """The resources in the entries of a Bundle and those contained in the resource, which may claim profiles of their own."""
    root: At = (None, str(res["resourceType"]), None)
    for name, key in (("contained", ""), ("entry", "resource")):
        listed = res.get(name)
        for index, each in enumerate(listed if isinstance(listed, list) else ()):
            place: At = (root, name, index)
            if key:
                each, place = (each.get(key) if isinstance(each, dict) else None), (place, key, None)
            if is_resource(each, spec):
                yield each, place


def _at_level(level: str, report: Report, judge: Callable[[], None]) -> None:
    """Run a judgement whose errors are warnings at the level 'warn'."""
    before = len(report.issues)
    judge()
    if level == "warn":
        report.issues[before:] = [_milder(issue) for issue in report.issues[before:]]


def _profile(spec: Spec, url: str, placed: Placed, report: Report, unknown: str) -> None:
    """Judge one profile of a resource at its place; one that cannot be used is reported with the severity `unknown`."""
    res, at = placed
    rtype = str(res["resourceType"])
    if url.split("|")[0] == f"http://hl7.org/fhir/StructureDefinition/{rtype}":
        return
    try:
        check = profile_check(spec, url)
    except Refusal as refusal:
        if spec.definition(url, "StructureDefinition") is not None:
            unknown = "error"  # it is there, but no resource can be judged by it
        for issue in refusal.issues:
            report.add(unknown, "not-found" if unknown == "error" else "informational", issue.text, (at, "meta", None))
        return
    outer = report.resource, report.root
    report.resource = res
    if at[1] != "contained":
        report.root = res
    check(res, *at, report)
    report.resource, report.root = outer


def claimed(spec: Spec, res: dict[str, Any]) -> list[str]:
    """The profiles that a resource, and those inside it, claim to conform to."""
    return [url for each in (res, *(one for one, _ in _inside(spec, res))) for url in _claimed(each)]


def _claimed(res: dict[str, Any]) -> list[str]:
    meta = res.get("meta")
    listed = meta.get("profile") if isinstance(meta, dict) else None
    return [url for url in listed if isinstance(url, str)] if isinstance(listed, list) else []


def _milder(issue: Issue) -> Issue:
    return Issue("warning", issue.code, issue.text, issue.expression, issue.details) if issue.severity == "error" else issue
