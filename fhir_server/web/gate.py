"""Who may knock: Host and Origin checks of open mode, bearer tokens of smart mode, and one token bucket per client.

Open mode trusts whoever reaches loopback, so a web page elsewhere must not be able to use the user's browser to get there: Host must be
a loopback name (DNS rebinding) and Origin, if sent, a loopback page.
"""

import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from conformance.outcome import forbidden, too_many, unauthorised
from fhir_server.context import Grant
from fhir_server.security.tokens import OPEN_GRANT, Verify

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
PUBLIC = Grant("anonymous", "public", ())  # no rights: metadata, discovery and health only
BUCKETS = 10_000


@dataclass(slots=True)
class Buckets:
    """Token buckets by client: `rate` tokens a second, twice as many in a burst; the least recently used are forgotten."""

    rate: int
    levels: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def take(self, client: str) -> None:
        """Take one token. Raises Refusal 429."""
        if not self.rate:
            return
        now = time.monotonic()
        level, at = self.levels.pop(client, (2.0 * self.rate, now))
        level = min(2.0 * self.rate, level + (now - at) * self.rate)
        self.levels[client] = (max(level - 1.0, 0.0), now)
        if len(self.levels) > BUCKETS:
            self.levels.popitem(last=False)
        if level < 1.0:
            raise too_many("this client asks faster than the server's rate limit")


def host_of(headers: Mapping[str, str]) -> str:
    """The host name of the Host header, without port; '' if it is missing or malformed."""
    try:
        return urlsplit("//" + headers.get("host", "")).hostname or ""
    except ValueError:
        return ""


def check_loopback(headers: Mapping[str, str]) -> None:
    """Open mode's check. Raises Refusal 403."""
    if host_of(headers) not in LOOPBACK:
        raise forbidden("open mode answers only to a loopback Host")
    origin = headers.get("origin")
    if origin and (urlsplit(origin).hostname or "") not in LOOPBACK:
        raise forbidden("open mode answers only to pages from loopback")


async def open_grant(headers: Mapping[str, str]) -> Grant:
    """Everything, for whoever is on this machine."""
    check_loopback(headers)
    return OPEN_GRANT


async def smart_grant(headers: Mapping[str, str], verify: Verify, buckets: Buckets) -> Grant:
    """The grant of the bearer token. Raises Refusal 401 (missing, broken), 429 (too fast)."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise unauthorised("a bearer token is required")
    grant = await verify(token.strip())
    buckets.take(grant.client)
    return grant
