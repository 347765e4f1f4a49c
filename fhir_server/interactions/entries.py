"""Bundle entries: a request out of an entry, an entry out of an answer. https://hl7.org/fhir/R4/bundle.html#transaction, #batch"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote

from conformance.dates import instant
from conformance.gate.report import safe_name
from conformance.outcome import NO_HEADERS, Refusal, bad_request, outcome, refuse, too_large
from fhir_server.context import Context, Reply, Request, Resource
from fhir_server.interactions.answer import location, readable
from fhir_server.interactions.headers import etag
from fhir_server.interactions.perform import Done
from fhir_server.interactions.steps import placed

PHASES: Mapping[str, int] = {"DELETE": 0, "POST": 1, "PUT": 2, "PATCH": 2, "GET": 3, "HEAD": 3}
PRECONDITIONS = (
    ("ifNoneMatch", "if-none-match"),
    ("ifModifiedSince", "if-modified-since"),
    ("ifMatch", "if-match"),
    ("ifNoneExist", "if-none-exist"),
)
FORMAT = ("_format", "_pretty")
# What a batch or transaction may hold: no total (bdl-1), search (bdl-2) or response (bdl-4), and no modifier, which would have to be understood.
BUNDLE = frozenset({"resourceType", "id", "meta", "implicitRules", "language", "identifier", "type", "timestamp", "link", "entry", "signature"})
ENTRY = frozenset({"id", "extension", "link", "fullUrl", "resource", "request"})
REQUEST = frozenset({"id", "extension", "method", "url", *(name for name, _ in PRECONDITIONS)})


@dataclass(frozen=True, slots=True)
class Entry:
    """One request of a bundle; place: its index, in which the answer stands."""

    place: int
    full_url: str
    request: Request

    @property
    def writes(self) -> bool:
        """True for create, update, patch and delete; false for reads, searches and operations."""
        method, path = self.request.method, self.request.path
        if method == "POST":
            return len(path) == 1 and not path[0].startswith("$")
        return method in ("PUT", "PATCH", "DELETE")


def rows_of(ctx: Context, bundle: Resource) -> list[Resource]:
    """Bundle.entry as a list of objects. Raises 400 (also for what a batch or transaction may not have, rule bdl-1), 413 beyond FHIR_MAX_ENTRIES."""
    known_only(bundle, BUNDLE, "Bundle")
    rows = bundle.get("entry", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise refuse("structure", "an array of objects is expected", expression="Bundle.entry")
    if len(rows) > ctx.settings.max_entries:
        raise too_large(f"the bundle has more than {ctx.settings.max_entries} entries")
    return rows


def parse(ctx: Context, place: int, row: Resource) -> Entry:
    """The request in an entry. Raises Refusal 400 that names the entry."""
    with placed(place):
        known_only(row, ENTRY, "entry")
        asked = row.get("request")
        if not isinstance(asked, dict):
            raise refuse("required", "the entry needs a request", expression="entry.request")
        method, url = asked.get("method"), asked.get("url")
        if not isinstance(method, str) or method not in PHASES:
            raise refuse("value", "the method must be GET, HEAD, POST, PUT, PATCH or DELETE", expression="entry.request.method")
        if not isinstance(url, str):
            raise refuse("required", "the request needs a url", expression="entry.request.url")
        known_only(asked, REQUEST, "entry.request")
        headers = NO_HEADERS if len(asked) == 2 else {header: _precondition(asked, name) for name, header in PRECONDITIONS if name in asked}
        full_url = row.get("fullUrl", "")
        res = row.get("resource")
        if not isinstance(full_url, str) or not (res is None or (isinstance(res, dict) and isinstance(res.get("resourceType"), str))):
            raise refuse("structure", "fullUrl is a string and resource is a resource")
        path, query = _split(ctx, url)
        if not path and method == "POST":
            raise bad_request("a bundle does not stand inside a bundle", "entry.request.url")
        return Entry(place, full_url, _request("GET" if method == "HEAD" else method, path, query, headers, res))


def known_only(value: Resource, known: frozenset[str], place: str) -> None:
    """400 for an element that does not stand in a request of this kind, so that nothing sent is passed over."""
    if value.keys() <= known:
        return
    for name in value:
        if name.removeprefix("_") not in known:
            raise refuse("structure", f"has an element that a batch or transaction does not: {safe_name(name)}", expression=place)


def _precondition(asked: Resource, name: str) -> str:
    text = asked[name]
    if not isinstance(text, str):
        raise refuse("value", "a precondition is a string", expression=f"entry.request.{name}")
    return text


def _split(ctx: Context, url: str) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Path and parameters of an entry's URL: relative, or absolute below our own base."""
    if url in ctx.spec.types:  # a create, as most are
        return (url,), ()
    rest = url.removeprefix(ctx.base)
    if "://" in rest.partition("?")[0]:
        raise bad_request("the request's url is not one of this server", "entry.request.url")
    path, _, query = rest.partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict", max_num_fields=1000)
    except ValueError as error:
        raise bad_request("the request's url has a malformed query", "entry.request.url") from error
    segments = tuple(unquote(segment) for segment in path.split("/") if segment)
    return segments, tuple(pair for pair in pairs if pair[0] not in FORMAT)


def _request(method: str, path: tuple[str, ...], query: tuple[tuple[str, str], ...], headers: Mapping[str, str], res: Resource | None) -> Request:
    if method == "PATCH" and res is not None and res.get("resourceType") == "Binary":
        return Request(method, path, query, headers, body=_binary(res), content_type=str(res.get("contentType", "")))
    return Request(method, path, query, headers, res)


def _binary(res: Resource) -> bytes:
    """A JSON Patch inside a bundle travels as a Binary, https://hl7.org/fhir/R4/http.html#patch."""
    try:
        return base64.b64decode(str(res.get("data", "")), validate=True)
    except binascii.Error as error:
        raise bad_request("the Binary's data is not base64", "Binary.data") from error


def distinct_urls(entries: Sequence[Entry]) -> None:
    """400 if two entries that send a resource share a fullUrl (rule bdl-7)."""
    seen: set[str] = set()
    for entry in entries:
        if entry.full_url and entry.request.res is not None and entry.full_url in seen:
            with placed(entry.place):
                raise refuse("invariant", "bdl-7: fullUrl must be unique in a bundle", expression="entry.fullUrl", status=400)
        seen.add(entry.full_url)


@lru_cache(64)
def _status(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


def of_done(ctx: Context, done: Done) -> Resource:
    """The response entry of a write. The resource itself is sent only if the client prefers return=representation."""
    response: Resource = {"status": _status(done.status)}
    stored = done.stored
    entry: Resource = {"response": response}
    if stored is not None:
        if stored.res is not None:
            response["location"] = location(ctx, stored)
        response["etag"] = etag(stored.vid)
        response["lastModified"] = instant(stored.at)
        if stored.res is not None and ctx.prefer.get("return") == "representation" and readable(ctx, stored):
            entry = {"fullUrl": f"{ctx.base}/{stored.rtype}/{stored.rid}", "resource": stored.res, "response": response}
    if done.issues or ctx.prefer.get("return") == "OperationOutcome":
        response["outcome"] = outcome(done.issues)
    return entry


def of_reply(ctx: Context, request: Request, reply: Reply) -> Resource:
    """The response entry of a read, search or operation."""
    response: Resource = {"status": _status(reply.status)}
    if "ETag" in reply.headers:
        response["etag"] = reply.headers["ETag"]
    if reply.res is None:
        return {"response": response}
    at = reply.res.get("meta", {}).get("lastUpdated")
    if at is not None:
        response["lastModified"] = at
    if reply.res.get("resourceType") == "OperationOutcome" and request.path[:1] != ("OperationOutcome",):
        response["outcome"] = reply.res
        return {"response": response}
    entry: Resource = {"resource": reply.res, "response": response}
    if "id" in reply.res and reply.res.get("resourceType") in ctx.spec.types:
        entry = {"fullUrl": f"{ctx.base}/{reply.res['resourceType']}/{reply.res['id']}"} | entry
    return entry


def of_refusal(refusal: Refusal) -> Resource:
    """The response entry of a refused batch entry."""
    return {"response": {"status": _status(refusal.status), "outcome": outcome(refusal.issues)}}
