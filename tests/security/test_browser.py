"""The pages in a real browser: headless Chromium signs in, chooses and consents, with mouse and with keyboard alone; axe-core looks for barriers.

Here the browser judges what the pages promise: form-action, cookies, redirects. WCAG 2.2 A and AA by axe-core's rules.
"""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest

from tests.packages import npm_package
from tests.scenarios.running import Server
from tests.security.app import pkce, query_of
from tests.security.running import PASSWORD, App, app_host, smart_server
from tests.security.webdriver import Chromium, chromium

pytestmark = pytest.mark.slow
TAB, ENTER, SPACE, DOWN = "\ue004", "\ue007", " ", "\ue015"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def app() -> Iterator[App]:
    with app_host() as host:
        yield host


@pytest.fixture(scope="module")
def server(app: App, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with smart_server(tmp_path_factory.mktemp("smart"), app) as running:
        yield running


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    with chromium(tmp_path / "profile") as one:
        yield one


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    with tarfile.open(npm_package("axe-core@4.10.3")) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode()


def start(server: Server, app: App, **changes: str) -> tuple[str, str]:
    """(address of an authorization request, verifier)."""
    verifier, challenge = pkce()
    given = {
        "response_type": "code",
        "client_id": "app",
        "redirect_uri": app.back,
        "scope": "launch/patient launch/encounter patient/*.rs openid fhirUser offline_access",
        "state": "s" * 40,
        "aud": server.base,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        **changes,
    }
    return server.base.removesuffix("/fhir") + "/auth/authorize?" + urlencode(given), verifier


def no_barriers(browser: Chromium, axe: str) -> None:
    """axe-core finds nothing on the page that is open."""
    found = browser.script(
        axe
        + "; const done = arguments[arguments.length - 1]; axe.run(document, {runOnly: JSON.parse(arguments[0])}).then(r => done(r.violations.map(v => v.id)))",
        json.dumps(RULES),
    )
    assert found == [], f"{browser.title}: {found}"


def redeemed(server: Server, app: App, verifier: str) -> dict:
    """The tokens for the code that arrived at the app."""
    answer = query_of(app.arrived.get(timeout=20))
    form = {"grant_type": "authorization_code", "client_id": "app", "code": answer["code"], "redirect_uri": app.back, "code_verifier": verifier}
    return dict(httpx.post(server.base.removesuffix("/fhir") + "/auth/token", data=form, timeout=30).json())


def test_a_person_signs_in_chooses_and_consents(server: Server, app: App, browser: Chromium, axe: str) -> None:
    address, verifier = start(server, app)
    browser.go(address)
    assert browser.title == "Sign in - FHIR Exchange"
    no_barriers(browser, axe)
    browser.type("#username", "drdoe")
    browser.type("#password", "wrong password")
    browser.follow("button[type=submit]")
    assert "The user name or the password is wrong." in browser.text
    no_barriers(browser, axe)
    browser.type("#password", PASSWORD)
    browser.follow("button[type=submit]")
    assert browser.title == "Choose a patient - FHIR Exchange"
    no_barriers(browser, axe)
    browser.type("#q", "berg")
    browser.follow("form[role=search] button")
    assert "Adler" not in browser.text
    browser.click("input[value=pat2]")
    browser.follow("form[method=post] button")
    assert browser.title == "Choose an encounter - FHIR Exchange"
    no_barriers(browser, axe)
    browser.click("input[value=enc2]")
    browser.follow("button[type=submit]")
    assert browser.title == "Allow access - FHIR Exchange"
    assert "Growth Chart" in browser.text
    no_barriers(browser, axe)
    browser.click("input[name=keep5]")  # leaves offline_access out
    browser.follow("button[value=allow]")
    assert browser.title == "app"
    answer = redeemed(server, app, verifier)
    assert (answer["patient"], answer["encounter"]) == ("pat2", "enc2")
    assert "refresh_token" not in answer
    reply = httpx.get(f"{server.base}/Patient/pat2", headers={"Authorization": f"Bearer {answer['access_token']}"})
    assert reply.status_code == 200


def test_the_keyboard_alone_is_enough(server: Server, app: App, browser: Chromium) -> None:
    address, verifier = start(server, app, scope="launch/patient patient/*.rs")
    browser.go(address)
    browser.keys("drdoe" + TAB + PASSWORD + ENTER)  # the first field has the focus
    browser.arrive("Choose a patient - FHIR Exchange")
    browser.keys(TAB * 3 + SPACE + ENTER)
    browser.arrive("Allow access - FHIR Exchange")
    browser.keys(TAB * 3 + ENTER)
    browser.arrive("app")
    assert redeemed(server, app, verifier)["patient"] in ("pat1", "pat2")


def test_access_is_withdrawn_on_the_management_page(server: Server, app: App, browser: Chromium, axe: str) -> None:
    address, verifier = start(server, app, scope="launch/patient patient/*.rs offline_access")
    browser.go(address)
    browser.type("#username", "drdoe")
    browser.type("#password", PASSWORD)
    browser.follow("button[type=submit]")
    browser.click("input[value=pat1]")
    browser.follow("form[method=post] button")
    browser.follow("button[value=allow]")
    answer = redeemed(server, app, verifier)
    browser.go(server.base.removesuffix("/fhir") + "/auth/manage")
    no_barriers(browser, axe)
    while browser.find("button[value=withdraw]"):
        browser.follow("button[value=withdraw]")
    assert "No app has access now." in browser.text
    form = {"grant_type": "refresh_token", "client_id": "app", "refresh_token": answer["refresh_token"]}
    assert httpx.post(server.base.removesuffix("/fhir") + "/auth/token", data=form).json()["error"] == "invalid_grant"
    browser.follow("button[value=signout]")
    assert browser.title == "Sign in - FHIR Exchange"
    no_barriers(browser, axe)


def test_a_page_of_another_site_cannot_frame_ours(server: Server, app: App, browser: Chromium) -> None:
    address, _ = start(server, app)
    browser.go(app.back)
    shown = browser.script(
        "const done = arguments[arguments.length - 1]; const f = document.createElement('iframe'); f.src = arguments[0];"
        "f.onload = () => { let seen; try { seen = f.contentDocument ? f.contentDocument.body.innerText : 'blocked' } catch (e) { seen = 'blocked' } done(seen) };"
        "document.body.append(f)",
        address,
    )
    assert "Sign in" not in shown
