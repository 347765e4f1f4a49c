"""The HTTP application of one worker: FastAPI for health, metrics and HL7 v2 over HTTP; FHIR as a plain ASGI app beside it."""

import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse, PlainTextResponse

from conformance import codec
from conformance.outcome import Refusal, forbidden, outcome
from fhir_server.metrics import exposition
from fhir_server.security.audit import REFUSED, SUCCESS
from fhir_server.security.visible import may_feed
from fhir_server.web.asgi import App
from fhir_server.web.auth.endpoints import Desk as AuthDesk
from fhir_server.web.auth.endpoints import add_endpoints
from fhir_server.web.auth.manage import add_manage
from fhir_server.web.auth.pages import add_pages
from fhir_server.web.body import read_body
from fhir_server.web.door import UNAUTHORISED, Services, fhir_door
from fhir_server.web.edge import edge
from fhir_server.web.front import Branch, front
from fhir_server.web.gate import Buckets
from fhir_server.web.origin import address_of, occurrence

LONGEST_ASKED = 200  # characters
Desk = Callable[[str, tuple[str, ...], Mapping[str, str], bytes, str], Awaitable[Any]]
ReceiveV2 = Callable[[bytes, Mapping[str, str], str, str], Awaitable[tuple[bytes, str]]]


def build(services: Services, receive_v2: ReceiveV2, desks: Mapping[str, Desk], tenants: Mapping[str, Branch] | None = None) -> App:
    """The whole HTTP surface. `receive_v2(body, headers, client, address) -> (answer, media type)` is the HL7 v2 intake.

    desks: by their place below /admin, (method, path, query, body, who) -> JSON value; they raise Refusal 404 where there is no such row.
    tenants: those that are open now, by name; None where the process knows of none.
    """
    beside: App = beside_fhir(services, receive_v2, desks)
    return edge(fhir_door(services), beside if tenants is None else front(beside, tenants), services.settings.cors_origins)


def branch(services: Services, receive_v2: ReceiveV2, desks: Mapping[str, Desk]) -> Branch:
    """The HTTP surface of one tenant."""
    return Branch(services.prefix, fhir_door(services), beside_fhir(services, receive_v2, desks))


def beside_fhir(services: Services, receive_v2: ReceiveV2, desks: Mapping[str, Desk]) -> FastAPI:
    """Everything but FHIR itself; its `routes` are what a scan goes through. Health and metrics are the process's, not a tenant's."""
    beside = FastAPI(title="FHIR exchange", docs_url=None, redoc_url=None, openapi_url=None)
    if not services.prefix:
        _health(beside, services)
        _metrics(beside, services)
    _hl7v2(beside, services, receive_v2)
    for name, desk in desks.items():
        _desk(beside, services, name, desk)
    _auth(beside, services)
    beside.add_exception_handler(Refusal, partial(_refused, services))
    beside.add_exception_handler(404, partial(_unknown, services.prefix))
    return beside


def _auth(app: FastAPI, services: Services) -> None:
    server, verifier = services.authserver, services.verifier
    if server is not None and verifier is not None:
        add_endpoints(app, AuthDesk(server, verifier, Buckets(services.settings.rate)))
        add_pages(app, services, server)
        add_manage(app, services, server, verifier)


def _health(app: FastAPI, services: Services) -> None:
    @app.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/health/ready")
    async def ready() -> JSONResponse:
        try:
            await services.store.ready()
        except Refusal as refusal:
            return JSONResponse({"status": "not ready", "reason": str(refusal)}, 503)
        if services.terms is not None and services.terms.awaited:
            return JSONResponse({"status": "not ready", "reason": "the terminology of the cluster is being fetched"}, 503)
        return JSONResponse({"status": "ready"})


def _metrics(app: FastAPI, services: Services) -> None:
    @app.get("/metrics")
    async def metrics(request: Request) -> PlainTextResponse:
        if services.settings.auth != "open":
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            expected = services.settings.metrics_token
            if not expected or not hmac.compare_digest(token.encode(), expected.encode()):
                raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})
        else:
            await services.authenticate(request.headers)
        return PlainTextResponse(exposition(), media_type="text/plain; version=0.0.4")


def _hl7v2(app: FastAPI, services: Services, receive_v2: ReceiveV2) -> None:
    @app.post("/hl7v2")
    async def hl7v2(request: Request) -> Response:
        grant = await services.authenticate(request.headers)
        if not may_feed(grant):
            raise forbidden("HL7 v2 messages need the right to create and update all types (system/*.cu)")
        body = await read_body(request.receive, request.headers, services.settings.max_body)
        answer, media = await receive_v2(body, request.headers, grant.client, address_of(request))
        return Response(answer, media_type=media)


def _desk(app: FastAPI, services: Services, name: str, desk: Desk) -> None:
    @app.api_route(f"/admin/{name}", methods=["GET", "POST"])
    @app.api_route(f"/admin/{name}/{{path:path}}", methods=["GET", "POST", "DELETE"])
    async def administer(request: Request, path: str = "") -> Response:
        grant = await services.authenticate(request.headers)
        one = occurrence(request, "restricted", SUCCESS, grant.client, grant.user or grant.subject, _asked(request, name, path))
        try:
            if not grant.admin:
                raise forbidden("this is for administrators")
            body = await read_body(request.receive, request.headers, services.settings.max_body)
            found = await desk(request.method, tuple(path.split("/")), dict(request.query_params), body, grant.subject)
        except Refusal:
            services.happened(replace(one, outcome=REFUSED))
            raise
        services.happened(one)
        return Response(codec.encode(jsonable_encoder(found)), media_type="application/json")


def _asked(request: Request, name: str, path: str) -> str:
    """What an administrator asked for, fit for the trail."""
    return "".join(char if char.isprintable() else "?" for char in f"{request.method} /admin/{name}/{path}"[:LONGEST_ASKED])


async def _refused(services: Services, request: Request, error: Exception) -> Response:
    if not isinstance(error, Refusal):
        raise error
    if error.status == UNAUTHORISED:
        route = request.scope.get("route")
        asked = f"{request.method} {getattr(route, 'path', 'x')}: no valid token"
        services.happened(occurrence(request, "token", REFUSED, text=asked))
    body = codec.encode(outcome(error.issues))
    return Response(body, error.status, headers=dict(error.headers), media_type="application/fhir+json")


async def _unknown(prefix: str, request: Request, error: Exception) -> Response:
    return JSONResponse({"status": 404, "detail": f"no such path; the FHIR base is {prefix}/fhir"}, 404)
