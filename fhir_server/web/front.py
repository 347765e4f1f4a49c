"""Which tenant a request is for: `/t/NAME/...` leads to that organisation's own FHIR door and to what stands beside it.

A name that no tenant has, one that is disabled, and a prefix that is written otherwise than by its own letters are one 404: nothing tells which. The prefix
stays in `path` and is named by `root_path`, so that whatever derives an address from a request stays below it. https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from collections.abc import Mapping
from dataclasses import dataclass

from conformance import codec
from conformance.outcome import Issue, outcome
from fhir_server.web.asgi import App, Receive, Scope, Send, respond
from fhir_server.web.edge import is_fhir

PLACE = "/t/"
METADATA = "/.well-known/oauth-authorization-server"  # RFC 8414 section 3.1: stands before the issuer's path
UNKNOWN = codec.encode(outcome([Issue("error", "not-found", "no such path")]))
ANSWER = [(b"content-type", b"application/fhir+json"), (b"content-length", str(len(UNKNOWN)).encode())]


@dataclass(slots=True, eq=False)
class Branch:
    """One tenant's HTTP surface. prefix: '/t/name'; busy: requests in work, waited for before what they use is closed."""

    prefix: str
    fhir: App
    beside: App
    busy: int = 0


def front(beside: App, tenants: Mapping[str, Branch]) -> App:
    """What is not the exchange's own FHIR: tenants below /t/, the rest `beside`; all of it where no tenant is open.

    tenants: by name; the mapping may change while it serves.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if path.startswith(METADATA + PLACE):
            scope = _metadata(scope)
            path = scope["path"]
        if not path.startswith(PLACE) or not tenants:
            return await beside(scope, receive, send)
        one = tenants.get(path.split("/", 3)[2])
        raw = scope.get("raw_path") or path.encode()
        if one is None or not path.startswith(one.prefix + "/") or not raw.startswith(one.prefix.encode() + b"/"):
            return await respond(send, 404, ANSWER, b"" if scope.get("method") == "HEAD" else UNKNOWN)
        scope["root_path"] = one.prefix
        one.busy += 1
        try:
            return await (one.fhir if is_fhir(path[len(one.prefix) :]) else one.beside)(scope, receive, send)
        finally:
            one.busy -= 1

    return app


def _metadata(scope: Scope) -> Scope:
    """The request for a tenant's authorization server metadata, as one below the tenant's prefix."""
    tail = scope["path"].removeprefix(METADATA)
    prefix, mark, rest = tail.partition("/fhir")
    path = f"{prefix}{METADATA}{mark}{rest}" if mark else tail
    return {**scope, "path": path, "raw_path": path.encode()}
