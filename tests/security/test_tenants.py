"""No path crosses from one organisation to another: generated over the route and operation tables and the routes of the application.

Each organisation holds resources of the same ids with its own marker in them, so that whatever is seen of another is seen by its marker; and every
command of every request is watched: it goes to the database of the organisation that the path names, and to no other.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import pytest_asyncio

from fhir_server.interactions.routes import TABLE as ROUTES
from fhir_server.operations import TABLE as OPERATIONS
from fhir_server.store.embedded import Embedded
from tests.security.app import Exchange, tokens_of
from tests.security.tenanted import JSON, World, admin_of, populate, token_of, world

pytestmark = pytest.mark.asyncio(loop_scope="module")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")
OWN, A, B = "Zorillaown", "Yapokalpha", "Quokkabeta"  # the markers
ALLOWED = {200, 201, 202, 204, 303, 304}
FILLED = {"T": "Patient", "I": "only-quokkabeta", "V": "1", "C": "Patient", "O": "$everything"}
PUBLIC = (".well-known", "/auth/jwks", "/auth/style/", "/auth/manage", "/auth/authorize", "/auth/flow", "/auth/outside")
ONLY_B = "only-quokkabeta"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(mongod: Embedded, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """The exchange itself and the tenants 'a' and 'b', each with its own marker."""
    async with world(mongod, tmp_path_factory.mktemp("tenants"), "a", "b") as made:
        await populate(made.own, OWN)
        await populate(made.by_name["a"], A)
        await populate(made.by_name["b"], B)
        yield made


def fhir_paths() -> Iterator[str]:
    """A path for each row of the route table and each operation on each level, with B's id in it."""
    for shape in ROUTES:
        yield "/fhir/" + "/".join(FILLED.get(part, part) for part in shape)
    for name in OPERATIONS:
        word = name if name.startswith("$") else "$" + name
        for prefix in ("", "Patient/", f"Patient/{ONLY_B}/", "CodeSystem/", "CodeSystem/local/", "ValueSet/", "ValueSet/local/", "ConceptMap/"):
            yield f"/fhir/{prefix}{word}"
    yield from (f"/fhir/Patient?name={B}", f"/fhir/Patient?_id={ONLY_B}", f"/fhir/Patient/{ONLY_B}/Observation", f"/fhir/Patient/{ONLY_B}/*")
    yield from (f"/fhir?_type=Patient&_id={ONLY_B}", f"/fhir/Observation?subject=Patient/{ONLY_B}&_include=*", "/fhir/_history", "/fhir/AuditEvent")


def other_paths(exchange: Exchange) -> Iterator[str]:
    """Each route of the application beside FHIR, of one tenant."""
    for path in exchange.paths:
        yield re.sub(r"\{[^}]+\}", "inbox", path)


def body_for(path: str, method: str) -> bytes:
    """A body that the route may take."""
    if method not in ("POST", "PUT", "PATCH"):
        return b""
    if "hl7v2" in path:
        return f"MSH|^~\\&|LAB|X|Y|Z|20260101||ADT^A08^ADT_A01|{abs(hash(path))}|P|2.5\rPID|1||{B}^^^urn:mrn^MR||{B}^X\r".encode()
    return json.dumps({"resourceType": "Patient", "id": ONLY_B, "name": [{"family": "Changed"}]}).encode()


def sees_nothing(reply: httpx.Response, of: tuple[str, ...], where: str) -> None:
    text = reply.text + str(dict(reply.headers))
    for marker in of:
        assert marker not in text, f"{where} shows {marker}"
    assert reply.status_code != 500, where


async def every_token(one: Exchange) -> dict[str, str]:
    """What an organisation gives out that looks like a bearer token."""
    app = await tokens_of(one, scope="launch/patient patient/*.cruds openid fhirUser offline_access")
    staff = await tokens_of(one, scope="user/*.cruds openid fhirUser")
    system = (await token_of(one))["Authorization"].removeprefix("Bearer ")
    return {"patient": app["access_token"], "user": staff["access_token"], "system": system, "refresh": app["refresh_token"], "id": app["id_token"]}


async def test_no_token_of_one_opens_any_route_of_another(two: World) -> None:
    """A's tokens, and those of the exchange itself, on every route of B with every method; and A's on the exchange itself."""
    a, b = two.by_name["a"], two.by_name["b"]
    tried = 0
    for giver, target, markers in ((a, b, (B, OWN)), (two.own, b, (B, A)), (a, two.own, (OWN, B))):
        tokens = await every_token(giver)
        for path in sorted({*fhir_paths(), *other_paths(target)}):
            for kind, token in tokens.items():
                for method in METHODS if kind == "system" else ("GET", "POST"):
                    headers = {"Authorization": f"Bearer {token}", "Content-Type": JSON}
                    reply = await target.http.request(method, path, headers=headers, content=body_for(path, method))
                    where = f"{method} {target.root}{path} by a {kind} token of {giver.root}"
                    sees_nothing(reply, markers, where)
                    tried += 1
                    if not any(part in path for part in PUBLIC) and not path.startswith("/health"):
                        assert reply.status_code not in ALLOWED, f"{where}: {reply.status_code}"
    assert tried > 1500
    print(f"{tried} requests with the tokens of another organisation")


async def test_every_route_of_one_touches_its_own_database_alone(two: World) -> None:
    """A's own system and admin tokens on every route of A, with B's ids and marker in the paths and bodies."""
    a = two.by_name["a"]
    for headers in (await token_of(a), await admin_of(a)):
        for path in sorted({*fhir_paths(), *other_paths(a)}):
            for method in METHODS:
                if path.startswith("/auth/") or (method == "DELETE" and path in ("/fhir/Patient", "/fhir/")):
                    continue
                reply = await a.http.request(method, path, headers=headers, content=body_for(path, method))
                if method in ("GET", "HEAD", "DELETE") and B not in path and ONLY_B not in path:
                    sees_nothing(reply, (B, OWN), f"{method} {path}")
                assert reply.status_code != 500, f"{method} {path}"
    names = two.databases()
    assert two.watch.count > 1000
    for who, database in two.watch.seen:
        assert database in (names[who], "admin"), f"a request of {who} went to {database}"
