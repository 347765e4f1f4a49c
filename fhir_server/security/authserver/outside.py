"""Sign in by an outside OpenID provider: authorization code flow with PKCE, state and nonce. https://openid.net/specs/openid-connect-core-1_0.html#CodeFlowAuth

The provider only says who somebody is; what they may do is our own account's, found by 'issuer|subject' (`user add --external`). The
provider's answer is believed after: the state is this flow's, `iss` (RFC 9207) is the provider's, the id token is signed by a key of its key
set with an agreed algorithm, for us, now, with this flow's nonce.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, RSAKey

from fhir_server.security.authserver.errors import OAuthError
from fhir_server.security.authserver.kinds import fresh
from fhir_server.security.fetch import NotFetched, fetch_json, post_form

ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"})
DEFAULT_ALGORITHMS = ("RS256", "ES256")
HELD_SECONDS = 3600.0
REFETCH_SECONDS = 30.0
LEEWAY_SECONDS = 30
MIN_RSA_BITS = 2048
LONGEST = 16_384
NEEDED = ("authorization_endpoint", "token_endpoint", "jwks_uri")


@dataclass(slots=True)
class Known:
    """What was fetched of the provider, and when (monotonic seconds)."""

    document: Mapping[str, Any] | None = None
    keys: KeySet | None = None
    document_at: float = -1e9
    keys_at: float = -1e9


@dataclass(frozen=True, slots=True)
class Provider:
    """One row of configuration. name: on the button; secret: '' for a public client; algorithms: of its id tokens."""

    name: str
    issuer: str
    client_id: str
    secret: str
    scopes: str
    algorithms: tuple[str, ...]
    known: Known = field(default_factory=Known)

    @property
    def hosts(self) -> frozenset[str]:
        """The operator named this host, so it may be in a private network."""
        return frozenset({urlsplit(self.issuer).hostname or ""})


def read_provider(path: str) -> Provider | None:
    """The provider of FHIR_OIDC_PROVIDER. Raises ValueError that names the field and the rule."""
    if not path:
        return None
    row = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) and row[name] for name in ("name", "issuer", "client_id")):
        raise ValueError("FHIR_OIDC_PROVIDER: name, issuer and client_id are required")
    parts = urlsplit(row["issuer"])
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise ValueError("FHIR_OIDC_PROVIDER: issuer must be https")
    algorithms = tuple(row.get("algorithms", DEFAULT_ALGORITHMS))
    if not algorithms or not set(algorithms) <= ALGORITHMS:
        raise ValueError("FHIR_OIDC_PROVIDER: only asymmetric algorithms are accepted")
    file = row.get("client_secret_file", "")
    secret = Path(file).read_text(encoding="utf-8").strip() if file else ""
    return Provider(row["name"], row["issuer"], row["client_id"], secret, row.get("scope", "openid"), algorithms)


async def ready(provider: Provider) -> bool:
    """True once the provider's endpoints are known. Raises OAuthError temporarily_unavailable."""
    return bool(await _document(provider))


async def begin(provider: Provider, flow_id: str, back: str) -> tuple[str, dict[str, str]]:
    """(address at the provider, what the flow must remember). Raises OAuthError temporarily_unavailable."""
    kept = {"state": fresh(), "nonce": fresh(), "verifier": fresh()}
    challenge = base64.urlsafe_b64encode(hashlib.sha256(kept["verifier"].encode()).digest()).rstrip(b"=").decode()
    query = {
        "response_type": "code",
        "client_id": provider.client_id,
        "redirect_uri": back,
        "scope": provider.scopes,
        "state": f"{flow_id}~{kept['state']}",
        "nonce": kept["nonce"],
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    endpoint = str((await _document(provider))["authorization_endpoint"])
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}", kept


async def finish(provider: Provider, given: Mapping[str, str], kept: Mapping[str, str], back: str) -> str:
    """The 'issuer|subject' that the provider's answer proves. Raises OAuthError access_denied, temporarily_unavailable."""
    if not kept or not hmac.compare_digest(given.get("state", "").rpartition("~")[2].encode(), kept["state"].encode()):
        raise _denied("the answer does not belong to this sign-in")
    if given.get("iss", provider.issuer) != provider.issuer:
        raise _denied("the answer is another provider's")
    if "code" not in given:
        raise _denied("the provider did not sign you in")
    form = {"grant_type": "authorization_code", "code": given["code"], "redirect_uri": back, "code_verifier": kept["verifier"]}
    auth = (provider.client_id, provider.secret) if provider.secret else None
    form |= {} if provider.secret else {"client_id": provider.client_id}
    endpoint = str((await _document(provider))["token_endpoint"])
    try:
        answer = await post_form(endpoint, form, auth, provider.hosts)
    except NotFetched as error:
        raise _denied("the provider refused the code, or cannot be reached") from error
    token = answer.get("id_token") if isinstance(answer, dict) else None
    if not isinstance(token, str) or len(token) > LONGEST:
        raise _denied("the provider gave no id token")
    return f"{provider.issuer}|{await _subject(provider, token, kept['nonce'])}"


async def _subject(provider: Provider, token: str, nonce: str) -> str:
    """The subject of a good id token (OpenID Connect Core section 3.1.3.7)."""
    registry = jwt.JWTClaimsRegistry(
        leeway=LEEWAY_SECONDS,
        iss={"essential": True, "value": provider.issuer},
        aud={"essential": True, "value": provider.client_id},
        exp={"essential": True},
        iat={"essential": True},
        sub={"essential": True},
        nonce={"essential": True, "value": nonce},
    )
    try:
        claims = await _decoded(provider, token)
        registry.validate(claims)
    except (JoseError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise _denied(f"the provider's id token is not valid ({type(error).__name__})") from error
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if not isinstance(claims["sub"], str) or (several and claims.get("azp") != provider.client_id):
        raise _denied("the provider's id token is for another client")
    return claims["sub"]


async def _decoded(provider: Provider, token: str) -> dict[str, Any]:
    """Claims of a token whose signature is right; the key set is fetched anew where its key is unknown."""
    try:
        return jwt.decode(token, await _keys(provider), algorithms=list(provider.algorithms)).claims
    except (JoseError, ValueError):
        if time.monotonic() - provider.known.keys_at < REFETCH_SECONDS:
            raise
        return jwt.decode(token, await _keys(provider, refetch=True), algorithms=list(provider.algorithms)).claims


async def _document(provider: Provider) -> Mapping[str, Any]:
    """The provider's discovery document (OpenID Connect Discovery section 4); its issuer must be the one we know."""
    known = provider.known
    if known.document is None or time.monotonic() - known.document_at > HELD_SECONDS:
        document = await _fetched(provider, provider.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if (
            not isinstance(document, dict)
            or document.get("issuer") != provider.issuer
            or not all(isinstance(document.get(one), str) for one in NEEDED)
        ):
            raise OAuthError("temporarily_unavailable", "the provider's discovery document is not right")
        known.document, known.document_at = document, time.monotonic()
    return known.document


async def _keys(provider: Provider, *, refetch: bool = False) -> KeySet:
    known = provider.known
    if known.keys is None or refetch or time.monotonic() - known.keys_at > HELD_SECONDS:
        document = await _fetched(provider, str((await _document(provider))["jwks_uri"]))
        rows = [row for row in document["keys"] if row.get("kty") in ("RSA", "EC") and row.get("use", "sig") == "sig"]
        keys = KeySet.import_key_set({"keys": rows}).keys
        known.keys = KeySet([key for key in keys if not isinstance(key, RSAKey) or key.raw_value.key_size >= MIN_RSA_BITS])
        known.keys_at = time.monotonic()
    return known.keys


async def _fetched(provider: Provider, uri: str) -> Any:
    try:
        return await fetch_json(uri, provider.hosts)
    except NotFetched as error:
        raise OAuthError("temporarily_unavailable", "the sign-in provider cannot be reached now") from error


def _denied(text: str) -> OAuthError:
    return OAuthError("access_denied", text)
