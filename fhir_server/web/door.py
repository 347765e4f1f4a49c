"""The FHIR door: ASGI in, Request and Context to `route`, Reply rendered out. The HTTP border: what is not a Refusal ends here as 500.

https://hl7.org/fhir/R4/http.html
"""

import asyncio
import base64
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote

from conformance import codec, xml
from conformance.outcome import Issue, Refusal, bad_request, outcome, refuse, too_large, unavailable, unsupported_media
from fhir_server.context import DEFAULT, Context, Grant, Reply, Request, Resource
from fhir_server.logs import Access
from fhir_server.metrics import Metrics
from fhir_server.operations import TABLE
from fhir_server.security.admission import GLASS, admit, remembered
from fhir_server.security.audit import REFUSED
from fhir_server.security.authserver.server import AuthServer
from fhir_server.security.occurrences import Occurrence
from fhir_server.security.tokens import Verifier
from fhir_server.settings import Settings, public_base
from fhir_server.sources import Registry
from fhir_server.store import Store
from fhir_server.web import negotiate
from fhir_server.web.asgi import App, Headers, Receive, Scope, Send, header_map, respond
from fhir_server.web.body import read_body
from fhir_server.web.gate import PUBLIC
from fhir_server.web.render import GZIP_PIECE, accepts_gzip, binary_of, render, squeezed, written

log = logging.getLogger("fhir.web")
FORM = "application/x-www-form-urlencoded"
PATCH_TYPES = frozenset({"application/json-patch+json", "application/xml-patch+xml"})
MAX_PAIRS = 1000
PATCHES = ("application/json-patch+json", "application/fhir+json", "application/fhir+xml")  # that are understood: JSON Patch and FHIRPath Patch
FORMAT_PARAMS = frozenset({"_format", "_pretty"})
BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})
DEFECT = "the server failed to answer; the request id finds the cause in its log"
UNAUTHORISED = 401
PUBLIC_PATHS = frozenset({("metadata",)})

Route = Callable[[Context, Request], Awaitable[Reply]]
Record = Callable[[Context, Request, Reply], None]
Authenticate = Callable[[Mapping[str, str]], Awaitable[Grant]]


@dataclass(frozen=True, slots=True)
class Services:
    """What the assembly hands to every door of one worker."""

    settings: Settings
    spec: Any
    terms: Any
    store: Store
    authenticate: Authenticate
    route: Route
    metrics: Metrics
    access: Access
    authserver: AuthServer | None = None  # None in open mode: nothing of it is reachable or advertised
    verifier: Verifier | None = None
    happened: Callable[[Occurrence], None] = lambda one: None  # notes what happened beside resources: sign-ins, requests without a token
    record: Record = lambda ctx, request, reply: None  # notes what was shown, in the audit trail
    tenant: str = DEFAULT
    senders: Registry = field(default_factory=Registry)  # its HL7 v2 sources
    prefix: str = ""  # of a tenant's paths: '/t/name'
    admitted: list[int] = field(default_factory=lambda: [0])  # requests in work, of all tenants: the limit is the process's


@dataclass(frozen=True, slots=True)
class Exchange:
    """One HTTP exchange while it is answered: parsed once, used for the answer even if the request is refused."""

    method: str
    path: tuple[str, ...]
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    request_id: str
    base: str
    address: str = ""


def fhir_door(services: Services) -> App:
    """The ASGI application mounted at /fhir."""
    admitted = services.admitted

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        exchange = _exchange(scope, services)
        want = negotiate.Wanted(negotiate.JSON)
        pretty = False
        ctx: Context | None = None
        request: Request | None = None
        admitted[0] += 1
        try:
            if admitted[0] > services.settings.concurrency:
                raise unavailable("the server is at its limit of concurrent requests")
            pairs = _pairs(scope["query_string"])
            want, pretty = _wanted(pairs, exchange)
            async with asyncio.timeout(services.settings.request_seconds):
                ctx = await _context(services, exchange)
                if not (want.acceptable or exchange.path[:1] == ("Binary",)):
                    raise negotiate.unwritten()
                request, said = await _request(services, exchange, pairs, receive)
                if said:
                    want, pretty = _wanted((*pairs, *said), exchange)
                reply = await services.route(ctx, request)
            services.record(ctx, request, reply)
            reply = await written(reply, want, pretty=pretty, spec=services.spec)
        except Refusal as refusal:
            reply = Reply(refusal.status, outcome(refusal.issues), refusal.headers)
            _record_refused(services, exchange, ctx, request, reply)
        except TimeoutError:
            reply = _broken(503, "timeout", "the request took longer than this server allows")
        except Exception:  # the HTTP border: a defect is logged by place and answered as 500, never shown
            log.exception("request failed", extra=_traced(exchange))
            reply = _broken(500, "exception", DEFECT)
        finally:
            admitted[0] -= 1
        try:
            status, headers, body = _rendered(services, exchange, request, reply, want, pretty)
        except Exception:  # the same border: what was stored cannot be shown in this form
            log.exception("answer cannot be rendered", extra=_traced(exchange))
            broken = _broken(500, "exception", DEFECT)
            status, headers, body = _rendered(services, exchange, None, broken, negotiate.Wanted(negotiate.JSON), False)
        if len(body) > GZIP_PIECE and accepts_gzip(exchange.headers.get("accept-encoding", "")):
            headers, body = await squeezed(headers, body)
        await respond(send, status, headers, body)
        _note(services, exchange, status, time.perf_counter() - started)

    return door


def _wanted(pairs: tuple[tuple[str, str], ...], exchange: Exchange) -> tuple[negotiate.Wanted, bool]:
    """The form of the answer, and whether it is indented. Raises Refusal 400, 406."""
    want = negotiate.wanted(_last(pairs, "_format"), exchange.headers.get("accept", ""))
    return want, negotiate.pretty([value for name, value in pairs if name == "_pretty"])


def _traced(exchange: Exchange) -> Mapping[str, Any]:
    return {"fields": {"request_id": exchange.request_id}}


def _record_refused(services: Services, exchange: Exchange, ctx: Context | None, request: Request | None, reply: Reply) -> None:
    """A refused access leaves a trace too; where the trail is full, the refusal is answered all the same."""
    if ctx is None and reply.status == UNAUTHORISED:
        asked = f"{exchange.method} {_shape(exchange.path, services.spec.types)}: no valid token"
        services.happened(Occurrence("token", REFUSED, exchange.address, text=asked, request_id=exchange.request_id))
    if ctx is not None and request is not None and reply.status < 500:
        with suppress(Refusal):
            services.record(ctx, request, reply)


def _broken(status: int, code: str, text: str) -> Reply:
    return Reply(status, outcome([Issue("fatal", code, text)]), {"Retry-After": "1"} if status == 503 else {})


def _exchange(scope: Scope, services: Services) -> Exchange:
    headers = header_map(scope["headers"])
    raw = scope.get("raw_path") or scope["path"].encode()
    segments = raw.decode("latin-1")[len(services.prefix) :].split("?", 1)[0].split("/")[2:]
    path = tuple(unquote(segment) for segment in segments if segment)
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    return Exchange(method, path, (), headers, scope["request_id"], _base(scope, headers, services.settings), (scope.get("client") or ("",))[0])


def _base(scope: Scope, headers: Mapping[str, str], settings: Settings) -> str:
    """The public base: as configured, else by Host (which open mode has checked to be loopback), never by Host in smart mode."""
    if settings.auth == "open" and not settings.base_url:
        return f"{scope['scheme']}://{headers.get('host', 'localhost')}/fhir"
    return public_base(settings)


@lru_cache(2048)
def _pairs(query_string: bytes) -> tuple[tuple[str, str], ...]:
    """Decoded (name, value) pairs in order. Raises Refusal 400 on broken encoding, 413 on too many."""
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"), keep_blank_values=True, strict_parsing=bool(query_string), errors="strict", max_num_fields=MAX_PAIRS
        )
    except UnicodeDecodeError as error:
        raise bad_request("the query string is not UTF-8 in percent-encoding") from error
    except ValueError as error:
        if query_string.count(b"&") >= MAX_PAIRS:
            raise too_large(f"more than {MAX_PAIRS} query parameters") from error
        raise bad_request("the query string is malformed: every part is name=value") from error
    return tuple(pairs)


def _last(pairs: tuple[tuple[str, str], ...], name: str) -> str:
    return next((value for key, value in reversed(pairs) if key == name), "")


async def _context(services: Services, exchange: Exchange) -> Context:
    public = exchange.path in PUBLIC_PATHS and "authorization" not in exchange.headers
    grant = PUBLIC if public and services.settings.auth != "open" else await services.authenticate(exchange.headers)
    admission = remembered(services.spec, (services.settings, services.store, exchange.base), grant, exchange.headers)
    ctx = Context(
        request_id=exchange.request_id,
        grant=grant,
        store=services.store,
        spec=services.spec,
        terms=services.terms,
        settings=services.settings,
        base=exchange.base,
        source=grant.client,
        now=datetime.now(UTC),
        prefer=negotiate.prefer(exchange.headers.get("prefer", "")),
        tenant=services.tenant,
        operations=TABLE,
        address=exchange.address,
        senders=services.senders,
        admission=admission,
    )
    return await _admitted(services, ctx, exchange) if admission is None else ctx


async def _admitted(services: Services, ctx: Context, exchange: Exchange) -> Context:
    """Raises as `admit`; a glass that may not be broken is noted."""
    try:
        return await admit(ctx, exchange.headers)
    except Refusal as refusal:
        if GLASS in exchange.headers:
            asked = f"{exchange.method} {_shape(exchange.path, services.spec.types)}: refused to break the glass ({refusal.status})"
            user = ctx.grant.user or ctx.grant.subject
            services.happened(Occurrence("glass", REFUSED, exchange.address, ctx.grant.client, user, asked, exchange.request_id))
        raise


async def _request(
    services: Services, exchange: Exchange, pairs: tuple[tuple[str, str], ...], receive: Receive
) -> tuple[Request, tuple[tuple[str, str], ...]]:
    """The request, and what a form says of the answer's format (https://hl7.org/fhir/R4/http.html#search: the same parameters as in a URL)."""
    query = tuple(pair for pair in pairs if pair[0] not in FORMAT_PARAMS)
    if exchange.method not in BODY_METHODS:
        return Request(exchange.method, exchange.path, query, exchange.headers), ()
    body = await read_body(receive, exchange.headers, services.settings.max_body)
    content_type = exchange.headers.get("content-type", "")
    media, _ = negotiate.split_media(content_type)
    searches = exchange.method == "POST" and exchange.path[-1:] == ("_search",)
    if body and searches and media != FORM:
        raise unsupported_media(f"a search by POST sends its parameters as {FORM}")
    if not negotiate.is_fhir(media) and _takes_bytes(exchange.path):  # no form either: `curl --data-binary` calls all bytes one
        return Request(exchange.method, exchange.path, query, exchange.headers, body=body, content_type=media), ()
    if media == FORM and (searches or (exchange.path[-1:] and exchange.path[-1].startswith("$"))):
        form = _pairs(body.strip())
        asked = tuple(pair for pair in form if pair[0] not in FORMAT_PARAMS)
        return Request(exchange.method, exchange.path, query + asked, exchange.headers, content_type=media), tuple(
            pair for pair in form if pair[0] in FORMAT_PARAMS
        )
    if media in PATCH_TYPES:
        negotiate.check_charset(content_type)
        return Request(exchange.method, exchange.path, query, exchange.headers, body=body, content_type=media), ()
    res = _decode(services, exchange, body, content_type)
    return Request(exchange.method, exchange.path, query, exchange.headers, res, content_type=media), ()


def _takes_bytes(path: Sequence[str]) -> bool:
    """True for the path of an operation that reads bodies of other formats than FHIR's."""
    name = path[-1] if path else ""
    return name.startswith("$") and any(row.takes_bytes for row in TABLE.get(name[1:], ()))


def _decode(services: Services, exchange: Exchange, body: bytes, content_type: str) -> Resource | None:
    if not body:
        return None
    kind = negotiate.body_format(content_type)
    if kind == negotiate.JSON:
        return codec.decode(body)
    if kind == negotiate.XML:
        res: Resource = xml.from_xml(body, services.spec)
        return res
    if exchange.path[:1] == ("Binary",) and content_type:
        return _binary(body, content_type, exchange)
    if exchange.method == "PATCH":  # https://www.rfc-editor.org/rfc/rfc5789#section-2.2
        told = f"the Content-Type is not one of a patch: {', '.join(PATCHES)}"
        raise refuse("not-supported", told, status=415, headers={"Accept-Patch": ", ".join(PATCHES)})
    raise unsupported_media("the Content-Type is not one this server reads: application/fhir+json or application/fhir+xml")


def _binary(body: bytes, content_type: str, exchange: Exchange) -> Resource:
    """A raw upload as a Binary resource (https://hl7.org/fhir/R4/binary.html#rest)."""
    res: Resource = {"resourceType": "Binary", "contentType": content_type, "data": base64.b64encode(body).decode()}
    if exchange.method == "PUT" and len(exchange.path) > 1:
        res["id"] = exchange.path[1]
    if context := exchange.headers.get("x-security-context"):
        res["securityContext"] = {"reference": context}
    return res


def _rendered(
    services: Services, exchange: Exchange, request: Request | None, reply: Reply, want: negotiate.Wanted, pretty: bool
) -> tuple[int, Headers, bytes]:
    """Status, headers and body of the answer. A refusal to show what was found is itself the answer."""
    binary = binary_of(request, reply, want) if request else None
    if binary:
        reply = Reply(reply.status, None, reply.headers, (binary[0], base64.b64decode(binary[1])))
    gzip = accepts_gzip(exchange.headers.get("accept-encoding", ""))
    try:
        return reply.status, *render(reply, want, pretty=pretty, gzip=gzip, spec=services.spec)
    except Refusal as refusal:
        shown = Reply(refusal.status, outcome(refusal.issues), refusal.headers)
        return refusal.status, *render(shown, negotiate.Wanted(negotiate.JSON), pretty=pretty, gzip=gzip, spec=services.spec)


def _note(services: Services, exchange: Exchange, status: int, seconds: float) -> None:
    shape = _shape(exchange.path, services.spec.types)
    counter, histogram = _children(services.metrics, exchange.method, shape, status)
    counter.inc()
    histogram.observe(seconds)
    told = {"tenant": services.tenant} if services.prefix else {}
    ms = round(seconds * 1000, 2)
    services.access(event="request", request_id=exchange.request_id, method=exchange.method, shape=shape, status=status, ms=ms, **told)


@lru_cache(4096)
def _children(metrics: Metrics, method: str, shape: str, status: int) -> tuple[Any, Any]:
    return metrics.requests.labels(method, shape, str(status)), metrics.seconds.labels(method, shape)


def _shape(path: tuple[str, ...], types: frozenset[str]) -> str:
    """The path without ids: 'Patient/id/_history/vid'. Unknown words become 'x', so that the set of labels stays small."""
    words = [part if part in types or (part[:1] in "_$" and len(part) < 32 and part.isascii()) or part == "metadata" else "x" for part in path[:4]]
    return "/".join(words)
