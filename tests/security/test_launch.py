"""SMART App Launch: standalone and EHR launch, tokens, refresh, identity. https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html"""

import pytest

from tests.security.app import BACK, BASE, STATE, Exchange, launched

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
