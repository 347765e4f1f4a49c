"""Two organisations and the exchange itself in one worker, as `main` assembles it, with people, apps and patients of the same ids in each.

`Watch` knows which database every command of a request went to: by PyMongo's monitor and by the lean channel.
"""

import contextlib
import uuid
from collections.abc import AsyncIterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo.monitoring import CommandListener

from conformance.spec import Spec, load_spec
from fhir_server.security import tenants
from fhir_server.security.authserver import clients
from fhir_server.security.authserver.clients import Client
from fhir_server.security.tenants import Tenant
from fhir_server.serving import Loaded, Part, Shared, part_of
from fhir_server.settings import Settings
from fhir_server.store.embedded import Embedded
from fhir_server.store.mongo.lean import Lean
from fhir_server.store.mongo.records import MongoRecords
from fhir_server.store.mongo.store import MongoStore, open_store
from fhir_server.tenancy import Tenancy
from fhir_server.terms import terms_of
from fhir_server.web.app import beside_fhir, build
from tests.security.app import ROOT, SECRET, Exchange, metrics_of, people_and_apps

JSON = "application/fhir+json"
ALL = "system/*.cruds"
CURRENT: ContextVar[str] = ContextVar("tenant", default="")  # whose request this is, as the test knows it


@dataclass
class Watch(CommandListener):
    """(whose request, database) of every command that reached the database while a request was in work."""

    seen: set[tuple[str, str]] = field(default_factory=set)
    count: int = 0

    def started(self, event: Any) -> None:
        """A command."""
        self.note(event.database_name)

    def succeeded(self, event: Any) -> None:
        """Not looked at."""

    def failed(self, event: Any) -> None:
        """Not looked at."""

    def note(self, database: str) -> None:
        """A command went to this database."""
        if CURRENT.get():
            self.count += 1
            self.seen.add((CURRENT.get(), database))


@dataclass
class World:
    """own: the exchange itself; by name the tenants; watch: where their commands went."""

    app: Any
    own: Exchange
    by_name: dict[str, Exchange]
    tenancy: Tenancy
    watch: Watch

    def databases(self) -> dict[str, str]:
        """Whose request -> the one database it may touch."""
        return {name: one.store.database.name for name, one in {"own": self.own, **self.by_name}.items()}


def watched(app: Any, prefixes: dict[str, str]) -> Any:
    """The application, with CURRENT set to whose the request's path says it is."""

    async def call(scope: Any, receive: Any, send: Any) -> None:
        name = next((name for name, prefix in prefixes.items() if scope["path"].startswith(prefix + "/")), "own")
        mark = CURRENT.set(name)
        try:
            await app(scope, receive, send)
        finally:
            CURRENT.reset(mark)

    return call


def exchange_of(app: Any, part: Part, store: MongoStore, root: str) -> Exchange:
    """One organisation, as the other security tests know an exchange."""
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=root)
    server, verifier = part.services.authserver, part.services.verifier
    assert server is not None
    assert verifier is not None
    paths = [route.path for route in beside_fhir(part.services, part.receive_v2, part.desks).routes]  # type: ignore[attr-defined]
    return Exchange(app, server, store, http, verifier, paths, root)


@contextlib.asynccontextmanager
async def world(mongod: Embedded, folder: Path, *names: str, watching: bool = True, **changes: Any) -> AsyncIterator[World]:
    """A worker with these tenants (each name gets an end of its own, so that sessions may share a database server). watching: the commands."""
    watch = Watch()
    settings = Settings(**{"auth": "smart", "secret": SECRET, "data_dir": folder, "rate": 0, **changes})
    own_name = f"own_{uuid.uuid4().hex[:12]}"
    store = await open_store(mongod.uri, name=own_name, transaction_seconds=10, event_listeners=[watch] if watching else [])
    spec = Spec(load_spec().tables)
    loaded = Loaded(settings, spec, terms_of(settings, spec), {})
    called = {name: f"{name}-{uuid.uuid4().hex[:8]}" for name in names}
    with pytest.MonkeyPatch.context() as patch:
        asked = Lean.command

        async def command(lean: Lean, *given: Any, database: str = "") -> Any:
            watch.note(database or lean.database)
            return await asked(lean, *given, database=database)

        if watching:
            patch.setattr(Lean, "command", command)
        shared = Shared(lambda **_: None)
        part = await part_of(loaded, store, shared, metrics_of(folder))
        tenancy = Tenancy(loaded, store, mongod.uri, shared)
        for name in names:
            await tenants.add(MongoRecords(store.database), Tenant(called[name], name))
        app = build(part.services, part.receive_v2, part.desks, tenancy.branches)
        app = watched(app, {name: f"/t/{called[name]}" for name in names}) if watching else app
        async with contextlib.AsyncExitStack() as stack:
            for each in part.background:
                await stack.enter_async_context(each)
            await stack.enter_async_context(tenancy.running())
            opened = {name: tenancy.held[called[name]] for name in names}
            by_name = {}
            for name, one in opened.items():
                its = one.part.services.store.stored  # type: ignore[attr-defined]
                by_name[name] = exchange_of(app, one.part, its, f"{ROOT}/t/{called[name]}")
            yield World(app, exchange_of(app, part, store, ROOT), by_name, tenancy, watch)
        for name in (own_name, *(f"fhir-{one}" for one in called.values())):
            await store.client.drop_database(name)
    await store.close()


async def token_of(exchange: Exchange, scope: str = ALL, client: str = "ehr") -> dict[str, str]:
    """The headers of the organisation's EHR (or its operator), which may do what `scope` says."""
    reply = await exchange.token(grant_type="client_credentials", client_id=client, client_secret=client[0] * 40, scope=scope)
    assert reply.status_code == 200, reply.text
    return {"Authorization": "Bearer " + reply.json()["access_token"], "Content-Type": JSON}


async def admin_of(exchange: Exchange) -> dict[str, str]:
    """The headers of the organisation's administrator."""
    return await token_of(exchange, "system/*.cruds exchange/admin", "operator")


def content(marker: str) -> list[dict[str, Any]]:
    """What each organisation stores: the same ids everywhere, one that is its own, its marker in all."""
    rows: list[dict[str, Any]] = []
    for rid in ("pat1", "pat2", f"only-{marker.lower()}"):
        name = {"family": marker, "given": [marker]}
        identifier = [{"system": "urn:mrn", "value": marker}, {"system": "urn:mrn", "value": f"{marker}-{rid}"}]
        subject = {"reference": f"Patient/{rid}"}
        rows += [
            {"resourceType": "Patient", "id": rid, "name": [name], "identifier": identifier, "birthDate": "1970-02-03"},
            {"resourceType": "Encounter", "id": f"enc-{rid}", "status": "finished", "class": {"code": "AMB", "display": marker}, "subject": subject},
            {
                "resourceType": "Observation",
                "id": f"obs-{rid}",
                "status": "final",
                "code": {"text": marker},
                "subject": subject,
                "valueString": marker,
            },
        ]
    url = f"http://{marker.lower()}.example/CodeSystem/local"
    concept = [{"code": "x", "display": marker}]
    rows.append(
        {"resourceType": "CodeSystem", "id": "local", "url": url, "status": "active", "content": "complete", "concept": concept, "title": marker}
    )
    compose = {"include": [{"system": url}]}
    rows.append({"resourceType": "ValueSet", "id": "local", "url": url.replace("CodeSystem", "ValueSet"), "status": "active", "compose": compose})
    rows.append({"resourceType": "Practitioner", "id": "p1", "name": [{"family": marker}]})
    return rows


async def populate(exchange: Exchange, marker: str) -> None:
    """People, apps and `content`."""
    await people_and_apps(exchange)
    operator = Client("operator", "Operator", "symmetric", (), ("system/*.cruds", "exchange/admin"))
    await clients.add(exchange.server.records, operator, secret="o" * 40)
    headers = await admin_of(exchange)
    for res in content(marker):
        stored = await exchange.http.put(f"/fhir/{res['resourceType']}/{res['id']}", json=res, headers=headers)
        assert stored.status_code == 201, stored.text
