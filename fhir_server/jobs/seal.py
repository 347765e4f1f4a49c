"""Sealing the audit trail: a leased job chains AuditEvents by keyed hashes after they were committed; `check` finds what was changed since.

No writer waits for the chain: the job reads in commit order what became final and appends a block of digests. The key is the exchange's secret,
which is not in the database: who can write there cannot make a chain that checks. The number and hash of the newest block are also kept in
`audit.head` in the data directory, so that cutting off the end is noticed.
"""

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import os
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from conformance.outcome import Refusal
from fhir_server.beside import beside
from fhir_server.context import Context
from fhir_server.query.clauses import Clause
from fhir_server.search.keys import token_clause
from fhir_server.security.audit import MADE, RTYPE, TAGS
from fhir_server.store.mongo import seals
from fhir_server.store.mongo.client import Database
from fhir_server.store.mongo.document import decoded
from fhir_server.store.mongo.store import MongoStore
from fhir_server.store.mongo.verify import Fault

log = logging.getLogger("fhir.seal")
EVERY, LEASE = 2.0, timedelta(seconds=8)
BLOCK = 500
MOST_AGED = 20  # blocks removed at once
FIRST = "0" * 64
HEAD = "audit.head"


@dataclass(slots=True)
class Sealer:
    """One process's part. ctx acts for the exchange."""

    ctx: Context
    store: MongoStore
    owner: str = field(default_factory=lambda: f"{os.getpid()}-{uuid.uuid4().hex[:8]}")

    @property
    def database(self) -> Database:
        """Where the seals are."""
        return self.store.database


@contextlib.asynccontextmanager
async def running(sealer: Sealer) -> AsyncIterator[None]:
    """What each worker holds while it serves."""
    async with beside("sealing", lambda: _serve(sealer)):
        yield
    with contextlib.suppress(Refusal):  # the lease then runs out by itself
        await seals.release(sealer.database, sealer.owner)


async def _serve(sealer: Sealer) -> None:
    while True:
        try:
            if await seals.lease(sealer.database, sealer.owner, datetime.now(UTC), LEASE):
                await seal(sealer)
                await age(sealer)
        except Refusal as refusal:  # the database is away: it is tried again
            log.warning("sealing waits: %s", refusal.status)
        await asyncio.sleep(EVERY)


async def seal(sealer: Sealer) -> int:
    """Append blocks until nothing is left to seal or the lease runs out; the number of events sealed."""
    sealed = 0
    while True:
        before = await seals.last(sealer.database)
        after = tuple(before["until"]) if before else ()
        found = await seals.unsealed(sealer.store, RTYPE, _made_here(sealer.ctx), after, BLOCK)
        if not found:
            return sealed
        events = [[event.rid, digest(event.data)] for event in found]
        number, prev = (before["_id"] + 1, before["hash"]) if before else (1, FIRST)
        block: seals.Row = {
            "_id": number,
            "prev": prev,
            "hash": _hash(sealer.ctx, number, prev, events),
            "events": events,
            "key": _key_id(sealer.ctx),
        }
        until = found[-1].position
        block |= {"of": BYTES, "until": list(until), "newest": until[0], "gone": False}
        if not await seals.add(sealer.database, block):
            return sealed
        await asyncio.to_thread(_keep_head, sealer.ctx.settings.data_dir, number, block["hash"])
        sealed += len(events)
        if not await seals.lease(sealer.database, sealer.owner, datetime.now(UTC), LEASE):
            return sealed


async def age(sealer: Sealer) -> None:
    """Remove the events of blocks that are older than FHIR_AUDIT_DAYS."""
    days = sealer.ctx.settings.audit_days
    if days > 0:
        for block in await seals.aged(sealer.database, datetime.now(UTC) - timedelta(days=days), MOST_AGED):
            await seals.remove(sealer.database, RTYPE, block)


def _made_here(ctx: Context) -> Clause:
    """The AuditEvents of this exchange, not what a client sent."""
    return token_clause(ctx.spec, RTYPE, "_tag", TAGS, MADE)


def digest(data: bytes) -> str:
    """SHA-256 of the content, byte for byte as it is stored."""
    return hashlib.sha256(data).hexdigest()


def digest_of_members(data: bytes) -> str:
    """SHA-256 of the content as JSON, members in the order of their names: in blocks that do not say `of`."""
    return hashlib.sha256(json.dumps(decoded(data), sort_keys=True, separators=(",", ":"), default=str).encode()).hexdigest()


BYTES = "bytes"
DIGESTS = {BYTES: digest, "": digest_of_members}


def _hash(ctx: Context, number: int, prev: str, events: list[list[str]]) -> str:
    text = json.dumps([number, prev, events], separators=(",", ":"))
    return hmac.new(f"audit:{ctx.settings.secret}".encode(), text.encode(), hashlib.sha256).hexdigest()


def _key_id(ctx: Context) -> str:
    """Which secret it was sealed with, without telling it."""
    return hmac.new(f"audit:{ctx.settings.secret}".encode(), b"key", hashlib.sha256).hexdigest()[:16]


def _keep_head(folder: Path, number: int, text: str) -> None:
    """Replace the note of the newest block, whole or not at all."""
    if folder.is_dir():
        fresh = folder / f"{HEAD}.{os.getpid()}"
        fresh.write_text(f"{number} {text}\n", encoding="ascii")
        fresh.replace(folder / HEAD)


async def check(ctx: Context, database: Database) -> AsyncIterator[Fault]:
    """What does not agree with the seals: a broken chain, events changed, removed or slipped in, an end cut off."""
    prev, number, newest = FIRST, 0, None
    sealed: set[str] = set()
    told = False
    hashes: dict[int, str] = {}
    async for block in seals.blocks(database):
        foreign = block["key"] != _key_id(ctx)
        if foreign and not told:
            told = True
            yield Fault("audit trail", "was sealed with another secret than FHIR_SECRET or the file `secret` of the data directory")
        hashed = foreign or block["hash"] == _hash(ctx, block["_id"], block["prev"], block["events"])
        if block["_id"] != number + 1 or block["prev"] != prev or not hashed:
            yield Fault(f"audit block {block['_id']}", "does not continue the chain")
        number, prev, newest = block["_id"], block["hash"], block["newest"]
        hashes[number] = prev
        sealed |= {rid for rid, _ in block["events"]}
        if not block["gone"]:
            async for fault in _changed(database, block["events"], DIGESTS[block.get("of", "")]):
                yield fault
    head = _head(ctx.settings.data_dir)
    if head is not None and hashes.get(head[0]) != head[1]:
        yield Fault(f"audit block {head[0]}", "was sealed, and is missing or another now")
    if newest is not None:
        async for row in ctx.store.export(RTYPE, _made_here(ctx)):
            if row.at < newest and row.rid not in sealed:
                yield Fault(f"{RTYPE}/{row.rid}", "is in no block of the seals")


async def _changed(database: Database, events: list[list[str]], digest_of: Callable[[bytes], str]) -> AsyncIterator[Fault]:
    found = await seals.by_id(database, RTYPE, [rid for rid, _ in events])
    for rid, wanted in events:
        if rid not in found:
            yield Fault(f"{RTYPE}/{rid}", "is sealed, but not there")
        elif digest_of(found[rid]) != wanted:
            yield Fault(f"{RTYPE}/{rid}", "is not what was sealed")


def _head(folder: Path) -> tuple[int, str] | None:
    try:
        number, text = (folder / HEAD).read_text(encoding="ascii").split()
    except FileNotFoundError:
        return None
    return int(number), text
