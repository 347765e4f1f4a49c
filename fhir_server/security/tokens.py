"""Bearer tokens (JWT) of configured issuers -> grants, verified by joserfc and cached.

RFC 6750 (bearer), RFC 7519 (claims), RFC 8725 (best practice: algorithm fixed per issuer, `crit` refused, audience checked). A token
is accepted only if its issuer is in the table, its algorithm is one of that issuer's asymmetric algorithms, its key is in that issuer's
JWKS, and `exp`, `nbf`, `iat`, `aud` hold now.
"""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from joserfc import jws, jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from conformance.outcome import Refusal, unauthorised, unavailable
from fhir_server.context import Grant, Right
from fhir_server.security.scopes import rights_of

ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
LEEWAY_SECONDS = 30
MAX_TOKEN_CHARS = 16_384
CACHE_ENTRIES = 4096
CACHE_SECONDS = 60.0
REFRESH_SECONDS = 30.0  # least time between two fetches of one issuer's keys, so that unknown key ids cannot make us hammer it
MAX_JWKS_BYTES = 262_144
MIN_RSA_BITS = 2048
ADMIN_SCOPE = "exchange/admin"  # ours: may write definitions and use admin operations
OPEN_GRANT = Grant("anonymous", "open", (Right("*", frozenset("cruds")),), admin=True)

Verify = Callable[[str], Awaitable[Grant]]


@dataclass(frozen=True, slots=True)
class Issuer:
    """One row of the issuer table: who signs, for which audience, with which algorithms, and where the public keys are."""

    name: str
    audience: str
    algorithms: frozenset[str]
    jwks_file: str = ""
    jwks_uri: str = ""


@dataclass(slots=True)
class Keys:
    """The current public keys of one issuer and when they were fetched (monotonic seconds)."""

    keys: KeySet
    at: float


@dataclass(slots=True)
class State:
    """What the verifier remembers: keys by issuer, grants by token until the given monotonic second."""

    keys: dict[str, Keys] = field(default_factory=dict)
    grants: OrderedDict[str, tuple[Grant, float]] = field(default_factory=OrderedDict)


def read_issuers(path: str) -> dict[str, Issuer]:
    """The issuer table of a JSON file. Raises ValueError that names the row and what is wrong with it."""
    rows = json.loads(Path(path).read_text(encoding="utf-8")) if path else []
    table: dict[str, Issuer] = {}
    for number, row in enumerate(rows):
        algorithms = frozenset(row.get("algorithms", ["RS384", "ES384"]))
        if not algorithms <= ALGORITHMS:
            raise ValueError(f"issuer row {number}: only asymmetric algorithms are accepted ({', '.join(sorted(ALGORITHMS))})")
        if not row.get("issuer") or not row.get("audience"):
            raise ValueError(f"issuer row {number}: issuer and audience are required")
        if bool(row.get("jwks_file")) == bool(row.get("jwks_uri")):
            raise ValueError(f"issuer row {number}: exactly one of jwks_file and jwks_uri is required")
        if row.get("jwks_uri") and not _fetchable(row["jwks_uri"]):
            raise ValueError(f"issuer row {number}: jwks_uri must be https (or http on loopback)")
        table[row["issuer"]] = Issuer(row["issuer"], row["audience"], algorithms, row.get("jwks_file", ""), row.get("jwks_uri", ""))
    return table


def verifier(issuers: Mapping[str, Issuer], types: frozenset[str]) -> Verify:
    """A function token -> Grant. It raises Refusal 401 with the reason, or 503 if an issuer's keys cannot be fetched."""
    state = State()

    async def verify(token: str) -> Grant:
        now = time.monotonic()
        cached = state.grants.get(token)
        if cached and now < cached[1]:
            return cached[0]
        if len(token) > MAX_TOKEN_CHARS:
            raise unauthorised("the token is too long")
        claims = await _claims(issuers, state, token)
        grant = _grant(claims, types)
        state.grants[token] = (grant, now + min(CACHE_SECONDS, claims["exp"] + LEEWAY_SECONDS - time.time()))
        while len(state.grants) > CACHE_ENTRIES:
            state.grants.popitem(last=False)
        return grant

    return verify


async def _claims(issuers: Mapping[str, Issuer], state: State, token: str) -> dict[str, Any]:
    issuer = issuers.get(_unverified_issuer(token))
    if issuer is None:
        raise _invalid("the token's issuer is not one this server trusts")
    try:
        try:
            decoded = jwt.decode(token, (await _keys(issuer, state)).keys, algorithms=sorted(issuer.algorithms))
        except InvalidKeyIdError:  # the key id is unknown to what we hold: the issuer may have rotated
            decoded = jwt.decode(token, (await _keys(issuer, state, refresh=True)).keys, algorithms=sorted(issuer.algorithms))
        _registry(issuer).validate(decoded.claims)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise _invalid(f"the token is not valid ({type(error).__name__})") from error
    return decoded.claims


def _registry(issuer: Issuer) -> jwt.JWTClaimsRegistry:
    return jwt.JWTClaimsRegistry(
        leeway=LEEWAY_SECONDS,
        iss={"essential": True, "value": issuer.name},
        aud={"essential": True, "value": issuer.audience},
        exp={"essential": True},
    )


def _unverified_issuer(token: str) -> str:
    """The `iss` claim before verification: it only chooses the row whose keys must then verify the token."""
    try:
        claims = json.loads(jws.extract_compact(token.encode("ascii")).payload)
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise _invalid("the token is not a signed JWT") from error
    issuer = claims.get("iss") if isinstance(claims, dict) else None
    return issuer if isinstance(issuer, str) else ""


async def _keys(issuer: Issuer, state: State, *, refresh: bool = False) -> Keys:
    held = state.keys.get(issuer.name)
    if held and (not refresh or time.monotonic() - held.at < REFRESH_SECONDS):
        return held
    document = json.loads(await asyncio.to_thread(Path(issuer.jwks_file).read_bytes)) if issuer.jwks_file else await _fetch(issuer.jwks_uri)
    state.keys[issuer.name] = Keys(_public(document), time.monotonic())
    return state.keys[issuer.name]


def _public(document: Any) -> KeySet:
    """The key set without symmetric and weak keys: an `oct` key in a public document would let anyone sign."""
    rows = [row for row in document["keys"] if row.get("kty") in ("RSA", "EC", "OKP") and row.get("use", "sig") == "sig"]
    return KeySet.import_key_set({"keys": [row for row in rows if row["kty"] != "RSA" or len(str(row.get("n", ""))) * 6 >= MIN_RSA_BITS]})


async def _fetch(uri: str) -> Any:
    try:
        async with httpx.AsyncClient(timeout=5.0, follow_redirects=False) as client, client.stream("GET", uri) as response:
            response.raise_for_status()
            body = b""
            async for part in response.aiter_bytes():
                body += part
                if len(body) > MAX_JWKS_BYTES:
                    raise unavailable("the token issuer's key set is too large")
    except httpx.HTTPError as error:
        raise unavailable("the token issuer's keys cannot be fetched", retry_after=5) from error
    return json.loads(body)


def _fetchable(uri: str) -> bool:
    parts = urlsplit(uri)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1"))


def _grant(claims: Mapping[str, Any], types: frozenset[str]) -> Grant:
    scopes = claims.get("scope", "")
    words = scopes.split() if isinstance(scopes, str) else [word for word in scopes if isinstance(word, str)]
    subject, client = str(claims.get("sub", "")), str(claims.get("client_id") or claims.get("azp") or claims.get("sub", ""))
    return Grant(f"{claims['iss']}|{subject}", client, rights_of(words, types), admin=ADMIN_SCOPE in words)


def _invalid(text: str) -> Refusal:
    return unauthorised(text, 'Bearer realm="fhir", error="invalid_token"')
