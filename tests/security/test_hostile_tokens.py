"""Hostile access tokens, one row each, of our own issuer and of an outside one: 401 with a challenge, never a crash, never a read.

RFC 8725 (JWT best practice), RFC 7515, RFC 9068, RFC 6750. The server time of each is printed at the end (`-rP`).
"""

import base64
import hashlib
import hmac
import json
import time
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization
from joserfc import jwe, jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from fhir_server.security.tokens import Verifier, read_issuers
from tests.security.app import BASE, Exchange, tokens_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
OUTSIDE, AUDIENCE = "https://idp.example", BASE
EC = ECKey.generate_key("P-384", {"kid": "k1", "use": "sig"})
RSA = RSAKey.generate_key(2048, {"kid": "r1", "use": "sig"})
EVIL_EC = ECKey.generate_key("P-384", {"kid": "k1", "use": "sig"})
EVIL_RSA = RSAKey.generate_key(2048, {"kid": "r1", "use": "sig"})
ENCRYPTING = RSAKey.generate_key(2048, {"kid": "e1", "use": "enc"})
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # joserfc warns of what must be refused
    WEAK = RSAKey.generate_key(1024, {"kid": "w1", "use": "sig"})
SHARED = OctKey.import_key("shared-shared-shared-shared-shared-shared-shared-shared", {"kid": "o1", "use": "sig"})
times: dict[str, float] = {}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def part(document: Any) -> str:
    return b64(json.dumps(document).encode())


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    given = {"iss": OUTSIDE, "aud": AUDIENCE, "sub": "s", "client_id": "c", "exp": now + 300, "iat": now, "scope": "system/*.cruds", **changes}
    return {name: value for name, value in given.items() if value is not None}


def token(key: Any = EC, header: dict[str, Any] | None = None, **changes: Any) -> str:
    algorithm = (header or {}).get("alg") or ("RS384" if isinstance(key, RSAKey) else "ES384")
    full = {"alg": algorithm, "kid": key.kid, **(header or {})}
    return jwt.encode({name: value for name, value in full.items() if value is not None}, claims(**changes), key, algorithms=[algorithm])


def raw(header: Any, payload: bytes, key: Any = EC) -> str:
    """A token whose header joserfc would not write, signed for real with ES384."""
    signing = f"{part(header)}.{b64(payload)}".encode()
    from cryptography.hazmat.primitives.asymmetric import ec, utils
    from cryptography.hazmat.primitives.hashes import SHA384

    r, s = utils.decode_dss_signature(key.raw_value.sign(signing, ec.ECDSA(SHA384())))
    return signing.decode() + "." + b64(r.to_bytes(48, "big") + s.to_bytes(48, "big"))


def good(**changes: Any) -> bytes:
    return json.dumps(claims(**changes)).encode()


def mac(header: dict[str, Any], secret: bytes, digest: Callable[[], Any], **changes: Any) -> str:
    signing = f"{part(header)}.{part(claims(**changes))}"
    return signing + "." + b64(hmac.new(secret, signing.encode(), digest).digest())


def pem(key: Any) -> bytes:
    half = key.raw_value.public_key() if hasattr(key.raw_value, "public_key") else key.raw_value
    public: bytes = half.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return public


def changed(text: str, place: int) -> str:
    """One character of a part changed."""
    parts = text.split(".")
    middle = len(parts[place]) // 2
    parts[place] = parts[place][:middle] + ("A" if parts[place][middle] != "A" else "B") + parts[place][middle + 1 :]
    return ".".join(parts)


def der(text: str) -> str:
    """The signature as DER instead of the raw pair."""
    from cryptography.hazmat.primitives.asymmetric import utils

    head, body, signature = text.split(".")
    data = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    return f"{head}.{body}." + b64(utils.encode_dss_signature(int.from_bytes(data[:48], "big"), int.from_bytes(data[48:], "big")))


NOW = int(time.time())
HOSTILE: dict[str, Callable[[], str]] = {
    # algorithm confusion
    "alg none": lambda: f"{part({'alg': 'none'})}.{part(claims())}.",
    "alg None": lambda: f"{part({'alg': 'None', 'kid': 'k1'})}.{part(claims())}.",
    "alg none with a signature": lambda: f"{part({'alg': 'none', 'kid': 'k1'})}.{part(claims())}." + token().split(".")[2],
    "alg empty": lambda: f"{part({'alg': '', 'kid': 'k1'})}.{part(claims())}.",
    "no alg": lambda: f"{part({'kid': 'k1'})}.{part(claims())}." + token().split(".")[2],
    "alg as a list": lambda: f"{part({'alg': ['ES384'], 'kid': 'k1'})}.{part(claims())}." + token().split(".")[2],
    "alg as an object": lambda: f"{part({'alg': {'ES384': 1}, 'kid': 'k1'})}.{part(claims())}." + token().split(".")[2],
    "HS256 with the RSA public key": lambda: mac({"alg": "HS256", "kid": "r1"}, pem(RSA), hashlib.sha256),
    "HS384 with the EC public key": lambda: mac({"alg": "HS384", "kid": "k1"}, pem(EC), hashlib.sha384),
    "HS256 with an empty secret": lambda: mac({"alg": "HS256", "kid": "k1"}, b"", hashlib.sha256),
    "HS256 with a shared key in the key set": lambda: jwt.encode({"alg": "HS256", "kid": "o1"}, claims(), SHARED, algorithms=["HS256"]),
    "RS256 where RS384 is agreed": lambda: token(RSA, {"alg": "RS256"}),
    "PS384 where RS384 is agreed": lambda: token(RSA, {"alg": "PS384"}),
    "RS512": lambda: token(RSA, {"alg": "RS512"}),
    "an EC algorithm with an RSA key id": lambda: f"{part({'alg': 'ES384', 'kid': 'r1'})}." + token().split(".", 1)[1],
    "lower case alg": lambda: f"{part({'alg': 'es384', 'kid': 'k1'})}." + token().split(".", 1)[1],
    # keys
    "another key with the same id (EC)": lambda: token(EVIL_EC),
    "another key with the same id (RSA)": lambda: token(EVIL_RSA),
    "unknown key id": lambda: token(EC, {"kid": "zz"}),
    "no key id, wrong key": lambda: token(EVIL_EC, {"kid": None}),
    "key id as a path": lambda: token(EVIL_EC, {"kid": "../../../../dev/null"}),
    "key id as a query": lambda: token(EVIL_EC, {"kid": "x' OR '1'='1"}),
    "key id as an object": lambda: raw({"alg": "ES384", "kid": {"$ne": 1}}, good(), EVIL_EC),
    "a weak key of the key set": lambda: token(WEAK),
    "an encryption key of the key set": lambda: token(RSAKey.import_key({**ENCRYPTING.as_dict(private=True), "use": "sig"})),
    "its own key in the header": lambda: raw({"alg": "ES384", "jwk": EVIL_EC.as_dict(private=False)}, good(), EVIL_EC),
    "jku to a stranger": lambda: raw({"alg": "ES384", "kid": "k1", "jku": "https://evil.example/k"}, good(), EVIL_EC),
    "x5u to a stranger": lambda: raw({"alg": "ES384", "kid": "k1", "x5u": "https://evil.example/c"}, good(), EVIL_EC),
    "x5c of a stranger": lambda: raw({"alg": "ES384", "kid": "k1", "x5c": ["MIIB"]}, good(), EVIL_EC),
    # header parameters, rightly signed
    "crit unknown": lambda: raw({"alg": "ES384", "kid": "k1", "crit": ["urgent"], "urgent": True}, good()),
    "crit empty": lambda: raw({"alg": "ES384", "kid": "k1", "crit": []}, good()),
    "crit of an absent header": lambda: raw({"alg": "ES384", "kid": "k1", "crit": ["exp"]}, good()),
    "unencoded payload": lambda: raw({"alg": "ES384", "kid": "k1", "b64": False, "crit": ["b64"]}, good()),
    "compressed payload": lambda: raw({"alg": "ES384", "kid": "k1", "zip": "DEF"}, good()),
    "typ of a logout token": lambda: raw({"alg": "ES384", "kid": "k1", "typ": "logout+jwt"}, good()),
    "typ as a list": lambda: raw({"alg": "ES384", "kid": "k1", "typ": ["JWT"]}, good()),
    "nested header": lambda: raw({"alg": "ES384", "kid": "k1", "a": {"b": {"c": [1] * 50}}}, good()),
    "header of ten kilobytes": lambda: raw({"alg": "ES384", "kid": "k1", "pad": "x" * 10_000}, good()),
    "header is a list": lambda: raw([{"alg": "ES384"}], good()),
    "header is a text": lambda: raw("ES384", good()),
    "a token in a token": lambda: raw({"alg": "ES384", "kid": "k1", "cty": "JWT"}, token().encode()),
    "encrypted": lambda: jwe.encrypt_compact({"alg": "RSA-OAEP", "enc": "A128GCM"}, good(), ENCRYPTING),
    # claims, rightly signed
    "expired": lambda: token(exp=NOW - 3600),
    "no expiry": lambda: token(exp=None),
    "expiry as text": lambda: token(exp="9999999999"),
    "expiry as a list": lambda: raw({"alg": "ES384", "kid": "k1"}, good(exp=[NOW + 60])),
    "expiry for ever": lambda: raw({"alg": "ES384", "kid": "k1"}, good(exp=1e300)),
    "expiry infinite": lambda: raw({"alg": "ES384", "kid": "k1"}, good().replace(b'"exp": ', b'"exp": Infinity, "x": ')),
    "expiry not a number": lambda: raw({"alg": "ES384", "kid": "k1"}, good().replace(b'"exp": ', b'"exp": NaN, "x": ')),
    "expiry true": lambda: raw({"alg": "ES384", "kid": "k1"}, good(exp=True)),
    "expiry of a thousand digits": lambda: raw({"alg": "ES384", "kid": "k1"}, good().replace(b'"exp": ', b'"exp": ' + b"9" * 1000 + b', "x": ')),
    "expiry of ten thousand digits": lambda: raw({"alg": "ES384", "kid": "k1"}, good().replace(b'"exp": ', b'"exp": ' + b"9" * 8000 + b', "x": ')),
    "expiry twice": lambda: raw(
        {"alg": "ES384", "kid": "k1"}, good().replace(b"{", b'{"exp": 9999999999, ', 1).replace(b'"scope"', b'"exp": 1, "scope"')
    ),
    "not yet valid": lambda: token(nbf=NOW + 3600),
    "issued in the future": lambda: token(iat=NOW + 3600),
    "issued as an object": lambda: raw({"alg": "ES384", "kid": "k1"}, good(iat={})),
    "another audience": lambda: token(aud="https://elsewhere.example"),
    "no audience": lambda: token(aud=None),
    "an audience that begins like ours": lambda: token(aud=AUDIENCE + ".evil.example"),
    "audience as an object": lambda: raw({"alg": "ES384", "kid": "k1"}, good(aud={"$ne": 1})),
    "empty audience list": lambda: token(aud=[]),
    "unknown issuer": lambda: token(iss="https://evil.example"),
    "no issuer": lambda: token(iss=None),
    "issuer as a list": lambda: raw({"alg": "ES384", "kid": "k1"}, good(iss=[OUTSIDE])),
    "issuer with a slash": lambda: token(iss=OUTSIDE + "/"),
    "our own issuer, signed outside": lambda: token(iss=BASE),
    "our own issuer, signed outside, as access token": lambda: token(EC, {"typ": "at+jwt"}, iss=BASE, aud=BASE),
    "claims are a list": lambda: raw({"alg": "ES384", "kid": "k1"}, b"[1, 2]"),
    "claims are a text": lambda: raw({"alg": "ES384", "kid": "k1"}, b'"x"'),
    "claims are no JSON": lambda: raw({"alg": "ES384", "kid": "k1"}, b"{broken"),
    "claims are no UTF-8": lambda: raw({"alg": "ES384", "kid": "k1"}, b"\xff\xfe{}"),
    "claims nested a thousand deep": lambda: raw({"alg": "ES384", "kid": "k1"}, b'{"iss":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    # form
    "empty": lambda: "x",
    "two parts": lambda: ".".join(token().split(".")[:2]),
    "four parts": lambda: token() + ".x",
    "only dots": lambda: "..",
    "no signature": lambda: token().rpartition(".")[0] + ".",
    "header changed": lambda: changed(token(), 0),
    "claims changed": lambda: changed(token(), 1),
    "signature changed": lambda: changed(token(), 2),
    "signature cut": lambda: token()[:-10],
    "signature of zeros": lambda: token().rpartition(".")[0] + "." + b64(bytes(96)),
    "signature as DER": lambda: der(token()),
    "signature doubled": lambda: token() + token().rpartition(".")[2],
    "standard base64": lambda: token().replace("-", "+").replace("_", "/") + "==",
    "a NUL inside": lambda: token().replace(".", ".%00", 1),
    "a hundred kilobytes": lambda: "a" * 100_000,
    "seventeen kilobytes of dots": lambda: "." * 17_000,
    "JSON serialisation": lambda: json.dumps({"payload": part(claims()), "signatures": [{"protected": part({"alg": "ES384"}), "signature": "x"}]}),
    "a URL": lambda: "https://evil.example/token",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def outside(exchange: Exchange, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[None]:
    """The exchange also trusts one outside issuer, whose key set has an old weak key, an encryption key and, by mistake, a shared one."""
    folder: Path = tmp_path_factory.mktemp("issuers")
    rows = [key.as_dict(private=False) for key in (EC, RSA, WEAK, ENCRYPTING)] + [SHARED.as_dict(private=True)]
    (folder / "jwks.json").write_text(json.dumps({"keys": rows}))
    row = {"issuer": OUTSIDE, "audience": AUDIENCE, "algorithms": ["ES384", "RS384"], "jwks_file": str(folder / "jwks.json")}
    (folder / "issuers.json").write_text(json.dumps([row]))
    exchange.verifier.issuers.update(read_issuers(str(folder / "issuers.json")))  # type: ignore[attr-defined]
    yield
    slowest = sorted(times.items(), key=lambda one: -one[1])
    print(f"\n{len(times)} hostile tokens; slowest: " + ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in slowest[:5]))


async def status_of(exchange: Exchange, text: str) -> int:
    started = time.perf_counter()
    reply = await exchange.http.get("/fhir/Patient/pat1", headers=[(b"authorization", b"Bearer " + text.encode("utf-8"))])
    times[text[:40] + str(len(times))] = time.perf_counter() - started
    if reply.status_code == 401:
        assert reply.headers["www-authenticate"].startswith("Bearer")
        assert reply.json()["resourceType"] == "OperationOutcome"
    return reply.status_code


async def test_the_good_ones_are_accepted(exchange: Exchange) -> None:
    """Otherwise the table below would prove nothing."""
    for text in (
        token(),
        token(RSA),
        token(EC, {"kid": "k1", "typ": "at+jwt"}),
        token(aud=[AUDIENCE, "https://other.example"]),
        raw({"alg": "ES384", "kid": "k1"}, good()),
    ):
        assert await status_of(exchange, text) == 200
    assert await status_of(exchange, (await tokens_of(exchange))["access_token"]) == 200


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_token_is_401(exchange: Exchange, name: str) -> None:
    assert await status_of(exchange, HOSTILE[name]()) == 401


OWN: dict[str, Callable[[str, str, dict[str, Any]], str]] = {  # (access token, id token, public key) -> hostile
    "id token": lambda access, identity, key: identity,
    "claims changed": lambda access, identity, key: changed(access, 1),
    "scope widened": lambda access, identity, key: (
        f"{access.split('.')[0]}.{part({**claims(iss=BASE), 'scope': 'system/*.cruds'})}.{access.split('.')[2]}"
    ),
    "signature of the id token": lambda access, identity, key: access.rpartition(".")[0] + "." + identity.rpartition(".")[2],
    "HS256 with our public key": lambda access, identity, key: mac(
        {"alg": "HS256", "kid": key["kid"], "typ": "at+jwt"}, pem(RSAKey.import_key(key)), hashlib.sha256, iss=BASE
    ),
    "HS256 with our modulus": lambda access, identity, key: mac(
        {"alg": "HS256", "kid": key["kid"], "typ": "at+jwt"}, key["n"].encode(), hashlib.sha256, iss=BASE
    ),
    "alg none": lambda access, identity, key: f"{part({'alg': 'none', 'typ': 'at+jwt'})}.{access.split('.')[1]}.",
    "typ JWT": lambda access, identity, key: f"{part({'alg': 'RS256', 'kid': key['kid'], 'typ': 'JWT'})}." + access.split(".", 1)[1],
    "another RSA key with our key id": lambda access, identity, key: jwt.encode(
        {"alg": "RS256", "kid": key["kid"], "typ": "at+jwt"}, claims(iss=BASE), EVIL_RSA, algorithms=["RS256"]
    ),
    "padding bits of the last character": lambda access, identity, key: access + "=",
}


@pytest.mark.parametrize("name", OWN)
async def test_a_hostile_token_in_our_own_name_is_401(exchange: Exchange, name: str) -> None:
    answer = await tokens_of(exchange)
    (key, *_) = (await exchange.http.get("/auth/jwks")).json()["keys"]
    assert await status_of(exchange, OWN[name](answer["access_token"], answer["id_token"], key)) == 401


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic ZWhyOmVlZQ==", "bearer\tx", "Token abc", "Bearer a b", "Bearer ,"])
async def test_a_broken_authorization_header_is_401(exchange: Exchange, header: str) -> None:
    assert (await exchange.http.get("/fhir/Patient/pat1", headers={"Authorization": header})).status_code == 401


async def test_two_authorization_headers_are_refused(exchange: Exchange) -> None:
    text = token()
    reply = await exchange.http.get("/fhir/Patient/pat1", headers=[("Authorization", f"Bearer {text}"), ("Authorization", "Bearer x")])
    assert reply.status_code == 401


async def test_a_token_in_the_query_or_body_is_no_token(exchange: Exchange) -> None:
    assert (await exchange.http.get("/fhir/Patient/pat1", params={"access_token": token()})).status_code == 401
    assert (await exchange.http.post("/fhir/Patient/_search", data={"access_token": token()})).status_code == 401


async def test_what_an_outside_token_says_of_another_server_is_not_ours(exchange: Exchange) -> None:
    verifier: Verifier = exchange.verifier
    assert (await verifier.grant(token(fhirUser="https://elsewhere.example/fhir/Practitioner/p1"))).user == ""
    assert (await verifier.grant(token(fhirUser=f"{BASE}/Practitioner/p1"))).user == "Practitioner/p1"
    assert (await verifier.grant(token(fhirUser="Device/1", patient={"$ne": 1}))).patient == ""
    assert (await verifier.grant(token(scope=["system/*.rs", 7]))).rights
    assert not (await verifier.grant(token(scope={"system/*.rs": 1}))).rights


async def test_a_revoked_key_set_is_not_hammered(exchange: Exchange) -> None:
    """An unknown key id makes the exchange look once; it does not look again for every token that names one."""
    verifier = Verifier(dict(exchange.verifier.issuers), exchange.verifier.types)
    await verifier.grant(token())
    before = verifier.state.keys[OUTSIDE].at
    for number in range(20):
        with pytest.raises(Exception, match="401"):
            await verifier.grant(token(EVIL_EC, {"kid": f"unknown-{number}"}))
    assert verifier.state.keys[OUTSIDE].at == before


async def test_there_are_enough_hostile_tokens() -> None:
    assert len(HOSTILE) + len(OWN) >= 60
