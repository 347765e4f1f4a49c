"""Refuse writes while the database can still answer: a mongod whose disk is full dies, because it cannot write its journal.

The free space of the database's disk comes from `dbStats`, looked at the more often the less is left.
https://www.mongodb.com/docs/manual/reference/command/dbStats/
"""

import time
from dataclasses import dataclass, field

from conformance.outcome import refuse
from fhir_server.store.mongo.client import Database

RESERVE_BYTES = 512 * 1024 * 1024
RESERVE_SHARE = 0.08  # of a small disk
FILL_RATE = 250 * 1024 * 1024  # bytes/s that all writers together are trusted not to exceed
SHORTEST, LONGEST = 0.02, 5.0


@dataclass(slots=True, eq=False)
class Space:
    """The free space of one database's disk."""

    database: Database
    low: bool = False
    due: float = field(default=float("-inf"))  # monotonic time of the next look

    async def check(self) -> None:
        """Raises Refusal 507 when the disk has too little room left for a write to be safe."""
        now = time.monotonic()
        if now > self.due:
            self.due = now + SHORTEST  # one look at a time
            await self._look(now)
        if self.low:
            raise refuse("no-store", "the database's disk is almost full: nothing was written; the operator has to make room")

    async def _look(self, now: float) -> None:
        stats = await self.database.command("dbStats")
        total = stats.get("fsTotalSize", 0)
        if not total:  # a server or user that does not tell
            self.due = now + LONGEST
            return
        left = total - stats["fsUsedSize"] - min(RESERVE_BYTES, RESERVE_SHARE * total)
        self.low = left < 0
        self.due = now + min(LONGEST, max(SHORTEST, left / FILL_RATE)) if not self.low else now + 1.0
