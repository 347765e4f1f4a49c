"""SMART App Launch: standalone and EHR launch, tokens, refresh, identity. https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html"""

import base64
import json
import re
import time
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from fhir_server.security.authserver import scope
from tests.security.app import BACK, BASE, STATE, Exchange, launched, pkce, request_of, tokens_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_standalone_launch_ends_with_a_code_for_the_app_that_asked(exchange: Exchange) -> None:
    browser, verifier = await launched(exchange)
    assert browser.url.startswith(BACK)
    assert browser.answer["state"] == STATE
    assert browser.answer["iss"] == BASE
    reply = await exchange.token(
        grant_type="authorization_code", client_id="web", code=browser.answer["code"], redirect_uri=BACK, code_verifier=verifier
    )
    assert reply.status_code == 200, reply.text
    answer = reply.json()
    assert (answer["patient"], answer["token_type"], answer["fhirUser"], answer["need_patient_banner"]) == ("pat1", "Bearer", "Practitioner/p1", True)
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["pragma"] == "no-cache"
    assert {"access_token", "refresh_token", "id_token", "scope", "expires_in", "smart_style_url"} <= set(answer)


def claims(token: str) -> dict[str, Any]:
    """What a JWT says, unverified."""
    part = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_an_access_token_reads_its_patient_and_no_other(exchange: Exchange) -> None:
    answer = await tokens_of(exchange)
    headers = bearer(answer["access_token"])
    assert (await exchange.http.get("/fhir/Patient/pat1", headers=headers)).status_code == 200
    assert (await exchange.http.get("/fhir/Patient/pat2", headers=headers)).status_code == 404
    found = (await exchange.http.get("/fhir/Patient?_summary=count", headers=headers)).json()
    assert found["total"] == 1


async def test_the_id_token_says_who_signed_in_and_verifies_against_the_published_keys(exchange: Exchange) -> None:
    answer = await tokens_of(exchange, nonce="n-0S6_WzA2Mj")
    keys = KeySet.import_key_set((await exchange.http.get("/auth/jwks")).json())
    told = jwt.decode(answer["id_token"], keys, algorithms=["RS256"]).claims
    assert (told["iss"], told["aud"], told["nonce"]) == (BASE, "web", "n-0S6_WzA2Mj")
    assert told["fhirUser"] == f"{BASE}/Practitioner/p1"
    assert told["exp"] > time.time() > told["auth_time"] - 1


async def test_an_id_token_is_no_access_token(exchange: Exchange) -> None:
    answer = await tokens_of(exchange)
    reply = await exchange.http.get("/fhir/Patient/pat1", headers=bearer(answer["id_token"]))
    assert reply.status_code == 401


async def test_the_user_may_drop_scopes(exchange: Exchange) -> None:
    verifier, challenge = pkce()
    browser = await exchange.browser().authorize(**request_of(challenge, scope="launch/patient patient/Patient.rs patient/Encounter.rs openid"))
    await browser.sign_in()
    await browser.submit(patient="pat1")
    assert "Read and search Encounter records of the chosen patient" in browser.page.text
    await browser.submit(decision="allow", keep0="1", keep1="1")
    reply = await exchange.token(
        grant_type="authorization_code", client_id="web", code=browser.answer["code"], redirect_uri=BACK, code_verifier=verifier
    )
    assert reply.json()["scope"] == "launch/patient patient/Patient.rs"
    assert "id_token" not in reply.json()


async def test_denying_sends_the_app_access_denied(exchange: Exchange) -> None:
    browser = await exchange.browser().authorize(**request_of(pkce()[1]))
    await browser.sign_in()
    await browser.submit(patient="pat1")
    await browser.submit(decision="deny")
    assert (browser.answer["error"], browser.answer["state"], browser.answer["iss"]) == ("access_denied", STATE, BASE)


async def test_authorize_takes_post_forms_too(exchange: Exchange) -> None:
    browser = exchange.browser()
    await browser._arrive(await browser.http.post("/auth/authorize", data=request_of(pkce()[1])))
    assert "<h1>Sign in</h1>" in browser.page.text


async def test_the_encounter_picker_offers_the_patients_own_encounters(exchange: Exchange) -> None:
    verifier, challenge = pkce()
    browser = await exchange.browser().authorize(**request_of(challenge, scope="launch/encounter patient/*.rs"))
    await browser.sign_in()
    await browser.submit(patient="pat2")
    assert 'value="enc2"' in browser.page.text
    assert 'value="enc1"' not in browser.page.text
    await browser.submit(encounter="enc1")  # not this patient's
    assert browser.page.status_code == 400
    await browser.submit(encounter="enc2")
    await browser.allow()
    reply = await exchange.token(
        grant_type="authorization_code", client_id="web", code=browser.answer["code"], redirect_uri=BACK, code_verifier=verifier
    )
    assert (reply.json()["patient"], reply.json()["encounter"]) == ("pat2", "enc2")


async def test_a_patient_is_put_into_context_without_asking_and_sees_only_their_own(exchange: Exchange) -> None:
    browser = await exchange.browser().authorize(**request_of(pkce()[1], scope="launch/patient patient/*.rs user/*.rs"))
    await browser.sign_in("pat")
    assert "Adler" in browser.page.text
    assert "Choose a patient" not in browser.page.text


async def test_the_patient_picker_searches(exchange: Exchange) -> None:
    browser = await exchange.browser().authorize(**request_of(pkce()[1]))
    await browser.sign_in()
    flow_id = re.search(r'name="id" value="([^"]+)"', browser.page.text)
    assert flow_id is not None
    await browser.open("/auth/flow", params={"id": flow_id[1], "q": "berg"})
    assert "Berg" in browser.page.text
    assert "Adler" not in browser.page.text
    await browser.open("/auth/flow", params={"id": flow_id[1], "q": "a,b|c$d\\"})
    assert "No patient was found" in browser.page.text


async def test_a_second_app_needs_no_second_sign_in_unless_it_asks(exchange: Exchange) -> None:
    browser, _ = await launched(exchange)
    await browser.authorize(**request_of(pkce()[1]))
    assert "Choose a patient" in browser.page.text
    await browser.authorize(**request_of(pkce()[1], prompt="login"))
    assert "<h1>Sign in</h1>" in browser.page.text
    await browser.authorize(**request_of(pkce()[1], max_age="0"))
    assert "<h1>Sign in</h1>" in browser.page.text


async def test_prompt_none_answers_the_app_at_once(exchange: Exchange) -> None:
    browser = await exchange.browser().authorize(**request_of(pkce()[1], prompt="none"))
    assert browser.answer["error"] == "login_required"
    browser, _ = await launched(exchange)
    await browser.authorize(**request_of(pkce()[1], prompt="none"))
    assert browser.answer["error"] == "interaction_required"
    await browser.authorize(**request_of(pkce()[1], client_id="trusted", scope="user/Patient.rs openid", prompt="none"))
    assert "code" in browser.answer


async def test_only_administrators_pass_on_administration(exchange: Exchange) -> None:
    plain = await tokens_of(exchange, scope="user/Patient.rs exchange/admin")
    assert plain["scope"] == "user/Patient.rs"
    verifier, challenge = pkce()
    browser = await exchange.browser().authorize(**request_of(challenge, scope="exchange/admin openid"))
    await browser.sign_in("root")
    await browser.allow()
    reply = await exchange.token(
        grant_type="authorization_code", client_id="web", code=browser.answer["code"], redirect_uri=BACK, code_verifier=verifier
    )
    assert reply.json()["scope"] == "exchange/admin openid"


@pytest.mark.parametrize(
    ("asked", "allowed", "expected"),
    [
        ("patient/*.rs", "patient/*.cruds", "patient/*.rs"),
        ("patient/*.read", "patient/*.cruds", "patient/*.read"),
        ("patient/*.*", "patient/*.rs", "patient/*.rs"),
        ("patient/*.cruds", "patient/Observation.rs", "patient/Observation.rs"),
        ("patient/Observation.rs?category=a", "patient/*.rs", "patient/Observation.rs?category=a"),
        ("patient/Observation.rs", "patient/Observation.rs?category=a", "patient/Observation.rs?category=a"),
        ("patient/Observation.rs?category=b", "patient/Observation.rs?category=a", ""),
        ("user/*.rs", "patient/*.cruds", ""),
        ("patient/Observation.sr", "patient/*.cruds", ""),
        ("patient/Observation.", "patient/*.cruds", ""),
        ("openid launch/patient made/up", "openid launch/patient made/up", "openid launch/patient"),
        ("patient/*.r", "patient/Observation.rs patient/*.rs", "patient/*.r"),
        ("exchange/clearance.R", "exchange/clearance.R", "exchange/clearance.R"),
    ],
)
async def test_scopes_are_cut_down_to_what_is_allowed(asked: str, allowed: str, expected: str) -> None:
    assert " ".join(scope.granted(asked.split(), allowed.split())) == expected
