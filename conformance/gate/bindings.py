"""Bound codes: required ones as errors, extensible ones as warnings. https://hl7.org/fhir/R4/terminologies.html#strength

Only value sets that R4 publishes in full are judged here (`Spec.codes`); all others, and codes of outside systems, are the terminology service's
(`check_code`). mimetypes and languages are open lists: their form is judged.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from conformance.gate.report import At, Report
from conformance.spec import Spec

Judge = Callable[[Any, At, Report], None]

_mime = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+*-]+(?:\s*;.+)?\Z")
_language = re.compile(r"(?:[A-Za-z]{2,8}|[xi])(?:-[A-Za-z0-9]{1,8})*\Z")
MIME_SHORT = frozenset(["json", "xml", "ttl", "text", "html"])  # "xml" and the like stand in CapabilityStatement.format of R4 itself
OPEN: Mapping[str, Callable[[str], Any]] = {
    "http://hl7.org/fhir/ValueSet/mimetypes": lambda code: _mime.match(code) or code in MIME_SHORT,
    "http://hl7.org/fhir/ValueSet/all-languages": _language.match,
    "http://hl7.org/fhir/ValueSet/languages": _language.match,
}


LIMITS: Mapping[str, str] = {"http://hl7.org/fhir/ValueSet/languages": "http://hl7.org/fhir/ValueSet/all-languages"}
"""A preferred value set that the binding limits by another one (the extension elementdefinition-maxValueSet); languages are the only ones on codes."""


def judge(spec: Spec, valueset: str, strength: str, fhir_type: str) -> Judge | None:
    """The check of one bound element of this type; None if there is nothing to judge here."""
    url = valueset.split("|", 1)[0]
    if strength not in ("required", "extensible"):
        return _open(OPEN[LIMITS[url]], LIMITS[url]) if url in LIMITS and fhir_type == "code" else None
    make = MAKERS.get(fhir_type)
    codes = spec.codes(url)
    if make is None:
        return None
    if url in OPEN and fhir_type == "code":
        return _open(OPEN[url], url)
    return _remote(valueset, strength, fhir_type) if codes is None else make(codes, strength, url)


def known_codes(spec: Spec, binding: tuple[str, str] | None, fhir_type: str) -> frozenset[str]:
    """All codes of a bound `code` element whose value set R4 publishes in full; empty for others."""
    codes = spec.codes(binding[1]) if binding and fhir_type == "code" and binding[0] in ("required", "extensible") else None
    return frozenset().union(*codes.values()) if codes else frozenset()


def _fault(report: Report, at: At, strength: str, url: str) -> None:
    name = url.rsplit("/", 1)[-1]
    if strength == "required":
        report.error("code-invalid", f"the code is not in the required value set {name} ({url})", at)
    else:
        report.add("warning", "code-invalid", f"no code is in the extensible value set {name} ({url})", at)


def _open(good: Callable[[str], Any], url: str) -> Judge:
    def check(value: Any, at: At, report: Report) -> None:
        if isinstance(value, str) and not good(value):
            _fault(report, at, "required", url)

    return check


def _code(codes: Mapping[str, frozenset[str]], strength: str, url: str) -> Judge:
    known = frozenset().union(*codes.values())

    def check(value: Any, at: At, report: Report) -> None:
        if value not in known:
            _fault(report, at, strength, url)

    return check


def _member(codes: Mapping[str, frozenset[str]], coding: Any) -> bool:
    """True if a Coding-like object has its system and code in the set; False for any other shape."""
    if not isinstance(coding, dict):
        return False
    system, code = coding.get("system"), coding.get("code")
    return type(system) is str and type(code) is str and code in codes.get(system, ())


def _coding(codes: Mapping[str, frozenset[str]], strength: str, url: str) -> Judge:
    required = strength == "required"

    def check(value: Any, at: At, report: Report) -> None:
        if isinstance(value, dict) and not _member(codes, value) and "extension" not in value and (required or "code" in value):
            _fault(report, at, strength, url)

    return check


def _concept(codes: Mapping[str, frozenset[str]], strength: str, url: str) -> Judge:
    required = strength == "required"

    def check(value: Any, at: At, report: Report) -> None:
        if not isinstance(value, dict):
            return
        codings = value.get("coding")
        if not isinstance(codings, list):
            if required and "extension" not in value:
                _fault(report, at, strength, url)
            return
        for each in codings:
            if _member(codes, each):
                return
        _fault(report, at, strength, url)

    return check


def _quantity(codes: Mapping[str, frozenset[str]], strength: str, url: str) -> Judge:
    flat = frozenset().union(*codes.values())

    def check(value: Any, at: At, report: Report) -> None:
        code = value.get("code", value.get("currency")) if isinstance(value, dict) else None
        if type(code) is str and code not in flat:
            _fault(report, at, strength, url)

    return check


def _remote(valueset: str, strength: str, fhir_type: str) -> Judge:
    """A value set that only the terminology service knows."""

    def check(value: Any, at: At, report: Report) -> None:
        if report.check_code is not None:
            codings = value.get("coding", ()) if fhir_type == "CodeableConcept" and isinstance(value, dict) else (value,)
            _ask(codings, valueset, strength, at, report)

    return check


def _ask(codings: Any, valueset: str, strength: str, at: At, report: Report) -> None:
    """One coding in the set is enough; if none is, what the service says of the last one is reported."""
    found: list[Any] = []
    for each in codings:
        row = each if isinstance(each, dict) else {"code": each}
        found = report.check_code(row.get("system", ""), row.get("code", ""), row.get("display"), valueset, strength)
        if not found:
            return
    for issue in found:
        report.add(issue.severity, issue.code, issue.text, at, issue.details)


MAKERS: Mapping[str, Callable[[Mapping[str, frozenset[str]], str, str], Judge]] = {
    "code": _code,
    "string": _code,
    "uri": _code,
    "Coding": _coding,
    "CodeableConcept": _concept,
    "Quantity": _quantity,
    "Money": _quantity,
}
