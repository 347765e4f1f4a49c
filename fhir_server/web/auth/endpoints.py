"""The JSON endpoints: discovery, keys, token, introspection, revocation, EHR launch, style and brands.

https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html; below /auth, and `.well-known` below the FHIR base and the root.
"""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response

from conformance.outcome import bad_request, forbidden, unauthorised
from fhir_server.security.authserver import authorize, discovery, launch, style, token
from fhir_server.security.authserver.errors import OAuthError
from fhir_server.security.authserver.scope import CREATE_LAUNCH
from fhir_server.security.authserver.server import AuthServer
from fhir_server.security.tokens import Verifier
from fhir_server.web.auth.forms import answered, as_json, body_of, form_of
from fhir_server.web.gate import Buckets
from fhir_server.web.origin import address_of

KEYS_SECONDS = 60  # clients may keep the key set so long: less than a new key is published before it signs
CACHED = {"Cache-Control": f"public, max-age={KEYS_SECONDS}", "Pragma": ""}
Endpoint = Callable[[AuthServer, Mapping[str, str], str], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Desk:
    """What the endpoints share: the authorization server, the verifier of its tokens, and the buckets of callers."""

    server: AuthServer
    verifier: Verifier
    buckets: Buckets


def add_endpoints(app: FastAPI, desk: Desk) -> None:
    """Add all of them to the application beside FHIR."""
    _discovery(app, desk)
    _tokens(app, desk)
    _launch(app, desk)
    _documents(app, desk)


def _discovery(app: FastAPI, desk: Desk) -> None:
    place = desk.server.place

    @app.get("/fhir/.well-known/smart-configuration")
    async def smart(request: Request) -> Response:
        return as_json(discovery.smart_configuration(place, _brand(desk)), headers=CACHED)

    @app.get("/fhir/.well-known/openid-configuration")
    @app.get("/.well-known/openid-configuration")
    @app.get("/.well-known/oauth-authorization-server/fhir")
    async def openid(request: Request) -> Response:
        return as_json(discovery.openid_configuration(place), headers=CACHED)

    @app.get("/auth/jwks")
    async def jwks(request: Request) -> Response:
        return as_json({"keys": [key.public for key in await desk.server.ring.current()]}, headers=CACHED)


def _tokens(app: FastAPI, desk: Desk) -> None:
    async def act(request: Request, endpoint: Endpoint) -> Response:
        async def work() -> Any:
            desk.buckets.take(address_of(request))
            form = authorize.once(await form_of(request))
            try:
                return await endpoint(desk.server, form, request.headers.get("authorization", ""))
            finally:
                if desk.verifier.own:
                    desk.verifier.own.revocations.look()

        return await answered(work)

    @app.post("/auth/token")
    async def tokens(request: Request) -> Response:
        return await act(request, token.token)

    @app.post("/auth/introspect")
    async def introspect(request: Request) -> Response:
        return await act(request, lambda server, form, header: token.introspect(server, form, header, desk.verifier.claims))

    @app.post("/auth/revoke")
    async def revoke(request: Request) -> Response:
        async def quiet(server: AuthServer, form: Mapping[str, str], header: str) -> dict[str, str]:
            await token.revoke(server, form, header, desk.verifier.claims)
            return {}

        return await act(request, quiet)


def _launch(app: FastAPI, desk: Desk) -> None:
    @app.post("/auth/launch")
    async def create(request: Request) -> Response:
        """The API by which an EHR creates a launch context; refusals are OperationOutcomes, as everywhere where resources are named."""
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise unauthorised("a bearer token is required")
        claims = await desk.verifier.claims(text.strip())
        if claims.get("iss") != desk.server.place.base or CREATE_LAUNCH not in str(claims.get("scope", "")).split():
            raise forbidden(f"creating a launch needs the scope {CREATE_LAUNCH}")
        try:
            body = await body_of(request)
        except OAuthError as error:
            raise bad_request(error.text) from error
        return as_json(await launch.create(desk.server, launch.decoded(body)), 201)


def _documents(app: FastAPI, desk: Desk) -> None:
    version, body = style.style(desk.server.settings.smart_style)

    @app.get(f"/auth/style/{version}.json")
    async def smart_style(request: Request) -> Response:
        return Response(body, headers={"Cache-Control": "public, max-age=86400"}, media_type="application/json")

    if desk.server.settings.brands:
        bundle = Path(desk.server.settings.brands).read_bytes()
        json.loads(bundle)
        tag = f'W/"{hashlib.sha256(bundle).hexdigest()[:16]}"'

        @app.get("/auth/brands")
        async def brands(request: Request) -> Response:
            headers = {"ETag": tag, "Cache-Control": "public, max-age=3600"}
            if tag in request.headers.get("if-none-match", ""):
                return Response(status_code=304, headers=headers)
            return Response(bundle, headers=headers, media_type="application/fhir+json")


def _brand(desk: Desk) -> dict[str, Any]:
    settings = desk.server.settings
    if not settings.brands:
        return {}
    return {"user_access_brand_bundle": desk.server.place.at("brands"), **_identifier(settings.brand_identifier)}


@lru_cache(8)
def _identifier(text: str) -> dict[str, Any]:
    system, _, value = text.rpartition("|")
    identifier = {"system": system, "value": value} if system else {"value": value}
    return {"user_access_brand_identifier": identifier} if value else {}
