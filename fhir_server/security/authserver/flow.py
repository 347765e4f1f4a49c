"""From the authorization request to the code: sign in, choose a patient, choose an encounter, consent. One record per flow.

The record is bound to the browser by a cookie, so a link into somebody else's flow leads nowhere, and every form carries its secret (CSRF).
Which step comes next is a pure function of what is known.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from fhir_server.security.authserver import authorize, clients, launch, scope, sessions
from fhir_server.security.authserver.authorize import Asked
from fhir_server.security.authserver.clients import Client
from fhir_server.security.authserver.errors import OAuthError
from fhir_server.security.authserver.kinds import FLOWS, after, digest, fresh
from fhir_server.security.authserver.launch import Launch
from fhir_server.security.authserver.server import FLOW_SECONDS, AuthServer
from fhir_server.security.authserver.sessions import Session
from fhir_server.security.authserver.users import User


@dataclass(frozen=True, slots=True)
class Flow:
    """What is known so far. session: key of the sign-in, ''; patient, encounter: ids, '' until chosen; consent: scopes the person agreed to."""

    client: str
    redirect_uri: str
    state: str
    scopes: tuple[str, ...]
    challenge: str
    nonce: str
    launch: str
    prompts: tuple[str, ...]
    login_hint: str
    csrf: str
    browser: str
    session: str = ""
    patient: str = ""
    encounter: str = ""
    no_encounter: bool = False
    consent: tuple[str, ...] | None = None
    outside: Mapping[str, str] | None = None  # what an outside sign-in needs to remember: state, nonce, verifier

    def needs_patient(self) -> bool:
        """A patient must be in context: asked for by itself, for an encounter, or by any scope on the patient level."""
        return bool({"launch/patient", "launch/encounter"} & set(self.scopes)) or "patient" in scope.levels(self.scopes)


def step(flow: Flow, client: Client) -> str:
    """What comes next: login, patient, encounter, consent or done."""
    if not flow.session:
        return "login"
    if flow.needs_patient() and not flow.patient:
        return "patient"
    if "launch/encounter" in flow.scopes and not (flow.encounter or flow.no_encounter):
        return "encounter"
    if flow.consent is None and (not client.trusted or "consent" in flow.prompts):
        return "consent"
    return "done"


async def begin(server: AuthServer, asked: Asked, browser: str, session: Session | None) -> tuple[str, Flow]:
    """(flow id, flow) of a request, signed in already if `session` will do. Raises SentBack if its user may not go on."""
    flow = Flow(
        client=asked.client.id,
        redirect_uri=asked.redirect_uri,
        state=asked.state,
        scopes=asked.scopes,
        challenge=asked.challenge,
        nonce=asked.nonce,
        launch=asked.launch_value,
        prompts=tuple(sorted(asked.prompts)),
        login_hint=asked.login_hint,
        csrf=fresh(),
        browser=digest(browser),
    )
    if asked.launch:
        flow = replace(flow, patient=asked.launch.patient, encounter=asked.launch.encounter)
    if session:
        flow = await signed_in(server, flow, session)
    flow_id = fresh()
    await server.records.insert(FLOWS, digest(flow_id), _document(flow), after(FLOW_SECONDS))
    return flow_id, flow


def refuse_questions(server: AuthServer, asked: Asked, flow: Flow) -> None:
    """Raises SentBack where the app wants no questions asked (prompt=none) and some are needed. OpenID Connect Core section 3.1.2.6."""
    missing = step(flow, asked.client)
    if "none" in asked.prompts and missing != "done":
        code = {"login": "login_required", "consent": "consent_required"}.get(missing, "interaction_required")
        raise authorize.sent_back(server, flow.redirect_uri, flow.state, OAuthError(code, f"the {missing} step is needed"))


async def load(server: AuthServer, flow_id: str, browser: str) -> Flow:
    """The flow, in the browser where it began. Raises OAuthError."""
    row = await server.records.get(FLOWS, digest(flow_id)) if flow_id else None
    if row is None or not browser or row["browser"] != digest(browser):
        raise OAuthError("invalid_request", "This sign-in has ended or was begun in another browser. Go back to the app and start again.")
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items() if name in Flow.__slots__}
    return Flow(**values)


async def save(server: AuthServer, flow_id: str, flow: Flow) -> None:
    """Keep what is known now."""
    await server.records.change(FLOWS, digest(flow_id), _document(flow))


async def finish(server: AuthServer, flow_id: str) -> bool:
    """End the flow; True for the one caller who ended it: a consent sent twice gives one code."""
    return await server.records.remove(FLOWS, digest(flow_id)) is not None


def _document(flow: Flow) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(flow).items()}


async def signed_in(server: AuthServer, flow: Flow, session: Session) -> Flow:
    """The flow with its user: scopes that the role does not allow are gone, a launch becomes theirs. Raises SentBack if they may not go on."""
    scopes = allowed_to(session.user, flow.scopes)
    try:
        if not scopes:
            raise OAuthError("access_denied", "this user may grant none of the scopes")
        if found := await launch_of(server, flow):
            await launch.claim(server, found, session.user.name)
    except OAuthError as error:
        raise authorize.sent_back(server, flow.redirect_uri, flow.state, error) from error
    return replace(flow, session=session.key, scopes=scopes)


def allowed_to(user: User, scopes: tuple[str, ...]) -> tuple[str, ...]:
    """Scopes that this user may pass on: administration is an administrator's, clearance is staff's, identity in FHIR needs one."""
    refused = set() if user.role == "admin" else {scope.ADMIN}
    if user.role == "patient":
        refused |= {one for one in scopes if scope.CLEARANCE.fullmatch(one)}
    if not user.fhir_user:
        refused |= {"fhirUser", "profile"}
    kept = tuple(one for one in scopes if one not in refused)
    return kept if scope.levels(kept) or {"openid", scope.ADMIN} & set(kept) else ()


async def launch_of(server: AuthServer, flow: Flow) -> Launch | None:
    """The launch context of the flow. Raises OAuthError if it has expired meanwhile."""
    return await launch.find(server, flow.launch, flow.client) if flow.launch else None


async def parties(server: AuthServer, flow: Flow) -> tuple[Client, Session | None]:
    """The app and the sign-in of a flow. Raises OAuthError if the app is gone."""
    client = await clients.get(server.records, flow.client)
    if client is None:
        raise OAuthError("invalid_request", "The app is no longer registered here.")
    return client, await sessions.by_key(server, flow.session) if flow.session else None
