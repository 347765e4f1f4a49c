"""Bearer tokens of configured issuers (RFC 7519, RFC 8725) and what their scopes give."""

import json
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from conformance.outcome import Refusal
from fhir_server.security import tokens
from fhir_server.security.scopes import rights_of

TYPES = frozenset({"Patient", "Observation"})
KEY = ECKey.generate_key("P-384", {"kid": "k1", "use": "sig", "alg": "ES384"})
OTHER = ECKey.generate_key("P-384", {"kid": "k1", "use": "sig", "alg": "ES384"})
RSA = RSAKey.generate_key(2048, {"kid": "r1", "use": "sig"})
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # joserfc warns of what we want refused
    WEAK = RSAKey.generate_key(1024, {"kid": "w1", "use": "sig"})
SHARED = OctKey.import_key("secret-secret-secret-secret-secret-secret-secret-secret", {"kid": "o1", "use": "sig"})


@pytest.fixture
def verify(tmp_path: Path) -> tokens.Verify:
    keys = tmp_path / "jwks.json"
    rows = [key.as_dict(private=False) for key in (KEY, RSA, WEAK)] + [SHARED.as_dict(private=True)]
    keys.write_text(json.dumps({"keys": rows}))
    table = tmp_path / "issuers.json"
    table.write_text(
        json.dumps(
            [{"issuer": "https://idp.example", "audience": "https://fhir.example/fhir", "algorithms": ["ES384", "RS384"], "jwks_file": str(keys)}]
        )
    )
    return tokens.verifier(tokens.read_issuers(str(table)), TYPES)


def token(key: Any = KEY, header: dict | None = None, **changes: Any) -> str:
    claims = {"iss": "https://idp.example", "aud": "https://fhir.example/fhir", "sub": "ehr-1", "exp": int(time.time()) + 300, "scope": "system/*.rs"}
    claims.update(changes)
    claims = {name: value for name, value in claims.items() if value is not None}
    algorithm = (header or {}).get("alg", "ES384")
    return jwt.encode({"alg": algorithm, "kid": key.kid, **(header or {})}, claims, key, algorithms=[algorithm])


async def test_a_good_token_gives_the_rights_of_its_scopes(verify: tokens.Verify) -> None:
    grant = await verify(token(scope="system/Patient.rs system/Observation.cud openid"))
    assert [(right.rtype, "".join(sorted(right.actions))) for right in grant.rights] == [("Patient", "rs"), ("Observation", "cdu")]
    assert not grant.admin


async def test_the_admin_scope_makes_an_admin(verify: tokens.Verify) -> None:
    assert (await verify(token(scope="system/*.cruds exchange/admin"))).admin


def tampered(text: str) -> str:
    head, body, signature = text.split(".")
    return ".".join([head, body[:-2] + ("AA" if body[-2:] != "AA" else "BB"), signature])


HOSTILE = {
    "wrong key": lambda: token(OTHER),
    "expired": lambda: token(exp=int(time.time()) - 3600),
    "no exp": lambda: token(exp=None),
    "not yet valid": lambda: token(nbf=int(time.time()) + 3600),
    "wrong audience": lambda: token(aud="https://elsewhere.example"),
    "no audience": lambda: token(aud=None),
    "unknown issuer": lambda: token(iss="https://evil.example"),
    "no issuer": lambda: token(iss=None),
    "issuer is a list": lambda: token(iss=["https://idp.example"]),
    "algorithm outside the issuer's list": lambda: token(RSA, {"alg": "RS256"}),
    "symmetric key in the public document": lambda: jwt.encode(
        {"alg": "HS256", "kid": "o1"},
        {"iss": "https://idp.example", "aud": "https://fhir.example/fhir", "exp": int(time.time()) + 60},
        SHARED,
        algorithms=["HS256"],
    ),
    "weak RSA key": lambda: token(WEAK, {"alg": "RS384"}),
    "none": lambda: "eyJhbGciOiJub25lIn0." + token().split(".")[1] + ".",
    "tampered": lambda: tampered(token()),
    "not a JWT": lambda: "garbage",
    "empty parts": lambda: "..",
    "not ASCII": lambda: "é.é.é",
    "huge": lambda: "a" * 100_000,
    "JSON bomb": lambda: "eyJhbGciOiJFUzM4NCJ9." + "W" * 4000 + ".x",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_token_is_401(verify: tokens.Verify, name: str) -> None:
    with pytest.raises(Refusal) as caught:
        await verify(HOSTILE[name]())
    assert caught.value.status == 401
    assert caught.value.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        ("system/*.cruds", {("*", "cdrsu")}),
        ("system/Patient.read", {("Patient", "rs")}),
        ("system/Patient.write", {("Patient", "cdu")}),
        ("system/Patient.*", {("Patient", "cdrsu")}),
        ("system/Patient.sr", set()),  # v2 actions stand in the order cruds
        ("system/Patient.", set()),
        ("system/Unknown.rs", set()),
        ("patient/Patient.rs", set()),
        ("user/*.cruds", set()),
        ("system/Patient.rs?identifier=x", {("Patient", "rs")}),
    ],
)
def test_scopes_give_rights_or_nothing(scope: str, expected: set[tuple[str, str]]) -> None:
    assert {(right.rtype, "".join(sorted(right.actions))) for right in rights_of([scope], TYPES)} == expected


@pytest.mark.parametrize(
    "row",
    [
        {"issuer": "x", "audience": "y", "algorithms": ["HS256"], "jwks_file": "k"},
        {"issuer": "x", "jwks_file": "k"},
        {"issuer": "x", "audience": "y"},
        {"issuer": "x", "audience": "y", "jwks_uri": "http://169.254.169.254/keys"},
        {"issuer": "x", "audience": "y", "jwks_uri": "file:///etc/passwd"},
    ],
)
def test_a_bad_issuer_row_is_refused_by_number(tmp_path: Path, row: dict) -> None:
    path = tmp_path / "issuers.json"
    path.write_text(json.dumps([row]))
    with pytest.raises(ValueError, match="issuer row 0"):
        tokens.read_issuers(str(path))
