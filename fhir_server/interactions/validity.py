"""The gate on writes: R4's rules and the codes, at the level that is set for the source; profiles, at the level that is set for the type.

https://hl7.org/fhir/R4/validation.html, https://hl7.org/fhir/R4/profiling.html
"""

from collections.abc import Sequence
from functools import lru_cache

from conformance.gate.blank import blanks
from conformance.gate.usable import KIND, problems
from conformance.outcome import STATUS, Issue, Refusal, failed
from conformance.validate import CheckCode, Resolve, checker, layered
from fhir_server.context import Context, Resource
from fhir_server.settings import Settings
from terminology.ingest import code_checker, codings_judge, translator

LEVELS = ("enforce", "warn", "off")
NONE: tuple[tuple[str, str], ...] = ()


def translated(ctx: Context, res: Resource) -> Resource:
    """The resource with its local codes translated, where the terminology policy of the source says so; what was sent stays beside it."""
    return res if ctx.terms is None else translator(ctx.terms, ctx.source)(res)


def judge(
    ctx: Context, res: Resource, *, feed: bool = False, resolve: Resolve | None = None, codings: Sequence[Resource] | None = None
) -> tuple[Issue, ...]:
    """What the gate and the terminology service say of a resource that may be stored.

    resolve: what references of it point at, for profiles that look through them; feed: from an HL7 v2 message, whose codes and profiles are flagged and
    never a reason to refuse; codings: those in it, if known already. Raises Refusal under `enforce` if there are errors: 400 if it is not a well-formed
    resource of R4, 422 if it breaks another rule or a profile (https://hl7.org/fhir/R4/http.html#Status-Codes).
    """
    level = level_of(ctx.settings.validation, ctx.source)
    if level == "off":
        return ()
    told = ctx.prefer.get("return") == "OperationOutcome"  # advice costs time: only for who reads it
    own, others = _gate(ctx, res, told, feed, resolve)
    others = others + problems(ctx.spec, res) if not failed(own) else others
    if told:
        others = others + blanks(res)
    if ctx.terms is not None:
        others = others + codings_judge(ctx.terms, ctx.source, flag_only=feed)(res, codings)
    if level == "enforce" and (failed(own) or failed(others)):
        malformed = any(issue.severity in ("error", "fatal") and STATUS.get(issue.code, 422) == 400 for issue in own)
        raise Refusal(400 if malformed else 422, (*own, *others))
    return (*own, *others)


def _gate(ctx: Context, res: Resource, told: bool, feed: bool, resolve: Resolve | None) -> tuple[list[Issue], list[Issue]]:
    """R4 itself; and the profiles that are set for the type, and those the resource claims, where packages that define some are installed."""
    rtype = res["resourceType"]
    asked = required_of(ctx.settings.profiles, rtype) if ctx.settings.profiles else NONE
    if not asked and not (claims_profiles(res) and (ctx.spec.packages or ctx.spec.stored is not None)):
        return checker(ctx.spec, rtype, warnings=told)(res), []
    enforced = [url for level, url in asked if level == "enforce" and not feed]
    return layered(
        ctx.spec,
        res,
        profiles=enforced,
        advised=[url for level, url in asked if level != "off" and url not in enforced],
        claims=_claims(ctx.settings.profile_claims, rtype, feed),
        check_code=codes_of(ctx, feed),
        resolve=resolve,
        warnings=told,
    )


def needs_profiles(ctx: Context, res: Resource) -> bool:
    """True if profiles have a say: those it claims, or those that are set for types; or it is one itself, which stands on others."""
    return bool(ctx.settings.profiles) or claims_profiles(res) or res["resourceType"] == KIND


def claims_profiles(res: Resource) -> bool:
    """True if the resource, one that it contains or one in an entry of it names profiles in its meta."""
    meta = res.get("meta")
    if isinstance(meta, dict) and "profile" in meta:
        return True
    inner = res.get("contained") or (res.get("entry") if res["resourceType"] == "Bundle" else None)
    return isinstance(inner, list) and any(isinstance(each, dict) and _within(each) for each in inner)


def _within(inner: Resource) -> bool:
    held = inner.get("resource", inner)
    meta = held.get("meta") if isinstance(held, dict) else None
    return isinstance(meta, dict) and "profile" in meta


def _claims(setting: str, rtype: str, feed: bool) -> str:
    level = level_of(setting, rtype)
    return "warn" if feed and level == "enforce" else level


def codes_of(ctx: Context, feed: bool = False) -> CheckCode | None:
    """How the gate asks whether a value set has a code; None without a terminology service."""
    return None if ctx.terms is None else code_checker(ctx.terms, ctx.source, flag_only=feed)


@lru_cache(256)
def level_of(setting: str, name: str) -> str:
    """The level for a source or type out of 'enforce,lab1=warn'; the last row that fits counts. Raises ValueError for an unknown level."""
    chosen = "enforce"
    for part in setting.split(","):
        named, mark, level = part.strip().rpartition("=")
        if level not in LEVELS:
            raise ValueError("a level is one of " + ", ".join(LEVELS))
        if not mark or named == name:
            chosen = level
    return chosen


@lru_cache(256)
def required_of(setting: str, rtype: str) -> tuple[tuple[str, str], ...]:
    """(level, canonical) of the profiles that are set for a type: 'Patient=enforce:URL,Observation=warn:URL'. Raises ValueError if it is malformed."""
    found = []
    for part in filter(None, (each.strip() for each in setting.split(","))):
        named, _, rest = part.partition("=")
        level, mark, url = rest.partition(":")
        if not named or level not in LEVELS or not mark or ":" not in url:
            raise ValueError("a row is TYPE=LEVEL:CANONICAL, the level one of " + ", ".join(LEVELS))
        if named == rtype:
            found.append((level, url))
    return tuple(found)


def check_settings(settings: Settings, types: frozenset[str]) -> None:
    """Raises ValueError naming the setting that is malformed or names no resource type."""
    for variable, read, text in (
        ("FHIR_VALIDATION", level_of, settings.validation),
        ("FHIR_PROFILE_CLAIMS", level_of, settings.profile_claims),
        ("FHIR_PROFILES", required_of, settings.profiles),
    ):
        try:
            read(text, "")
        except ValueError as error:
            raise ValueError(f"{variable}: {error}") from error
    named = {row.strip().partition("=")[0] for text in (settings.profile_claims, settings.profiles) for row in text.split(",") if "=" in row}
    if named - types:
        raise ValueError("FHIR_PROFILES and FHIR_PROFILE_CLAIMS name resource types of R4, not " + ", ".join(sorted(named - types)))
