"""private_key_jwt: a client proves itself by a JWT signed with its registered key, once per JWT.

https://hl7.org/fhir/smart-app-launch/STU2.2/client-confidential-asymmetric.html, RFC 7523 section 3. Any failure is `invalid_client`.
"""

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, RSAKey

from fhir_server.security.authserver import clients
from fhir_server.security.authserver.clients import Client
from fhir_server.security.authserver.errors import OAuthError
from fhir_server.security.authserver.kinds import SEEN, digest
from fhir_server.security.authserver.server import LEEWAY_SECONDS, AuthServer
from fhir_server.security.fetch import NotFetched, fetch_json

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
KTY = {"RS384": "RSA", "ES384": "EC"}
MIN_RSA_BITS = 2048
LONGEST = 8192  # characters
LIFE_SECONDS = 300  # SMART: exp is no more than five minutes in the future
HELD_SECONDS = 60.0
REFETCH_SECONDS = 10.0  # an unknown key id makes us fetch again, not oftener than this
MOST_HELD = 500
MAX_TIME = 1e11


@dataclass(frozen=True, slots=True)
class Held:
    """A fetched key set and when (monotonic seconds)."""

    keys: tuple[dict[str, Any], ...]
    at: float


_held: dict[str, Held] = {}


async def client_of(server: AuthServer, assertion: str, client_id: str) -> Client:
    """The client that signed. client_id: what the request names beside it, or ''. Raises OAuthError invalid_client."""
    header, claims = _peek(assertion)
    name = claims.get("iss")
    if not isinstance(name, str) or claims.get("sub") != name or (client_id and client_id != name):
        raise _refused("iss and sub must both be the client id")
    client = await clients.get(server.records, name)
    if client is None or client.kind != "asymmetric":
        raise _refused("no such client with a registered key")
    algorithm = str(header.get("alg", ""))
    if algorithm not in KTY:
        raise _refused("the algorithm must be RS384 or ES384")
    if header.get("typ", "JWT") != "JWT":
        raise _refused("typ must be JWT")
    if "jku" in header and header["jku"] != client.jwks_uri:
        raise _refused("jku is not the registered address")
    key = await _key(server, client, str(header.get("kid", "")), KTY[algorithm])
    try:
        verified = jwt.decode(assertion, key, algorithms=[algorithm]).claims
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise _refused("the signature is not right") from error
    await _once(server, client, _checked(server, verified))
    return client


def _peek(assertion: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims before anything is verified: they only choose the key."""
    if len(assertion) > LONGEST:
        raise _refused("the assertion is too long")
    try:
        part = jws.extract_compact(assertion.encode("ascii"))
        header, claims = part.headers(), json.loads(part.payload)
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise _refused("the assertion is not a signed JWT") from error
    if not isinstance(claims, dict):
        raise _refused("the assertion's claims are not an object")
    return header, claims


async def _key(server: AuthServer, client: Client, kid: str, kty: str) -> RSAKey | ECKey:
    """The one key with this id and kind. Raises OAuthError."""
    for refetch in (False, True):
        rows = [row for row in await _rows(server, client, refetch) if isinstance(row, dict) and row.get("kid") == kid and row.get("kty") == kty]
        if len(rows) == 1:
            return _imported(rows[0])
        if rows or not client.jwks_uri:
            break
    raise _refused("no single key of the client has this kid and fits the algorithm")


def _imported(row: dict[str, Any]) -> RSAKey | ECKey:
    try:
        (key,) = KeySet.import_key_set({"keys": [row]}).keys
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise _refused("the client's key cannot be read") from error
    if isinstance(key, RSAKey) and key.raw_value.key_size >= MIN_RSA_BITS:
        return key
    if isinstance(key, ECKey) and row.get("crv") == "P-384":
        return key
    raise _refused("the client's key is too weak: RSA of 2048 bits or P-384")


async def _rows(server: AuthServer, client: Client, refetch: bool) -> tuple[dict[str, Any], ...]:
    if client.jwks is not None:
        return tuple(client.jwks.get("keys", ()))
    now = time.monotonic()
    held = _held.get(client.jwks_uri)
    if held and now - held.at < (REFETCH_SECONDS if refetch else HELD_SECONDS):
        return held.keys
    try:
        document = await fetch_json(client.jwks_uri, server.fetchable)
    except NotFetched as error:
        raise _refused("the client's key set could not be fetched") from error
    rows = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(rows, list):
        raise _refused("the client's key set is not one")
    if len(_held) >= MOST_HELD:
        _held.clear()
    _held[client.jwks_uri] = Held(tuple(rows), now)
    return _held[client.jwks_uri].keys


def _checked(server: AuthServer, claims: dict[str, Any]) -> tuple[str, int]:
    """(jti, exp) of claims that hold now. Raises OAuthError."""
    now = time.time()
    audience = claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    if named not in ([server.place.at("token")], [server.place.base]):
        raise _refused("aud must be the token endpoint")
    exp, jti = _time(claims.get("exp")), claims.get("jti")
    if exp is None or not now - LEEWAY_SECONDS < exp <= now + LIFE_SECONDS + LEEWAY_SECONDS:
        raise _refused("exp must be a time within the next five minutes")
    for name in ("nbf", "iat"):
        if name in claims and ((at := _time(claims[name])) is None or at > now + LEEWAY_SECONDS):
            raise _refused(f"{name} must be a time that has come")
    if not isinstance(jti, str) or not 1 <= len(jti) <= 512:
        raise _refused("jti must be a string of 1 to 512 characters")
    return jti, int(exp)


def _time(value: Any) -> float | None:
    """A numeric date within reason (RFC 7519 section 2)."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_TIME else None


async def _once(server: AuthServer, client: Client, seen: tuple[str, int]) -> None:
    """Whoever inserts the key first was first, whichever worker it asked."""
    jti, exp = seen
    until = datetime.fromtimestamp(exp + 2 * LEEWAY_SECONDS, UTC)
    if not await server.records.insert(SEEN, f"{client.id}:{digest(jti)}", {}, until):
        raise _refused("this assertion was used before")


def _refused(text: str) -> OAuthError:
    return OAuthError("invalid_client", text)
