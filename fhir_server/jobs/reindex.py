"""Index all resources for new search parameters: a leased, resumable job, and the loop that keeps each process's parameters current.

A definition passes through: noted (every process writes for it within SETTLE), indexed (this job, block by block, type by type), ready (queries may use it).
The place reached is kept with every block, so another process goes on there when the lease runs out. https://hl7.org/fhir/R4/searchparameter.html
"""

import asyncio
import contextlib
import logging
import os
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from conformance.outcome import Refusal
from conformance.spec import Param
from fhir_server.beside import beside
from fhir_server.context import Context
from fhir_server.interactions.indexing import index_of
from fhir_server.search import custom
from fhir_server.store.mongo import reindexing
from fhir_server.store.mongo.client import Database

log = logging.getLogger("fhir.reindex")
EVERY = 2.0  # seconds between looks at the store
SETTLE = timedelta(seconds=3 * EVERY)
LEASE = timedelta(seconds=30)
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reindexer:
    """One process's part: ctx acts for the system; `settle`: how long a new definition waits until every process writes for it."""

    ctx: Context
    database: Database
    settle: timedelta = SETTLE
    owner: str = field(default_factory=lambda: f"{os.getpid()}-{uuid.uuid4().hex[:8]}")


@contextlib.asynccontextmanager
async def running(ctx: Context, database: Database, settle: timedelta = SETTLE) -> AsyncIterator[None]:
    """What each worker process holds while it serves: its custom parameters known before the first request, jobs done in the background."""
    job = Reindexer(ctx, database, settle)
    await refresh(job)
    async with beside("reindexing", lambda: serve(job)):
        yield


async def serve(job: Reindexer) -> None:
    """Run until cancelled."""
    while True:
        try:
            await refresh(job)
            await work(job)
        except Refusal as refusal:  # the database is away: it is tried again
            log.warning("reindexing waits: %s", refusal.status)
        await asyncio.sleep(EVERY)


async def refresh(job: Reindexer) -> None:
    """Make this process know what the store has. A definition whose resource is gone or not active is forgotten; those of packages are noted."""
    rows = await reindexing.rows(job.database)
    packaged = custom.of_packages(job.ctx.spec)
    rows += await _noted(job, {url: params for url, params in packaged.items() if all(row["_id"] != url for row in rows)})
    known = await job.ctx.store.get_many([("SearchParameter", row["rid"]) for row in rows])
    customs: list[custom.Custom] = []
    for row in rows:
        held = known.get(("SearchParameter", row["rid"]))
        if row["_id"] not in packaged and (held is None or held.res is None or held.res.get("status") != "active"):
            await reindexing.forget(job.database, row["_id"])
        elif row["state"] in ("indexing", "ready"):
            customs += [custom.Custom(param, param.base[0], row["state"] == "ready") for param in custom.params_of(row)]
    custom.install(job.ctx.spec, customs)


async def _noted(job: Reindexer, packaged: Mapping[str, list[Param]]) -> list[Row]:
    """Rows for the parameters of newly installed packages; ready at once where no resource of their types is stored."""
    stored = await job.ctx.store.types() if packaged else frozenset()
    now = datetime.now(UTC)
    now = now.replace(microsecond=now.microsecond // 1000 * 1000)
    made = []
    for params in packaged.values():
        state = "indexing" if any(param.base[0] in stored for param in params) else "ready"
        made.append(custom.row_of("", params, now, state))
        await reindexing.begin(job.database, made[-1])
    return made


async def work(job: Reindexer) -> None:
    """Do every job that is free."""
    while True:
        now = datetime.now(UTC)
        row = await reindexing.claim(job.database, job.owner, now, LEASE, now - job.settle)
        if row is None:
            return
        await index(job, row)
        await refresh(job)


async def index(job: Reindexer, row: Row) -> None:
    """All types of one definition from the place reached; stops where the lease is lost."""
    ctx = replace(job.ctx, now=datetime.now(UTC))
    rtypes = [rtype for rtype, _ in row["expressions"]]
    stored = await ctx.store.types()
    total = await reindexing.size(job.database, [one for one in rtypes if one in stored])
    done, (rtype, after) = int(row["done"]), row["place"]
    for one in rtypes[rtypes.index(rtype) :]:
        while one in stored:
            count, after = await reindexing.rewrite(job.database, one, after, lambda res: index_of(ctx, res))
            done += count
            changes = {"done": done, "total": max(total, done), "place": [one, after], "until": datetime.now(UTC) + LEASE}
            if not await reindexing.note(job.database, row, job.owner, changes):
                return
            if not after:
                break
        after = ""
    await reindexing.note(job.database, row, job.owner, {"state": "ready", "done": done, "total": done, "until": None})
