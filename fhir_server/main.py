"""The only assembly: settings -> tables, store, keys -> HTTP app, MLLP door and background work of one worker process.

`load` runs once, before the fork: it reads what all workers share. `work` runs in each worker: it opens what must not cross a fork
(database connections, event loop) and serves until SIGTERM.
"""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from conformance.shelf import installed
from conformance.spec import load_spec
from fhir_server import logs
from fhir_server.beside import beside
from fhir_server.feed import answers, later, worker
from fhir_server.feed.intake import Feed, receive
from fhir_server.feed.receipt import Sender
from fhir_server.feed.routing import Astray
from fhir_server.interactions.validity import check_settings
from fhir_server.metrics import Metrics, open_metrics
from fhir_server.mllp.listener import Peer, Stored, open_door
from fhir_server.mllp.sender import send_block
from fhir_server.security.tokens import read_issuers
from fhir_server.serving import Loaded, Shared, part_of
from fhir_server.settings import Settings
from fhir_server.sources import load_registry
from fhir_server.store.mongo.store import open_store
from fhir_server.tenancy import Tenancy
from fhir_server.terms import terms_of
from fhir_server.web.app import build
from fhir_server.web.http1 import GuardedProtocol

log = logging.getLogger("fhir.main")
KEEP_ALIVE_SECONDS = 75
GRACE_SECONDS = 15
GC_THRESHOLD = (50_000, 20, 50)  # a bundle makes tens of thousands of dicts and no cycles: the default would look at all of them again and again
MOST_HEAD = 4096  # bytes of a block that are looked at for whom to answer


def load(settings: Settings) -> Loaded:
    """Read tables, terminology and issuers. Raises ValueError naming the setting that is wrong."""
    registry = load_registry(settings.sources)
    senders = {source.name: source.tables for source in registry.sources if source.tables}
    spec = load_spec(installed(settings.data_dir / "packages"))
    check_settings(settings, spec.types)
    return Loaded(settings, spec, terms_of(settings, spec, senders), read_issuers(settings.issuers), registry)


def work(loaded: Loaded, uri: str, listener: socket.socket, measured: Path, number: int) -> int:
    """Run one worker until it is told to stop; its exit code. measured: the folder of this server's metrics."""
    gc.set_threshold(*GC_THRESHOLD)
    uvloop.run(_serve(loaded, uri, listener, measured))
    return 0


async def _serve(loaded: Loaded, uri: str, listener: socket.socket, measured: Path) -> None:
    settings = loaded.settings
    store = await open_store(uri, transaction_seconds=settings.transaction_seconds)
    try:
        metrics, shared = open_metrics(measured), Shared(logs.access_log())
        one = await part_of(loaded, store, shared, metrics)
        tenancy = Tenancy(loaded, store, uri, shared)
        server = uvicorn.Server(_config(settings, build(one.services, one.receive_v2, one.desks, tenancy.branches)))
        async with contextlib.AsyncExitStack() as stack:
            for each in one.background:
                await stack.enter_async_context(each)
            await stack.enter_async_context(tenancy.running())
            tenancy.push = await stack.enter_async_context(_mllp(settings, one.feed, tenancy, metrics))
            signal.signal(signal.SIGTERM, server.handle_exit)  # uvicorn raises it again when it has stopped: what is open here would not be closed
            await server.serve([listener])
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def _mllp(settings: Settings, feed: Feed, tenancy: Tenancy, metrics: Metrics) -> AsyncIterator[later.Push | None]:
    """The MLLP door and the feed's background worker, stopped after what is in work is finished; the function that sends later answers."""

    async def handle(block: bytes, peer: Peer, stored: Stored) -> bytes | None:
        sender = Sender("mllp", peer.address, peer.certificate, connection=peer.connection)
        try:
            whose = tenancy.feed_for(block, sender) or feed
        except Astray as astray:
            return answers.reject(block[:MOST_HEAD], astray.reason)
        return await receive(whose, block, sender, stored)

    def observe(what: str, number: int) -> None:
        metrics.mllp.labels(what).inc(number)

    door = await open_door(settings, handle, answers.reject, share_port=True, observe=observe) if settings.mllp_port >= 0 else None
    stop = asyncio.Event()
    async with beside("the feed", lambda: worker.run(feed, stop, door.push if door else None, send_block), stop):
        try:
            yield door.push if door else None
        finally:
            if door:
                await door.close()


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
