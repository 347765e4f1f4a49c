"""One organisation in one worker: its store behind its doors, its authorization server, its feed, and what runs beside them.

The exchange itself is assembled here, and in the same way every tenant (`tenancy.py`): nothing that a request can reach belongs to two of them but what
`Shared` and the immutable tables hold. DECISIONS.md of `security`, "Tenants".
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from conformance.outcome import refuse
from conformance.spec import Spec
from fhir_server.context import DEFAULT, Context, Grant, Right
from fhir_server.feed import admin, over_http
from fhir_server.feed.assembly import open_feed
from fhir_server.feed.intake import Feed
from fhir_server.interactions.routes import route
from fhir_server.jobs import packages, reindex, seal, terms, trail
from fhir_server.logs import Access
from fhir_server.metrics import Metrics
from fhir_server.operations import TABLE, terminology_desk
from fhir_server.search import custom
from fhir_server.search.shelved import Shelved
from fhir_server.security.authserver.server import AuthServer, open_server
from fhir_server.security.tokens import OPEN_GRANT, Issuer, Own, Revocations, Verifier
from fhir_server.settings import Settings, public_base
from fhir_server.sources import Registry
from fhir_server.store.mongo import inbox as mongo_inbox
from fhir_server.store.mongo.records import MongoRecords
from fhir_server.store.mongo.store import MongoStore
from fhir_server.web.app import Desk, ReceiveV2
from fhir_server.web.door import Authenticate, Services
from fhir_server.web.gate import Buckets, open_grant, smart_grant

SYSTEM = Grant("system", "system", (Right("*", frozenset("cruds")),), internal=True)
SETTLE = timedelta(seconds=15)  # a tenant that gets its first search parameter is opened anew meanwhile, in every worker
Work = AbstractAsyncContextManager[None]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What one organisation's part is made of; that of the exchange itself is read once, before the fork, and shared by all workers.

    own: where `spec` is one that several tenants are served with: the Spec in which this one's packages and search parameters are kept meanwhile.
    """

    settings: Settings
    spec: Any
    terms: Any
    issuers: Mapping[str, Issuer]
    registry: Registry = field(default_factory=Registry)
    own: Spec | None = None

    @property
    def outgrown(self) -> bool:
        """True if a tenant that was served with what all share has packages or search parameters of its own by now."""
        return self.own is not None and bool(self.own.packages or custom.all_of(self.own))


@dataclass(frozen=True, slots=True)
class Shared:
    """What is one for all organisations of a worker: the access log, and the number of requests in work."""

    access: Access
    admitted: list[int] = field(default_factory=lambda: [0])


@dataclass(frozen=True, slots=True)
class Part:
    """One organisation, ready to be served. background: what runs for as long as it is."""

    services: Services
    feed: Feed
    receive_v2: ReceiveV2
    desks: Mapping[str, Desk]
    background: Sequence[Work]


async def part_of(loaded: Loaded, store: MongoStore, shared: Shared, metrics: Metrics, tenant: str = "") -> Part:
    """Assemble it; tenant: its name, '' for the exchange itself. Raises ValueError naming a setting that is wrong, Refusal 503 if the database is away."""
    settings = loaded.settings
    own = await open_server(settings, MongoRecords(store.database), loaded.spec.types, tenant) if settings.auth == "smart" else None
    verifier = verifier_of(loaded, own)
    shelved = Shelved(store, loaded.spec)
    system = _system(loaded, shelved, tenant)
    feed = await _feed(system, store, loaded.registry)
    feed.statistics.observe, feed.statistics.observe_queue = _observers(metrics)
    feed.statistics.observe_last = lambda source, at: metrics.received.labels(source).set(at)
    recorder = trail.Trail(system)
    services = Services(
        settings=settings,
        spec=loaded.spec,
        terms=loaded.terms,
        store=shelved,
        authenticate=authenticator(settings, verifier),
        route=route,
        metrics=metrics,
        access=shared.access,
        authserver=own,
        verifier=verifier,
        record=recorder.note,
        happened=recorder.happened,
        tenant=tenant or DEFAULT,
        senders=loaded.registry,
        prefix=f"/t/{tenant}" if tenant else "",
        admitted=shared.admitted,
    )
    spec = loaded.own or loaded.spec
    guides = packages.begun(spec, None if loaded.own else loaded.terms, store, settings.data_dir / "packages")
    indexer = system if loaded.own is None else replace(system, spec=spec, store=Shelved(store, spec))
    desks = {
        "hl7v2": partial(_desk, feed),
        "terminology": partial(terminology_desk.answer, store.database, loaded.terms),
        "packages": partial(packages.desk, guides),
    }
    shelf = None if tenant else settings.shelf
    background = (
        packages.running(guides),
        reindex.running(indexer, store.database, SETTLE if tenant else reindex.SETTLE),
        terms.running(loaded.terms, store, shelf),
    )
    audited = (seal.running(seal.Sealer(system, store)), trail.running(recorder))
    return Part(services, feed, partial(_hl7v2, feed), desks, (*background, *audited))


def _observers(metrics: Metrics) -> tuple[Callable[[str, str], None], Callable[[str, float], None]]:
    """How the feed's statistics become metrics: (source, what happened), (source, age of its oldest unfinished message)."""

    def observe(source: str, what: str) -> None:
        metrics.messages.labels(source, what).inc()
        if what == "received":
            metrics.received.labels(source).set_to_current_time()

    return observe, lambda source, seconds: metrics.waiting.labels(source).set(seconds)


def _system(loaded: Loaded, store: Shelved, tenant: str) -> Context:
    """The context of what the exchange does on its own: feeds and background work."""
    settings = loaded.settings
    return Context(
        request_id="system",
        grant=SYSTEM,
        store=store,
        spec=loaded.spec,
        terms=loaded.terms,
        settings=settings,
        base=public_base(settings),
        source="system",
        now=datetime.now(UTC),
        tenant=tenant or DEFAULT,
        operations=TABLE,
    )


async def _feed(system: Context, store: MongoStore, registry: Registry) -> Feed:
    await mongo_inbox.prepare(store.database)
    return open_feed(system, mongo_inbox.MongoInbox(store.database, store.place.lean), registry)


async def _hl7v2(feed: Feed, body: bytes, headers: Mapping[str, str], client: str, address: str) -> tuple[bytes, str]:
    return await over_http.hl7v2(feed, body, headers, client="" if client == OPEN_GRANT.client else client, address=address)


async def _desk(feed: Feed, method: str, path: tuple[str, ...], query: Mapping[str, str], body: bytes, who: str) -> Any:
    found = admin.find(method, path)
    if found is None:
        raise refuse("not-found", "the inbox desk has no such path")
    handler, arguments = found
    return await handler(feed, arguments, query, body, who)


def verifier_of(loaded: Loaded, authserver: AuthServer | None) -> Verifier:
    """Tokens of our own authorization server and of the issuer table."""
    own = Own(authserver.place.base, authserver.ring, Revocations(authserver.records)) if authserver else None
    return Verifier(loaded.issuers, loaded.spec.types, own)


def authenticator(settings: Settings, verifier: Verifier) -> Authenticate:
    """Who a request is from, by its headers."""
    if settings.auth == "open":
        return open_grant
    return partial(smart_grant, verify=verifier.grant, buckets=Buckets(settings.rate))
