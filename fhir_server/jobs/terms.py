"""What each worker does for terminology beside serving: take up new releases and stored maps, share the shelf of the cluster, keep the counts of unknown codes."""

import asyncio
import contextlib
import fcntl
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from conformance.outcome import Refusal
from fhir_server.beside import beside
from fhir_server.query.clauses import EVERYTHING
from fhir_server.store.mongo import shelf, unknown_codes
from fhir_server.store.mongo.client import Database
from fhir_server.store.mongo.store import MongoStore
from terminology.service import Terms

log = logging.getLogger("fhir.terms")
EVERY = 2.0  # seconds between looks at the database
MAX_WAITING = 50_000
Counts = dict[unknown_codes.Key, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Keeper:
    """One process's part. folder: the shelf to keep as the cluster has it, None where that is not this tenant's work; waiting: counts that could not be written yet; newest: the latest version of a stored ConceptMap that was taken up."""

    terms: Terms
    store: MongoStore
    folder: Path | None
    waiting: Counts = field(default_factory=dict)
    newest: list[tuple[str, int]] = field(default_factory=list)

    @property
    def database(self) -> Database:
        """Where it is kept."""
        return self.store.database


@contextlib.asynccontextmanager
async def running(terms: Terms, store: MongoStore, folder: Path | None) -> AsyncIterator[None]:
    """What each worker process holds while it serves; stored concept maps are known before the first request.

    Until the shelf of the cluster is here, `terms.awaited` says what is missing: the server is not ready.
    """
    keeper = Keeper(terms, store, folder)
    await unknown_codes.prepare(store.database)
    terms.awaited[:] = await shelf.awaited(store.database, folder) if folder is not None else []
    await take_maps(keeper)
    try:
        async with beside("terminology", lambda: serve(keeper)):
            yield
    finally:
        with contextlib.suppress(Refusal):  # the database went first: the last counts go with it
            await keep(keeper)


async def serve(keeper: Keeper) -> None:
    """Run until cancelled."""
    while True:
        try:
            await keep(keeper)
            await take_maps(keeper)
            if keeper.folder is not None:
                await share(keeper, keeper.folder)
                await arrive(keeper, keeper.folder)
        except Refusal as refusal:
            log.warning("terminology waits: %s", refusal)
        except OSError as error:
            log.error("terminology cannot be written: %s", error.strerror)
        keeper.terms.refresh()
        await asyncio.sleep(EVERY)


async def keep(keeper: Keeper) -> None:
    """Write the counts of unknown codes; what cannot be written now is added to what comes."""
    for key, (count, display) in keeper.terms.take_unknown().items():
        before, name = keeper.waiting.get(key, (0, ""))
        if before or len(keeper.waiting) < MAX_WAITING:
            keeper.waiting[key] = (before + count, name or display)
    if keeper.waiting:
        await unknown_codes.add(keeper.database, keeper.waiting, datetime.now(UTC))
        keeper.waiting.clear()


async def take_maps(keeper: Keeper) -> None:
    """Where the policy translates local codes: the active ConceptMaps that were stored over REST, as soon as one of them has changed."""
    if not keeper.terms.policy.translating:
        return
    newest = [(each.rid, each.vid) for each in await keeper.store.history("ConceptMap", None, limit=1)]
    if newest == keeper.newest:
        return
    found = [each.res async for each in keeper.store.export("ConceptMap", EVERYTHING) if each.res is not None]
    keeper.terms.use_maps([res for res in found if res.get("status") == "active"])
    keeper.newest[:] = newest


async def share(keeper: Keeper, folder: Path) -> None:
    """One process of a server at a time brings its shelf to what is in force in the cluster."""
    with _alone(folder) as mine:
        if mine:
            for name in await shelf.fetch(keeper.database, folder):
                log.info("terminology fetched", extra={"fields": {"name": name}})


async def arrive(keeper: Keeper, folder: Path) -> None:
    """Once the shelf that was awaited is here, whichever process brought it, and taken up by this one, nothing is awaited any more."""
    if keeper.terms.awaited:
        left = await shelf.awaited(keeper.database, folder)
        keeper.terms.refresh(at_once=True)
        keeper.terms.awaited[:] = left


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "share.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
