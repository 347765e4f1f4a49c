"""EHR launch: the EHR creates a context, the app takes it over. https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#launch-app-ehr-launch"""

from typing import Any

import httpx
import pytest

from tests.security.app import BACK, Exchange, launched, pkce, request_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
SCOPE = "launch patient/*.rs openid fhirUser"


async def created(exchange: Exchange, scope: str = "exchange/launch", **body: Any) -> httpx.Response:
    """The EHR's own client makes a launch context."""
    reply = await exchange.token(grant_type="client_credentials", client_id="ehr", client_secret="e" * 40, scope=scope)
    headers = {"Authorization": "Bearer " + reply.json()["access_token"]}
    return await exchange.http.post("/auth/launch", json=body, headers=headers)


async def test_the_context_that_the_ehr_made_arrives_with_the_token(exchange: Exchange) -> None:
    context = [{"reference": "ImagingStudy/1"}]
    made = await created(
        exchange, client_id="web", patient="pat1", encounter="enc1", need_patient_banner=False, intent="reconcile", fhirContext=context
    )
    assert made.status_code == 201, made.text
    browser, verifier = await launched(exchange, scope=SCOPE, launch=made.json()["launch"])
    reply = await exchange.token(
        grant_type="authorization_code", client_id="web", code=browser.answer["code"], redirect_uri=BACK, code_verifier=verifier
    )
    answer = reply.json()
    assert (answer["patient"], answer["encounter"], answer["need_patient_banner"], answer["intent"]) == ("pat1", "enc1", False, "reconcile")
    assert answer["fhirContext"] == context
    style = await exchange.http.get(answer["smart_style_url"])
    assert style.json()["color_background"].startswith("#")


async def test_a_launch_is_one_apps_and_its_first_users(exchange: Exchange) -> None:
    value = (await created(exchange, client_id="web", patient="pat1")).json()["launch"]
    browser = await exchange.browser().authorize(**request_of(pkce()[1], client_id="trusted", scope=SCOPE, launch=value))
    assert browser.answer["error"] == "invalid_request"
    browser, _ = await launched(exchange, scope=SCOPE, launch=value)
    assert "code" in browser.answer
    other = await exchange.browser().authorize(**request_of(pkce()[1], scope=SCOPE, launch=value))
    await other.sign_in("pat")
    assert other.answer["error"] == "access_denied"


async def test_a_launch_for_a_named_user_is_refused_to_another(exchange: Exchange) -> None:
    value = (await created(exchange, client_id="web", patient="pat1", user="pat")).json()["launch"]
    browser = await exchange.browser().authorize(**request_of(pkce()[1], scope=SCOPE, launch=value))
    await browser.sign_in("drdoe")
    assert browser.answer["error"] == "access_denied"


@pytest.mark.parametrize(
    ("user", "body"),
    [
        ("pat", {"patient": "pat2"}),  # not their own
        ("drdoe", {"patient": "nobody"}),
        ("drdoe", {"patient": "pat1", "encounter": "enc2"}),  # another patient's
    ],
)
async def test_a_launch_into_what_the_user_may_not_open_is_refused(exchange: Exchange, user: str, body: dict[str, str]) -> None:
    value = (await created(exchange, client_id="web", **body)).json()["launch"]
    browser = await exchange.browser().authorize(**request_of(pkce()[1], scope=SCOPE, launch=value))
    await browser.sign_in(user)
    assert browser.answer["error"] == "access_denied"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"client_id": "nobody"},
        {"client_id": "ehr"},
        {"client_id": 7},
        {"client_id": "web", "patient": "../etc"},
        {"client_id": "web", "patient": ["pat1"]},
        {"client_id": "web", "encounter": "enc1"},
        {"client_id": "web", "unknown": 1},
        {"client_id": "web", "need_patient_banner": "yes"},
        {"client_id": "web", "fhirContext": ["ImagingStudy/1"]},
        {"client_id": "web", "fhirContext": [{"reference": "Patient/1"}]},
        {"client_id": "web", "intent": "x" * 600},
        {"client_id": "web", "smart_style_url": "javascript:alert(1)"},
    ],
)
async def test_a_bad_launch_context_is_an_operation_outcome(exchange: Exchange, body: dict[str, Any]) -> None:
    reply = await created(exchange, **body)
    assert reply.status_code == 400
    assert reply.json()["resourceType"] == "OperationOutcome"


async def test_only_a_client_with_the_scope_creates_launches(exchange: Exchange) -> None:
    assert (await created(exchange, "system/*.cruds", client_id="web")).status_code == 403
    assert (await exchange.http.post("/auth/launch", json={"client_id": "web"})).status_code == 401
    assert (await exchange.http.post("/auth/launch", json={"client_id": "web"}, headers={"Authorization": "Bearer x.y.z"})).status_code == 401
