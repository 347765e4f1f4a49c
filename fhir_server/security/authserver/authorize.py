"""The authorization request: read, judged, and either kept or sent back. https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#obtain-authorization-code

RFC 6749 section 4.1.1, RFC 7636 (PKCE: S256 only, never without), RFC 9207 (iss), RFC 9700. Until client and redirect address are known to
belong together nothing is sent anywhere: such errors are shown to the person; all later ones go back to the app.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from fhir_server.security.authserver import clients, launch, scope
from fhir_server.security.authserver.clients import Client
from fhir_server.security.authserver.errors import OAuthError
from fhir_server.security.authserver.launch import Launch
from fhir_server.security.authserver.place import audiences
from fhir_server.security.authserver.server import AuthServer
from fhir_server.security.authserver.sessions import Session

CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
LONGEST = 2048  # characters of any one parameter but scope
MOST = 50
PROMPTS = frozenset({"none", "login", "consent", "select_account"})
NOT_SUPPORTED: Mapping[str, str] = {
    "request": "request_not_supported",
    "request_uri": "request_uri_not_supported",
    "registration": "registration_not_supported",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that may go on: what the client wants, cut down to what it is registered for."""

    client: Client
    redirect_uri: str
    state: str
    scopes: tuple[str, ...]
    challenge: str
    nonce: str
    launch: Launch | None
    launch_value: str
    prompts: frozenset[str]
    max_age: int | None
    login_hint: str


@dataclass(slots=True, eq=False)
class SentBack(Exception):
    """The answer goes to the app, by way of the browser."""

    location: str


def once(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Parameters by name; one that has no value counts as absent (RFC 6749 section 3.1). Raises OAuthError if one comes twice."""
    if len(pairs) > MOST:
        raise OAuthError("invalid_request", f"more than {MOST} parameters")
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise OAuthError("invalid_request", "a parameter comes more than once")
        if len(value) > (scope.LONGEST if name == "scope" else LONGEST) and name not in ("client_assertion", "token", "subject_token"):
            raise OAuthError("invalid_request", "a parameter is too long")
        if "\x00" in value:
            raise OAuthError("invalid_request", "a parameter has a NUL character")
        found[name] = value
    return {name: value for name, value in found.items() if value}


def location(server: AuthServer, uri: str, values: Mapping[str, str]) -> str:
    """The redirect address with an answer; every answer names who gives it (RFC 9207), so that two servers cannot be mixed up."""
    answer = urlencode({**{name: value for name, value in values.items() if value}, "iss": server.place.base})
    return f"{uri}{'&' if '?' in uri else '?'}{answer}"


async def read(server: AuthServer, pairs: Sequence[tuple[str, str]]) -> Asked:
    """The request. Raises OAuthError (show it to the person) or SentBack (tell the app)."""
    given = once(pairs)
    client = await clients.get(server.records, given.get("client_id", ""))
    if client is None:
        raise OAuthError("invalid_request", "the app is not registered here (client_id)")
    uri = given.get("redirect_uri", "")
    if not uri or not clients.may_return_to(client, uri):
        raise OAuthError("invalid_request", "the address to return to is not one that the app registered (redirect_uri)")
    try:
        return await _judged(server, client, uri, given)
    except OAuthError as error:
        raise sent_back(server, uri, given.get("state", ""), error) from error


def sent_back(server: AuthServer, uri: str, state: str, error: OAuthError) -> SentBack:
    """An error as the app receives it."""
    return SentBack(location(server, uri, {"error": error.code, "error_description": error.text, "state": state}))


async def _judged(server: AuthServer, client: Client, uri: str, given: Mapping[str, str]) -> Asked:
    for name, code in NOT_SUPPORTED.items():
        if name in given:
            raise OAuthError(code, f"{name} is not supported")
    if given.get("response_type") != "code":
        code = "unsupported_response_type" if "response_type" in given else "invalid_request"
        raise OAuthError(code, "response_type must be code")
    if given.get("response_mode", "query") != "query":
        raise OAuthError("invalid_request", "response_mode must be query")
    if "state" not in given:
        raise OAuthError("invalid_request", "state is missing")
    if given.get("code_challenge_method") != "S256" or not CHALLENGE.fullmatch(given.get("code_challenge", "")):
        raise OAuthError("invalid_request", "PKCE is required: code_challenge of 43 characters with code_challenge_method S256")
    audience = given.get("aud") or given.get("resource", "")
    if audience not in audiences(server.place.base) or given.get("resource", audience) not in audiences(server.place.base):
        raise OAuthError("invalid_request", "aud must be the address of this FHIR server")
    wanted = scope.words(given.get("scope", ""))
    if len(wanted) > scope.MOST:
        raise OAuthError("invalid_scope", f"more than {scope.MOST} scopes")
    scopes = _allowed(client, wanted)
    found = None
    if "launch" in given:
        found = await launch.find(server, given["launch"], client.id)
    elif "launch" in wanted:
        raise OAuthError("invalid_request", "scope launch needs the launch parameter")
    prompts = frozenset(given.get("prompt", "").split())
    if not prompts <= PROMPTS or ("none" in prompts and len(prompts) > 1):
        raise OAuthError("invalid_request", "prompt is none, or of login, consent, select_account")
    max_age = given.get("max_age", "")
    if max_age and not (max_age.isascii() and max_age.isdigit() and len(max_age) < 10):
        raise OAuthError("invalid_request", "max_age must be a number of seconds")
    return Asked(
        client=client,
        redirect_uri=uri,
        state=given["state"],
        scopes=scopes,
        challenge=given["code_challenge"],
        nonce=given.get("nonce", ""),
        launch=found,
        launch_value=given.get("launch", ""),
        prompts=prompts,
        max_age=int(max_age) if max_age else None,
        login_hint=given.get("login_hint", "")[:128],
    )


def _allowed(client: Client, wanted: Sequence[str]) -> tuple[str, ...]:
    """What may be granted at all where a person is asked: nothing on the system level, nothing that is the EHR's own."""
    own = (scope.CREATE_LAUNCH, scope.INTROSPECT)
    scopes = [one for one in scope.granted(wanted, client.scopes) if not one.startswith("system/") and one not in own]
    if not scope.levels(scopes) and not {"openid", scope.ADMIN} & set(scopes):
        raise OAuthError("invalid_scope", "none of the scopes can be granted to this app")
    return tuple(scopes)


def still_good(asked: Asked, session: Session) -> bool:
    """True if the person need not sign in again for this request."""
    fresh_enough = asked.max_age is None or time.time() - session.at <= asked.max_age
    return fresh_enough and not {"login", "select_account"} & asked.prompts
