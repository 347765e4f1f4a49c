"""Open mode's Host and Origin checks, and the rate limit."""

import pytest

from conformance.outcome import Refusal
from fhir_server.web import gate


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:9", "[::1]:8080"])
async def test_open_mode_answers_to_loopback_names(host: str) -> None:
    assert (await gate.open_grant({"host": host})).client == "open"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "localhost.evil.example:8080"},
        {},
        {"host": "[::1"},
        {"host": "localhost", "origin": "https://evil.example"},
        {"host": "localhost", "origin": "null"},
    ],
)
async def test_open_mode_refuses_rebound_names_and_foreign_pages(headers: dict[str, str]) -> None:
    with pytest.raises(Refusal) as caught:
        await gate.open_grant(headers)
    assert caught.value.status == 403


def test_a_client_that_asks_too_fast_is_429_and_its_neighbour_is_not() -> None:
    buckets = gate.Buckets(rate=5)
    for _ in range(10):
        buckets.take("greedy")
    with pytest.raises(Refusal) as caught:
        buckets.take("greedy")
    assert caught.value.status == 429
    assert "Retry-After" in caught.value.headers
    buckets.take("neighbour")


async def test_smart_mode_wants_a_bearer_token() -> None:
    async def verify(token: str) -> gate.Grant:
        raise AssertionError("nothing to verify")

    for headers in ({}, {"authorization": "Basic eDp5"}, {"authorization": "Bearer "}):
        with pytest.raises(Refusal) as caught:
            await gate.smart_grant(headers, verify, gate.Buckets(0))
        assert caught.value.status == 401
