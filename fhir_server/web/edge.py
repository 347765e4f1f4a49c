"""The outermost ASGI layer: request ids, CORS, and the split between the FHIR door and the FastAPI app beside it.

One function and no middleware classes: a BaseHTTPMiddleware costs more than the whole door (tests/bench).
"""

import itertools
import re
import secrets
from collections.abc import Mapping

from fhir_server.web.asgi import App, Headers, Message, Receive, Scope, Send, header_map, respond

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
ALLOW_HEADERS = b", ".join(
    (
        *(b"authorization", b"content-type", b"accept", b"prefer", b"if-match", b"if-none-match", b"if-modified-since", b"if-none-exist"),
        *(b"x-request-id", b"x-cascade", b"x-security-context", b"x-break-glass", b"x-purpose-of-use"),
    )
)
EXPOSE_HEADERS = b"location, content-location, etag, last-modified, x-request-id, retry-after, www-authenticate"
ALLOW_METHODS = b"GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"

DISCOVERY = "/fhir/.well-known/"  # of the authorization server, which is beside FHIR
TENANT = re.compile(r"^/t/[^/]*(?=/)")  # what a tenant's paths begin with; `web/front.py` takes them on
PAGES = ("/auth/authorize", "/auth/flow", "/auth/manage", "/auth/outside")  # for people, not for scripts of other origins (RFC 9700 section 2.6)


def edge(fhir: App, beside: App, cors_origins: str) -> App:
    """`fhir` answers below /fhir, `beside` the rest; every answer carries X-Request-Id and the CORS headers its Origin may have."""
    origins = frozenset(origin.strip() for origin in cors_origins.split(",") if origin.strip())

    process = secrets.token_hex(8)  # drawn after the fork: each worker numbers its own requests
    numbers = itertools.count(1)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await beside(scope, receive, send)
            return
        sent = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
        scope["request_id"] = sent if sent and REQUEST_ID.fullmatch(sent) else f"{process}-{next(numbers):x}"
        origin = next((value for name, value in scope["headers"] if name == b"origin"), b"")
        extra: Headers = [(b"x-request-id", scope["request_id"].encode())]
        if origin and not is_page(scope["path"]):
            extra += _cors(origin, origins)

        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        path = scope["path"]
        if scope["method"] == "OPTIONS" and origin and len(extra) > 1:
            await _preflight(header_map(scope["headers"]), tagged)
        elif is_fhir(path):
            await fhir(scope, receive, tagged)
        else:
            await beside(scope, receive, tagged)

    return app


def is_fhir(path: str) -> bool:
    """True if a path, without a tenant's prefix, is the FHIR door's."""
    return (path == "/fhir" or path.startswith("/fhir/")) and not path.startswith(DISCOVERY)


def is_page(path: str) -> bool:
    """True if a path is one of the pages for people, of any tenant."""
    return TENANT.sub("", path, count=1).startswith(PAGES)


def _cors(origin: bytes, origins: frozenset[str]) -> Headers:
    """Fetch standard, CORS protocol; credentials are never allowed, tokens travel in the Authorization header."""
    if "*" in origins:
        allowed = b"*"
    elif origin.decode("latin-1") in origins:
        allowed = origin
    else:
        return []
    return [(b"access-control-allow-origin", allowed), (b"access-control-expose-headers", EXPOSE_HEADERS), (b"vary", b"origin")]


async def _preflight(headers: Mapping[str, str], send: Send) -> None:
    answer: Headers = [
        (b"access-control-allow-methods", ALLOW_METHODS),
        (b"access-control-allow-headers", ALLOW_HEADERS),
        (b"access-control-max-age", b"600"),
    ]
    await respond(send, 204 if headers.get("access-control-request-method") else 200, answer, b"")
