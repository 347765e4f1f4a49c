"""The outermost layer: request ids and CORS (Fetch standard, CORS protocol)."""

import re
from typing import Any

import httpx
import pytest

from fhir_server.security.admission import GLASS, PURPOSE
from fhir_server.web.asgi import respond
from fhir_server.web.edge import edge


async def fhir(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, 200, [], b"fhir " + scope["request_id"].encode())


async def beside(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, 200, [], b"beside")


def client(origins: str = "*") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(edge(fhir, beside, origins)), base_url="http://localhost")


@pytest.mark.parametrize(("path", "body"), [("/fhir", "fhir"), ("/fhir/Patient", "fhir"), ("/fhirx", "beside"), ("/health/live", "beside")])
async def test_paths_below_the_base_reach_the_fhir_door(path: str, body: str) -> None:
    async with client() as one:
        assert (await one.get(path)).text.startswith(body)


async def test_a_request_id_is_kept_if_it_is_harmless_and_made_otherwise() -> None:
    async with client() as one:
        kept = await one.get("/fhir", headers={"X-Request-Id": "abc-1"})
        made = await one.get("/fhir", headers={"X-Request-Id": "evil value;{}"})
    assert kept.headers["x-request-id"] == "abc-1"
    assert re.fullmatch(r"[0-9a-f]{16}-1", made.headers["x-request-id"])


async def test_a_page_of_an_allowed_origin_may_read_answers_and_preflight() -> None:
    async with client("https://app.example") as one:
        answer = await one.get("/fhir", headers={"Origin": "https://app.example"})
        preflight = await one.options("/fhir", headers={"Origin": "https://app.example", "Access-Control-Request-Method": "PUT"})
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "etag" in answer.headers["access-control-expose-headers"]
    assert preflight.status_code == 204
    assert "PUT" in preflight.headers["access-control-allow-methods"]
    for name in ("authorization", "if-none-exist", GLASS, PURPOSE):
        assert name in preflight.headers["access-control-allow-headers"].split(", ")
    assert "access-control-allow-credentials" not in answer.headers


async def test_a_page_of_another_origin_gets_no_cors_headers() -> None:
    async with client("https://app.example") as one:
        answer = await one.get("/fhir", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
