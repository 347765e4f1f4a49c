"""Client authentication at the token, introspection and revocation endpoints. RFC 6749 section 2.3, SMART client-confidential-symmetric.

Exactly one method per request, and the one the client is registered for: a confidential client cannot come as a public one.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping
from urllib.parse import unquote_plus

from fhir_server.security.authserver import assertion, clients
from fhir_server.security.authserver.clients import Client
from fhir_server.security.authserver.errors import OAuthError
from fhir_server.security.authserver.kinds import digest
from fhir_server.security.authserver.server import AuthServer

BASIC = 'Basic realm="token"'


async def client_of(server: AuthServer, form: Mapping[str, str], authorization: str) -> Client:
    """The client that makes this request; a public one only says who it is. Raises OAuthError."""
    given = {"header": bool(authorization), "secret": "client_secret" in form, "assertion": "client_assertion" in form}
    if sum(given.values()) > 1:
        raise OAuthError("invalid_request", "more than one way of client authentication")
    if given["header"]:
        name, secret = _basic(authorization)
        if form.get("client_id", name) != name:
            raise OAuthError("invalid_client", "client_id differs from the Authorization header", BASIC)
        return await _with_secret(server, name, secret, BASIC)
    if given["secret"]:
        return await _with_secret(server, form.get("client_id", ""), form["client_secret"], "")
    if given["assertion"] or "client_assertion_type" in form:
        if form.get("client_assertion_type") != assertion.TYPE:
            raise OAuthError("invalid_client", "client_assertion_type must be " + assertion.TYPE)
        return await assertion.client_of(server, form.get("client_assertion", ""), form.get("client_id", ""))
    client = await clients.get(server.records, form.get("client_id", ""))
    if client is None or client.kind != "public":
        raise OAuthError("invalid_client", "client authentication is missing, or the client is not known")
    return client


def _basic(authorization: str) -> tuple[str, str]:
    """(client id, secret), form-encoded inside base64 as RFC 6749 section 2.3.1 says."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError("another scheme")
        name, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
    except (ValueError, binascii.Error) as error:
        raise OAuthError("invalid_client", "the Authorization header is not HTTP Basic", BASIC) from error
    if not colon:
        raise OAuthError("invalid_client", "the Authorization header has no secret", BASIC)
    return unquote_plus(name), unquote_plus(secret)


async def _with_secret(server: AuthServer, name: str, secret: str, challenge: str) -> Client:
    client = await clients.get(server.records, name)
    given = digest(secret)
    known = client.secrets if client and client.kind == "symmetric" else ()
    if client is None or not any(hmac.compare_digest(given, one) for one in known):
        raise OAuthError("invalid_client", "client id or secret is wrong", challenge)
    return client
