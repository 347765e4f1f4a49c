"""Codes and refresh tokens: used once, over all workers; what ends a grant ends all of it. RFC 6749, RFC 7009, RFC 7662, RFC 9700 section 4.14."""

import asyncio

import pytest

from fhir_server.security.authserver import clients, users
from fhir_server.security.authserver.clients import Client
from fhir_server.security.authserver.users import User
from tests.security.app import BACK, BASE, PASSWORD, Exchange, launched, tokens_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def refreshed(exchange: Exchange, token: str, **changes: str) -> tuple[int, dict]:
    reply = await exchange.token(**{"grant_type": "refresh_token", "client_id": "web", "refresh_token": token, **changes})
    return reply.status_code, reply.json()


async def works(exchange: Exchange, token: str) -> bool:
    """True if the access token reads its patient; read on another worker it may take a second."""
    return (await exchange.http.get("/fhir/Patient/pat1", headers={"Authorization": f"Bearer {token}"})).status_code == 200


async def test_a_refresh_token_is_rotated_and_keeps_the_context(exchange: Exchange, second: Exchange) -> None:
    first = await tokens_of(exchange)
    status, answer = await refreshed(second, first["refresh_token"])
    assert status == 200
    assert (answer["patient"], answer["scope"]) == (first["patient"], first["scope"])
    assert answer["refresh_token"] != first["refresh_token"]
    assert await works(exchange, answer["access_token"])


async def test_reuse_of_a_refresh_token_ends_the_family_on_every_worker(exchange: Exchange, second: Exchange) -> None:
    first = await tokens_of(exchange)
    _, answer = await refreshed(exchange, first["refresh_token"])
    assert await works(second, answer["access_token"])
    assert await refreshed(second, first["refresh_token"]) == (
        400,
        {"error": "invalid_grant", "error_description": "the refresh token is unknown, was withdrawn, or was used before"},
    )
    assert (await refreshed(exchange, answer["refresh_token"]))[0] == 400
    assert not await works(second, answer["access_token"])
    await asyncio.sleep(1.1)
    assert not await works(exchange, answer["access_token"])


async def test_of_two_workers_that_get_the_same_refresh_token_one_answers(exchange: Exchange, second: Exchange) -> None:
    first = await tokens_of(exchange)
    answers = await asyncio.gather(*(refreshed(one, first["refresh_token"]) for one in (exchange, second)))
    assert sorted(status for status, _ in answers) in ([200, 400], [400, 400])


async def test_of_many_that_bring_the_same_code_at_most_one_gets_tokens_and_they_end(exchange: Exchange, second: Exchange) -> None:
    browser, verifier = await launched(exchange)
    form = {"grant_type": "authorization_code", "client_id": "web", "code": browser.answer["code"], "redirect_uri": BACK, "code_verifier": verifier}
    replies = await asyncio.gather(*(one.token(**form) for one in (exchange, second) * 4))
    good = [reply.json() for reply in replies if reply.status_code == 200]
    assert len(good) <= 1
    await asyncio.sleep(1.1)
    for answer in good:
        assert not await works(exchange, answer["access_token"])
        assert (await refreshed(exchange, answer["refresh_token"]))[0] == 400


async def test_a_refresh_may_ask_for_less_and_not_for_more(exchange: Exchange) -> None:
    first = await tokens_of(exchange)
    assert (await refreshed(exchange, first["refresh_token"], scope="patient/*.cruds"))[1]["error"] == "invalid_scope"
    status, answer = await refreshed(exchange, first["refresh_token"], scope="patient/Patient.r openid")
    assert (status, answer["scope"]) == (200, "patient/Patient.r openid")


async def test_a_public_client_need_not_name_itself_to_refresh_and_a_confidential_one_must_authenticate(exchange: Exchange) -> None:
    first = await tokens_of(exchange)
    reply = await exchange.token(grant_type="refresh_token", refresh_token=first["refresh_token"])
    assert reply.status_code == 200, reply.text
    portal = await tokens_of(exchange, "portal")
    reply = await exchange.token(grant_type="refresh_token", refresh_token=portal["refresh_token"])
    assert (reply.status_code, reply.json()["error"]) == (401, "invalid_client")
    reply = await exchange.token(grant_type="refresh_token", refresh_token="invented")
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_grant")


async def test_another_client_that_brings_a_refresh_token_ends_it(exchange: Exchange) -> None:
    first = await tokens_of(exchange)
    assert (await refreshed(exchange, first["refresh_token"], client_id="trusted"))[0] == 400
    assert (await refreshed(exchange, first["refresh_token"]))[0] == 400


async def test_online_access_ends_with_the_sign_in(exchange: Exchange) -> None:
    browser, verifier = await launched(exchange, scope="launch/patient patient/*.rs online_access")
    form = {"grant_type": "authorization_code", "client_id": "web", "redirect_uri": BACK, "code_verifier": verifier}
    answer = (await exchange.token(code=browser.answer["code"], **form)).json()
    status, again = await refreshed(exchange, answer["refresh_token"])
    assert status == 200
    await browser.open("/auth/manage")
    assert "Web App" in browser.page.text
    csrf = browser.page.text.rpartition('name="csrf" value="')[2].partition('"')[0]
    await browser.http.post("/auth/manage", data={"csrf": csrf, "act": "signout"})
    status, problem = await refreshed(exchange, again["refresh_token"])
    assert (status, problem["error_description"]) == (400, "the user has signed out")


async def test_the_management_page_withdraws_an_apps_access(exchange: Exchange) -> None:
    browser, verifier = await launched(exchange)
    form = {"grant_type": "authorization_code", "client_id": "web", "redirect_uri": BACK, "code_verifier": verifier}
    answer = (await exchange.token(code=browser.answer["code"], **form)).json()
    await browser.open("/auth/manage")
    while "Withdraw access of Web App" in browser.page.text:
        await browser.submit(act="withdraw")
    assert not await works(exchange, answer["access_token"])
    assert (await refreshed(exchange, answer["refresh_token"]))[0] == 400


async def test_introspection_tells_a_client_of_its_own_tokens_only(exchange: Exchange) -> None:
    own = {"client_id": "portal", "client_secret": "s" * 40}
    answer = await tokens_of(exchange, "portal")
    told = (await exchange.http.post("/auth/introspect", data={"token": answer["access_token"], **own})).json()
    assert told["active"] is True
    assert (told["client_id"], told["patient"], told["scope"], told["iss"], told["fhirUser"]) == (
        "portal",
        "pat1",
        answer["scope"],
        BASE,
        "Practitioner/p1",
    )
    assert (await exchange.http.post("/auth/introspect", data={"token": answer["refresh_token"], **own})).json()["active"] is True
    other = await tokens_of(exchange)
    for token in (other["access_token"], other["refresh_token"], "nonsense", "a.b.c"):
        assert (await exchange.http.post("/auth/introspect", data={"token": token, **own})).json() == {"active": False}


async def test_a_bearer_with_the_introspection_scope_sees_all_tokens_and_others_none(exchange: Exchange) -> None:
    answer = await tokens_of(exchange)
    ehr = await exchange.token(grant_type="client_credentials", client_id="ehr", client_secret="e" * 40, scope="exchange/introspect")
    headers = {"Authorization": "Bearer " + ehr.json()["access_token"]}
    told = (await exchange.http.post("/auth/introspect", data={"token": answer["access_token"]}, headers=headers)).json()
    assert told["client_id"] == "web"
    refused = await exchange.http.post(
        "/auth/introspect", data={"token": answer["access_token"]}, headers={"Authorization": "Bearer " + answer["access_token"]}
    )
    assert refused.status_code == 401
    assert (await exchange.http.post("/auth/introspect", data={"token": answer["access_token"], "client_id": "web"})).status_code == 401


async def test_revocation_ends_an_access_token_or_a_whole_grant(exchange: Exchange) -> None:
    answer = await tokens_of(exchange)
    assert await works(exchange, answer["access_token"])
    await exchange.http.post("/auth/revoke", data={"token": answer["access_token"], "client_id": "trusted"})
    assert await works(exchange, answer["access_token"])  # another client cannot
    reply = await exchange.http.post("/auth/revoke", data={"token": answer["access_token"], "client_id": "web"})
    assert reply.status_code == 200
    assert not await works(exchange, answer["access_token"])
    _, again = await refreshed(exchange, answer["refresh_token"])
    assert await works(exchange, again["access_token"])
    await exchange.http.post("/auth/revoke", data={"token": again["refresh_token"], "client_id": "web", "token_type_hint": "refresh_token"})
    assert not await works(exchange, again["access_token"])
    assert (await refreshed(exchange, again["refresh_token"]))[0] == 400
    assert (await exchange.http.post("/auth/revoke", data={"token": "unknown", "client_id": "web"})).status_code == 200


async def test_disabling_a_client_or_an_account_ends_what_it_has(exchange: Exchange) -> None:
    records = exchange.server.records
    await clients.add(
        records, Client("brief", "Brief", "public", (BACK,), ("launch/patient", "patient/*.rs", "offline_access", "openid", "fhirUser"))
    )
    await users.add(records, User("", "leaver", "Practitioner/p9", "clinician"), PASSWORD)
    mine, theirs = await tokens_of(exchange, "brief"), await tokens_of(exchange)
    assert await works(exchange, mine["access_token"])
    await clients.disable(records, "brief")
    await asyncio.sleep(1.1)
    assert not await works(exchange, mine["access_token"])
    assert (await refreshed(exchange, mine["refresh_token"], client_id="brief"))[1]["error"] == "invalid_client"
    assert await works(exchange, theirs["access_token"])
    await clients.enable(records, "brief")
    assert (await refreshed(exchange, mine["refresh_token"], client_id="brief"))[0] == 200


async def test_wrong_passwords_close_the_account_on_every_worker(exchange: Exchange, second: Exchange) -> None:
    await users.add(exchange.server.records, User("", "guessed", "Practitioner/p8", "clinician"), PASSWORD)
    for number in range(5):
        one = (exchange, second)[number % 2]
        browser = await one.browser().open("/auth/manage")
        await browser.submit(username="guessed", password="wrong" + "x" * number)
        assert browser.page.status_code == 401
    for one in (exchange, second):
        browser = await one.browser().open("/auth/manage")
        await browser.submit(username="Guessed", password=PASSWORD)
        assert browser.page.status_code == 429


async def test_wrong_passwords_at_the_same_moment_are_all_counted(exchange: Exchange) -> None:
    await users.add(exchange.server.records, User("", "rushed", "Practitioner/p7", "clinician"), PASSWORD)

    async def tried(number: int) -> int:
        browser = await exchange.browser().open("/auth/manage")
        await browser.submit(username="rushed", password=f"wrong {number}")
        return browser.page.status_code

    statuses = await asyncio.gather(*(tried(number) for number in range(12)))
    assert statuses.count(401) == 5
    assert statuses.count(429) == 7
