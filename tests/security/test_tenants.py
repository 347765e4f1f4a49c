"""No path crosses from one organisation to another: generated over the route and operation tables and the routes of the application.

Each organisation holds resources of the same ids with its own marker in them, so that whatever is seen of another is seen by its marker; and every
command of every request is watched: it goes to the database of the organisation that the path names, and to no other.
"""

import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
import pytest_asyncio

from fhir_server.feed.receipt import Sender
from fhir_server.feed.routing import Astray
from fhir_server.interactions.routes import TABLE as ROUTES
from fhir_server.operations import TABLE as OPERATIONS
from fhir_server.search import custom
from fhir_server.security import tenants
from fhir_server.security.authserver import clients
from fhir_server.security.authserver.clients import Client
from fhir_server.security.tenants import Tenant
from fhir_server.settings import of_tenant
from fhir_server.store.embedded import Embedded
from fhir_server.store.mongo.records import MongoRecords
from tests.security.app import BACK, Exchange, launched, request_of, tokens_of
from tests.security.tenanted import JSON, World, admin_of, populate, token_of, world
from tests.security.test_backend import JWKS, assert_jwt, form
from tests.server.test_packages import PARAM, PROFILE, SYSTEM, URL, VALUES, archive

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


async def code_of(one: Exchange, **changes: Any) -> dict[str, str]:
    """A token request that redeems an authorization code of this organisation."""
    browser, verifier = await launched(one, **changes)
    code = browser.answer["code"]
    return {"grant_type": "authorization_code", "client_id": "web", "code": code, "redirect_uri": BACK, "code_verifier": verifier}


async def test_codes_and_refresh_tokens_are_worth_nothing_elsewhere_and_stay_good_at_home(two: World) -> None:
    a, b = two.by_name["a"], two.by_name["b"]
    form = await code_of(a)
    for other in (b, two.own):
        reply = await other.token(**form)
        assert (reply.status_code, reply.json()["error"]) == (400, "invalid_grant")
    granted = (await a.token(**form)).json()
    refresh = {"grant_type": "refresh_token", "client_id": "web", "refresh_token": granted["refresh_token"]}
    for other in (b, two.own):
        assert (await other.token(**refresh)).json()["error"] == "invalid_grant"
    assert (await a.token(**refresh)).status_code == 200


async def test_a_client_assertion_is_for_the_token_endpoint_of_one(two: World) -> None:
    """The same client with the same key is registered in both; the audience decides, and a jti is spent where it was used alone."""
    a, b = two.by_name["a"], two.by_name["b"]
    for one in (a, b):
        await clients.add(one.server.records, Client("backend", "Backend", "asymmetric", (), ("system/Patient.rs",), jwks=JWKS))
    text = assert_jwt(aud=a.root + "/auth/token", jti="the-same-jti")
    assert (await b.token(**form(text))).json()["error"] == "invalid_client"
    assert (await a.token(**form(text))).status_code == 200
    again = assert_jwt(aud=b.root + "/auth/token", jti="the-same-jti")
    assert (await b.token(**form(again))).status_code == 200


async def test_introspection_and_revocation_know_only_ones_own_tokens(two: World) -> None:
    a, b = two.by_name["a"], two.by_name["b"]
    headers = await token_of(a)
    token = headers["Authorization"].removeprefix("Bearer ")
    asked = await b.http.post("/auth/introspect", data={"token": token, "client_id": "ehr", "client_secret": "e" * 40})
    assert asked.json() == {"active": False}
    await b.http.post("/auth/revoke", data={"token": token, "client_id": "ehr", "client_secret": "e" * 40})
    assert (await a.http.get("/fhir/Patient/pat1", headers=headers)).status_code == 200
    kids = [{key["kid"] for key in (await one.http.get("/auth/jwks")).json()["keys"]} for one in (a, b, two.own)]
    assert all(kids)
    assert len(set.union(*kids)) == sum(len(one) for one in kids)


async def test_a_session_of_one_is_no_session_of_another(two: World) -> None:
    """The cookie is not sent there by its path; nor does it help to send it by hand, under any name."""
    a, b = two.by_name["a"], two.by_name["b"]
    browser, _ = await launched(a)
    values = {cookie.name: cookie.value for cookie in browser.http.cookies.jar}
    assert {cookie.path for cookie in browser.http.cookies.jar} == {f"/t/{a.server.place.tenant}/auth"}
    names = {name.replace(a.server.place.tenant, b.server.place.tenant): value or "" for name, value in values.items()}
    for cookies in (values, names):
        text = "; ".join(f"{name}={value}" for name, value in cookies.items())
        page = await b.http.get("/auth/manage", headers={"Cookie": text})
        assert 'name="password"' in page.text
        started = await b.http.get("/auth/authorize", params=request_of("c" * 43, aud=b.root + "/fhir"), headers={"Cookie": text})
        assert "code=" not in started.headers.get("location", "")
    home = await a.http.get("/auth/manage", headers={"Cookie": "; ".join(f"{name}={value}" for name, value in values.items())})
    assert 'name="password"' not in home.text


async def test_a_launch_context_and_an_audience_are_of_one(two: World) -> None:
    a, b = two.by_name["a"], two.by_name["b"]
    reply = await a.http.post("/auth/launch", json={"client_id": "web", "patient": "pat1"}, headers=await token_of(a, "exchange/launch"))
    launch, scope = reply.json()["launch"], "launch patient/*.rs openid fhirUser"
    abroad = await b.browser().authorize(**request_of("c" * 43, scope=scope, launch=launch, aud=b.root + "/fhir"))
    assert abroad.answer.get("error") == "invalid_request"
    wrong = await b.browser().authorize(**request_of("c" * 43, aud=a.root + "/fhir"))
    assert wrong.answer.get("error") == "invalid_request"
    assert abroad.answer["iss"] == b.root + "/fhir"


async def test_references_to_another_organisation_lead_nowhere(two: World) -> None:
    """Absolute references to B in A's resources, queries and bundles are references to another server."""
    a, b = two.by_name["a"], two.by_name["b"]
    headers, there = await admin_of(a), b.root + "/fhir"
    pointing = {"resourceType": "Observation", "id": "pointing", "status": "final", "code": {"text": "p"}}
    pointing["subject"] = {"reference": f"{there}/Patient/{ONLY_B}"}
    assert (await a.http.put("/fhir/Observation/pointing", json=pointing, headers=headers)).status_code in (200, 201)
    for query in (
        "Observation?_id=pointing&_include=*",
        "Observation?_id=pointing&_include=Observation:subject",
        f"Observation?subject={there}/Patient/{ONLY_B}&_include=Observation:subject",
        f"Observation?subject:Patient={ONLY_B}",
        f"Observation?subject:Patient.name={B}",
        f"Patient?_has:Observation:subject:_id=obs-{ONLY_B}",
        f"Patient?_id={ONLY_B}&_revinclude=*",
        f"Patient?identifier=urn:mrn|{B}",
        f"Patient?link={there}/Patient/{ONLY_B}",
        f"Observation?code:in={b.root}/fhir/ValueSet/local",
        "Patient/$everything",
        f"Patient/{ONLY_B}/$everything",
        f"Patient?_list={there}/List/x",
    ):
        reply = await a.http.get("/fhir/" + query, headers=headers)
        sees_nothing(reply, (OWN,), query)
        assert B not in reply.text.replace(f"identifier=urn:mrn|{B}", "").replace(f"name={B}", ""), query
    for entry in (
        {"request": {"method": "GET", "url": f"{there}/Patient/{ONLY_B}"}},
        {"request": {"method": "DELETE", "url": f"{there}/Patient/{ONLY_B}"}},
        {"request": {"method": "PUT", "url": f"{there}/Patient/{ONLY_B}"}, "resource": {"resourceType": "Patient", "id": ONLY_B}},
        {"request": {"method": "GET", "url": f"/t/{b.server.place.tenant}/fhir/Patient/{ONLY_B}"}},
        {"request": {"method": "GET", "url": f"../../{b.server.place.tenant}/fhir/Patient/{ONLY_B}"}},
        {
            "fullUrl": f"{there}/Patient/{ONLY_B}",
            "request": {"method": "POST", "url": "Observation"},
            "resource": {**pointing, "id": None, "subject": {"reference": f"Patient?identifier=urn:mrn|{B}"}},
        },
    ):
        res = {"resourceType": "Bundle", "type": "transaction", "entry": [without_none(entry)]}
        reply = await a.http.post("/fhir", json=res, headers=headers)
        sees_nothing(reply, (f'"{B}"', OWN), str(entry["request"]))
        assert reply.status_code >= 400, entry
    assert (await b.http.get(f"/fhir/Patient/{ONLY_B}", headers=await token_of(b))).json()["meta"]["versionId"] == "1"


def without_none(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry with a resource that has no id where it is None."""
    res = {name: value for name, value in entry.get("resource", {}).items() if value is not None}
    return {**entry, "resource": res} if res else entry


async def test_versions_and_keys_of_one_are_not_anothers(two: World) -> None:
    """ETags, conditional creates: what is taken in B is free in A."""
    a, b = two.by_name["a"], two.by_name["b"]
    of_a, of_b = await token_of(a), await token_of(b)
    res = {"resourceType": "Patient", "id": "etag", "active": True}
    for number in range(3):
        await b.http.put("/fhir/Patient/etag", json={**res, "birthDate": f"198{number}"}, headers=of_b)
    await a.http.put("/fhir/Patient/etag", json=res, headers=of_a)
    assert (await a.http.put("/fhir/Patient/etag", json=res, headers={**of_a, "If-Match": 'W/"3"'})).status_code == 412
    assert (await a.http.get("/fhir/Patient/etag", headers={**of_a, "If-None-Match": 'W/"3"'})).status_code == 200
    assert (await a.http.get("/fhir/Patient/etag/_history/3", headers=of_a)).status_code == 404
    fresh = {"resourceType": "Patient", "identifier": [{"system": "urn:race", "value": "1"}]}

    async def create(one: Exchange, headers: dict[str, str]) -> int:
        reply = await one.http.post("/fhir/Patient", json=fresh, headers={**headers, "If-None-Exist": "identifier=urn:race|1"})
        return reply.status_code

    answers = await asyncio.gather(*(create(one, headers) for one, headers in ((a, of_a), (b, of_b)) for _ in range(4)))
    assert sorted(answers) == [200] * 6 + [201] * 2


async def test_a_page_goes_on_only_where_it_began(two: World) -> None:
    a, b = two.by_name["a"], two.by_name["b"]
    of_a, of_b = await token_of(a), await token_of(b)
    for query in ("Patient?_count=1", "Patient/_history?_count=1", "_history?_count=1", "Patient?_count=1&_sort=birthdate"):
        bundle = (await a.http.get("/fhir/" + query, headers=of_a)).json()
        (following,) = [link["url"] for link in bundle["link"] if link["relation"] == "next"]
        assert following.startswith(a.root + "/fhir")
        assert (await two.own.http.get(following, headers=of_a)).status_code == 200
        moved = following.replace(a.root, b.root)
        assert (await b.http.get(moved, headers=of_b)).status_code == 400, query
        assert (await two.own.http.get(following.replace(a.root, two.own.root), headers=await token_of(two.own))).status_code == 400, query


async def test_no_spelling_of_a_path_leads_into_another(two: World) -> None:
    """Dots, slashes and percent signs: what is refused is refused, what is answered is the organisation's own that the path begins with."""
    a, b = two.by_name["a"], two.by_name["b"]
    one, other, headers = a.server.place.tenant, b.server.place.tenant, await admin_of(a)
    spellings = [
        f"/t/{one}/../{other}/fhir/Patient/{ONLY_B}",
        f"/t/{one}/fhir/../../{other}/fhir/Patient/{ONLY_B}",
        f"/t/{one}%2F..%2F{other}/fhir/Patient/{ONLY_B}",
        f"/t/{one}/fhir/..%2F..%2F{other}%2Ffhir/Patient/{ONLY_B}",
        f"//t/{other}/fhir/Patient/{ONLY_B}",
        f"/t//{other}/fhir/Patient/{ONLY_B}",
        f"/t/{one}//t/{other}/fhir/Patient/{ONLY_B}",
        f"/t/{one}/t/{other}/fhir/Patient/{ONLY_B}",
        f"/t/%{ord(other[0]):x}{other[1:]}/fhir/Patient/{ONLY_B}",
        f"/%74/{other}/fhir/Patient/{ONLY_B}",
        f"/t/{other.upper()}/fhir/Patient/{ONLY_B}",
        f"/t/{other}%00/fhir/Patient/{ONLY_B}",
        f"/t/{other};x/fhir/Patient/{ONLY_B}",
        f"/fhir/../t/{other}/fhir/Patient/{ONLY_B}",
        f"/t/{one}/fhir/t/{other}/Patient/{ONLY_B}",
        f"/.well-known/oauth-authorization-server/t/{other}/fhir/../../{one}/fhir",
    ]
    for path in spellings:
        status, body = await raw(two.app, path, headers)
        assert B not in body, path
        assert status in (301, 307, 308, 400, 401, 403, 404), (path, status)
    for path in (f"/t/{one}/hl7v2/", f"/t/{one}/auth/token/"):
        reply = await two.own.http.post(path, headers=headers, content=b"x")
        where = reply.headers.get("location", a.root)
        assert where.startswith(a.root), f"{path} is sent on to {where}"


async def raw(app: Any, path: str, headers: dict[str, str], method: str = "GET") -> tuple[int, str]:
    """A request whose path no client has tidied."""
    told: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        told.append(message)

    names = [(name.lower().encode(), value.encode()) for name, value in {"host": "127.0.0.1:8080", **headers}.items()]
    scope = {"type": "http", "method": method, "path": unquote(path), "raw_path": path.encode(), "query_string": b"", "scheme": "http"}
    await app({**scope, "headers": names, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8080), "root_path": ""}, receive, send)
    return told[0]["status"], b"".join(one.get("body", b"") for one in told[1:]).decode()


async def test_terminology_of_one_is_unknown_to_another(two: World) -> None:
    """B asks first and twice, so that whatever remembers answers has them."""
    a, b = two.by_name["a"], two.by_name["b"]
    of_a, of_b = await token_of(a), await token_of(b)
    system = f"http://{B.lower()}.example/CodeSystem/local"
    value_set = system.replace("CodeSystem", "ValueSet")
    for query, word in (
        (f"CodeSystem/$lookup?system={system}&code=x", B),
        (f"ValueSet/$expand?url={value_set}", B),
        (f"CodeSystem/$validate-code?url={system}&code=x", "true"),
        (f"ValueSet/$validate-code?url={value_set}&system={system}&code=x", "true"),
        (f"CodeSystem/$subsumes?system={system}&codeA=x&codeB=x", "equivalent"),
        (f"CodeSystem?url={system}", B),
    ):
        for _ in range(2):
            assert word in (await b.http.get("/fhir/" + query, headers=of_b)).text, query
        reply = await a.http.get("/fhir/" + query, headers=of_a)
        assert f'"{B}"' not in reply.text, query
        assert reply.status_code != 200 or '"valueBoolean":false' in reply.text or reply.json().get("total") == 0, (query, reply.text)


async def test_messages_and_audit_are_where_they_happened(two: World) -> None:
    a, b = two.by_name["a"], two.by_name["b"]
    of_a, of_b = await admin_of(a), await admin_of(b)
    text = f"MSH|^~\\&|LAB|X|Y|Z|20260101||ADT^A08^ADT_A01|only-a|P|2.5\rPID|1||77^^^urn:mrn^MR||{A}^X\r".encode()
    reply = await a.http.post("/hl7v2", content=text, headers={**of_a, "Content-Type": "application/hl7-v2"})
    assert "MSA|AA" in reply.text, reply.text
    inboxes = [(await one.http.get("/admin/hl7v2/inbox?limit=1000", headers=headers)).text for one, headers in ((a, of_a), (b, of_b))]
    assert "only-a" in inboxes[0]
    assert "only-a" not in inboxes[1]
    (row,) = [row for row in json.loads(inboxes[0]) if row["control_id"] == "only-a"]
    for path in (f"/admin/hl7v2/inbox/{row['id']}", f"/admin/hl7v2/messages/Patient/{row['id']}"):
        assert A not in (await b.http.get(path, headers=of_b)).text
    await asyncio.sleep(1.0)  # FHIR_AUDIT_SECONDS
    events = [(await one.http.get("/fhir/AuditEvent?_count=1000", headers=headers)).text for one, headers in ((a, of_a), (b, of_b))]
    assert a.root in events[0]
    assert a.root not in events[1]
    assert b.root not in events[0]


async def test_interleaved_requests_are_answered_each_from_its_own(two: World) -> None:
    """Reads, searches, writes and expansions of three organisations at once in one worker."""
    parties = [(one, marker, await admin_of(one)) for one, marker in ((two.own, OWN), (two.by_name["a"], A), (two.by_name["b"], B))]

    async def one_round(number: int, party: tuple[Exchange, str, dict[str, str]]) -> None:
        one, marker, headers = party
        made = {"resourceType": "Basic", "code": {"text": f"{marker}-{number}"}}
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": made, "request": {"method": "POST", "url": "Basic"}}]}
        replies = await asyncio.gather(
            one.http.get("/fhir/Patient/pat1", headers=headers),
            one.http.get("/fhir/Observation?subject=Patient/pat2&_include=Observation:subject", headers=headers),
            one.http.post("/fhir/Basic", json=made, headers=headers),
            one.http.post("/fhir", json=bundle, headers={**headers, "Prefer": "return=representation"}),
            one.http.get(f"/fhir/CodeSystem/$lookup?system=http://{marker.lower()}.example/CodeSystem/local&code=x", headers=headers),
            one.http.get("/fhir/metadata", headers=headers),
        )
        for reply in replies:
            assert reply.status_code in (200, 201), reply.text
            sees_nothing(reply, tuple({OWN, A, B} - {marker}), str(reply.request.url))
            roots = set(re.findall(r"http://127\.0\.0\.1:8080[^\"]*?(?=/fhir|/auth)", reply.text + str(reply.headers)))
            assert roots <= {one.root}, f"{reply.request.url}: {roots}"
        assert marker in replies[0].text

    await asyncio.gather(*(one_round(number, party) for number in range(12) for party in parties))
    for who, database in two.watch.seen:
        assert database in (two.databases()[who], "admin"), f"a request of {who} went to {database}"


async def test_an_unknown_tenant_is_one_answer(two: World) -> None:
    """Whatever is asked, with or without a token, below a name that is none: the same 404, as OperationOutcome."""
    headers = await token_of(two.by_name["a"])
    bodies = set()
    for name in ("nobody", "default", "", "a" * 300, "A", "..", "fhir", "%61"):
        for path in ("/fhir/Patient", "/fhir/metadata", "/auth/token", "/hl7v2", "/fhir", "/admin/hl7v2/inbox"):
            for given in ({}, headers):
                status, body = await raw(two.app, f"/t/{name}{path}", given, "POST" if path == "/hl7v2" else "GET")
                assert status == 404, (name, path)
                bodies.add(body)
    (body,) = bodies
    assert json.loads(body)["resourceType"] == "OperationOutcome"


async def test_the_two_share_no_object_that_can_change(two: World) -> None:
    """What hangs on one tenant's part and on another's is the tables, the metrics, the connections: no dict, list or set that one could leave something in."""
    parts = [two.tenancy.held[two.by_name[name].server.place.tenant].part for name in ("a", "b")]
    places, others = (reached(each) for each in parts)
    shared = places.keys() & others.keys()
    unexpected = {f"{places[one]} = {others[one]}" for one in shared if not any(word in places[one] or word in others[one] for word in COMMON)}
    assert not unexpected, "\n".join(sorted(unexpected)[:20])


AS_THEY_ARE = (str, bytes, int, float, type, ModuleType, BuiltinFunctionType, asyncio.AbstractEventLoop)
# Tables and what is compiled of them alone, loaded code systems, metrics (labelled by tenant), connections, the count of requests, and a policy file.
COMMON = (".tables", ".client", ".metric.", ".database", "shared", ".access", ".admitted", ".operations", ".policy.", ".spec", ".base", ".under")


def reached(start: Any) -> dict[int, str]:
    """id -> a way to it, of every list, dict, set and cache that hangs on an object; through attributes, containers, partials and closures."""
    found: dict[int, str] = {}
    seen: set[int] = set()
    waiting: list[tuple[Any, str]] = [(start, "part")]
    while waiting:
        one, way = waiting.pop()
        if id(one) in seen or isinstance(one, AS_THEY_ARE) or way.count(".") > 14:
            continue
        seen.add(id(one))
        if isinstance(one, dict | list | set | deque) and one is not None:
            found[id(one)] = way
        for name, inner in inside(one):
            waiting.append((inner, f"{way}.{name}"))
    return found


def inside(one: Any) -> Iterator[tuple[str, Any]]:
    """What an object holds, by name."""
    if isinstance(one, dict):
        yield from ((str(key)[:40], value) for key, value in one.items())
    elif isinstance(one, list | tuple | set | frozenset | deque):
        yield from ((str(at), value) for at, value in enumerate(one))
    elif isinstance(one, partial):
        yield from (("func", one.func), ("args", one.args), ("keywords", one.keywords))
    elif isinstance(one, FunctionType):
        yield from ((name, cell.cell_contents) for name, cell in zip(one.__code__.co_freevars, one.__closure__ or ()))
    elif isinstance(one, MethodType):
        yield ("self", one.__self__)
    else:
        names = [
            *getattr(one, "__dict__", ()),
            *(name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ()) if name != "__weakref__"),
        ]
        yield from ((name, getattr(one, name, None)) for name in names)


async def test_packages_and_search_parameters_of_one_are_its_own(two: World) -> None:
    """Tenants without any are served with one compiled Spec; the first package or search parameter gives a tenant its own, and no other anything."""
    a, b = two.by_name["a"], two.by_name["b"]
    held, names = two.tenancy.held, [one.server.place.tenant for one in (a, b)]
    assert held[names[0]].part.services.spec is held[names[1]].part.services.spec
    of_a, of_b = await admin_of(a), await admin_of(b)
    assert (await a.http.post("/admin/packages", content=archive(PROFILE, VALUES, SYSTEM), headers=of_a)).status_code == 200
    red = f"/fhir/ValueSet/$validate-code?url={URL}/ValueSet/colours&system={URL}/colours&code=red"
    claims = {"resourceType": "Patient", "meta": {"profile": [PROFILE["url"]]}, "active": True}
    for one, headers, packages, known, stored in ((a, of_a, 1, 200, 422), (b, of_b, 0, 404, 201), (two.own, await admin_of(two.own), 0, 404, 201)):
        assert len((await one.http.get("/admin/packages", headers=headers)).json()) == packages
        assert ("true" in (await one.http.get(red, headers=headers)).text) == (known == 200)
        assert (await one.http.post("/fhir/Patient", json=claims, headers=headers)).status_code == stored
    param = {**PARAM, "status": "active", "id": "own", "url": f"{URL}/SearchParameter/own"}
    assert (await b.http.put("/fhir/SearchParameter/own", json=param, headers=of_b)).status_code == 201
    assert (await b.http.post("/fhir/SearchParameter/own/$reindex", headers=of_b)).status_code == 202
    deadline = asyncio.get_running_loop().time() + 20
    while held[names[1]].loaded.own is not None and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.1)
    specs = [held[name].part.services.spec for name in names]
    assert [sorted(custom.of(spec, "Patient")) for spec in specs] == [[], ["colour"]]
    assert custom.all_of(two.tenancy.exchange.spec) == custom.all_of(two.tenancy.common[0][0]) == []
    assert not two.tenancy.common[0][0].packages
    assert (await a.http.get("/fhir/Patient/pat1", headers=of_a)).status_code == 200


async def test_settings_of_its_own_are_taken_up_and_trust_is_not_inherited(two: World) -> None:
    a = two.by_name["a"]
    name = a.server.place.tenant
    records = MongoRecords(two.own.store.database)
    assert await tenants.give(records, name, {"FHIR_CLEARANCE": "R"})
    await two.tenancy.agree()
    settings = two.tenancy.held[name].part.services.settings
    assert (settings.clearance, settings.base_url) == ("R", a.root + "/fhir")
    exchange = replace(
        two.tenancy.exchange.settings, issuers="/x", sources="/y", oidc_provider="/z", brands="/b", clearance="V", base_url="https://h/fhir"
    )
    derived = of_tenant(exchange, "other", {})
    assert (derived.issuers, derived.sources, derived.oidc_provider, derived.brands) == ("", "", "", "")
    assert (derived.clearance, derived.base_url) == ("V", "https://h/t/other/fhir")
    assert len({derived.secret, exchange.secret, of_tenant(exchange, "another", {}).secret}) == 3
    with pytest.raises(ValueError, match="FHIR_PORT"):
        of_tenant(exchange, "other", {"FHIR_PORT": "1"})
    assert (await a.http.get("/fhir/Patient/pat1", headers=await token_of(a))).status_code == 200


async def test_one_that_cannot_be_opened_is_not_served_and_holds_up_nobody(two: World) -> None:
    """Nor do its senders' messages go to others while it is not known who they are."""
    records = MongoRecords(two.own.store.database)
    await tenants.add(records, Tenant("broken", "", {"FHIR_SOURCES": "/nowhere.json"}))
    try:
        await two.tenancy.agree()
        assert "broken" not in two.tenancy.branches
        assert (await raw(two.app, "/t/broken/fhir/metadata", {}))[0] == 404
        text = b"MSH|^~\\&|ANY|X|Y|Z|20260101||ADT^A08^ADT_A01|1|P|2.5\rPID|1||1^^^urn:mrn^MR||X^X\r"
        with pytest.raises(Astray):
            two.tenancy.feed_for(text, Sender("mllp", "127.0.0.1"))
    finally:
        await tenants.forget(records, "broken")
        await two.tenancy.agree()
    assert two.tenancy.feed_for(text, Sender("mllp", "127.0.0.1")) is None
