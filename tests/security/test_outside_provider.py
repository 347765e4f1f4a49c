"""Sign in by an outside OpenID provider that runs in this test: the good way, and each lie that the provider or an attacker may tell.

https://openid.net/specs/openid-connect-core-1_0.html#CodeFlowAuth
"""

import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from fhir_server.security.authserver import outside, users
from fhir_server.security.authserver.users import User
from fhir_server.store.mongo.store import MongoStore
from tests.security.app import BACK, Browser, Exchange, pkce, query_of, request_of, worker

pytestmark = pytest.mark.asyncio(loop_scope="module")
KEY = RSAKey.generate_key(2048, {"kid": "p1", "use": "sig"})
EVIL = RSAKey.generate_key(2048, {"kid": "p1", "use": "sig"})
SHARED = OctKey.import_key("0123456789abcdef0123456789abcdef0123456789abcdef", {"kid": "p1"})


class Provider(BaseHTTPRequestHandler):
    """A small provider: discovery, keys, token endpoint. Tests say what the id token holds."""

    root = ""
    nonce = ""
    make: Callable[[dict[str, Any]], Any] = staticmethod(lambda claims: signed(claims))
    asked: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        """Discovery or keys."""
        endpoints = {"authorization_endpoint": "/authorize", "token_endpoint": "/token", "jwks_uri": "/keys"}
        document = {"issuer": self.root, **{name: self.root + path for name, path in endpoints.items()}}
        self.answer(200, {"keys": [KEY.as_dict(private=False)]} if self.path == "/keys" else document)

    def do_POST(self) -> None:
        """The token endpoint."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        type(self).asked = {**dict(parse_qsl(body)), "authorization": self.headers.get("Authorization", "")}
        now = int(time.time())
        claims = {"iss": self.root, "aud": "exchange", "sub": "person-1", "iat": now, "exp": now + 60, "nonce": self.nonce}
        made = type(self).make(claims)
        self.answer(400 if made is None else 200, {"error": "invalid_grant"} if made is None else {"access_token": "x", "id_token": made})

    def answer(self, status: int, document: Any) -> None:
        """JSON."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""


def signed(claims: dict[str, Any], key: Any = KEY, algorithm: str = "RS256", **changes: Any) -> str:
    whole = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    return jwt.encode({"alg": algorithm, "kid": "p1"}, whole, key, algorithms=[algorithm])


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    host = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=host.serve_forever, daemon=True).start()
    Provider.root = f"http://127.0.0.1:{host.server_address[1]}"
    yield Provider.root
    host.shutdown()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clinic(exchange: Exchange, module_store: MongoStore, provider: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Exchange]:
    """A worker that knows the provider, and an account of somebody there."""
    folder: Path = tmp_path_factory.mktemp("clinic")
    (folder / "secret").write_text("provider-secret\n")
    row = {"name": "Clinic ID", "issuer": provider, "client_id": "exchange", "client_secret_file": str(folder / "secret")}
    (folder / "provider.json").write_text(json.dumps(row))
    await users.add(exchange.server.records, User("", "outsider", "Practitioner/p1", "clinician", external=f"{provider}|person-1"), "")
    yield await worker(module_store, folder, oidc_provider=str(folder / "provider.json"))


async def at_provider(clinic: Exchange) -> tuple[Browser, dict[str, str]]:
    """A browser that was sent to the provider, and what it was sent with."""
    browser = await clinic.browser().authorize(**request_of(pkce()[1]))
    assert "Sign in with Clinic ID" in browser.page.text
    assert f"form-action 'self' https://app.example {Provider.root}" in browser.page.headers["content-security-policy"]
    await browser.submit(by="outside")
    asked = query_of(browser.url)
    Provider.nonce = asked["nonce"]
    return browser, asked


async def back(browser: Browser, **given: str) -> Browser:
    """The provider sends the browser back."""
    return await browser.open("/auth/outside", params={name: value for name, value in given.items() if value})


async def test_the_provider_signs_a_person_in(clinic: Exchange, provider: str) -> None:
    Provider.make = staticmethod(signed)
    browser, asked = await at_provider(clinic)
    assert browser.url.startswith(provider + "/authorize?")
    assert (asked["response_type"], asked["code_challenge_method"], asked["client_id"]) == ("code", "S256", "exchange")
    await back(browser, code="c1", state=asked["state"], iss=provider)
    assert "Choose a patient" in browser.page.text, browser.page.text
    assert Provider.asked["code"] == "c1"
    assert Provider.asked["authorization"].startswith("Basic ")
    assert len(Provider.asked["code_verifier"]) >= 43
    await browser.submit(patient="pat1")
    await browser.allow()
    assert browser.url.startswith(BACK)
    assert "code" in browser.answer


LIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another nonce": lambda claims: signed(claims, nonce="other"),
    "no nonce": lambda claims: signed(claims, nonce=None),
    "another audience": lambda claims: signed(claims, aud="somebody-else"),
    "two audiences without azp": lambda claims: signed(claims, aud=["exchange", "somebody-else"]),
    "two audiences, azp another": lambda claims: signed(claims, aud=["exchange", "somebody-else"], azp="somebody-else"),
    "another issuer": lambda claims: signed(claims, iss="https://evil.example"),
    "expired": lambda claims: signed(claims, exp=int(time.time()) - 3600),
    "no expiry": lambda claims: signed(claims, exp=None),
    "no subject": lambda claims: signed(claims, sub=None),
    "subject as an object": lambda claims: signed(claims, sub={"$ne": 1}),
    "another key": lambda claims: signed(claims, EVIL),
    "an algorithm that was not agreed": lambda claims: signed(claims, algorithm="RS384"),
    "HMAC": lambda claims: signed(claims, SHARED, "HS256"),
    "no signature": lambda claims: "eyJhbGciOiJub25lIn0." + signed(claims).split(".")[1] + ".",
    "no JWT": lambda claims: "nonsense",
    "no text": lambda claims: {"a": 1},
    "code refused": lambda claims: None,
}


@pytest.mark.parametrize("name", LIES)
async def test_a_lie_in_the_id_token_signs_nobody_in(clinic: Exchange, name: str) -> None:
    Provider.make = staticmethod(LIES[name])
    browser, asked = await at_provider(clinic)
    await back(browser, code="c1", state=asked["state"])
    assert browser.page.status_code == 401
    assert "did not work" in browser.page.text
    assert "exchange-session" not in browser.http.cookies


async def test_an_answer_that_is_not_this_flows_is_refused(clinic: Exchange, provider: str) -> None:
    Provider.make = staticmethod(signed)
    victim, mine = await at_provider(clinic)
    flow_id = mine["state"].partition("~")[0]
    other, theirs = await at_provider(clinic)
    for given in (
        {"state": f"{flow_id}~guess"},
        {"state": mine["state"], "iss": "https://evil.example"},
        {"state": mine["state"], "error": "denied"},
    ):
        browser, asked = await at_provider(clinic)
        state = given["state"].replace(flow_id, asked["state"].partition("~")[0]) if "guess" in given["state"] else asked["state"]
        await back(browser, **{"code": "c1" if "error" not in given else "", **given, "state": state})
        assert browser.page.status_code == 401
    await back(victim, code="c1", state=theirs["state"])  # the attacker's own answer, planted in the victim's browser
    assert victim.page.status_code == 400
    Provider.nonce = theirs["nonce"]
    await back(other, code="c1", state=theirs["state"])
    assert "Choose a patient" in other.page.text
    await back(other, code="c1", state=theirs["state"])  # a second time
    assert other.page.status_code == 400


async def test_somebody_without_an_account_is_told_so(clinic: Exchange) -> None:
    Provider.make = staticmethod(lambda claims: signed(claims, sub="stranger"))
    browser, asked = await at_provider(clinic)
    await back(browser, code="c1", state=asked["state"])
    assert browser.page.status_code == 403
    assert "no account here" in browser.page.text


async def test_an_account_of_the_provider_has_no_password(clinic: Exchange) -> None:
    browser = await clinic.browser().authorize(**request_of(pkce()[1]))
    await browser.sign_in("outsider", "")
    assert browser.page.status_code == 401


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"name": "x", "issuer": "http://idp.example", "client_id": "c"},
        {"name": "x", "issuer": "https://idp.example"},
        {"name": "x", "issuer": "https://idp.example", "client_id": "c", "algorithms": ["HS256"]},
        {"name": "x", "issuer": "https://idp.example", "client_id": "c", "algorithms": []},
    ],
)
async def test_a_wrong_configuration_is_refused_at_start(tmp_path: Path, row: dict[str, Any]) -> None:
    (tmp_path / "provider.json").write_text(json.dumps(row))
    with pytest.raises(ValueError, match="FHIR_OIDC_PROVIDER"):
        outside.read_provider(str(tmp_path / "provider.json"))


async def test_a_provider_that_is_away_leaves_the_local_sign_in(module_store: MongoStore, exchange: Exchange, tmp_path: Path) -> None:
    (tmp_path / "provider.json").write_text(json.dumps({"name": "Away", "issuer": "http://127.0.0.1:1", "client_id": "c"}))
    one = await worker(module_store, tmp_path, oidc_provider=str(tmp_path / "provider.json"))
    browser = await one.browser().authorize(**request_of(pkce()[1]))
    assert "Sign in with" not in browser.page.text
    await browser.sign_in()
    assert "Choose a patient" in browser.page.text
    assert urlsplit(browser.url).path in ("", "/auth/flow")
