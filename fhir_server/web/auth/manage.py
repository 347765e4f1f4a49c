"""The management endpoint: a person sees which apps have access to what, withdraws it, and signs out.

https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html (`management_endpoint`).
"""

from collections.abc import Mapping

from fastapi import FastAPI, Request, Response

from fhir_server.security.audit import REFUSED, SUCCESS
from fhir_server.security.authserver import authorize, clients, grants, scope, sessions, users
from fhir_server.security.authserver.errors import OAuthError
from fhir_server.security.authserver.kinds import digest
from fhir_server.security.authserver.server import FLOW_SECONDS, AuthServer
from fhir_server.security.authserver.sessions import Session
from fhir_server.security.tokens import Verifier
from fhir_server.web.auth.forms import form_of
from fhir_server.web.auth.page import browser_of, cookie, page, see_other, set_cookie
from fhir_server.web.auth.pages import check_csrf, shown
from fhir_server.web.door import Services
from fhir_server.web.origin import address_of, occurrence


def add_manage(app: FastAPI, services: Services, server: AuthServer, verifier: Verifier) -> None:
    """Add the page to the application beside FHIR."""

    @app.get("/auth/manage")
    async def see(request: Request) -> Response:
        async def show() -> Response:
            session = await sessions.current(server, cookie(request, server.place, "session"))
            return await _grants(server, session) if session else _sign_in(server, request)

        return await shown(server, show)

    @app.post("/auth/manage")
    async def act(request: Request) -> Response:
        async def work() -> Response:
            form = authorize.once(await form_of(request))
            session = await sessions.current(server, cookie(request, server.place, "session"))
            if session is None:
                return await _signed_in(services, server, request, form)
            check_csrf(request, form, session.csrf)
            answer = see_other("manage")
            if form.get("act") == "signout":
                await sessions.end(server, session)
                happened(services, request, "logout", SUCCESS, session.user.fhir_user or session.user.id)
                set_cookie(answer, server.place, "session", "", 0)
            elif form.get("act") == "withdraw":
                await _withdraw(server, session, form.get("grant", ""))
                happened(services, request, "roles", SUCCESS, session.user.fhir_user or session.user.id, "access of an app withdrawn")
                if verifier.own:
                    verifier.own.revocations.look()
            return answer

        return await shown(server, work)


def happened(services: Services, request: Request, kind: str, outcome: str, user: str, text: str = "") -> None:
    """Note it in the audit trail."""
    services.happened(occurrence(request, kind, outcome, "exchange", user, text))


def _sign_in(server: AuthServer, request: Request, status: int = 200, error: str = "", name: str = "") -> Response:
    browser = browser_of(request, server.place)
    answer = page(server.place, "manage_login", status, csrf=digest(browser), error=error, name=name)
    set_cookie(answer, server.place, "browser", browser, FLOW_SECONDS)
    return answer


async def _signed_in(services: Services, server: AuthServer, request: Request, form: Mapping[str, str]) -> Response:
    check_csrf(request, form, digest(cookie(request, server.place, "browser")))
    name = form.get("username", "")
    try:
        user = await users.sign_in(server.records, name, form.get("password", ""), address_of(request))
    except OAuthError as error:
        happened(services, request, "login", REFUSED, await users.known(server.records, name), "too many failed sign-ins")
        return _sign_in(server, request, 429, error.text, name)
    if user is None:
        happened(services, request, "login", REFUSED, await users.known(server.records, name), "user name or password wrong")
        return _sign_in(server, request, 401, "The user name or the password is wrong.", name)
    happened(services, request, "login", SUCCESS, user.fhir_user or user.id)
    value, _ = await sessions.begin(server, user)
    answer = see_other("manage")
    set_cookie(answer, server.place, "session", value, server.settings.session_seconds)
    return answer


async def _grants(server: AuthServer, session: Session) -> Response:
    names = {one.id: one.name for one in await clients.listed(server.records)}
    rows = [
        {"id": digest(one.id), "app": names.get(one.client, one.client), "told": [scope.told(text) for text in one.scopes]}
        for one in await grants.of_user(server, session.user.id)
    ]
    return page(server.place, "manage", rows=rows, csrf=session.csrf, user=session.user.display or session.user.name)


async def _withdraw(server: AuthServer, session: Session, named: str) -> None:
    """Only one's own grants; the page names them by digest, so that the name is worth nothing elsewhere."""
    for one in await grants.of_user(server, session.user.id):
        if digest(one.id) == named:
            await grants.revoke_grant(server, one.id)
