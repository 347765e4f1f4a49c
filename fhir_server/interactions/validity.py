"""The gate on writes: R4's rules and the codes, at the level that is set for the source. https://hl7.org/fhir/R4/validation.html"""

from functools import lru_cache

from conformance.outcome import STATUS, Issue, Refusal, failed
from conformance.validate import CheckCode, checker, validate
from fhir_server.context import Context, Resource
from terminology.ingest import code_checker, codings_judge, translator

LEVELS = ("enforce", "warn", "off")


def translated(ctx: Context, res: Resource) -> Resource:
    """The resource with its local codes translated, where the terminology policy of the source says so; what was sent stays beside it."""
    return res if ctx.terms is None else translator(ctx.terms, ctx.source)(res)


def judge(ctx: Context, res: Resource, *, feed: bool = False) -> tuple[Issue, ...]:
    """What the gate and the terminology service say of a resource that may be stored.

    feed: from an HL7 v2 message, whose codes are flagged and never a reason to refuse. Raises Refusal under `enforce` if there are errors: 400 if
    it is not a well-formed resource of R4, else 422 (https://hl7.org/fhir/R4/http.html#Status-Codes).
    """
    level = level_of(ctx.settings.validation, ctx.source)
    if level == "off":
        return ()
    told = ctx.prefer.get("return") == "OperationOutcome"  # advice costs time: only for who reads it
    issues = list(_gate(ctx, res, told, feed))
    if ctx.terms is not None:
        issues += codings_judge(ctx.terms, ctx.source, flag_only=feed)(res)
    if level == "enforce" and failed(issues):
        errors = [issue for issue in issues if issue.severity in ("error", "fatal")]
        malformed = any(STATUS.get(issue.code, 422) == 400 for issue in errors)
        raise Refusal(400 if malformed else 422, tuple(issues))
    return tuple(issues)


def _gate(ctx: Context, res: Resource, told: bool, feed: bool) -> list[Issue]:
    """R4 itself; and the profiles the resource claims, where packages that define some are installed."""
    meta = res.get("meta")
    if not ctx.spec.packages or not isinstance(meta, dict) or "profile" not in meta:
        return checker(ctx.spec, res["resourceType"], warnings=told)(res)
    return validate(ctx.spec, res, claims="warn" if feed else "enforce", check_code=codes_of(ctx, feed), warnings=told)


def codes_of(ctx: Context, feed: bool = False) -> CheckCode | None:
    """How the gate asks whether a value set has a code; None without a terminology service."""
    return None if ctx.terms is None else code_checker(ctx.terms, ctx.source, flag_only=feed)


@lru_cache(256)
def level_of(setting: str, source: str) -> str:
    """The level for a source out of FHIR_VALIDATION ('enforce,lab1=warn'). Raises ValueError for an unknown level."""
    chosen = "enforce"
    for part in setting.split(","):
        name, mark, level = part.strip().rpartition("=")
        if level not in LEVELS:
            raise ValueError("FHIR_VALIDATION: a level is one of " + ", ".join(LEVELS))
        if not mark or name == source:
            chosen = level
    return chosen
