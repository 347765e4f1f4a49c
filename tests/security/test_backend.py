"""SMART Backend Services and private_key_jwt: good assertions work once, over all workers. Hostile ones are in test_hostile_requests.

https://hl7.org/fhir/smart-app-launch/STU2.2/backend-services.html
"""

import asyncio
import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from fhir_server.security import fetch
from fhir_server.security.authserver import assertion, clients
from fhir_server.security.authserver.clients import Client
from tests.security.app import ROOT, Exchange

pytestmark = pytest.mark.asyncio(loop_scope="module")
EC = ECKey.generate_key("P-384", {"kid": "ec1", "use": "sig"})
RSA = RSAKey.generate_key(2048, {"kid": "rsa1", "use": "sig"})
JWKS = {"keys": [EC.as_dict(private=False), RSA.as_dict(private=False)]}
SCOPES = ("system/*.rs", "system/Patient.cruds")


def assert_jwt(key: Any = EC, client: str = "backend", header: dict[str, Any] | None = None, **changes: Any) -> str:
    """A client assertion; None removes a claim."""
    claims: dict[str, Any] = {"iss": client, "sub": client, "aud": ROOT + "/auth/token", "exp": int(time.time()) + 200, "jti": uuid.uuid4().hex}
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    algorithm = "ES384" if isinstance(key, ECKey) else "RS384"
    return jwt.encode({"alg": algorithm, "kid": key.kid, **(header or {})}, claims, key, algorithms=[algorithm])


def form(text: str, **changes: str) -> dict[str, str]:
    """A token request with this assertion."""
    return {
        "grant_type": "client_credentials",
        "scope": "system/Patient.rs",
        "client_assertion_type": assertion.TYPE,
        "client_assertion": text,
        **changes,
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def backend(exchange: Exchange) -> None:
    await clients.add(exchange.server.records, Client("backend", "Backend", "asymmetric", (), SCOPES, jwks=JWKS))


@pytest.mark.parametrize("key", [EC, RSA], ids=["ES384", "RS384"])
async def test_a_signed_assertion_gets_a_short_lived_token(exchange: Exchange, key: Any) -> None:
    reply = await exchange.token(**form(assert_jwt(key)))
    assert reply.status_code == 200, reply.text
    assert (reply.json()["expires_in"], reply.json()["scope"]) == (300, "system/Patient.rs")
    assert "refresh_token" not in reply.json()
    headers = {"Authorization": "Bearer " + reply.json()["access_token"]}
    assert (await exchange.http.get("/fhir/Patient/pat1", headers=headers)).status_code == 200
    assert (await exchange.http.get("/fhir/Encounter/enc1", headers=headers)).status_code == 403


async def test_an_assertion_is_good_once_whichever_worker_it_reaches(exchange: Exchange, second: Exchange) -> None:
    text = assert_jwt()
    replies = await asyncio.gather(*(one.token(**form(text)) for one in (exchange, second) * 5))
    assert sorted(reply.status_code for reply in replies) == [200] + [401] * 9
    assert {reply.json()["error"] for reply in replies if reply.status_code != 200} == {"invalid_client"}


async def test_scopes_are_those_registered_and_at_least_one(exchange: Exchange) -> None:
    cut = await exchange.token(**form(assert_jwt(), scope="system/*.cruds patient/*.rs user/*.rs openid"))
    assert cut.json()["scope"] == "system/*.rs system/Patient.cruds"
    for scope in ("patient/*.rs", "", "system/Observation.c", "nonsense"):
        reply = await exchange.token(**form(assert_jwt(), scope=scope))
        assert (reply.status_code, reply.json()["error"]) == (400, "invalid_scope")


class KeyHost(BaseHTTPRequestHandler):
    """Serves a key set that tests change."""

    document: dict[str, Any] = JWKS

    def do_GET(self) -> None:
        """The key set, a redirect, or too much."""
        status, body = 200, json.dumps(self.document).encode()
        if self.path == "/redirect":
            status = 302
        elif self.path == "/huge":
            body = b" " * (fetch.MAX_BYTES + 10)
        self.send_response(status)
        self.send_header("Location", "/jwks")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def key_host() -> Iterator[int]:
    host = HTTPServer(("127.0.0.1", 0), KeyHost)
    threading.Thread(target=host.serve_forever, daemon=True).start()
    yield host.server_address[1]
    host.shutdown()


async def test_keys_are_fetched_and_rotated_from_the_registered_address(exchange: Exchange, key_host: int) -> None:
    uri = f"http://127.0.0.1:{key_host}/jwks"
    await clients.add(exchange.server.records, Client("fetched", "Fetched", "asymmetric", (), SCOPES, jwks_uri=uri))
    refused = await exchange.token(**form(assert_jwt(client="fetched")))
    assert refused.status_code == 401  # a loopback address is not fetched from unless the operator says so
    allowed = replace(exchange.server, settings=replace(exchange.server.settings, fetch_allow="127.0.0.1"))
    assert (await assertion.client_of(allowed, assert_jwt(client="fetched", header={"jku": uri}), "")).id == "fetched"
    new = ECKey.generate_key("P-384", {"kid": "ec2", "use": "sig"})
    KeyHost.document = {"keys": [new.as_dict(private=False)]}
    assertion._held.clear()  # as if ten seconds had passed
    assert (await assertion.client_of(allowed, assert_jwt(new, client="fetched"), "")).id == "fetched"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "fe80::1",
        "fc00::1",
        "::ffff:127.0.0.1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
    ],
)
async def test_private_addresses_are_not_called(address: str) -> None:
    assert not fetch.is_public(address)


async def test_public_addresses_are_called() -> None:
    assert fetch.is_public("8.8.8.8")
    assert fetch.is_public("2606:4700::1111")


@pytest.mark.parametrize("path", ["/redirect", "/huge"])
async def test_redirects_and_floods_are_not_followed(key_host: int, path: str) -> None:
    with pytest.raises(fetch.NotFetched):
        await fetch.fetch_json(f"http://127.0.0.1:{key_host}{path}", frozenset({"127.0.0.1"}))


@pytest.mark.parametrize(
    "uri",
    [
        "http://example.com/keys",
        "ftp://example.com/k",
        "https://u:p@example.com/k",
        "https:///k",
        "https://localhost/k",
        "https://[::1]/k",
        "file:///x",
    ],
)
async def test_addresses_that_may_lead_inside_are_refused(uri: str) -> None:
    with pytest.raises(fetch.NotFetched):
        await fetch.fetch_json(uri)


async def test_a_silent_host_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(fetch.NotFetched):
            await fetch.fetch_json(f"http://127.0.0.1:{silent.getsockname()[1]}/k", frozenset({"127.0.0.1"}))


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "bad id"},
        {"kind": "secret"},
        {"redirect_uris": ("http://app.example/back",)},
        {"redirect_uris": ("https://app.example/back#fragment",)},
        {"redirect_uris": ("https://*.example/back",)},
        {"redirect_uris": ("https://user@app.example/back",)},
        {"redirect_uris": ("javascript:alert(1)",)},
        {"redirect_uris": ("myapp:back",)},
        {"redirect_uris": ("https://app.example/back; script-src *",)},
        {"redirect_uris": ("/relative",)},
        {"redirect_uris": ()},
        {"scopes": ("patient/*.sr",)},
        {"scopes": ("made-up",)},
        {"jwks": JWKS},
    ],
)
async def test_a_client_that_could_not_be_safe_is_not_registered(exchange: Exchange, changes: dict[str, Any]) -> None:
    given = {"id": "new", "name": "New", "kind": "public", "redirect_uris": ("https://app.example/back",), "scopes": ("patient/*.rs",), **changes}
    with pytest.raises(ValueError, match=":"):
        await clients.add(exchange.server.records, Client(**given))
