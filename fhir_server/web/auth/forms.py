"""Reading what browsers and apps send to the authorization server, and answering in JSON. RFC 6749 section 5, RFC 6750 section 3."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request, Response

from conformance.outcome import Refusal
from fhir_server.security.authserver.errors import OAuthError
from fhir_server.web.body import read_body

log = logging.getLogger("fhir.auth")
FORM = "application/x-www-form-urlencoded"
MAX_BODY = 131_072
MAX_PAIRS = 200
READ_SECONDS = 15.0
TOO_MANY = 429  # from here on waiting helps
NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache", "X-Content-Type-Options": "nosniff"}
Pairs = list[tuple[str, str]]


async def body_of(request: Request) -> bytes:
    """The body, within limits of size and time. Raises Refusal 400, 413, 415; OAuthError if it comes too slowly."""
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await read_body(request.receive, request.headers, MAX_BODY)
    except TimeoutError as error:
        raise OAuthError("invalid_request", "the body did not come in time") from error


def pairs_of(encoded: bytes) -> Pairs:
    """Decoded name-value pairs. Raises OAuthError on anything that is not form encoding in UTF-8."""
    try:
        return parse_qsl(encoded.decode("ascii"), keep_blank_values=True, strict_parsing=bool(encoded), errors="strict", max_num_fields=MAX_PAIRS)
    except ValueError as error:
        raise OAuthError("invalid_request", "the parameters are not well-formed form encoding") from error


async def form_of(request: Request) -> Pairs:
    """The pairs of a form body; the query string must be empty, so that nothing secret is in a URL. Raises OAuthError, Refusal."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise OAuthError("invalid_request", f"the Content-Type must be {FORM}")
    if request.url.query:
        raise OAuthError("invalid_request", "parameters belong into the body")
    return pairs_of((await body_of(request)).strip())


def as_json(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer that nothing stores, unless `headers` say otherwise."""
    return Response(json.dumps(document).encode(), status, {**NO_STORE, **(headers or {})}, media_type="application/json")


async def answered(act: Callable[[], Awaitable[Any]]) -> Response:
    """The JSON that `act` returns, or its refusal as OAuth errors; the border of the JSON endpoints, so a defect is logged and told as such."""
    try:
        return as_json(await act())
    except OAuthError as error:
        headers = {"WWW-Authenticate": error.challenge} if error.challenge else {}
        return as_json({"error": error.code, "error_description": error.text}, error.status, headers)
    except Refusal as refusal:
        code = "temporarily_unavailable" if refusal.status >= TOO_MANY else "invalid_request"
        text = "; ".join(issue.text for issue in refusal.issues)
        return as_json({"error": code, "error_description": text}, refusal.status, refusal.headers)
    except Exception:  # the HTTP border: a defect is logged by place and answered as 500, never shown
        log.exception("authorization request failed")
        return as_json({"error": "server_error", "error_description": "the server failed to answer"}, 500)
