"""A whole exchange in smart mode in this process, on a real database: what a worker serves, without the socket."""

import base64
import hashlib
import html
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from conformance.spec import load_spec
from fhir_server.interactions.routes import route
from fhir_server.metrics import Metrics, open_metrics
from fhir_server.security.authserver import clients, users
from fhir_server.security.authserver.clients import Client
from fhir_server.security.authserver.server import AuthServer, open_server
from fhir_server.security.authserver.users import User
from fhir_server.security.occurrences import Occurrence
from fhir_server.security.tokens import Verifier
from fhir_server.serving import Loaded, authenticator, verifier_of
from fhir_server.settings import Settings
from fhir_server.store.mongo.records import MongoRecords
from fhir_server.store.mongo.store import MongoStore
from fhir_server.web.app import beside_fhir, build
from fhir_server.web.door import Services

ROOT = "http://127.0.0.1:8080"
BASE = ROOT + "/fhir"
SECRET = "test-secret-test-secret-test-secret-test-secret"
BACK = "https://app.example/back"
PASSWORD = "correct horse battery"
STATE = "state-state-state-state-state-state"
_metrics: list[Metrics] = []


def metrics_of(folder: Path) -> Metrics:
    """One registry for the process."""
    if not _metrics:
        _metrics.append(open_metrics(folder))
    return _metrics[0]


@dataclass
class Exchange:
    """One worker: its application, its authorization server, and a browser-less client."""

    app: Any
    server: AuthServer
    store: MongoStore
    http: httpx.AsyncClient
    verifier: Verifier
    paths: list[str]
    root: str = ROOT
    noted: list[Occurrence] = field(default_factory=list)  # what went into the audit trail beside accesses

    def browser(self) -> "Browser":
        """A fresh browser without cookies."""
        return Browser(httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url=self.root))

    async def token(self, **form: str) -> httpx.Response:
        """POST to the token endpoint."""
        return await self.http.post("/auth/token", data=form)


async def worker(store: MongoStore, folder: Path, **changes: Any) -> Exchange:
    """A worker on this store; several may share it."""
    settings = Settings(**{"auth": "smart", "secret": SECRET, "data_dir": folder, "rate": 0, **changes})
    spec = load_spec()
    opened = await open_server(settings, MongoRecords(store.database), spec.types)
    server = opened if settings.auth == "smart" else None
    verifier = verifier_of(Loaded(settings, spec, None, {}), server)
    noted: list[Occurrence] = []
    services = Services(
        happened=noted.append,
        settings=settings,
        spec=spec,
        terms=None,
        store=store,
        authenticate=authenticator(settings, verifier),
        route=route,
        metrics=metrics_of(folder),
        access=lambda **_: None,
        authserver=server,
        verifier=verifier,
    )

    async def receive_v2(body: bytes, headers: Mapping[str, str], client: str, address: str) -> tuple[bytes, str]:
        return b"MSA", "text/plain"

    async def desk(method: str, path: tuple[str, ...], query: Mapping[str, str], body: bytes, who: str) -> Any:
        return {}

    desks = {"hl7v2": desk}
    app = build(services, receive_v2, desks)
    paths = [route.path for route in beside_fhir(services, receive_v2, desks).routes]  # type: ignore[attr-defined]
    return Exchange(app, opened, store, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ROOT), verifier, paths, noted=noted)


async def people_and_apps(exchange: Exchange) -> None:
    """What most tests need: a clinician, a patient, an admin; a public, a symmetric and a trusted app."""
    records = exchange.server.records
    await users.add(records, User("", "drdoe", "Practitioner/p1", "clinician", "Dr Doe"), PASSWORD)
    await users.add(records, User("", "pat", "Patient/pat1", "patient"), PASSWORD)
    await users.add(records, User("", "root", "", "admin"), PASSWORD)
    scopes = ("openid", "fhirUser", "launch", "launch/patient", "launch/encounter", "offline_access", "online_access", "exchange/admin")
    scopes += ("patient/*.cruds", "user/*.cruds")
    await clients.add(records, Client("web", "Web App", "public", (BACK,), scopes))
    await clients.add(records, Client("trusted", "Own App", "public", (BACK,), scopes, trusted=True))
    await clients.add(records, Client("portal", "Portal", "symmetric", (BACK,), scopes), secret="s" * 40)
    await clients.add(records, Client("ehr", "EHR", "symmetric", (), ("exchange/launch", "exchange/introspect", "system/*.cruds")), secret="e" * 40)


def pkce() -> tuple[str, str]:
    """(verifier, challenge)."""
    verifier = secrets.token_urlsafe(48)
    return verifier, base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def request_of(challenge: str, **changes: Any) -> dict[str, str]:
    """The parameters of a good authorization request; None removes one."""
    given: dict[str, Any] = {
        "response_type": "code",
        "client_id": "web",
        "redirect_uri": BACK,
        "scope": "launch/patient patient/*.rs openid fhirUser offline_access",
        "state": STATE,
        "aud": BASE,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    given.update(changes)
    return {name: value for name, value in given.items() if value is not None}


def query_of(location: str) -> dict[str, str]:
    """The answer in a redirect."""
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


@dataclass
class Browser:
    """A person at a browser: follows redirects below /auth, fills in forms, stops where the app is reached."""

    http: httpx.AsyncClient
    page: httpx.Response = field(default_factory=lambda: httpx.Response(200))
    url: str = ""

    async def open(self, url: str, **options: Any) -> "Browser":
        """Go there."""
        return await self._arrive(await self.http.get(url, **options))

    async def authorize(self, **request: str) -> "Browser":
        """Send an authorization request by GET."""
        return await self.open("/auth/authorize", params=request)

    async def submit(self, **fields: str) -> "Browser":
        """Send the page's POST form with its hidden fields and `fields`."""
        form = self.page.text[self.page.text.index('<form method="post"') :]
        hidden = {html.unescape(name): html.unescape(value) for name, value in re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', form)}
        target = re.search(r'action="([^"]+)"', form)
        assert target is not None
        return await self._arrive(await self.http.post("/auth/" + target[1], data={**hidden, **fields}))

    async def _arrive(self, page: httpx.Response) -> "Browser":
        while page.status_code == 303 and not page.headers["location"].startswith(("http", "com.")):
            page = await self.http.get("/auth/" + page.headers["location"])
        self.page, self.url = page, page.headers.get("location", "")
        return self

    async def sign_in(self, name: str = "drdoe", password: str = PASSWORD) -> "Browser":
        """Fill in the sign-in form."""
        return await self.submit(username=name, password=password)

    async def allow(self) -> "Browser":
        """Consent to what is ticked."""
        ticked = re.findall(r'name="(keep\d+)"', self.page.text)
        return await self.submit(decision="allow", **dict.fromkeys(ticked, "1"))

    @property
    def answer(self) -> dict[str, str]:
        """What the app received."""
        return query_of(self.url)


async def launched(exchange: Exchange, client: str = "web", patient: str = "pat1", **changes: Any) -> tuple[Browser, str]:
    """(browser at the app with a code, verifier): the whole standalone launch of a clinician."""
    verifier, challenge = pkce()
    changes = {"aud": exchange.root + "/fhir", **changes}
    browser = await exchange.browser().authorize(**request_of(challenge, client_id=client, **changes))
    await browser.sign_in()
    if "Choose a patient" in browser.page.text:
        await browser.submit(patient=patient)
    if "Choose an encounter" in browser.page.text:
        await browser.submit(encounter="none")
    if "access?" in browser.page.text:
        await browser.allow()
    return browser, verifier


async def tokens_of(exchange: Exchange, client: str = "web", **changes: Any) -> dict[str, Any]:
    """The token response of a whole standalone launch."""
    browser, verifier = await launched(exchange, client, **changes)
    form = {"client_secret": "s" * 40} if client == "portal" else {}
    reply = await exchange.token(
        grant_type="authorization_code", client_id=client, code=browser.answer["code"], redirect_uri=BACK, code_verifier=verifier, **form
    )
    assert reply.status_code == 200, reply.text
    return dict(reply.json())
