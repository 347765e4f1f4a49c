"""References to resources that were merged into others, in what is written after the merge: they are written to the one that stands for both.

Who still uses the retired patient's id (an app, an interface that learns of the merge tomorrow) goes on writing to the patient it means.
What tells of the past, and what somebody signed, is left as it came. https://hl7.org/fhir/R4/patient.html#merging
"""

from conformance.outcome import Issue
from fhir_server.context import Context, Resource
from fhir_server.interactions.references import Links
from fhir_server.interactions.survey import Survey, survey
from fhir_server.search.aliases import Aliases, survivor_of

KEPT_TYPES = frozenset({"AuditEvent", "Provenance", "Bundle"})
NOTHING_TOLD: tuple[Issue, ...] = ()


def is_kept(res: Resource) -> bool:
    """True for what must stay as it was."""
    signed = res["resourceType"] == "DocumentReference" and res.get("docStatus") == "final" and bool(res.get("authenticator"))
    return res["resourceType"] in KEPT_TYPES or signed or (res["resourceType"] == "Contract" and "signer" in res)


def redirected(ctx: Context, known: Aliases, seen: Survey) -> tuple[Survey, tuple[Issue, ...]]:
    """(the resource as it is to be, what to tell): as it was if it refers to nothing that was merged.

    References between resources of one type stay: a Patient's links tell who was merged into whom.
    """
    res = seen.res
    own = f"{res['resourceType']}/"
    hit = {text: survivor_of(known, text) for text in seen.texts if text in known.survivors and not text.startswith(own)}
    if not hit or is_kept(res):
        return seen, NOTHING_TOLD
    told = Issue(
        "information", "informational", "the reference is to a resource that was merged into another one; it is stored as a reference to that"
    )
    return survey(res, ctx.spec, Links(f"{ctx.base}/", found=hit)), (told,)
