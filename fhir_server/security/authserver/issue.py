"""Making tokens: access tokens (RFC 9068), id tokens (OpenID Connect Core section 2) and the token response of SMART.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html#launch-context-arrives-with-your-access_token
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from joserfc import jwt

from fhir_server.security.authserver.grants import GrantRow
from fhir_server.security.authserver.keys import ALGORITHM
from fhir_server.security.authserver.kinds import fresh
from fhir_server.security.authserver.server import BACKEND_SECONDS, AuthServer

ACCESS_TYPE = "at+jwt"  # RFC 9068: so that an id token is never taken for an access token
ENCOUNTER_SCOPES = frozenset({"launch", "launch/encounter"})


async def _signed(server: AuthServer, claims: Mapping[str, Any], typ: str) -> str:
    key = await server.ring.signer()
    if key.private is None:
        raise ValueError("a signer has its private key")
    return jwt.encode({"alg": ALGORITHM, "kid": key.kid, "typ": typ}, dict(claims), key.private, algorithms=[ALGORITHM])


def _access_claims(server: AuthServer, client_id: str, subject: str, scopes: Sequence[str], seconds: int) -> dict[str, Any]:
    now = int(time.time())
    return {
        "iss": server.place.base,
        "aud": server.place.base,
        "sub": subject,
        "client_id": client_id,
        "scope": " ".join(scopes),
        "iat": now,
        "exp": now + seconds,
        "jti": fresh(),
    }


async def for_backend(server: AuthServer, client_id: str, scopes: Sequence[str]) -> dict[str, Any]:
    """The token response of a client that acts for itself."""
    claims = _access_claims(server, client_id, client_id, scopes, BACKEND_SECONDS)
    token = await _signed(server, claims, ACCESS_TYPE)
    return {"access_token": token, "token_type": "Bearer", "expires_in": BACKEND_SECONDS, "scope": claims["scope"]}


async def for_grant(server: AuthServer, grant: GrantRow, scopes: Sequence[str], style: str) -> dict[str, Any]:
    """The token response of a client that acts for a person, without the refresh token. scopes: those of the grant or fewer."""
    context = context_of(grant, scopes)
    claims = _access_claims(server, grant.client, grant.user, scopes, server.settings.token_seconds)
    claims |= {"gid": grant.id, "auth_time": grant.auth_time, **context}
    if grant.fhir_user:
        claims["fhirUser"] = grant.fhir_user  # who acts, for what the resource server judges; whether the app is told depends on its scopes
    answer = {
        "access_token": await _signed(server, claims, ACCESS_TYPE),
        "token_type": "Bearer",
        "expires_in": server.settings.token_seconds,
        "scope": claims["scope"],
        **context,
    }
    if "patient" in context:
        answer["need_patient_banner"] = True
        answer["smart_style_url"] = style
    answer |= {name: value for name, value in grant.extra.items() if name not in answer or name in ("need_patient_banner", "smart_style_url")}
    if _tells_user(scopes) and grant.fhir_user:
        answer["fhirUser"] = grant.fhir_user
    if "openid" in scopes:
        answer["id_token"] = await id_token(server, grant, scopes)
    return answer


def context_of(grant: GrantRow, scopes: Sequence[str]) -> dict[str, str]:
    """The patient and encounter in context, as far as the granted scopes ask for one."""
    names = {}
    if grant.patient and (any(one.startswith(("launch", "patient/")) for one in scopes)):
        names["patient"] = grant.patient
        if grant.encounter and ENCOUNTER_SCOPES & set(scopes):
            names["encounter"] = grant.encounter
    return names


def _tells_user(scopes: Sequence[str]) -> bool:
    return "fhirUser" in scopes or "profile" in scopes


async def id_token(server: AuthServer, grant: GrantRow, scopes: Sequence[str]) -> str:
    """Who signed in, for the app."""
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": server.place.base,
        "sub": grant.user,
        "aud": grant.client,
        "iat": now,
        "exp": now + server.settings.token_seconds,
        "auth_time": grant.auth_time,
    }
    if grant.nonce:
        claims["nonce"] = grant.nonce
    if grant.fhir_user:
        where = f"{server.place.base}/{grant.fhir_user}"
        claims |= {name: where for name in ("fhirUser", "profile") if name in scopes}
    return await _signed(server, claims, "JWT")
