"""The AuditEvents of reads: collected in memory and written together, durable within FHIR_AUDIT_SECONDS of the answer.

What a killed process had not written yet is lost, so no more than that time; a process that is stopped writes all. Where the database cannot be
written to, they wait; when too many wait, reads are refused (503): nothing is shown without a trace.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from conformance.outcome import Refusal, unavailable
from fhir_server.beside import beside
from fhir_server.context import Context, Reply, Request, Resource
from fhir_server.interactions.audited import accesses, drafts
from fhir_server.security.audit import SUCCESS, kept
from fhir_server.security.occurrences import Bounds, Occurrence, event_of

log = logging.getLogger("fhir.audit")
AT_ONCE = 500
MOST_WAITING = 20_000


@dataclass(slots=True)
class Trail:
    """One process's part. ctx acts for the exchange; waiting: AuditEvents without ids, oldest first."""

    ctx: Context
    waiting: list[Resource] = field(default_factory=list)
    bounds: dict[str, Bounds] = field(default_factory=dict)  # by kind of occurrence
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)  # one writes at a time, else an event is written twice and another lost

    def note(self, ctx: Context, request: Request, reply: Reply) -> None:
        """Take down what was shown. Raises Refusal 503 if the trail cannot be written any more."""
        made = accesses(ctx, request, reply)
        if made and len(self.waiting) >= MOST_WAITING:
            raise unavailable("accesses cannot be recorded at the moment")
        self.waiting += made

    def happened(self, one: Occurrence) -> None:
        """Take down what happened beside resources. What anybody can cause (it failed) is bounded; where the trail is full it is left out."""
        if not kept(self.ctx) or len(self.waiting) >= MOST_WAITING:
            return
        if one.outcome != SUCCESS:
            bounds = self.bounds.setdefault(one.kind, Bounds())
            if not bounds.admits(one.address):
                return
            one = replace(one, text=bounds.told(one.text))
        self.waiting.append(event_of(one, self.ctx.base))

    async def flush(self) -> None:
        """Write all that waits. Raises Refusal 503; what was not written goes on waiting."""
        async with self.writing:
            while self.waiting:
                part = self.waiting[:AT_ONCE]
                await self.ctx.store.insert_all(drafts(self.ctx, part))
                del self.waiting[: len(part)]


@contextlib.asynccontextmanager
async def running(trail: Trail) -> AsyncIterator[None]:
    """What each worker holds while it serves."""
    try:
        async with beside("the audit trail", lambda: _serve(trail)):
            yield
    finally:
        await trail.flush()


async def _serve(trail: Trail) -> None:
    """Write, at half the promised time, until cancelled; a write under way is never cut off."""
    while True:
        await asyncio.sleep(trail.ctx.settings.audit_seconds / 2)
        try:
            await asyncio.shield(trail.flush())
        except Refusal as refusal:  # the database is away: they wait
            log.warning("%d AuditEvents wait: %s", len(trail.waiting), refusal.status)
