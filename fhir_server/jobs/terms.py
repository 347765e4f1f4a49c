"""What each worker does for terminology beside serving: take up new releases, share the shelf of the cluster, keep the counts of unknown codes."""

import asyncio
import contextlib
import fcntl
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from conformance.outcome import Refusal
from fhir_server.store.mongo import shelf, unknown_codes
from fhir_server.store.mongo.client import Database
from terminology.service import Terms

log = logging.getLogger("fhir.terms")
EVERY = 2.0  # seconds between looks at the database
MAX_WAITING = 50_000
Counts = dict[unknown_codes.Key, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Keeper:
    """One process's part. waiting: counts that could not be written yet."""

    terms: Terms
    database: Database
    folder: Path
    waiting: Counts


@contextlib.asynccontextmanager
async def running(terms: Terms, database: Database, folder: Path) -> AsyncIterator[None]:
    """What each worker process holds while it serves."""
    keeper = Keeper(terms, database, folder, {})
    await unknown_codes.prepare(database)
    task = asyncio.create_task(serve(keeper))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        with contextlib.suppress(Refusal):  # the database went first: the last counts go with it
            await keep(keeper)


async def serve(keeper: Keeper) -> None:
    """Run until cancelled."""
    while True:
        try:
            await keep(keeper)
            await share(keeper)
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


async def share(keeper: Keeper) -> None:
    """One process of a server at a time brings its shelf to what is in force in the cluster."""
    with _alone(keeper.folder) as mine:
        if mine:
            for name in await shelf.fetch(keeper.database, keeper.folder):
                log.info("terminology fetched", extra={"fields": {"name": name}})


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
