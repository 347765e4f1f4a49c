"""The only assembly: settings -> tables, store, keys -> HTTP app, MLLP door and background work of one worker process.

`load` runs once, before the fork: it reads what all workers share. `work` runs in each worker: it opens what must not cross a fork
(database connections, event loop) and serves until SIGTERM.
"""

import asyncio
import contextlib
import gc
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from conformance.outcome import refuse
from conformance.shelf import installed
from conformance.spec import load_spec
from fhir_server import logs
from fhir_server.context import Context, Grant, Right
from fhir_server.feed import admin, answers, over_http, worker
from fhir_server.feed.assembly import open_feed
from fhir_server.feed.intake import Feed, receive
from fhir_server.feed.receipt import Sender
from fhir_server.feed.sources import load_registry
from fhir_server.interactions.routes import route
from fhir_server.interactions.validity import check_settings
from fhir_server.jobs import packages, reindex, seal, terms, trail
from fhir_server.jobs.beside import beside
from fhir_server.metrics import open_metrics
from fhir_server.mllp.listener import Peer, Stored, open_door
from fhir_server.mllp.sender import send_block
from fhir_server.operations import TABLE, terminology_desk
from fhir_server.search.shelved import Shelved
from fhir_server.security.authserver.server import AuthServer, open_server
from fhir_server.security.tokens import OPEN_GRANT, Issuer, Own, Revocations, Verifier, read_issuers
from fhir_server.settings import Settings
from fhir_server.store.mongo import inbox as mongo_inbox
from fhir_server.store.mongo.records import MongoRecords
from fhir_server.store.mongo.store import MongoStore, open_store
from fhir_server.terms import terms_of
from fhir_server.web.app import build
from fhir_server.web.door import Authenticate, Services
from fhir_server.web.gate import Buckets, open_grant, smart_grant
from fhir_server.web.http1 import GuardedProtocol

log = logging.getLogger("fhir.main")
KEEP_ALIVE_SECONDS = 75
GRACE_SECONDS = 15
GC_THRESHOLD = (50_000, 20, 50)  # a bundle makes tens of thousands of dicts and no cycles: the default would look at all of them again and again
SYSTEM = Grant("system", "system", (Right("*", frozenset("cruds")),), internal=True)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is read once and shared by all workers: immutable after the fork."""

    settings: Settings
    spec: Any
    terms: Any
    issuers: Mapping[str, Issuer]


def load(settings: Settings) -> Loaded:
    """Read tables, terminology and issuers. Raises ValueError naming the setting that is wrong."""
    senders = {source.name: source.tables for source in load_registry(settings.sources).sources if source.tables}
    spec = load_spec(installed(settings.data_dir / "packages"))
    check_settings(settings, spec.types)
    return Loaded(settings, spec, terms_of(settings, spec, senders), read_issuers(settings.issuers))


def work(loaded: Loaded, uri: str, listener: socket.socket, measured: Path, number: int) -> int:
    """Run one worker until it is told to stop; its exit code. measured: the folder of this server's metrics."""
    gc.set_threshold(*GC_THRESHOLD)
    uvloop.run(_serve(loaded, uri, listener, measured))
    return 0


async def _serve(loaded: Loaded, uri: str, listener: socket.socket, measured: Path) -> None:
    settings = loaded.settings
    store = await open_store(uri, transaction_seconds=settings.transaction_seconds)
    try:
        authserver = await open_server(settings, MongoRecords(store.database), loaded.spec.types) if settings.auth == "smart" else None
        verifier = _verifier(loaded, authserver)
        shelved = Shelved(store, loaded.spec)
        system = _system(loaded, shelved)
        feed = await _feed(system, store)
        recorder = trail.Trail(system)
        metrics = open_metrics(measured)
        feed.statistics.observe = lambda source, what: metrics.messages.labels(source, what).inc()
        services = Services(
            settings=settings,
            spec=loaded.spec,
            terms=loaded.terms,
            store=shelved,
            authenticate=_authenticator(settings, verifier),
            route=route,
            metrics=metrics,
            access=logs.access_log(),
            authserver=authserver,
            verifier=verifier,
            record=recorder.note,
        )
        guides = packages.begun(loaded.spec, loaded.terms, store, settings.data_dir / "packages")
        desks = {
            "hl7v2": partial(_desk, feed),
            "terminology": partial(terminology_desk.answer, store.database, loaded.terms),
            "packages": partial(packages.desk, guides),
        }
        server = uvicorn.Server(_config(settings, build(services, partial(_hl7v2, feed), desks)))
        shelf = settings.data_dir / "terminology"
        background = (packages.running(guides), reindex.running(system, store.database), terms.running(loaded.terms, store, shelf))
        audited = (seal.running(seal.Sealer(system, store.database)), trail.running(recorder))
        async with contextlib.AsyncExitStack() as stack:
            for one in (*background, *audited, _mllp(settings, feed)):
                await stack.enter_async_context(one)
            await server.serve([listener])
    finally:
        await store.close()


def _system(loaded: Loaded, store: Shelved) -> Context:
    """The context of what the exchange does on its own: feeds and background work."""
    settings = loaded.settings
    return Context(
        request_id="system",
        grant=SYSTEM,
        store=store,
        spec=loaded.spec,
        terms=loaded.terms,
        settings=settings,
        base=settings.base_url or f"http://{settings.host}:{settings.port}/fhir",
        source="system",
        now=datetime.now(UTC),
        operations=TABLE,
    )


async def _feed(system: Context, store: MongoStore) -> Feed:
    await mongo_inbox.prepare(store.database)
    return open_feed(system, mongo_inbox.MongoInbox(store.database, store.place.lean), load_registry(system.settings.sources))


@contextlib.asynccontextmanager
async def _mllp(settings: Settings, feed: Feed) -> AsyncIterator[None]:
    """The MLLP door and the feed's background worker, stopped after what is in work is finished."""

    async def handle(block: bytes, peer: Peer, stored: Stored) -> bytes | None:
        return await receive(feed, block, Sender("mllp", peer.address, peer.certificate, connection=peer.connection), stored)

    door = await open_door(settings, handle, answers.reject, share_port=True) if settings.mllp_port >= 0 else None
    stop = asyncio.Event()
    async with beside("the feed", lambda: worker.run(feed, stop, door.push if door else None, send_block), stop):
        try:
            yield
        finally:
            if door:
                await door.close()


async def _hl7v2(feed: Feed, body: bytes, headers: Mapping[str, str], client: str, address: str) -> tuple[bytes, str]:
    return await over_http.hl7v2(feed, body, headers, client="" if client == OPEN_GRANT.client else client, address=address)


async def _desk(feed: Feed, method: str, path: tuple[str, ...], query: Mapping[str, str], body: bytes, who: str) -> Any:
    found = admin.find(method, path)
    if found is None:
        raise refuse("not-found", "the inbox desk has no such path")
    handler, arguments = found
    return await handler(feed, arguments, query, body, who)


def _verifier(loaded: Loaded, authserver: AuthServer | None) -> Verifier:
    """Tokens of our own authorization server and of the issuer table."""
    own = Own(authserver.place.base, authserver.ring, Revocations(authserver.records)) if authserver else None
    return Verifier(loaded.issuers, loaded.spec.types, own)


def _authenticator(settings: Settings, verifier: Verifier) -> Authenticate:
    if settings.auth == "open":
        return open_grant
    return partial(smart_grant, verify=verifier.grant, buckets=Buckets(settings.rate))


def _config(settings: Settings, app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=GuardedProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=True,
        proxy_headers=True,
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ssl_certfile=settings.tls_cert or None,
        ssl_keyfile=settings.tls_key or None,
        ssl_ca_certs=settings.tls_client_ca or None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if settings.tls_client_ca else ssl.CERT_NONE,
    )
