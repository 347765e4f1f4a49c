"""Bearer tokens (JWT) of configured issuers -> grants, verified by joserfc and cached.

RFC 6750 (bearer), RFC 7519 (claims), RFC 8725 (best practice: algorithm fixed per issuer, `crit` refused, audience checked). A token
is accepted only if its issuer is in the table, its algorithm is one of that issuer's asymmetric algorithms, its key is in that issuer's
JWKS, and `exp`, `nbf`, `iat`, `aud` hold now.
"""

import asyncio
import json
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from joserfc import jws, jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet, RSAKey

from conformance.outcome import Refusal, unauthorised, unavailable
from fhir_server.context import Grant, Right
from fhir_server.security.authserver.issue import ACCESS_TYPE
from fhir_server.security.authserver.keys import ALGORITHM, KeyRing
from fhir_server.security.authserver.kinds import REVOKED
from fhir_server.security.fetch import NotFetched, fetch_json
from fhir_server.security.scopes import rights_of
from fhir_server.store.records import Records

ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
LEEWAY_SECONDS = 30
MAX_TOKEN_CHARS = 16_384
CACHE_ENTRIES = 4096
CACHE_SECONDS = 60.0
REFRESH_SECONDS = 30.0  # least time between two fetches of one issuer's keys, so that unknown key ids cannot make us hammer it
REVOKED_SECONDS = 1.0  # how long a withdrawal may take to reach other workers
OVERLAP_SECONDS = 10  # a withdrawal may become visible so much later than its stamp
MAX_TIME = 1e11  # seconds since 1970 that a numeric date may name
TYPES = frozenset({"JWT", "at+jwt", "application/at+jwt"})  # `typ` of tokens that may be access tokens (RFC 8725 section 3.11)
HEADERS = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256", "cty"})  # others (crit, jku, jwk, x5u, b64, zip, enc ...) are refused, not ignored
PATIENT = re.compile(r"(?:Patient/)?([A-Za-z0-9.-]{1,64})")
USER = re.compile(r"((?:Patient|Practitioner|PractitionerRole|RelatedPerson|Person)/[A-Za-z0-9.-]{1,64})")
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
class Revocations:
    """Access tokens that ended before their time, as this worker knows them; read again each second that tokens are used in."""

    records: Records
    ends: dict[str, datetime] = field(default_factory=dict)
    newest: datetime = datetime(2000, 1, 1, tzinfo=UTC)
    read_at: float = -1e9
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def any_of(self, keys: tuple[str, ...]) -> bool:
        """True if one of these was withdrawn, a second ago at the latest."""
        if time.monotonic() - self.read_at > REVOKED_SECONDS:
            await self._read()
        return bool(self.ends) and any(key in self.ends for key in keys)

    def look(self) -> None:
        """Something was withdrawn here: look before the next token is used."""
        self.read_at = -1e9

    async def _read(self) -> None:
        async with self.lock:
            if time.monotonic() - self.read_at <= REVOKED_SECONDS:
                return
            began = time.monotonic()
            rows = await self.records.since(REVOKED, self.newest - timedelta(seconds=OVERLAP_SECONDS))
            now = datetime.now(UTC)
            self.ends = {key: until for key, until in self.ends.items() if until > now} | {row["_id"]: row["until"] for row in rows}
            self.newest = max([self.newest, *(row["made"] for row in rows)])
            self.read_at = began


@dataclass(frozen=True, slots=True)
class Own:
    """Our own authorization server, as an issuer."""

    name: str
    ring: KeyRing
    revocations: Revocations


@dataclass(frozen=True, slots=True)
class Known:
    """A verified token: its grant and claims, until when they need no new look (monotonic seconds), and what may withdraw it."""

    grant: Grant
    claims: Mapping[str, Any]
    until: float
    withdrawn_by: tuple[str, ...]


@dataclass(slots=True)
class State:
    """What the verifier remembers: keys by issuer, tokens seen lately."""

    keys: dict[str, Keys] = field(default_factory=dict)
    known: OrderedDict[str, Known] = field(default_factory=OrderedDict)


@dataclass(frozen=True, slots=True)
class Verifier:
    """Token -> grant or claims. types: resource types that exist; own: our authorization server, None in open mode and where there is none."""

    issuers: Mapping[str, Issuer]
    types: frozenset[str]
    own: Own | None = None
    state: State = field(default_factory=State)

    async def grant(self, token: str) -> Grant:
        """What the bearer may do. Raises Refusal 401 with the reason, or 503 if an issuer's keys cannot be fetched."""
        return (await self._known(token)).grant

    async def claims(self, token: str) -> Mapping[str, Any]:
        """What the token says. Raises Refusal as `grant`."""
        return (await self._known(token)).claims

    async def _known(self, token: str) -> Known:
        known = self.state.known.get(token)
        if known is None or time.monotonic() >= known.until:
            known = await self._verified(token)
        if self.own and known.withdrawn_by and await self.own.revocations.any_of(known.withdrawn_by):
            self.state.known.pop(token, None)
            raise _invalid("the token was withdrawn")
        return known

    async def _verified(self, token: str) -> Known:
        now = time.monotonic()
        if len(token) > MAX_TOKEN_CHARS:
            raise _invalid("the token is too long")
        claims, withdrawn_by = await _claims(self, token)
        known = Known(_grant(claims, self), claims, now + min(CACHE_SECONDS, claims["exp"] + LEEWAY_SECONDS - time.time()), withdrawn_by)
        self.state.known[token] = known
        while len(self.state.known) > CACHE_ENTRIES:
            self.state.known.popitem(last=False)
        return known


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
    """A function token -> Grant for outside issuers alone."""
    return Verifier(issuers, types).grant


async def _claims(verifier: Verifier, token: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(verified claims, keys by which the token may be withdrawn)."""
    header, name = _unverified(token)
    if str(header.get("typ", "JWT")) not in TYPES or set(header) - HEADERS:
        raise _invalid("the token's header has a type or parameters that are not accepted")
    if verifier.own and name == verifier.own.name:
        if header.get("typ") != ACCESS_TYPE:
            raise _invalid("the token is not an access token")
        claims = await _decoded(token, [ALGORITHM], verifier.own.ring.public, name, name)
        keys = (f"jti:{claims.get('jti')}", f"client:{claims.get('client_id')}", f"user:{claims.get('sub')}", f"grant:{claims.get('gid')}")
        return claims, keys
    issuer = verifier.issuers.get(name)
    if issuer is None:
        raise _invalid("the token's issuer is not one this server trusts")
    return await _decoded(token, sorted(issuer.algorithms), partial(_keys, issuer, verifier.state), issuer.name, issuer.audience), ()


async def _decoded(token: str, algorithms: list[str], keys: Callable[..., Awaitable[KeySet]], issuer: str, audience: str) -> dict[str, Any]:
    registry = jwt.JWTClaimsRegistry(
        leeway=LEEWAY_SECONDS,
        iss={"essential": True, "value": issuer},
        aud={"essential": True, "value": audience},
        exp={"essential": True},
    )
    try:
        try:
            decoded = jwt.decode(token, await keys(), algorithms=algorithms)
        except InvalidKeyIdError:  # the key id is unknown to what we hold: the issuer may have rotated
            decoded = jwt.decode(token, await keys(refresh=True), algorithms=algorithms)
        registry.validate(decoded.claims)
        _judge_times(decoded.claims)
    except (JoseError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise _invalid(f"the token is not valid ({type(error).__name__})") from error
    return decoded.claims


def _judge_times(claims: Mapping[str, Any]) -> None:
    """Numeric dates are finite numbers within reason (RFC 7519 section 2). Raises ValueError."""
    for name in ("exp", "nbf", "iat"):
        value = claims.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_TIME:
            raise ValueError(f"{name} is not a time")


def _unverified(token: str) -> tuple[Mapping[str, Any], str]:
    """Header and `iss` before verification: they only choose the row whose keys must then verify the token."""
    try:
        part = jws.extract_compact(token.encode("ascii"))
        claims = json.loads(part.payload)
        header = part.headers()
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise _invalid("the token is not a signed JWT") from error
    issuer = claims.get("iss") if isinstance(claims, dict) else None
    return header, issuer if isinstance(issuer, str) else ""


async def _keys(issuer: Issuer, state: State, *, refresh: bool = False) -> KeySet:
    held = state.keys.get(issuer.name)
    if held and (not refresh or time.monotonic() - held.at < REFRESH_SECONDS):
        return held.keys
    document = json.loads(await asyncio.to_thread(Path(issuer.jwks_file).read_bytes)) if issuer.jwks_file else await _fetched(issuer.jwks_uri)
    state.keys[issuer.name] = Keys(_public(document), time.monotonic())
    return state.keys[issuer.name].keys


def _public(document: Any) -> KeySet:
    """The key set without symmetric and weak keys: an `oct` key in a public document would let anyone sign."""
    rows = [row for row in document["keys"] if row.get("kty") in ("RSA", "EC", "OKP") and row.get("use", "sig") == "sig"]
    keys = KeySet.import_key_set({"keys": rows}).keys
    return KeySet([key for key in keys if not isinstance(key, RSAKey) or key.raw_value.key_size >= MIN_RSA_BITS])


async def _fetched(uri: str) -> Any:
    """The key set of an issuer that the operator named; its host may therefore be in a private network."""
    try:
        return await fetch_json(uri, frozenset({urlsplit(uri).hostname or ""}))
    except NotFetched as error:
        raise unavailable("the token issuer's keys cannot be fetched", retry_after=5) from error


def _fetchable(uri: str) -> bool:
    parts = urlsplit(uri)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1"))


def _grant(claims: Mapping[str, Any], verifier: Verifier) -> Grant:
    scopes = claims.get("scope", "")
    words = scopes.split() if isinstance(scopes, str) else [word for word in scopes if isinstance(word, str)] if isinstance(scopes, list) else []
    subject, client = str(claims.get("sub", "")), str(claims.get("client_id") or claims.get("azp") or claims.get("sub", ""))
    own = verifier.own.name if verifier.own and claims["iss"] == verifier.own.name else verifier.issuers[claims["iss"]].audience
    patient, user = _matched(PATIENT, claims.get("patient"), own), _matched(USER, claims.get("fhirUser"), own)
    return Grant(
        f"{claims['iss']}|{subject}",
        client,
        rights_of(words, verifier.types, patient, user),
        patient=patient,
        admin=ADMIN_SCOPE in words,
        user=user,
    )


def _matched(pattern: re.Pattern[str], value: Any, base: str) -> str:
    """The id or reference that a claim holds, relative or below our own base; '' where it is none of ours."""
    match = pattern.fullmatch(value.removeprefix(base + "/")) if isinstance(value, str) else None
    return match[1] if match else ""


def _invalid(text: str) -> Refusal:
    return unauthorised(text, 'Bearer realm="fhir", error="invalid_token"')
