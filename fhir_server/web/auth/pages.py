"""What a person sees between an app's request and its answer: sign in, choose, consent; and the page that shows what apps have access.

One table of steps. Each page carries the flow's secret; the flow answers only to the browser in which it began.
"""

import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fastapi import FastAPI, Request, Response

from conformance.outcome import Refusal
from fhir_server.security.audit import REFUSED, SUCCESS
from fhir_server.security.authserver import authorize, flow, grants, outside, scope, sessions, users
from fhir_server.security.authserver.authorize import SentBack
from fhir_server.security.authserver.clients import Client
from fhir_server.security.authserver.errors import OAuthError
from fhir_server.security.authserver.flow import Flow
from fhir_server.security.authserver.server import FLOW_SECONDS, AuthServer
from fhir_server.security.authserver.sessions import Session
from fhir_server.security.authserver.users import User
from fhir_server.web.auth.forms import form_of, pairs_of
from fhir_server.web.auth.page import browser_of, cookie, page, see_other, set_cookie, style_sheet
from fhir_server.web.auth.picker import Picker, picker_for
from fhir_server.web.door import Services
from fhir_server.web.origin import address_of, occurrence

log = logging.getLogger("fhir.auth")


@dataclass(frozen=True, slots=True)
class Visit:
    """One request to a page of a flow."""

    services: Services
    server: AuthServer
    request: Request
    flow_id: str
    flow: Flow
    client: Client
    session: Session | None
    form: Mapping[str, str]

    async def picker(self) -> Picker:
        """The choices of the person who signed in."""
        if self.session is None:
            raise OAuthError("invalid_request", "Nobody has signed in.")
        return await picker_for(self.services, self.server, self.session.user, self.request.scope["request_id"])

    def show(self, name: str, /, status: int = 200, **values: Any) -> Response:
        """A page of this flow."""
        provider = self.server.provider
        known = provider.known.document if provider else None
        leads = (self.flow.redirect_uri, *((str(known["authorization_endpoint"]),) if known else ()))
        common = {"flow_id": self.flow_id, "csrf": self.flow.csrf, "app": self.client.name, "error": "", **values}
        return page(self.server.place, name, status, returns_to=leads, **common)

    def happened(self, kind: str, outcome: str = SUCCESS, user: str = "", text: str = "") -> None:
        """Note it in the audit trail."""
        self.services.happened(occurrence(self.request, kind, outcome, self.client.id, user, text))

    async def go_on(self, changed: Flow) -> Response:
        """Keep what is known now and show what is next."""
        await flow.save(self.server, self.flow_id, changed)
        return see_other(f"flow?id={self.flow_id}")


async def show_login(visit: Visit) -> Response:
    """The sign-in form, and where an outside provider is configured the way to it."""
    return await sign_in_page(visit, 200, visit.flow.login_hint, "")


async def sign_in_page(visit: Visit, status: int, name: str, error: str) -> Response:
    """The sign-in page; where the provider cannot be reached now, without it."""
    provider, by = visit.server.provider, ""
    if provider is not None:
        try:
            by = provider.name if await outside.ready(provider) else ""
        except OAuthError as problem:
            log.warning("the sign-in provider is not usable", extra={"fields": {"reason": problem.text}})
    return visit.show("login", status, name=name, error=error, provider=by)


async def login(visit: Visit) -> Response:
    """Sign in with name and password, or go to the outside provider."""
    if visit.form.get("by") == "outside" and visit.server.provider is not None:
        address, kept = await outside.begin(visit.server.provider, visit.flow_id, visit.server.place.at("outside"))
        await flow.save(visit.server, visit.flow_id, replace(visit.flow, outside=kept))
        return see_other(address)
    name = visit.form.get("username", "")
    address = address_of(visit.request)
    try:
        user = await users.sign_in(visit.server.records, name, visit.form.get("password", ""), address)
    except OAuthError as error:
        visit.happened("login", REFUSED, await users.known(visit.server.records, name), "too many failed sign-ins")
        return await sign_in_page(visit, 429, name, error.text)
    if user is None:
        visit.happened("login", REFUSED, await users.known(visit.server.records, name), "user name or password wrong")
        return await sign_in_page(visit, 401, name, "The user name or the password is wrong.")
    return await signed_in(visit, user)


async def come_back(visit: Visit) -> Response:
    """The outside provider's answer."""
    provider = visit.server.provider
    if provider is None or flow.step(visit.flow, visit.client) != "login":
        raise OAuthError("invalid_request", "This sign-in has ended. Go back to the app and start again.")
    kept = visit.flow.outside or {}
    visit = replace(visit, flow=replace(visit.flow, outside=None))
    await flow.save(visit.server, visit.flow_id, visit.flow)  # an answer is looked at once
    try:
        who = await outside.finish(provider, visit.form, kept, visit.server.place.at("outside"))
    except OAuthError as error:
        visit.happened("login", REFUSED, text="the outside provider's answer is not good")
        return await sign_in_page(visit, 401, "", f"Signing in by {provider.name} did not work: {error.text}.")
    user = await users.by_external(visit.server.records, who)
    if user is None:
        visit.happened("login", REFUSED, text="no account for whom the outside provider knows")
        return await sign_in_page(visit, 403, "", f"{provider.name} knows you, but you have no account here.")
    return await signed_in(visit, user)


async def signed_in(visit: Visit, user: User) -> Response:
    """Go on as this person; the session cookie is new each time."""
    visit.happened("login", SUCCESS, user.fhir_user or user.id)
    value, session = await sessions.begin(visit.server, user)
    changed = await flow.signed_in(visit.server, visit.flow, session)
    answer = await replace(visit, session=session).go_on(await in_context(replace(visit, session=session), changed))
    set_cookie(answer, visit.server.place, "session", value, visit.server.settings.session_seconds)
    return answer


async def in_context(visit: Visit, changed: Flow) -> Flow:
    """The flow with the patient that is clear without asking. Raises SentBack if the launch's patient or encounter is not this person's."""
    picker = await visit.picker()
    if changed.patient:
        allowed = await picker.patient(changed.patient) is not None
        if changed.encounter and allowed:
            allowed = await picker.encounter(changed.encounter, changed.patient) is not None
        if not allowed:
            error = OAuthError("access_denied", "this user may not open the patient or encounter of the launch")
            raise authorize.sent_back(visit.server, changed.redirect_uri, changed.state, error)
        return changed
    own = picker.own_patients()
    if changed.needs_patient() and own is not None:
        if len(own) != 1 or await picker.patient(own[0]) is None:
            error = OAuthError("access_denied", "this user has no patient to put into context")
            raise authorize.sent_back(visit.server, changed.redirect_uri, changed.state, error)
        return replace(changed, patient=own[0])
    return changed


async def show_patient(visit: Visit) -> Response:
    """The patient picker, with a search form."""
    text = visit.form.get("q", "")
    return visit.show("patient", text=text, choices=await (await visit.picker()).patients(text))


async def choose_patient(visit: Visit) -> Response:
    """A patient is chosen."""
    chosen = await (await visit.picker()).patient(visit.form.get("patient", ""))
    if chosen is None:
        return visit.show("patient", 400, text="", choices=await (await visit.picker()).patients(""), error="Choose one of the patients.")
    return await visit.go_on(replace(visit.flow, patient=chosen.id))


async def show_encounter(visit: Visit) -> Response:
    """The encounter picker."""
    return visit.show("encounter", choices=await (await visit.picker()).encounters(visit.flow.patient), patient=await _patient_title(visit))


async def choose_encounter(visit: Visit) -> Response:
    """An encounter is chosen, or none."""
    if visit.form.get("encounter") == "none":
        return await visit.go_on(replace(visit.flow, no_encounter=True))
    chosen = await (await visit.picker()).encounter(visit.form.get("encounter", ""), visit.flow.patient)
    if chosen is None:
        choices = await (await visit.picker()).encounters(visit.flow.patient)
        return visit.show("encounter", 400, choices=choices, patient=await _patient_title(visit), error="Choose one of the encounters.")
    return await visit.go_on(replace(visit.flow, encounter=chosen.id))


async def _patient_title(visit: Visit) -> str:
    chosen = await (await visit.picker()).patient(visit.flow.patient) if visit.flow.patient else None
    return f"{chosen.title} ({chosen.detail})" if chosen and chosen.detail else chosen.title if chosen else ""


async def show_consent(visit: Visit) -> Response:
    """What the app asks for, each of which can be left out."""
    if visit.session is None:
        raise OAuthError("invalid_request", "Nobody has signed in.")
    rows = [{"scope": one, "told": scope.told(one)} for one in visit.flow.scopes]
    user = visit.session.user
    return visit.show("consent", rows=rows, patient=await _patient_title(visit), user=user.display or user.name)


async def consent(visit: Visit) -> Response:
    """The person allows what is ticked, or denies."""
    kept = tuple(one for number, one in enumerate(visit.flow.scopes) if f"keep{number}" in visit.form)
    worth = scope.levels(kept) or {"openid", scope.ADMIN} & set(kept)
    allowed = bool(visit.form.get("decision") == "allow" and worth)
    person = visit.session.user if visit.session else None
    told = f"access allowed: {' '.join(kept)}" if allowed else "access denied"
    visit.happened("roles", SUCCESS, (person.fhir_user or person.id) if person else "", told)
    if not allowed:
        await flow.finish(visit.server, visit.flow_id)
        error = OAuthError("access_denied", "the user did not give access")
        raise authorize.sent_back(visit.server, visit.flow.redirect_uri, visit.flow.state, error)
    return await visit.go_on(replace(visit.flow, consent=kept))


async def done(visit: Visit) -> Response:
    """All is known: the app gets its code."""
    known, session = visit.flow, visit.session
    if session is None or not await flow.finish(visit.server, visit.flow_id):
        raise OAuthError("invalid_request", "This sign-in has ended. Go back to the app and start again.")
    launched = await flow.launch_of(visit.server, known)
    scopes = known.consent if known.consent is not None else known.scopes
    values = {
        "client": known.client,
        "user": session.user.id,
        "scopes": scopes,
        "patient": known.patient,
        "encounter": known.encounter,
        "fhir_user": session.user.fhir_user,
        "nonce": known.nonce,
        "auth_time": session.at,
        "lasting": grants.lasting(scopes),
        "session": session.key,
        "extra": dict(launched.extra) if launched else {},
        "at": session.at,
    }
    code = await grants.grant_code(visit.server, values, known.redirect_uri, known.challenge)
    return see_other(authorize.location(visit.server, known.redirect_uri, {"code": code, "state": known.state}))


Step = Callable[[Visit], Awaitable[Response]]
STEPS: Mapping[str, tuple[Step, Step]] = {  # step -> (its page, what its form does)
    "login": (show_login, login),
    "patient": (show_patient, choose_patient),
    "encounter": (show_encounter, choose_encounter),
    "consent": (show_consent, consent),
    "done": (done, done),
}


def add_pages(app: FastAPI, services: Services, server: AuthServer) -> None:
    """Add the pages to the application beside FHIR."""

    @app.get("/auth/authorize")
    async def by_get(request: Request) -> Response:
        return await shown(server, lambda: start(services, server, request, pairs_of(request.url.query.encode())))

    @app.post("/auth/authorize")
    async def by_post(request: Request) -> Response:
        async def read() -> Response:
            return await start(services, server, request, await form_of(request))

        return await shown(server, read)

    @app.get("/auth/flow")
    async def see(request: Request) -> Response:
        async def show() -> Response:
            given = authorize.once(pairs_of(request.url.query.encode()))
            visit = await visited(services, server, request, given)
            return await STEPS[flow.step(visit.flow, visit.client)][0](visit)

        return await shown(server, show)

    @app.post("/auth/flow")
    async def act(request: Request) -> Response:
        async def work() -> Response:
            form = authorize.once(await form_of(request))
            visit = await visited(services, server, request, form)
            check_csrf(request, form, visit.flow.csrf)
            step = flow.step(visit.flow, visit.client)
            if form.get("step") != step:  # sent twice, or from the browser's history: show where the flow is
                return see_other(f"flow?id={visit.flow_id}")
            return await STEPS[step][1](visit)

        return await shown(server, work)

    @app.get("/auth/outside")
    async def outside_answer(request: Request) -> Response:
        async def work() -> Response:
            given = authorize.once(pairs_of(request.url.query.encode()))
            visit = await visited(services, server, request, {**given, "id": given.get("state", "").partition("~")[0]})
            return await come_back(visit)

        return await shown(server, work)

    @app.get(f"/auth/style/{style_sheet()[0]}.css")
    async def sheet(request: Request) -> Response:
        return Response(style_sheet()[1], headers={"Cache-Control": "public, max-age=86400"}, media_type="text/css")


async def start(services: Services, server: AuthServer, request: Request, pairs: list[tuple[str, str]]) -> Response:
    """The authorization endpoint."""
    asked = await authorize.read(server, pairs)
    browser = browser_of(request, server.place)
    session = await sessions.current(server, cookie(request, server.place, "session"))
    good = session if session and authorize.still_good(asked, session) else None
    flow_id, begun = await flow.begin(server, asked, browser, good)
    if good:
        begun = await in_context(Visit(services, server, request, flow_id, begun, asked.client, good, {}), begun)
        await flow.save(server, flow_id, begun)
    flow.refuse_questions(server, asked, begun)
    answer = see_other(f"flow?id={flow_id}")
    set_cookie(answer, server.place, "browser", browser, FLOW_SECONDS)
    return answer


async def visited(services: Services, server: AuthServer, request: Request, given: Mapping[str, str]) -> Visit:
    """The flow that a request is about. Raises OAuthError."""
    flow_id = given.get("id", "")
    found = await flow.load(server, flow_id, cookie(request, server.place, "browser"))
    client, session = await flow.parties(server, found)
    if found.session and (session is None or session.key != (await own_session_key(server, request))):
        found, session = replace(found, session="", consent=None), None
    return Visit(services, server, request, flow_id, found, client, session, given)


async def own_session_key(server: AuthServer, request: Request) -> str:
    """The key of the session this browser has now, '' without one."""
    session = await sessions.current(server, cookie(request, server.place, "session"))
    return session.key if session else ""


def check_csrf(request: Request, form: Mapping[str, str], expected: str) -> None:
    """The form was made by our own page. Raises OAuthError."""
    if not hmac.compare_digest(form.get("csrf", "").encode(), expected.encode()) or request.headers.get("sec-fetch-site") == "cross-site":
        raise OAuthError("invalid_request", "The form did not come from this site's own page. Go back to the app and start again.")


async def shown(server: AuthServer, act: Callable[[], Awaitable[Response]]) -> Response:
    """The border of the pages: refusals become a page or a redirect to the app, a defect is logged and told as such."""
    try:
        return await act()
    except SentBack as back:
        return see_other(back.location)
    except OAuthError as error:
        return page(server.place, "error", 400, text=error.text)
    except Refusal as refusal:
        return page(server.place, "error", refusal.status, text="; ".join(issue.text for issue in refusal.issues))
    except Exception:  # the HTTP border: a defect is logged by place and answered as 500, never shown
        log.exception("page failed")
        return page(server.place, "error", 500, text="The server failed to answer.")
