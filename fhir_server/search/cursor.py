"""Signed cursors: where a page of a search or a history continues. No result set is stored.

A cursor is a position (sort key values, then the id) and a signature over that position and everything it is bound to: the query it
belongs to, the tenant and the caller. Another caller's or another query's cursor is refused (400), it never continues elsewhere.
https://hl7.org/fhir/R4/http.html#paging
"""

import base64
import hmac
import json
import secrets
from datetime import datetime
from decimal import Decimal
from typing import Any

from conformance.outcome import bad_request
from fhir_server.context import Context

SIGNATURE_BYTES = 16
PROCESS_KEY = secrets.token_bytes(32)  # when no secret is configured: cursors then live as long as this process
PLAIN = (str, int, float, bool, type(None))
MALFORMED = "the page cursor is not one of this server's for this query and caller; start from the first page"


def seal(ctx: Context, query: str, position: tuple[Any, ...]) -> str:
    """The cursor (URL-safe text) for a position of `query`, which names path and parameters without the cursor itself.

    Position values: str, int, float, bool, None, datetime, Decimal. Raises TypeError for another type.
    """
    payload = json.dumps([_tagged(value) for value in position], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_signature(ctx, query, payload) + payload).decode().rstrip("=")


def unseal(ctx: Context, query: str, cursor: str) -> tuple[Any, ...]:
    """The position that `seal` was given. Raises Refusal 400 if the cursor was changed or belongs to another query or caller."""
    try:
        sealed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise bad_request(MALFORMED) from error
    signature, payload = sealed[:SIGNATURE_BYTES], sealed[SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _signature(ctx, query, payload)):
        raise bad_request(MALFORMED)
    return tuple(_plain(value) for value in json.loads(payload))


def _signature(ctx: Context, query: str, payload: bytes) -> bytes:
    key = ctx.settings.secret.encode() or PROCESS_KEY
    bound = json.dumps([query, ctx.tenant, ctx.grant.subject, ctx.grant.client, ctx.grant.patient]).encode()
    return hmac.digest(key, bound + b"\x00" + payload, "sha256")[:SIGNATURE_BYTES]


def _tagged(value: Any) -> Any:
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, datetime):
        return ["t", value.isoformat()]
    if isinstance(value, Decimal):
        return ["n", str(value)]
    raise TypeError(f"a cursor cannot carry a {type(value).__name__}")


def _plain(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    tag, text = value
    return datetime.fromisoformat(text) if tag == "t" else Decimal(text)
