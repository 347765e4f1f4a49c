"""Guard documents: of two transactions that touch the same key, one conflicts and runs again.

Snapshot isolation permits write skew (two transactions each read what the other is about to change); where two writers must exclude each
other, both touch one document of `guards` before they read. Within a process, writers of one key also queue for it, which spares them
the conflicts. The documents carry no state and expire. https://www.mongodb.com/docs/manual/core/transactions-production-consideration/
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from fhir_server.store.mongo.frame import Frame, update

GUARDS = "guards"
GUARD_SECONDS = 3600
QUEUE_SECONDS = 2.0  # longest wait in the process's own queue; the database decides in any case


@dataclass(slots=True)
class Queues:
    """The queues of this process, one per key in use."""

    locks: "WeakValueDictionary[str, asyncio.Lock]" = field(default_factory=WeakValueDictionary)

    def lock(self, key: str) -> asyncio.Lock:
        """The queue of a key."""
        found = self.locks.get(key)
        if found is None:
            found = self.locks[key] = asyncio.Lock()
        return found


async def wait(queues: Queues, keys: Iterable[str], held: dict[str, asyncio.Lock]) -> None:
    """Queue for each key, in order; after QUEUE_SECONDS in all go on without (another order may hold them crosswise)."""
    with suppress(asyncio.TimeoutError):
        async with asyncio.timeout(QUEUE_SECONDS):
            for key in sorted(keys):
                if key not in held:
                    lock = queues.lock(key)
                    await lock.acquire()
                    held[key] = lock


def release(held: dict[str, asyncio.Lock]) -> None:
    """Leave the queues."""
    for lock in held.values():
        lock.release()
    held.clear()


async def touch(frame: Frame, keys: Iterable[str]) -> None:
    """Write the guard documents inside the transaction."""
    touched = {"$inc": {"n": 1}, "$currentDate": {"at": True}}
    await update(frame, GUARDS, [{"q": {"_id": key}, "u": touched, "upsert": True} for key in sorted(set(keys))])
