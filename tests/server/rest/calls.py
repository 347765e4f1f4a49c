"""How these tests call the exchange: as the HTTP door does, through `route`, with refusals turned into replies."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

from conformance.outcome import Refusal, outcome
from conformance.spec import load_spec
from fhir_server.context import Context, Grant, Reply, Request, Right
from fhir_server.interactions.routes import route
from fhir_server.operations import TABLE
from fhir_server.settings import Settings

BASE = "http://localhost/fhir"
EVERYONE = Grant("tester", "tests", (Right("*", frozenset("cruds")),), admin=True)


@dataclass(frozen=True)
class Exchange:
    """A caller of one exchange."""

    ctx: Context

    async def __call__(self, method: str, url: str, res: Any = None, *, body: bytes = b"", media: str = "", **headers: str) -> Reply:
        """One request; header names with underscores: `if_match='W/"1"'`."""
        path, _, query = url.partition("?")
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        segments = tuple(unquote(part) for part in path.split("/") if part)
        request = Request(method, segments, tuple(parse_qsl(query, keep_blank_values=True)), named, res, body, media)
        ctx = replace(self.ctx, prefer=_prefer(named.get("prefer", "")))
        try:
            return await route(ctx, request)
        except Refusal as refusal:
            return Reply(refusal.status, outcome(refusal.issues), refusal.headers)

    def by(self, *rights: Right, subject: str = "other") -> "Exchange":
        """The same exchange for another caller."""
        return Exchange(replace(self.ctx, grant=Grant(subject, "tests", rights)))

    def with_settings(self, **values: Any) -> "Exchange":
        """The same exchange, set otherwise."""
        return Exchange(replace(self.ctx, settings=replace(self.ctx.settings, **values)))


def _prefer(text: str) -> Mapping[str, str]:
    return dict(part.strip().split("=", 1) for part in text.split(",") if "=" in part)


def exchange_on(store: Any, terms: Any = None, **settings: Any) -> Exchange:
    """An exchange on this store; its caller may do everything."""
    return Exchange(
        Context(
            request_id="test",
            grant=EVERYONE,
            store=store,
            spec=load_spec(),
            terms=terms,
            settings=Settings(**{"secret": "test", "audit": "off", **settings}),
            base=BASE,
            source="tests",
            now=datetime.now(UTC),
            operations=TABLE,
        )
    )


def rid_of(reply: Reply) -> str:
    """The id in a reply's resource."""
    assert reply.res is not None, reply
    return str(reply.res["id"])


def text_of(reply: Reply) -> str:
    """All text of a reply's body, for 'names the referrer' kinds of checks."""
    return json.dumps(reply.res, default=str)
