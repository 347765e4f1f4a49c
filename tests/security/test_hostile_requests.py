"""Hostile OAuth requests, one row each: the right error, no code, no token, no redirect to a stranger, no 500.

RFC 6819 and RFC 9700 (attacks), RFC 6749, RFC 7636, RFC 9207. The server time of each is printed at the end (`-rP`).
"""

import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from fhir_server.security.authserver import assertion, clients
from fhir_server.security.authserver.clients import Client
from tests.security.app import BACK, BASE, ROOT, STATE, Exchange, launched, pkce, query_of, request_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
EC = ECKey.generate_key("P-384", {"kid": "ec1", "use": "sig"})
OTHER = ECKey.generate_key("P-384", {"kid": "ec1", "use": "sig"})
P256 = ECKey.generate_key("P-256", {"kid": "p256", "use": "sig"})
RSA = RSAKey.generate_key(2048, {"kid": "rsa1", "use": "sig"})
SECRET = OctKey.import_key("0123456789abcdef0123456789abcdef0123456789abcdef", {"kid": "ec1"})
CHALLENGE = pkce()[1]
times: dict[str, float] = {}


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def ready(exchange: Exchange) -> AsyncIterator[None]:
    jwks = {"keys": [EC.as_dict(private=False), RSA.as_dict(private=False), P256.as_dict(private=False)]}
    await clients.add(exchange.server.records, Client("backend", "Backend", "asymmetric", (BACK,), ("system/*.rs", "patient/*.rs"), jwks=jwks))
    await clients.add(exchange.server.records, Client("query", "With query", "public", (BACK + "?tenant=1",), ("user/*.rs",)))
    yield
    slowest = sorted(times.items(), key=lambda one: -one[1])
    print(f"\n{len(times)} hostile requests; slowest: " + ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in slowest[:5]))


async def timed(name: str, call: Any) -> httpx.Response:
    started = time.perf_counter()
    reply: httpx.Response = await call
    times[name] = time.perf_counter() - started
    return reply


# name -> (changes of a good request, the error that the app is sent; 'page' where nothing may be sent anywhere)
AUTHORIZE: dict[str, tuple[dict[str, Any], str]] = {
    "unknown client": ({"client_id": "nobody"}, "page"),
    "client id with a NUL": ({"client_id": "web\x00"}, "page"),
    "no client": ({"client_id": None}, "page"),
    "client id as an operator": ({"client_id": '{"$ne": null}'}, "page"),
    "no redirect address": ({"redirect_uri": None}, "page"),
    "redirect to a stranger": ({"redirect_uri": "https://evil.example/back"}, "page"),
    "redirect below the registered path": ({"redirect_uri": BACK + "/deeper"}, "page"),
    "redirect with a climbing path": ({"redirect_uri": BACK + "/../evil"}, "page"),
    "redirect with an added query": ({"redirect_uri": BACK + "?next=https://evil.example"}, "page"),
    "redirect with a fragment": ({"redirect_uri": BACK + "#x"}, "page"),
    "redirect with a user part": ({"redirect_uri": "https://app.example@evil.example/back"}, "page"),
    "redirect to a longer host": ({"redirect_uri": "https://app.example.evil.example/back"}, "page"),
    "redirect in other case": ({"redirect_uri": "https://APP.example/back"}, "page"),
    "redirect with encoded letters": ({"redirect_uri": "https://app.example/%62ack"}, "page"),
    "redirect by http": ({"redirect_uri": "http://app.example/back"}, "page"),
    "redirect to a script": ({"redirect_uri": "javascript:alert(1)"}, "page"),
    "redirect without its registered query": ({"client_id": "query", "redirect_uri": BACK}, "page"),
    "redirect with a line break": ({"redirect_uri": BACK + "\r\nSet-Cookie: a=b"}, "page"),
    "implicit flow": ({"response_type": "token"}, "unsupported_response_type"),
    "hybrid flow": ({"response_type": "code id_token"}, "unsupported_response_type"),
    "no response type": ({"response_type": None}, "invalid_request"),
    "fragment as response mode": ({"response_mode": "fragment"}, "invalid_request"),
    "no PKCE": ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
    "PKCE downgraded to plain": ({"code_challenge_method": "plain"}, "invalid_request"),
    "PKCE without a method": ({"code_challenge_method": None}, "invalid_request"),
    "PKCE challenge too short": ({"code_challenge": "abc"}, "invalid_request"),
    "PKCE challenge padded": ({"code_challenge": CHALLENGE[:-1] + "="}, "invalid_request"),
    "no state": ({"state": None}, "invalid_request"),
    "no audience": ({"aud": None}, "invalid_request"),
    "another server as audience": ({"aud": "https://evil.example/fhir"}, "invalid_request"),
    "audience and another resource": ({"resource": "https://evil.example/fhir"}, "invalid_request"),
    "no scope": ({"scope": None}, "invalid_scope"),
    "only unknown scopes": ({"scope": "root/*.* admin"}, "invalid_scope"),
    "system scopes for a person": ({"scope": "system/*.cruds"}, "invalid_scope"),
    "scopes that others are registered for": ({"scope": "exchange/launch exchange/introspect"}, "invalid_scope"),
    "actions out of order": ({"scope": "patient/Observation.sr"}, "invalid_scope"),
    "a thousand scopes": ({"scope": " ".join(f"user/A{number}.r" for number in range(500))}, "invalid_scope"),
    "scope of a megabyte": ({"scope": "user/*.rs " * 20_000}, "page"),
    "state of a megabyte": ({"state": "x" * 1_000_000}, "page"),
    "request object": ({"request": "eyJhbGciOiJub25lIn0.e30."}, "request_not_supported"),
    "request by reference": ({"request_uri": "http://169.254.169.254/latest"}, "request_uri_not_supported"),
    "registration on the fly": ({"registration": "{}"}, "registration_not_supported"),
    "invented launch": ({"launch": "abc", "scope": "launch patient/*.rs"}, "invalid_request"),
    "launch as an operator": ({"launch": '{"$gt": ""}', "scope": "launch patient/*.rs"}, "invalid_request"),
    "launch scope without launch": ({"scope": "launch patient/*.rs"}, "invalid_request"),
    "invented prompt": ({"prompt": "never"}, "invalid_request"),
    "prompt none with others": ({"prompt": "none login"}, "invalid_request"),
    "negative age": ({"max_age": "-1"}, "invalid_request"),
    "age in other digits": ({"max_age": "١"}, "invalid_request"),
}


@pytest.mark.parametrize("name", AUTHORIZE)
async def test_a_hostile_authorization_request_is_refused(exchange: Exchange, name: str) -> None:
    changes, expected = AUTHORIZE[name]
    reply = await timed(name, exchange.http.post("/auth/authorize", data=request_of(CHALLENGE, **changes)))
    if expected == "page":
        assert reply.status_code in (400, 413)
        assert "location" not in reply.headers
        assert "evil.example" not in reply.text
        return
    assert reply.status_code == 303
    assert reply.headers["location"].startswith(BACK + "?")
    answer = query_of(reply.headers["location"])
    assert answer["error"] == expected
    assert answer["iss"] == BASE
    assert "code" not in answer
    assert answer.get("state") == (STATE if changes.get("state", STATE) else None)


RAW = {
    "a parameter twice": b"client_id=web&client_id=web",
    "a redirect address twice": b"client_id=web&redirect_uri=https%3A%2F%2Fapp.example%2Fback&redirect_uri=https%3A%2F%2Fevil.example",
    "no form encoding": b"\xff\xfe=&&=",
    "broken percent encoding": b"client_id=%ff%fe",
    "three hundred parameters": b"&".join(b"p%d=1" % number for number in range(300)),
    "JSON": b'{"client_id": "web"}',
    "nothing": b"",
}


@pytest.mark.parametrize("path", ["/auth/authorize", "/auth/token", "/auth/introspect", "/auth/revoke", "/auth/flow", "/auth/manage"])
@pytest.mark.parametrize("name", RAW)
async def test_malformed_bodies_are_refused_everywhere(exchange: Exchange, path: str, name: str) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    reply = await timed(f"{name} at {path}", exchange.http.post(path, content=RAW[name], headers=headers))
    assert 400 <= reply.status_code < 500
    assert "location" not in reply.headers


@pytest.mark.parametrize("media", ["application/json", "multipart/form-data; boundary=x", "text/plain", ""])
async def test_other_media_types_are_refused(exchange: Exchange, media: str) -> None:
    reply = await exchange.http.post("/auth/token", content=b"grant_type=client_credentials", headers={"Content-Type": media})
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_request")


async def test_secrets_in_the_query_string_are_refused(exchange: Exchange) -> None:
    reply = await exchange.http.post("/auth/token?client_secret=" + "e" * 40, data={"grant_type": "client_credentials", "client_id": "ehr"})
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_request")


async def test_a_body_that_swells_is_refused(exchange: Exchange) -> None:
    import gzip

    body = gzip.compress(b"a=" + b"x" * 50_000_000)
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Content-Encoding": "gzip"}
    assert (await timed("gzip bomb", exchange.http.post("/auth/token", content=body, headers=headers))).status_code == 413


# name -> (changes of a good code exchange by `web`, error)
CODE: dict[str, tuple[dict[str, Any], str]] = {
    "no verifier": ({"code_verifier": None}, "invalid_request"),
    "wrong verifier": ({"code_verifier": "v" * 43}, "invalid_grant"),
    "the challenge as verifier": ({"code_verifier": CHALLENGE}, "invalid_grant"),
    "verifier too short": ({"code_verifier": "v" * 42}, "invalid_grant"),
    "verifier of 50 kilobytes": ({"code_verifier": "v" * 50_000}, "invalid_request"),
    "another redirect address": ({"redirect_uri": "https://evil.example/back"}, "invalid_grant"),
    "no redirect address": ({"redirect_uri": None}, "invalid_request"),
    "another client": ({"client_id": "trusted"}, "invalid_grant"),
    "no client": ({"client_id": None}, "invalid_client"),
    "a confidential client without its secret": ({"client_id": "portal"}, "invalid_client"),
    "a public client with a secret": ({"client_secret": "x"}, "invalid_client"),
    "an invented code": ({"code": "invented"}, "invalid_grant"),
    "a code as an operator": ({"code": '{"$ne": 1}'}, "invalid_grant"),
    "no code": ({"code": None}, "invalid_request"),
    "password grant": ({"grant_type": "password", "username": "drdoe", "password": "correct horse battery"}, "unsupported_grant_type"),
    "token exchange": ({"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange"}, "unsupported_grant_type"),
    "no grant type": ({"grant_type": None}, "invalid_request"),
    "client credentials of a public client": ({"grant_type": "client_credentials", "scope": "system/*.rs"}, "unauthorized_client"),
    "an invented refresh token": ({"grant_type": "refresh_token", "refresh_token": "invented"}, "invalid_grant"),
    "no refresh token": ({"grant_type": "refresh_token"}, "invalid_request"),
}


@pytest.mark.parametrize("name", CODE)
async def test_a_hostile_code_exchange_is_refused_and_spends_the_code(exchange: Exchange, name: str) -> None:
    changes, expected = CODE[name]
    browser, verifier = await launched(exchange, "web")
    good = {"grant_type": "authorization_code", "client_id": "web", "code": browser.answer["code"], "redirect_uri": BACK, "code_verifier": verifier}
    form = {key: value for key, value in {**good, **changes}.items() if value is not None}
    reply = await timed("code: " + name, exchange.token(**form))
    assert reply.json()["error"] == expected
    assert reply.status_code == (401 if expected == "invalid_client" else 400)
    assert "access_token" not in reply.text
    if expected == "invalid_grant" and form.get("code") == good["code"] and form["grant_type"] == good["grant_type"]:
        assert (await exchange.token(**good)).json()["error"] == "invalid_grant"


async def test_a_code_after_its_minute_is_refused(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    from fhir_server.security.authserver import grants

    monkeypatch.setattr(grants, "CODE_SECONDS", -1)
    browser, verifier = await launched(exchange)
    reply = await exchange.token(
        grant_type="authorization_code", client_id="web", code=browser.answer["code"], redirect_uri=BACK, code_verifier=verifier
    )
    assert reply.json()["error"] == "invalid_grant"


def signed(key: Any, header: dict[str, Any] | None = None, **changes: Any) -> str:
    claims: dict[str, Any] = {
        "iss": "backend",
        "sub": "backend",
        "aud": ROOT + "/auth/token",
        "exp": int(time.time()) + 200,
        "jti": uuid.uuid4().hex,
    }
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    algorithm = (header or {}).get("alg") or ("RS384" if isinstance(key, RSAKey) else "ES384")
    return jwt.encode({"alg": algorithm, "kid": key.kid, **(header or {})}, claims, key, algorithms=[algorithm])


ASSERTIONS: dict[str, Callable[[], str]] = {
    "another key with the same id": lambda: signed(OTHER),
    "unknown key id": lambda: signed(EC, {"kid": "zz"}),
    "RS256": lambda: signed(RSA, {"alg": "RS256"}),
    "PS384": lambda: signed(RSA, {"alg": "PS384"}),
    "a P-256 key": lambda: signed(P256, {"alg": "ES256"}),
    "HMAC with the key id of an EC key": lambda: signed(SECRET, {"alg": "HS384"}),
    "no signature": lambda: "eyJhbGciOiJub25lIiwia2lkIjoiZWMxIn0." + signed(EC).split(".")[1] + ".",
    "signature cut": lambda: signed(EC)[:-8],
    "key in the header": lambda: signed(OTHER, {"jwk": OTHER.as_dict(private=False)}),
    "jku to a stranger": lambda: signed(OTHER, {"jku": "https://evil.example/keys"}),
    "x5u to a stranger": lambda: signed(OTHER, {"x5u": "https://evil.example/cert"}),
    "another typ": lambda: signed(EC, {"typ": "at+jwt"}),
    "issuer of another client": lambda: signed(EC, iss="ehr", sub="ehr"),
    "issuer and subject differ": lambda: signed(EC, sub="ehr"),
    "no issuer": lambda: signed(EC, iss=None),
    "issuer as a list": lambda: signed(EC, iss=["backend"]),
    "another audience": lambda: signed(EC, aud="https://evil.example/token"),
    "two audiences": lambda: signed(EC, aud=[ROOT + "/auth/token", "https://evil.example/token"]),
    "no audience": lambda: signed(EC, aud=None),
    "expired": lambda: signed(EC, exp=int(time.time()) - 100),
    "an hour ahead": lambda: signed(EC, exp=int(time.time()) + 3600),
    "no expiry": lambda: signed(EC, exp=None),
    "expiry as text": lambda: signed(EC, exp="9999999999"),
    "expiry for ever": lambda: signed(EC, exp=1e300),
    "issued in the future": lambda: signed(EC, iat=int(time.time()) + 1000),
    "not yet valid": lambda: signed(EC, nbf=int(time.time()) + 1000),
    "no jti": lambda: signed(EC, jti=None),
    "empty jti": lambda: signed(EC, jti=""),
    "jti as an object": lambda: signed(EC, jti={"$ne": 1}),
    "jti of a kilobyte": lambda: signed(EC, jti="j" * 1000),
    "algorithm as a list": lambda: "eyJhbGciOlsiRVMzODQiXSwia2lkIjoiZWMxIn0." + signed(EC).split(".", 1)[1],
    "not a JWT": lambda: "nonsense",
    "empty": lambda: "",
    "five parts": lambda: "a.b.c.d.e",
    "a megabyte": lambda: "a" * 100_000,
}


@pytest.mark.parametrize("name", ASSERTIONS)
async def test_a_hostile_client_assertion_is_invalid_client(exchange: Exchange, name: str) -> None:
    form = {
        "grant_type": "client_credentials",
        "scope": "system/*.rs",
        "client_assertion_type": assertion.TYPE,
        "client_assertion": ASSERTIONS[name](),
    }
    reply = await timed("assertion: " + name, exchange.token(**form))
    assert (reply.status_code, reply.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize(
    "form",
    [
        {"client_id": "ehr", "client_secret": "wrong"},
        {"client_id": "ehr", "client_secret": "e" * 40, "client_assertion": "x.y.z", "client_assertion_type": assertion.TYPE},
        {"client_id": "backend", "client_secret": "s" * 40},
        {"client_assertion": signed(EC), "client_assertion_type": "urn:other"},
        {"client_assertion": signed(EC)},
        {"client_assertion": signed(EC), "client_assertion_type": assertion.TYPE, "client_id": "ehr"},
        {"client_id": "backend"},
    ],
)
async def test_client_authentication_has_no_way_around(exchange: Exchange, form: dict[str, str]) -> None:
    reply = await exchange.token(grant_type="client_credentials", scope="system/*.rs", **form)
    assert reply.json()["error"] in ("invalid_client", "invalid_request")
    assert reply.status_code in (400, 401)


@pytest.mark.parametrize("header", ["Basic", "Basic !!!", "Basic ZWhy", "Basic " + "A" * 9000, "Bearer x", "Digest a=b", "Basic ZWhyOndyb25n"])
async def test_a_broken_basic_header_is_401_with_a_challenge(exchange: Exchange, header: str) -> None:
    reply = await exchange.http.post("/auth/token", data={"grant_type": "client_credentials"}, headers={"Authorization": header})
    assert reply.status_code == 401
    assert reply.headers["www-authenticate"].startswith("Basic")


async def test_a_flow_answers_only_in_the_browser_where_it_began(exchange: Exchange) -> None:
    victim, attacker = exchange.browser(), exchange.browser()
    await attacker.authorize(**request_of(CHALLENGE))
    flow_id = attacker.page.text.partition('name="id" value="')[2].partition('"')[0]
    await victim.open("/auth/flow", params={"id": flow_id})
    assert victim.page.status_code == 400
    await victim.authorize(**request_of(CHALLENGE))
    await victim.open("/auth/flow", params={"id": flow_id})
    assert victim.page.status_code == 400


async def test_a_form_without_the_flows_secret_is_refused(exchange: Exchange) -> None:
    browser = exchange.browser()
    for csrf in ("", "wrong"):
        await browser.authorize(**request_of(CHALLENGE))
        await browser.submit(csrf=csrf, username="drdoe", password="correct horse battery")
        assert browser.page.status_code == 400
    headers = {"Sec-Fetch-Site": "cross-site"}
    text = (await browser.authorize(**request_of(CHALLENGE))).page.text
    form = {"id": browser_value(text, "id"), "csrf": browser_value(text, "csrf"), "step": "login"}
    reply = await browser.http.post("/auth/flow", data=form, headers=headers)
    assert reply.status_code == 400


def browser_value(text: str, name: str) -> str:
    return text.partition(f'name="{name}" value="')[2].partition('"')[0]


async def test_steps_cannot_be_skipped(exchange: Exchange) -> None:
    browser = await exchange.browser().authorize(**request_of(CHALLENGE))
    for step in ("consent", "done", "patient"):
        await browser.submit(step=step, decision="allow", keep0="1", keep1="1", patient="pat1")
        assert "<h1>Sign in</h1>" in browser.page.text


async def test_a_session_cookie_planted_before_sign_in_is_replaced(exchange: Exchange) -> None:
    browser = exchange.browser()
    browser.http.cookies.set("exchange-session", "planted-by-an-attacker")
    await browser.authorize(**request_of(CHALLENGE))
    await browser.sign_in()
    values = [one.value for one in browser.http.cookies.jar if one.name == "exchange-session" and one.value != "planted-by-an-attacker"]
    assert len(values) == 1
    other = exchange.browser()
    other.http.cookies.set("exchange-session", "planted-by-an-attacker")
    await other.authorize(**request_of(CHALLENGE))
    assert "<h1>Sign in</h1>" in other.page.text


async def test_names_are_escaped_on_pages(exchange: Exchange) -> None:
    await clients.add(exchange.server.records, Client("markup", '<script>alert("x")</script>', "public", (BACK,), ("user/*.rs",)))
    browser = await exchange.browser().authorize(**request_of(CHALLENGE, client_id="markup", scope="user/*.rs", login_hint='"><img src=x>'))
    assert "<script>" not in browser.page.text
    assert "<img" not in browser.page.text


async def test_an_unknown_name_is_told_as_a_wrong_password(exchange: Exchange) -> None:
    pages = []
    for name in ("drdoe", "nobody-at-all"):
        browser = await exchange.browser().open("/auth/manage")
        await browser.submit(username=name, password="wrong wrong wrong")
        pages.append((browser.page.status_code, "The user name or the password is wrong." in browser.page.text))
    assert pages == [(401, True), (401, True)]


async def test_there_are_enough_hostile_requests() -> None:
    assert len(AUTHORIZE) + len(CODE) + len(ASSERTIONS) + len(RAW) >= 100
