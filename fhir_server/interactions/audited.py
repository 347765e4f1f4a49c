"""What an interaction did, as AuditEvents: for changes in their transaction (`records`), for what was shown or refused afterwards (`accesses`).

https://hl7.org/fhir/R4/security.html#audit; the events themselves are made by security/audit.py.
"""

from collections.abc import Iterator, Sequence
from urllib.parse import unquote, urlencode

from fhir_server.context import Context, Reply, Request, Resource
from fhir_server.interactions.audit_index import index_of_event
from fhir_server.interactions.indexing import MISSHAPEN
from fhir_server.interactions.steps import ID, new_id
from fhir_server.security.audit import FAILED, MOST_RESOURCES, REFUSED, RTYPE, SUCCESS, Touched, events, kept
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
    """The AuditEvents of what was shown, or refused. [] for a change that was made (recorded with it) and for what is public."""
    if not kept(ctx) or not ctx.grant.rights or request.path in UNRECORDED:
        return []
    if request.path or request.method != "POST":
        return _one(ctx, request, reply)
    rows = _rows(request.res)
    if reply.status >= 400:
        return _refused(ctx, [_asked(ctx, row) for row in rows], reply.status)
    pairs = [(row, answer) for row, answer in zip(rows, _rows(reply.res), strict=False) if not _made(row, answer)]
    return [event for row, answer in pairs for event in _one(ctx, _asked(ctx, row), _answered(answer))]


def _made(row: Resource, answer: Resource) -> bool:
    """A resource was created, as by most entries: that is recorded already, and need not be looked at closer."""
    return str(answer["response"]["status"])[:3] == "201" and row["request"]["method"] == "POST" and "$" not in row["request"]["url"]


def _rows(bundle: Resource | None) -> list[Resource]:
    """The entries of a bundle that may not even be one."""
    rows = bundle.get("entry") if bundle is not None else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _asked(ctx: Context, row: Resource) -> Request:
    """The request in an entry, as far as it can be understood; its parameters unsplit, as one."""
    found = row.get("request")
    sent: Resource = found if isinstance(found, dict) else {}
    path, _, query = str(sent.get("url", "")).removeprefix(ctx.base).partition("?")
    headers = {"if-none-exist": str(sent["ifNoneExist"])} if "ifNoneExist" in sent else {}
    res = row.get("resource")
    segments = tuple(unquote(part) for part in path.split("/") if part)
    return Request(str(sent.get("method", "")), segments, (("", query),) if query else (), headers, res if isinstance(res, dict) else None)


def _answered(answer: Resource) -> Reply:
    response = answer.get("response", {})
    shown: Resource | None = answer.get("resource")
    return Reply(int(str(response.get("status", "500"))[:3]), shown, {"Location": response["location"]} if "location" in response else {})


def _one(ctx: Context, request: Request, reply: Reply) -> list[Resource]:
    """The events of one request, alone or in a bundle."""
    if _reads(request):
        return _shown_to(ctx, request.path, _text(request.query), reply)
    if reply.status >= 400:
        return _refused(ctx, [request], reply.status)
    criteria = request.headers.get("if-none-exist")
    if criteria is not None and reply.status == 200:  # nothing was created: what was there is told of
        return _shown_to(ctx, request.path, criteria.removeprefix(request.path[0]).removeprefix("?"), reply)
    return []


def _reads(request: Request) -> bool:
    last = request.path[-1] if request.path else ""
    return request.method in ("GET", "HEAD") or last == "_search" or last.startswith("$")


def _refused(ctx: Context, asked: Sequence[Request], status: int) -> list[Resource]:
    """The events of what was not done; what it would have been about is known from the request alone."""
    known = [one for one in asked if one.method in INTERACTIONS or _reads(one)]
    touched = [Touched(_attempted(ctx, one), _named(ctx, one), _concerned(ctx, one)) for one in known]
    query = ""
    if len(known) == 1 and (not touched[0].what or known[0].query):
        query = f"{'/'.join(known[0].path)}?{_text(known[0].query) or known[0].headers.get('if-none-exist', '')}"
    return events(ctx, touched, outcome=REFUSED if status < 500 else FAILED, query=query)


def _attempted(ctx: Context, request: Request) -> str:
    return _interaction(ctx, request.path) if _reads(request) else INTERACTIONS[request.method]


def _named(ctx: Context, request: Request) -> str:
    """The resource that the path names, '' for none."""
    path = request.path
    return "/".join(path[:2]) if len(path) > 1 and path[0] in ctx.spec.types and ID.fullmatch(path[1]) else ""


def _concerned(ctx: Context, request: Request) -> tuple[str, ...]:
    """The patients whom a request names: in its path, or in what it sends, whatever shape that has."""
    own = (_named(ctx, request),) if request.path[:1] == ("Patient",) else ()
    try:
        sent = patients_of(ctx.spec, request.res, ctx.base) if request.res is not None and request.res.get("resourceType") in ctx.spec.types else ()
    except MISSHAPEN:
        sent = ()
    sent = sent if request.path != ("Patient",) else ()  # the id that a create sends is not the one it would have had
    return tuple(dict.fromkeys(one for one in (*own, *sent[:MOST_RESOURCES]) if one))


def _text(query: tuple[tuple[str, str], ...]) -> str:
    return "&".join(value if not name else urlencode([(name, value)]) for name, value in query)


def _shown_to(ctx: Context, path: tuple[str, ...], query: str, reply: Reply) -> list[Resource]:
    outcome = SUCCESS if reply.status < 400 else REFUSED if reply.status < 500 else FAILED
    interaction = _interaction(ctx, path)
    patients = tuple(dict.fromkeys(patient for res in _shown(reply) for patient in patients_of(ctx.spec, res, ctx.base)))
    if interaction in ("read", "vread", "history") and len(path) > 1:
        return events(ctx, [Touched(interaction, "/".join(path if interaction == "vread" else path[:2]), patients)], outcome=outcome)
    named = patients or tuple(_compartment(ctx, path)) or tuple(_told(reply))
    return events(ctx, [Touched(interaction, "", named)], outcome=outcome, query=f"{'/'.join(path)}?{query}")


def _told(reply: Reply) -> Iterator[str]:
    """The patient whom an answer without a resource points at."""
    parts = reply.headers.get("Location", "").rpartition("/_history/")[0].split("/")
    if parts[-2:-1] == ["Patient"]:
        yield f"Patient/{parts[-1]}"


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
