"""What an interaction did, as AuditEvents: for changes in their transaction (`records`), for what was shown afterwards (`accesses`).

https://hl7.org/fhir/R4/security.html#audit; the events themselves are made by security/audit.py.
"""

from collections.abc import Iterator, Sequence
from urllib.parse import urlencode

from fhir_server.context import Context, Reply, Request, Resource
from fhir_server.interactions.audit_index import index_of_event
from fhir_server.interactions.steps import new_id
from fhir_server.security.audit import FAILED, REFUSED, RTYPE, SUCCESS, Touched, events, kept
from fhir_server.security.reach import patients_in, patients_of
from fhir_server.store import Change

INTERACTIONS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
UNRECORDED = frozenset({("metadata",)})


def records(ctx: Context, changes: Sequence[Change]) -> list[Change]:
    """The AuditEvents of these changes, to be written in the same transaction. [] where nothing is recorded."""
    if not kept(ctx):
        return []
    return drafts(ctx, events(ctx, [_changed(ctx, change) for change in changes]))


def drafts(ctx: Context, made: Sequence[Resource]) -> list[Change]:
    """AuditEvents ready to be written: they are the exchange's own, so the gate is not asked."""
    changes = []
    for event in made:
        res = {"resourceType": RTYPE, "id": new_id(), **event}
        changes.append(Change(RTYPE, res["id"], res, index_of_event(ctx, res), None, "POST"))
    return changes


def _changed(ctx: Context, change: Change) -> Touched:
    vid = 1 if change.prior is None else change.prior.vid + 1
    interaction = INTERACTIONS[change.method]
    if interaction == "update" and (change.prior is None or change.prior.res is None):
        interaction = "create"
    patients = patients_in(change.rtype, change.rid, change.index)
    prior = change.prior.res if change.prior is not None else None
    if prior is not None:  # also those whom the version before was about
        patients = tuple(dict.fromkeys((*patients, *patients_of(ctx.spec, prior, ctx.base))))
    return Touched(interaction, f"{change.rtype}/{change.rid}/_history/{vid}", patients)


def accesses(ctx: Context, request: Request, reply: Reply) -> list[Resource]:
    """The AuditEvents of what was shown, or refused to be shown. [] for a plain change (recorded when it was made) and for what is public."""
    if not kept(ctx) or not ctx.grant.rights or request.path in UNRECORDED:
        return []
    if not request.path and request.method == "POST":
        return [event for one in _entries(request, reply) for event in _one(ctx, *one)]
    last = request.path[-1] if request.path else ""
    reads = request.method in ("GET", "HEAD") or last == "_search" or last.startswith("$")
    return _one(ctx, request.path, request.query, reply) if reads else []


def _entries(request: Request, reply: Reply) -> Iterator[tuple[tuple[str, ...], tuple[tuple[str, str], ...], Reply]]:
    """The reads of a bundle: path, parameters (unsplit, as one), answer."""
    asked = (request.res or {}).get("entry", ())
    answered = (reply.res or {}).get("entry", ()) if reply.status == 200 else ()
    for one, answer in zip(asked, answered, strict=False):
        sent = one.get("request", {})
        if sent.get("method") in ("GET", "HEAD"):
            path, _, query = str(sent.get("url", "")).partition("?")
            status = int(str(answer.get("response", {}).get("status", "500"))[:3])
            yield tuple(part for part in path.split("/") if part), (("", query),) if query else (), Reply(status, answer.get("resource"))


def _one(ctx: Context, path: tuple[str, ...], query: tuple[tuple[str, str], ...], reply: Reply) -> list[Resource]:
    outcome = SUCCESS if reply.status < 400 else REFUSED if reply.status < 500 else FAILED
    interaction = _interaction(ctx, path)
    patients = tuple(dict.fromkeys(patient for res in _shown(reply) for patient in patients_of(ctx.spec, res, ctx.base)))
    if interaction in ("read", "vread", "history") and len(path) > 1:
        return events(ctx, [Touched(interaction, "/".join(path if interaction == "vread" else path[:2]), patients)], outcome=outcome)
    text = "&".join(value if not name else urlencode([(name, value)]) for name, value in query)
    asked = f"{'/'.join(path)}?{text}"
    named = patients or tuple(_compartment(ctx, path))
    return events(ctx, [Touched(interaction, "", named)], outcome=outcome, query=asked)


def _interaction(ctx: Context, path: tuple[str, ...]) -> str:
    """A key of audit.PATTERNS."""
    if path and path[-1].startswith("$"):
        return "operation"
    if len(path) == 2 and path[0] in ctx.spec.types and path[1] not in ("_search", "_history"):
        return "read"
    if "_history" in path:
        return "vread" if path[-1] != "_history" else "history" if len(path) == 3 else "search"
    return "search"


def _compartment(ctx: Context, path: tuple[str, ...]) -> Iterator[str]:
    """The patient whose compartment or operation was asked, also if nothing was found there."""
    if len(path) > 2 and path[0] == "Patient":
        yield f"Patient/{path[1]}"


def _shown(reply: Reply) -> Iterator[Resource]:
    """The resources in a reply: itself, or those of a Bundle."""
    res = reply.res
    if res is None or reply.status >= 400:
        return
    if res.get("resourceType") != "Bundle" or "id" in res:
        yield res
        return
    for entry in res.get("entry", ()):
        if isinstance(entry.get("resource"), dict):
            yield entry["resource"]
