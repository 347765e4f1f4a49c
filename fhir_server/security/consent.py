"""Consent resources -> what they keep from a caller, as a clause. https://hl7.org/fhir/R4/consent.html, DECISIONS.md (which consents count).

A provision is a rule with conditions (who, when, why, which data) and a type; nested provisions are exceptions to it; where several exceptions
match, denying wins. Base of the rules is `policyRule` (OPTOUT denies, else permit). A consent concerns its patient's compartment only.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from conformance.dates import interval
from conformance.outcome import Refusal
from fhir_server.context import Context, Resource
from fhir_server.query.clauses import EVERYTHING, NOTHING, Clause, Ids, both, either, negated
from fhir_server.query.indexes import HOT
from fhir_server.search import parse
from fhir_server.search.keys import refers
from fhir_server.search.schema import schema
from fhir_server.search.types import reference, token
from fhir_server.security.reach import members

PRIVACY = "patient-privacy"
OPT_OUT = frozenset({"OPTOUT", "OPTOUTE"})
READING = frozenset({"access", "use", "disclose"})
MAX_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as consents name it. refs: the user and the organizations, roles, teams and groups it belongs to; purposes: () if unstated."""

    refs: frozenset[str]
    client: str
    purposes: frozenset[str]


def counts(res: Resource) -> bool:
    """True for a consent that rules access: active, and about privacy (or without a known scope: then it is rather obeyed)."""
    codes = {one.get("code") for one in _rows(_object(res.get("scope")).get("coding"))}
    return res.get("status") == "active" and (PRIVACY in codes or not codes)


def patient_of(res: Resource, base: str) -> str:
    """'Patient/1', '' if the consent does not name its patient by reference."""
    found = reference.normal(str(_object(res.get("patient")).get("reference", "")), base)
    return found if found.startswith("Patient/") else ""


def withheld(ctx: Context, res: Resource, caller: Caller, rtype: str) -> Clause:
    """The resources of a type that this consent keeps from the caller."""
    patient = patient_of(res, ctx.base)
    policy = {one.get("code") for one in _rows(_object(res.get("policyRule")).get("coding"))}
    base: Clause = EVERYTHING if policy & OPT_OUT else NOTHING
    rule = res.get("provision")
    denied = _denied(ctx, rule, caller, rtype, base, 0) if isinstance(rule, dict) else base
    return both(members(ctx.spec, patient, rtype), denied) if denied != NOTHING and patient else NOTHING


def _denied(ctx: Context, rule: Mapping[str, Any], caller: Caller, rtype: str, above: Clause, depth: int) -> Clause:
    """What is denied of a type, given what was without this rule."""
    if depth > MAX_DEPTH:
        return EVERYTHING
    kind = rule.get("type")
    deny = kind == "deny"
    about = _about(ctx, rule, caller, rtype, deny)
    inside: Clause = above if kind not in ("deny", "permit") else EVERYTHING if deny else NOTHING
    nested = sorted(_rows(rule.get("provision")), key=lambda one: one.get("type") == "deny")  # denying is said last, so it wins
    for one in nested:
        inside = _denied(ctx, one, caller, rtype, inside, depth + 1)
    return either(both(about, inside), both(negated(about), above))


def _about(ctx: Context, rule: Mapping[str, Any], caller: Caller, rtype: str, deny: bool) -> Clause:
    """The resources of a type that a rule is about, for this caller, now."""
    if not (in_period(rule.get("period"), ctx.now, deny) and _acts(ctx, rule, caller) and _for_purpose(rule, caller, deny) and _reads(rule)):
        return NOTHING
    return both(*(condition(ctx, rule, rtype, deny) for condition in (_labelled, _of_class, _coded, _named, _dated)))


def _acts(ctx: Context, rule: Mapping[str, Any], caller: Caller) -> bool:
    """The rule names no actor, or this one: by reference, or a client by the identifier of the reference."""
    rows = _rows(rule.get("actor"))
    found = [_object(row.get("reference")) for row in rows]
    refs = {reference.normal(str(one.get("reference", "")), ctx.base) for one in found}
    names = {str(_object(one.get("identifier")).get("value", "")) for one in found} - {""}
    return not rows or bool(refs & caller.refs) or caller.client in names


def _for_purpose(rule: Mapping[str, Any], caller: Caller, deny: bool) -> bool:
    """The rule names no purpose, or this one; an unstated purpose may be the one that is denied, and is none that is permitted."""
    codes = {one.get("code") for one in _rows(rule.get("purpose"))}
    return not codes or bool(codes & caller.purposes) or (deny and not caller.purposes)


def _reads(rule: Mapping[str, Any]) -> bool:
    """The rule names no action, or one that is reading."""
    codes = {one.get("code") for action in _rows(rule.get("action")) for one in _rows(action.get("coding"))}
    return not codes or bool(codes & READING)


def in_period(period: Any, now: datetime, unreadable: bool) -> bool:
    """True if a moment lies in a Period (no period, no side: open); `unreadable` where its text is no date: it limits a permission, not a denial."""
    if not isinstance(period, dict):
        return True
    try:
        started = "start" not in period or interval(str(period["start"]))[0] <= now
        return started and ("end" not in period or now < interval(str(period["end"]))[1])
    except ValueError:
        return unreadable


def _labelled(ctx: Context, rule: Mapping[str, Any], rtype: str, deny: bool) -> Clause:
    return _codes(ctx, rtype, "_security", _rows(rule.get("securityLabel"))) if rule.get("securityLabel") else EVERYTHING


def _of_class(ctx: Context, rule: Mapping[str, Any], rtype: str, deny: bool) -> Clause:
    """`class`: a resource type, or a profile that the resource claims."""
    rows = _rows(rule.get("class"))
    codes = [str(one.get("code", "")) for one in rows]
    if not rows or rtype in codes:
        return EVERYTHING
    profiles = [code for code in codes if ":" in code]
    return either(*(_criteria(ctx, rtype, "_profile", code) for code in profiles)) if profiles else NOTHING


def _coded(ctx: Context, rule: Mapping[str, Any], rtype: str, deny: bool) -> Clause:
    rows = [coding for one in _rows(rule.get("code")) for coding in _rows(one.get("coding"))]
    return _codes(ctx, rtype, "code", rows) if rule.get("code") else EVERYTHING


def _named(ctx: Context, rule: Mapping[str, Any], rtype: str, deny: bool) -> Clause:
    """`data`: the instance itself; unless `meaning` is instance, also what refers to it."""
    rows = _rows(rule.get("data"))
    found: list[Clause] = []
    for row in rows:
        kind, _, rid = reference.normal(str(_object(row.get("reference")).get("reference", "")), ctx.base).partition("/")
        if kind == rtype and rid:
            found.append(Ids((rid,)))
        if row.get("meaning") != "instance" and kind in ctx.spec.types and rid:
            found.append(refers(ctx.spec, rtype, [(kind, rid)]))
    return either(*found) if rows else EVERYTHING


def _dated(ctx: Context, rule: Mapping[str, Any], rtype: str, deny: bool) -> Clause:
    """`dataPeriod`: the type's clinical date lies in it. What has no date is denied, and is not permitted."""
    period = rule.get("dataPeriod")
    if not isinstance(period, dict):
        return EVERYTHING
    code = HOT.get(rtype, "")
    if not code:
        return EVERYTHING if deny else NOTHING
    bounds = [(code, f"{prefix}{period[name]}") for name, prefix in (("start", "ge"), ("end", "le")) if name in period]
    try:
        within = parse.criteria(ctx, rtype, bounds)
        return either(within, parse.criteria(ctx, rtype, [(f"{code}:missing", "true")])) if deny else within
    except Refusal:
        return EVERYTHING if deny else NOTHING


def _criteria(ctx: Context, rtype: str, code: str, value: str) -> Clause:
    try:
        return parse.criteria(ctx, rtype, [(code, value)])
    except Refusal:
        return NOTHING


def _codes(ctx: Context, rtype: str, code: str, rows: Iterable[Mapping[str, Any]]) -> Clause:
    field = schema(ctx.spec, rtype).fields.get(code)
    if field is None or field.type != "token":
        return NOTHING
    wanted = [(str(row["system"]) if "system" in row else None, str(row["code"])) for row in rows if "code" in row]
    return token.codes_clause(field, wanted) if wanted else NOTHING


def _rows(value: Any) -> list[Mapping[str, Any]]:
    """A list of objects, whatever stands there."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
