"""The token, introspection and revocation endpoints: form in, JSON out. RFC 6749 section 5, RFC 7662, RFC 7009."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from conformance.outcome import Refusal
from fhir_server.security.authserver import authenticate, grants, issue, scope, sessions, users
from fhir_server.security.authserver.clients import Client
from fhir_server.security.authserver.errors import OAuthError
from fhir_server.security.authserver.grants import GrantRow
from fhir_server.security.authserver.kinds import REVOKED
from fhir_server.security.authserver.server import LEEWAY_SECONDS, AuthServer
from fhir_server.security.authserver.style import style_url

Json = dict[str, Any]
Form = Mapping[str, str]
Claims = Callable[[str], Awaitable[Mapping[str, Any]]]
TOLD = ("scope", "client_id", "exp", "iat", "sub", "iss", "aud", "jti", "patient", "encounter", "fhirUser", "auth_time")


async def token(server: AuthServer, form: Form, authorization: str) -> Json:
    """The token endpoint. Raises OAuthError."""
    exchange = EXCHANGES.get(form.get("grant_type", ""))
    if exchange is None:
        code = "unsupported_grant_type" if "grant_type" in form else "invalid_request"
        raise OAuthError(code, "grant_type must be " + ", ".join(EXCHANGES))
    client = await authenticate.client_of(server, await _named(server, form, authorization), authorization)
    return await exchange(server, client, form)


async def _named(server: AuthServer, form: Form, authorization: str) -> Form:
    """The form, with the client id that a public client may leave out when it refreshes: the token says whose it is (RFC 6749 section 6)."""
    anonymous = not authorization and not {"client_id", "client_assertion", "client_secret"} & set(form)
    if form["grant_type"] != "refresh_token" or "refresh_token" not in form or not anonymous:
        return form
    return {**form, "client_id": await grants.client_of_refresh(server, form["refresh_token"])}


async def _by_code(server: AuthServer, client: Client, form: Form) -> Json:
    missing = [name for name in ("code", "redirect_uri", "code_verifier") if name not in form]
    if missing:
        raise OAuthError("invalid_request", f"{missing[0]} is missing")
    grant = await grants.redeem_code(server, form["code"], client.id, form["redirect_uri"], form["code_verifier"])
    await _still_there(server, grant)
    return await _answer(server, grant, grant.scopes)


async def _by_refresh(server: AuthServer, client: Client, form: Form) -> Json:
    if "refresh_token" not in form:
        raise OAuthError("invalid_request", "refresh_token is missing")
    grant = await grants.grant_of_refresh(server, form["refresh_token"])
    scopes = _narrowed(grant, form.get("scope", "")) if grant and grant.client == client.id else ()
    await grants.spend_refresh(server, form["refresh_token"], client.id)
    if grant is None:
        raise OAuthError("invalid_grant", "the grant was withdrawn")
    await _still_there(server, grant)
    return await _answer(server, grant, scopes)


def _narrowed(grant: GrantRow, asked: str) -> tuple[str, ...]:
    """The scopes of a refreshed token: those granted, or the fewer that are asked for (RFC 6749 section 6)."""
    if not asked:
        return grant.scopes
    wanted = scope.words(asked)
    if scope.granted(wanted, grant.scopes) != wanted:
        raise OAuthError("invalid_scope", "a refresh cannot ask for more than was granted")
    return tuple(wanted)


async def _still_there(server: AuthServer, grant: GrantRow) -> None:
    """The person's account is enabled, and for online access they are still signed in. Raises OAuthError invalid_grant."""
    if await users.by_id(server.records, grant.user) is None:
        raise OAuthError("invalid_grant", "the user's account is disabled")
    if grant.lasting == "online" and await sessions.by_key(server, grant.session) is None:
        raise OAuthError("invalid_grant", "the user has signed out")


async def _answer(server: AuthServer, grant: GrantRow, scopes: tuple[str, ...]) -> Json:
    answer = await issue.for_grant(server, grant, scopes, style_url(server))
    if grant.lasting:
        answer["refresh_token"] = await grants.fresh_refresh(server, grant)
        if await grants.live_grant(server, grant.id) is None:  # withdrawn while we worked: a replay may have ended it at this moment
            raise OAuthError("invalid_grant", "the grant was withdrawn")
    return answer


async def _by_itself(server: AuthServer, client: Client, form: Form) -> Json:
    if not client.backend:
        raise OAuthError("unauthorized_client", "this client is not registered to act for itself")
    asked = scope.words(form.get("scope", ""))
    if len(asked) > scope.MOST:
        raise OAuthError("invalid_scope", f"more than {scope.MOST} scopes")
    own = [one for one in client.scopes if one.startswith(("system/", "exchange/"))]
    scopes = scope.granted(asked, own)
    if not scopes:
        raise OAuthError("invalid_scope", "scope must name at least one of the system scopes that the client is registered for")
    return await issue.for_backend(server, client.id, scopes)


EXCHANGES: Mapping[str, Callable[[AuthServer, Client, Form], Awaitable[Json]]] = MappingProxyType(
    {"authorization_code": _by_code, "refresh_token": _by_refresh, "client_credentials": _by_itself}
)


async def introspect(server: AuthServer, form: Form, authorization: str, claims_of: Claims) -> Json:
    """RFC 7662: what a token is worth now. A client sees its own tokens; a bearer token with scope `exchange/introspect` sees all."""
    if authorization.lower().startswith("bearer "):
        try:
            own = await claims_of(authorization[7:].strip())
        except Refusal as refusal:
            raise OAuthError("invalid_token", "the bearer token is not valid", 'Bearer error="invalid_token"') from refusal
        if scope.INTROSPECT not in str(own.get("scope", "")).split():
            raise OAuthError("invalid_token", "the bearer token lacks scope " + scope.INTROSPECT, 'Bearer error="insufficient_scope"')
        client_id = ""
    else:
        client = await authenticate.client_of(server, form, authorization)
        if client.kind == "public":
            raise OAuthError("invalid_client", "introspection needs client authentication", authenticate.BASIC)
        client_id = client.id
    if "token" not in form:
        raise OAuthError("invalid_request", "token is missing")
    return await _introspected(server, form["token"], client_id, claims_of)


async def _introspected(server: AuthServer, text: str, client_id: str, claims_of: Claims) -> Json:
    if text.count(".") != 2:
        return await _introspected_refresh(server, text, client_id)
    try:
        claims = await claims_of(text)
    except Refusal as refusal:
        if refusal.status != 401:
            raise
        return {"active": False}
    if claims.get("iss") != server.place.base or (client_id and claims.get("client_id") != client_id):
        return {"active": False}
    told = {name: claims[name] for name in TOLD if name in claims}
    grant = await grants.live_grant(server, str(claims.get("gid", "")))
    return {"active": True, "token_type": "Bearer", **told, **(grant.extra if grant else {})}


async def _introspected_refresh(server: AuthServer, text: str, client_id: str) -> Json:
    grant = await grants.grant_of_refresh(server, text)
    if grant is None or (client_id and grant.client != client_id) or not await grants.unspent(server, text):
        return {"active": False}
    return {"active": True, "client_id": grant.client, "scope": " ".join(grant.scopes), "sub": grant.user, "iss": server.place.base}


async def revoke(server: AuthServer, form: Form, authorization: str, claims_of: Claims) -> None:
    """RFC 7009: withdraw a token of this client; silence where there is none. A refresh token takes the whole grant with it."""
    client = await authenticate.client_of(server, form, authorization)
    if "token" not in form:
        raise OAuthError("invalid_request", "token is missing")
    text = form["token"]
    grant = await grants.grant_of_refresh(server, text)
    if grant is not None:
        if grant.client == client.id:
            await grants.revoke_grant(server, grant.id)
        return
    try:
        claims = await claims_of(text)
    except Refusal as refusal:
        if refusal.status != 401:
            raise
        return
    if claims.get("iss") == server.place.base and claims.get("client_id") == client.id:
        until = datetime.fromtimestamp(claims["exp"], UTC) + timedelta(seconds=2 * LEEWAY_SECONDS)
        await server.records.insert(REVOKED, f"jti:{claims['jti']}", {}, until)
