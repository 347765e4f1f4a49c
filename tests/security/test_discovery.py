"""What the server says of itself is what it does. https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html"""

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography.exceptions import InvalidTag

from fhir_server.security.authserver import keys
from fhir_server.security.authserver.discovery import CAPABILITIES, OAUTH_URIS
from fhir_server.security.authserver.kinds import KEYS
from fhir_server.store.mongo.client import database
from fhir_server.store.mongo.records import MongoRecords
from fhir_server.store.mongo.store import MongoStore
from tests.security.app import BASE, ROOT, SECRET, Exchange, tokens_of, worker

pytestmark = pytest.mark.asyncio(loop_scope="module")
SMART = "/fhir/.well-known/smart-configuration"


async def test_smart_configuration_is_json_for_every_accept_and_names_what_is_required(exchange: Exchange) -> None:
    reply = await exchange.http.get(SMART, headers={"Accept": "application/fhir+xml"})
    assert reply.headers["content-type"] == "application/json"
    document = reply.json()
    assert document["issuer"] == BASE
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert {"authorization_endpoint", "token_endpoint", "jwks_uri", "grant_types_supported", "capabilities"} <= set(document)
    assert tuple(document["capabilities"]) == CAPABILITIES
    assert "smart-app-state" not in document["capabilities"]


@pytest.mark.parametrize("path", [SMART, "/fhir/.well-known/openid-configuration"])
async def test_every_address_that_is_named_answers(exchange: Exchange, path: str) -> None:
    document = (await exchange.http.get(path)).json()
    named = [value for name, value in document.items() if name.endswith(("_endpoint", "jwks_uri", "_bundle"))]
    assert len(named) >= 5
    for address in named:
        parts = urlsplit(address)
        assert f"{parts.scheme}://{parts.netloc}" == ROOT
        answers = [(await exchange.http.request(method, parts.path)).status_code for method in ("GET", "POST")]
        assert any(status not in (404, 405) for status in answers), address


async def test_the_capability_statement_names_the_endpoints(exchange: Exchange) -> None:
    security = (await exchange.http.get("/fhir/metadata")).json()["rest"][0]["security"]
    (uris,) = [one for one in security["extension"] if one["url"] == OAUTH_URIS]
    named = {one["url"]: one["valueUri"] for one in uris["extension"]}
    document = (await exchange.http.get(SMART)).json()
    assert named["authorize"] == document["authorization_endpoint"]
    assert named["token"] == document["token_endpoint"]
    assert security["service"][0]["coding"][0]["code"] == "SMART-on-FHIR"


async def test_the_published_keys_are_bare_public_keys(exchange: Exchange) -> None:
    rows = (await exchange.http.get("/auth/jwks")).json()["keys"]
    assert rows
    for row in rows:
        assert set(row) == {"kty", "n", "e", "kid", "use", "alg"}


async def test_private_keys_are_sealed_in_the_database(exchange: Exchange, module_store: MongoStore) -> None:
    for row in await exchange.server.records.find(KEYS):
        assert set(row["public"]) == {"kty", "n", "e", "kid", "use", "alg"}
        with pytest.raises(InvalidTag):
            keys.unseal(row["sealed"], "another secret", row["kid"])
        assert json.loads(keys.unseal(row["sealed"], SECRET, row["kid"]))["d"]


async def test_a_new_key_is_published_before_it_signs_and_the_old_one_stays(exchange: Exchange, second: Exchange) -> None:
    before = await exchange.server.ring.signer()
    old = await tokens_of(exchange)
    kid = await keys.rotate(exchange.server.records, SECRET, overlap=60)
    await exchange.server.ring.current(refresh=True)
    assert [row["kid"] for row in (await exchange.http.get("/auth/jwks")).json()["keys"]] == [kid, before.kid]
    assert (await exchange.server.ring.signer()).kid == before.kid
    at_once = await keys.rotate(exchange.server.records, SECRET, overlap=60, lead=0)
    await exchange.server.ring.current(refresh=True)
    assert (await exchange.server.ring.signer()).kid == at_once
    new = await tokens_of(exchange)
    for token in (old, new):  # the second worker has not heard of the new key: it looks when it meets one
        reply = await second.http.get("/fhir/Patient/pat1", headers={"Authorization": "Bearer " + token["access_token"]})
        assert reply.status_code == 200


async def test_the_first_key_signs_at_once_whoever_makes_it(module_store: MongoStore) -> None:
    """An operator may rotate before a tenant has given out its first token: there is nothing else that could sign meanwhile."""
    records = MongoRecords(database(module_store.client, f"{module_store.database.name}_first"))
    try:
        kid = await keys.rotate(records, SECRET, overlap=60)
        assert (await keys.KeyRing(records, SECRET, days=30, overlap=60).signer()).kid == kid
    finally:
        await module_store.client.drop_database(f"{module_store.database.name}_first")


async def test_two_workers_that_start_at_once_make_one_key(exchange: Exchange) -> None:
    records = exchange.server.records
    known = max(row["number"] for row in await records.find(KEYS))
    made = {await keys.rotate(records, SECRET, 60, known=known) for _ in range(2)}
    assert len(made) == 1


async def test_answers_may_be_read_by_pages_of_other_origins_also_when_they_are_errors(exchange: Exchange) -> None:
    origin = {"Origin": "https://app.example"}
    for reply in (
        await exchange.http.get(SMART, headers=origin),
        await exchange.http.get("/auth/jwks", headers=origin),
        await exchange.http.post("/auth/token", data={"grant_type": "nonsense"}, headers=origin),
        await exchange.http.post("/auth/token", content=b"\xff", headers=origin),
        await exchange.http.get("/fhir/Patient", headers=origin),
    ):
        assert reply.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in reply.headers
    page = await exchange.http.get("/auth/authorize", headers=origin)
    assert "access-control-allow-origin" not in page.headers


async def test_pages_may_not_be_framed_cached_or_run_scripts(exchange: Exchange) -> None:
    reply = await exchange.http.get("/auth/manage")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src" not in policy
    assert "<script" not in reply.text
    assert reply.headers["cache-control"] == "no-store"
    cookie = reply.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


async def test_over_https_cookies_are_secure_and_bound_to_the_host(module_store: MongoStore, tmp_path: Path) -> None:
    one = await worker(module_store, tmp_path, base_url="https://ehr.example/fhir")
    reply = await one.http.get("/auth/manage")
    cookie = reply.headers["set-cookie"]
    assert cookie.startswith("__Host-exchange-browser=")
    assert "Secure" in cookie
    assert "strict-transport-security" in reply.headers
    assert (await one.http.get(SMART)).json()["token_endpoint"] == "https://ehr.example/auth/token"


async def test_brands_and_style_are_served_where_discovery_points(module_store: MongoStore, tmp_path: Path) -> None:
    bundle = {"resourceType": "Bundle", "type": "collection", "timestamp": "2026-01-01T00:00:00Z", "entry": []}
    (tmp_path / "brands.json").write_text(json.dumps(bundle))
    one = await worker(module_store, tmp_path, brands=str(tmp_path / "brands.json"), brand_identifier="urn:ietf:rfc:3986|https://clinic.example")
    document = (await one.http.get(SMART)).json()
    assert document["user_access_brand_identifier"] == {"system": "urn:ietf:rfc:3986", "value": "https://clinic.example"}
    reply = await one.http.get(urlsplit(document["user_access_brand_bundle"]).path, headers={"Origin": "https://app.example"})
    assert reply.json() == bundle
    assert reply.headers["access-control-allow-origin"] == "*"
    again = await one.http.get("/auth/brands", headers={"If-None-Match": reply.headers["etag"]})
    assert again.status_code == 304
