"""A feed process for tests and measurements: an MLLP door over a real store, as main assembles it. `python -m tests.feed.serve URI DATABASE [PORT]`.

Prints the port it listens on, then a line 'bye' when it is told to stop by closing its standard input.
"""

import asyncio
import os
import sys
from datetime import UTC, datetime

import uvloop

from conformance.spec import load_spec
from fhir_server.context import Context, Grant, Right
from fhir_server.feed import worker
from fhir_server.feed.answers import reject
from fhir_server.feed.assembly import open_feed
from fhir_server.feed.intake import Feed, receive
from fhir_server.feed.receipt import Sender
from fhir_server.mllp.listener import Peer, Stored, open_door
from fhir_server.mllp.sender import send_block
from fhir_server.settings import Settings
from fhir_server.sources import load_registry
from fhir_server.store.mongo.inbox import MongoInbox, prepare
from fhir_server.store.mongo.store import MongoStore, open_store
from terminology.service import open_terms


async def feed_on(store: MongoStore, settings: Settings) -> Feed:
    """A feed on a real store, with the gate, the terminology and the index of the exchange."""
    await prepare(store.database)
    spec = load_spec()
    grant = Grant("feed", "feed", (Right("*", frozenset("cruds")),))
    ctx = Context("test", grant, store, spec, open_terms(None, spec=spec), settings, "http://localhost/fhir", "feed", datetime.now(UTC))
    return open_feed(ctx, MongoInbox(store.database, store.place.lean), load_registry(settings.sources))


async def main(uri: str, name: str, port: int) -> None:
    settings = Settings(secret="test", mllp_port=port, sources=os.environ.get("FHIR_SOURCES", ""))
    store = await open_store(uri, name=name, transaction_seconds=10)
    feed = await feed_on(store, settings)

    async def handle(raw: bytes, peer: Peer, stored: Stored) -> bytes | None:
        return await receive(feed, raw, Sender("mllp", peer.address, peer.certificate, "", peer.connection), stored)

    door = await open_door(settings, handle, reject, share_port=port != 0)
    stop = asyncio.Event()
    work = asyncio.create_task(worker.run(feed, stop, door.push, send_block))
    print(door.port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    stop.set()
    await door.close(5.0)
    await work
    await store.close()
    print("bye", flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0))
