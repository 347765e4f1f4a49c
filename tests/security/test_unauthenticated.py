"""An unauthenticated client learns nothing but metadata, discovery and health: every route that exists is tried without a token.

The routes are read off the application and off the FHIR route and operation tables, so that a new one is scanned the day it is added.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from fhir_server.interactions.routes import TABLE as ROUTES
from fhir_server.operations import TABLE as OPERATIONS
from tests.security.app import Exchange, worker

pytestmark = pytest.mark.asyncio(loop_scope="module")
PUBLIC = {  # path -> why anybody may see it
    "/health/live": "health",
    "/health/ready": "health",
    "/fhir/metadata": "metadata",
    "/fhir/.well-known/smart-configuration": "discovery",
    "/fhir/.well-known/openid-configuration": "discovery",
    "/.well-known/openid-configuration": "discovery",
    "/.well-known/oauth-authorization-server/fhir": "discovery",
    "/auth/jwks": "discovery",
}
SIGN_IN = ("/auth/style/", "/auth/manage")  # the look of pages, and a page that holds a sign-in form and nothing else
SECRETS = ("Adler", "Berg", "pat1", "pat2", "enc1", "drdoe", "Dr Doe", "Portal", "Web App", "mongodb", "Traceback", "/work/", "site-packages")
FILLED = {"T": "Patient", "I": "pat1", "V": "1", "C": "Patient", "O": "$everything"}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


def fhir_paths() -> Iterator[str]:
    """One path for each row of the route table and each operation on each of its levels."""
    for shape in ROUTES:
        yield "/fhir/" + "/".join(FILLED.get(part, part) for part in shape)
    for name in OPERATIONS:
        word = name if name.startswith("$") else "$" + name
        for prefix in ("", "Patient/", "Patient/pat1/", "Encounter/", "CodeSystem/"):
            yield f"/fhir/{prefix}{word}"
    yield from ("/fhir/Patient?name=Adler", "/fhir/Patient/pat1/Encounter", "/fhir/Patient/pat1/*", "/fhir/Encounter?patient=pat1&_include=*")
    yield from ("/fhir/Patient/nobody", "/fhir/Nonsense", "/fhir/Patient/pat1/_history/99", "/fhir?_type=Patient", "/fhir/", "/fhir")


def other_paths(exchange: Exchange) -> Iterator[str]:
    """Each route of the application beside FHIR."""
    for path in exchange.paths:
        yield re.sub(r"\{[^}]+\}", "messages", path)


def nothing_told(reply: Any, where: str) -> None:
    text = reply.text + str(dict(reply.headers))
    for secret in SECRETS:
        assert secret not in text, f"{where} tells {secret!r}"
    assert "server" not in reply.headers


async def test_no_route_tells_an_unauthenticated_client_anything(exchange: Exchange) -> None:
    scanned = 0
    for path in sorted({*fhir_paths(), *other_paths(exchange), "/", "/docs", "/openapi.json", "/redoc", "/admin", "/metrics", "/auth", "/.env"}):
        for method in METHODS:
            for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Bearer a.b.c", "Origin": "https://evil.example"}):
                reply = await exchange.http.request(method, path, headers=headers)
                scanned += 1
                where = f"{method} {path}"
                nothing_told(reply, where)
                if reply.status_code < 300 and path.partition("?")[0] not in PUBLIC and not path.startswith(SIGN_IN):
                    assert method == "OPTIONS", f"{where} answers {reply.status_code}"
                assert reply.status_code != 500, where
    assert scanned > 1500
    print(f"{scanned} requests without a valid token")


async def test_what_is_there_and_what_is_not_look_the_same(exchange: Exchange) -> None:
    """No oracle: an id that exists and one that does not, a type and none, get the same words."""
    for one, other in (
        ("Patient/pat1", "Patient/nobody"),
        ("Patient?name=Adler", "Patient?name=Nobody"),
        ("Patient/pat1/_history/1", "Patient/x/_history/9"),
    ):
        replies = [await exchange.http.get("/fhir/" + path) for path in (one, other)]
        assert replies[0].status_code == replies[1].status_code == 401
        assert replies[0].content == replies[1].content


async def test_metrics_need_their_token(exchange: Exchange, module_store: Any, tmp_path: Any) -> None:
    for token in ("", "Bearer ", "Bearer nonsense", "Basic x"):
        assert (await exchange.http.get("/metrics", headers={"Authorization": token} if token else {})).status_code == 401
    guarded = await worker(module_store, tmp_path, metrics_token="m" * 40)
    assert (await guarded.http.get("/metrics")).status_code == 401
    assert (await guarded.http.get("/metrics", headers={"Authorization": "Bearer wrong"})).status_code == 401
    reply = await guarded.http.get("/metrics", headers={"Authorization": "Bearer " + "m" * 40})
    assert reply.status_code == 200


async def test_in_open_mode_nothing_of_the_authorization_server_is_there(module_store: Any, tmp_path: Any) -> None:
    one = await worker(module_store, tmp_path, auth="open")
    for path in (
        "/auth/authorize",
        "/auth/token",
        "/auth/jwks",
        "/auth/manage",
        "/auth/flow",
        "/auth/introspect",
        "/auth/revoke",
        "/auth/launch",
        "/fhir/.well-known/smart-configuration",
        "/fhir/.well-known/openid-configuration",
        "/.well-known/openid-configuration",
    ):
        for method in ("GET", "POST"):
            assert (await one.http.request(method, path)).status_code == 404, path
    assert "security" not in (await one.http.get("/fhir/metadata")).json()["rest"][0]
