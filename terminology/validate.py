"""$validate-code of CodeSystem and ValueSet: is a code, Coding or CodeableConcept right, and what is wrong with it.

https://hl7.org/fhir/R4/codesystem-operation-validate-code.html, https://hl7.org/fhir/R4/valueset-operation-validate-code.html. Besides result,
display and message the answer carries `issues` (an OperationOutcome) and what the terminology ecosystem adds: inactive, status, normalized-code,
x-unknown-system, x-caused-by-unknown-system.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from terminology import wording
from terminology.concepts import STANDARDS_STATUS, Json, System, contains
from terminology.displays import check_display
from terminology.expand import warnings
from terminology.expression import COMPOSED
from terminology.implicit import SNOMED
from terminology.judging import Finding, Request, judge_system, mismatch, status_troubles, unknown_system
from terminology.language import best
from terminology.trouble import Stop, Trouble, outcome, trouble
from terminology.valueset import Scope, Segment, Selection, canonical, evaluate
from terminology.verdict import INACTIVE, OK, WRONG_DISPLAY, expression
from terminology.versions import key, matches

UNKNOWNS = ("unknown-system-expansion", "unknown-version-expansion")


def validate(request: Request) -> Json:
    """The Parameters that answer a request. Raises Stop where nothing can be said (unknown value set, missing supplement, bad filter)."""
    findings = [judge(request, coding, place) for coding, place in request.codings()]
    return answer(request, findings)


def judge(request: Request, coding: Json, place: str) -> Finding:
    """What is to be said of one coding. place: 'Coding', 'CodeableConcept.coding[0]', or '' for the parameters code, system, version, display."""
    finding = Finding(coding, place)
    if not coding.get("system"):
        coding = infer(request, finding)
    if not coding.get("system"):
        return finding
    if request.system and coding["system"] != request.system:
        severity = "information" if request.concept is not None else ""  # another coding of the concept may be the one that is meant
        finding.add(trouble("other-system", finding.at("system"), severity=severity, system=coding["system"], url=request.system))
        return finding
    if judge_system(request, finding):
        return finding
    if request.value_set is None:
        _judge_in_system(request, finding)
    else:
        _judge_in_value_set(request, finding)
    return finding


def infer(request: Request, finding: Finding) -> Json:
    """A bare code takes the one code system of the value set that has it, if `inferSystem` was asked."""
    coding, value_set = finding.coding, request.value_set
    if value_set is None or not (request.infer or finding.place == ""):
        finding.add(trouble("no-system", finding.place or "code"))
        if value_set is not None:
            finding.outside(request)
        return coding
    selection = evaluate(Scope(request.library, request.rules), value_set)
    code = coding.get("code", "")
    found = dict.fromkeys(s.system.meta.url for s in selection.segments if (n := s.system.find(code)) is not None and contains(s.numbers, n))
    if len(found) == 1:
        finding.coding = {**coding, "system": next(iter(found))}
        return finding.coding
    name = canonical(value_set) or "(unidentified)"
    if found:
        finding.add(trouble("many-inferences", finding.at("code"), code=code, valueset=name, systems=", ".join(found)))
    else:
        finding.add(trouble("no-inference", finding.at("code"), code=code, valueset=name))
    finding.outside(request)
    return coding


def _judge_in_system(request: Request, finding: Finding) -> None:
    """Without a value set: the code against its code system."""
    url, version = finding.coding["system"], finding.coding.get("version", "")
    wanted = request.rules.force.get(url) or version or request.rules.system.get(url, "") or request.rules.check.get(url, "")
    system = request.library.system(url, wanted)
    if system is None:
        finding.add(unknown_system(request.library, url, wanted, finding.at("system")))
        finding.caused = f"{url}|{wanted}" if wanted and request.library.versions(url) else url
        return
    check = request.rules.check.get(url)
    if check is not None and not matches(check, system.meta.version):
        finding.add(trouble("version-check", finding.at("version"), version=system.meta.version, url=url, wanted=check))
    finding.system = system
    if url == SNOMED and system.find(finding.coding.get("code", "")) is None and COMPOSED.search(finding.coding.get("code", "")) is not None:
        _judge_expression(request, finding, system)
        return
    _judge_code(request, finding, None)
    finding.inside = finding.n is not None or system.meta.content == "fragment"


def _judge_expression(request: Request, finding: Finding, system: System) -> None:
    """A post-coordinated expression is right if it can be read and its concepts are there; it is not classified."""
    verdict = expression(request.library, finding.coding["code"], system.meta.version)
    finding.inside = verdict.finding in (OK, INACTIVE, WRONG_DISPLAY)
    if verdict.finding != OK:
        name = "expression-note" if finding.inside else "malformed-code"
        finding.add(trouble(name, finding.at("code"), url=system.meta.url, reason=verdict.text))


def _judge_in_value_set(request: Request, finding: Finding) -> None:
    value_set = request.value_set or {}
    url, version = finding.coding["system"], finding.coding.get("version", "")
    scope = Scope(request.library, request.rules, only=url, prefer=version, keep_inactive=True)
    finding.troubles += mismatch(scope, value_set, finding)
    try:
        relaxed = replace(request.rules, check={}) if request.rules.check else request.rules
        named = {**relaxed.system, **{u: v for u, v in request.rules.check.items() if u not in relaxed.system}}
        selection = evaluate(replace(scope, rules=replace(relaxed, system=named)), value_set)
    except Stop as stopped:
        _not_evaluated(request, finding, stopped)
        return
    segment, n = _candidate(request, finding, selection)
    finding.used = selection.used
    if segment is None:
        _outside(request, finding, selection)
        return
    finding.system = segment.system
    check = request.rules.check.get(url)
    if check is not None and not matches(check, segment.system.meta.version):
        finding.add(trouble("version-check", finding.at("version"), version=segment.system.meta.version, url=url, wanted=check))
    _judge_code(request, finding, segment)
    finding.inside = True
    if n is not None and segment.system.inactive(n) and _active_only(request, value_set):
        finding.inside = False
        finding.add(trouble("not-active", finding.at("code"), code=finding.coding.get("code", "")))
        finding.outside(request)


def _active_only(request: Request, value_set: Json) -> bool:
    return request.active_only or value_set.get("compose", {}).get("inactive") is False


def _candidate(request: Request, finding: Finding, selection: Selection) -> tuple[Segment | None, int | None]:
    """The segment that has the code: of the version named, else of the newest version, one whose display is right going first."""
    code, version = finding.coding.get("code", ""), finding.coding.get("version", "")
    found: list[tuple[Segment, int]] = []
    for segment in sorted(selection.segments, key=lambda each: key(each.system.meta.version), reverse=True):
        n = segment.system.find(code)
        if n is not None and contains(segment.numbers, n):
            found.append((segment, n))
        elif n is None and segment.system.meta.content == "fragment" and segment.plain:
            return segment, None
    exact = [each for each in found if each[0].system.meta.version == version] or (found if not _both(selection, version) else [])
    display = finding.coding.get("display")
    right = [each for each in exact if display and any(one.value == display for one in each[0].system.names(each[1]))]
    return next(iter(right or exact), (None, None))


def _both(selection: Selection, version: str) -> bool:
    """True if the version named is one of those in the value set (then no other will do)."""
    return bool(version) and any(version == each.system.meta.version for each in selection.segments)


def _not_evaluated(request: Request, finding: Finding, stopped: Stop) -> None:
    """An unknown system or value set behind the value set: the code cannot be judged. Anything else is the caller's to answer."""
    found = stopped.troubles[0]
    url, version = finding.coding["system"], finding.coding.get("version", "")
    if found.kind.key in UNKNOWNS:
        wanted = next((part for part in mismatch_versions(request, url) if request.library.system(url, part) is None), "")
        known = bool(request.library.versions(url))
        extra = unknown_system(request.library, url, wanted if known else version, finding.at("system"))
        finding.add(extra)
        finding.caused = f"{url}|{wanted}" if wanted and known else url
        finding.system = (request.library.system(url, version) if version else None) or request.library.system(url, request.fallback(url))
        finding.guessed = True
        _show(request, finding)
        finding.inside = True
    elif found.kind.key in ("unknown-value-set", "unknown-import-pinned"):
        named = found.text if found.kind.key == "unknown-value-set" else ""
        finding.add(Trouble(found.kind, named) if named else _pinned(request, found))
        finding.system = request.library.system(url, version)
        finding.blocked = True
        _show(request, finding)
    else:
        raise stopped


def _pinned(request: Request, found: Trouble) -> Trouble:
    url, version = next(((u, v) for u, v in request.rules.value_sets.items() if u in found.text), ("", ""))
    return trouble("unknown-value-set", url=f"{url}|{version}")


def mismatch_versions(request: Request, url: str) -> Sequence[str]:
    """The versions that the value set's own includes of a system mean."""
    includes = (request.value_set or {}).get("compose", {}).get("include", ())
    return [request.rules.include_version(url, each.get("version", "")) for each in includes if each.get("system") == url]


def _show(request: Request, finding: Finding) -> None:
    """Notes the concept for display, without judging it."""
    if finding.system is not None:
        finding.n = finding.system.find(finding.coding.get("code", ""))
        if finding.n is not None:
            finding.display = _display(request, finding.system, finding.n, None)


def _outside(request: Request, finding: Finding, selection: Selection) -> None:
    """The value set does not have the code; its code system may."""
    url, version = finding.coding["system"], finding.coding.get("version", "")
    finding.outside(request)
    segments = [each.system for each in selection.segments if each.system.meta.url == url]
    newest = max(segments, key=lambda each: key(each.meta.version), default=None)
    system = request.library.system(url, version) if version else newest or request.library.system(url, request.fallback(url))
    if request.membership_only:
        return
    if system is None:
        if version and request.library.versions(url):
            finding.caused = f"{url}|{version}"
        else:
            finding.unknown = url
        if not any(each.kind.key.startswith("unknown-version") for each in finding.troubles):
            finding.add(unknown_system(request.library, url, version, finding.at("system")))
        return
    finding.system = system
    _judge_code(request, finding, None)


def _display(request: Request, system: System, n: int, row: Json | None) -> str:
    over = wording.applicable(system, request.supplements)
    names = wording.names(system, n, row, over)
    chosen = best(request.languages, names) or best(type(request.languages)(), names)
    return chosen.value if chosen is not None else ""


def _judge_code(request: Request, finding: Finding, segment: Segment | None) -> None:
    """Existence, case, abstract, inactive, deprecated, display, against finding.system."""
    system, coding = finding.system, finding.coding
    if system is None:
        return
    code, url = coding.get("code", ""), system.meta.url
    n = finding.n = system.find(code)
    if n is None:
        name = "unknown-code-in-fragment" if system.meta.content == "fragment" else "unknown-code"
        if name == "unknown-code" and not system.meta.version:
            name = "unknown-code-unversioned"
        finding.add(trouble(name, finding.at("code"), code=code, url=url, version=system.meta.version))
        return
    if system.code(n) != code:
        finding.normalized = system.code(n)
        finding.add(trouble("case", finding.at("code"), code=code, correct=system.code(n), url=system.meta.canonical))
    row = segment.rows.get(n) if segment is not None else None
    finding.display = _display(request, system, n, row)
    if not request.abstract and system.abstract(n):
        finding.add(trouble("abstract", finding.at("code"), url=url, code=code))
        if segment is not None:
            finding.outside(request)
    over = wording.applicable(system, request.supplements)
    finding.troubles += status_troubles(request, finding, row, wording.extensions(system, n, None, over))
    if coding.get("display"):
        names = wording.names(system, n, row, over)
        severity = "warning" if request.lenient else ""
        found = check_display(coding["display"], names, request.languages, finding.at("display"), {"url": url, "code": code}, severity)
        if found is not None:
            finding.add(found)


@dataclass(slots=True)
class _Sum:
    """The troubles of all codings, and the finding whose concept is shown."""

    troubles: list[Trouble] = field(default_factory=list)
    chosen: Finding | None = None


def answer(request: Request, findings: Sequence[Finding]) -> Json:
    """The Parameters of some findings: one for code and Coding, one per coding of a CodeableConcept."""
    concept = request.concept is not None
    inside = [each for each in findings if each.inside]
    total = _Sum(chosen=next(iter(inside), None if concept else findings[0]))
    if concept and not inside and not any(each.blocked for each in findings) and request.value_set is not None:
        total.troubles.append(trouble("no-coding-in-value-set", valueset=canonical(request.value_set) or "(unidentified)"))
    for each in findings:
        total.troubles += each.troubles
    total.troubles += reference_troubles(request, findings)
    failed = any(each.level == "error" for each in total.troubles) or not inside
    rows: list[Json] = []
    if total.chosen is not None:
        rows += concept_rows(total.chosen)
    if concept:
        rows.append({"name": "codeableConcept", "valueCodeableConcept": request.concept})
    rows.append({"name": "result", "valueBoolean": not failed})
    if total.troubles:
        rows.append({"name": "issues", "resource": outcome(total.troubles)})
        said = sorted({each.text for each in total.troubles if each.kind.said})
        if said:
            rows.append({"name": "message", "valueString": "; ".join(said)})
    for name in ("caused", "unknown"):
        label = "x-caused-by-unknown-system" if name == "caused" else "x-unknown-system"
        rows += [{"name": label, "valueCanonical": value} for value in dict.fromkeys(getattr(each, name) for each in findings) if value]
    return {"resourceType": "Parameters", "parameter": rows}


def concept_rows(finding: Finding) -> list[Json]:
    """code, system, version, display, inactive, status, normalized-code."""
    coding, system, n = finding.coding, finding.system, finding.n
    named = not (finding.place.startswith("CodeableConcept") and finding.guessed)
    rows: list[tuple[str, str, Any]] = [("code", "valueCode", coding.get("code")), ("system", "valueUri", coding.get("system"))] if named else []
    if system is not None:
        rows.append(("version", "valueString", system.meta.version))
    rows.append(("display", "valueString", finding.display))
    rows.append(("normalized-code", "valueCode", finding.normalized))
    if system is not None and n is not None and (system.inactive(n) or finding.status):
        rows.append(("inactive", "valueBoolean", True if system.inactive(n) else None))
        rows.append(("status", "valueCode", finding.status))
    return [{"name": name, kind: value} for name, kind, value in rows if value]


def reference_troubles(request: Request, findings: Sequence[Finding]) -> list[Trouble]:
    """Notes on code systems and value sets that are drafts, experimental, deprecated or withdrawn, where the value set asked for is not that itself."""
    own = request.value_set or {}
    found: dict[str, Trouble] = {}
    for finding in findings:
        if finding.system is not None and finding.inside:
            meta = finding.system.meta
            found |= _noted("CodeSystem", meta.canonical, meta.status, meta.standards, meta.experimental, own)
        value_sets = finding.used.value_sets if finding.used is not None and finding.inside else {}
        for res in (*value_sets.values(), *((own,) if own and finding.inside else ())):
            standards = next((e.get("valueCode", "") for e in res.get("extension", ()) if e.get("url") == STANDARDS_STATUS), "")
            if standards in ("deprecated", "withdrawn") or res.get("status") == "retired":
                found |= _noted("ValueSet", canonical(res), res.get("status", ""), standards, False, {})
    return list(found.values())


def _noted(kind: str, name: str, status: str, standards: str, experimental: bool, own: Json) -> dict[str, Trouble]:
    rows = warnings(kind, name, status, standards, experimental)
    said = [row["name"].removeprefix("warning-") for row in rows]
    left = [
        each for each in said if not (each == "draft" and own.get("status") == "draft") and not (each == "experimental" and own.get("experimental"))
    ]
    return {f"{each} {name}": trouble(f"status-{each}", what=f"{kind} {name}") for each in left}
