"""Writes that arrive together in one transaction: a single audited create is two documents, and a transaction costs more than either.

While groups are being written the next gathers; a group that fails is written again one by one, so that nobody fails for another. A caller that
stops waiting (a time-out) does not stop the others.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from fhir_server.search.shelved import unshelved
from fhir_server.store import Change, Store, Stored

MOST = 32
MOST_UNDER_WAY = 2  # groups at once: while the database journals one the next is prepared
Waiting = tuple[Sequence[Change], "asyncio.Future[list[Stored]]"]


@dataclass(slots=True)
class Group:
    """What waits to be written to one store, and the tasks that write."""

    waiting: list[Waiting] = field(default_factory=list)
    writers: "set[asyncio.Task[None]]" = field(default_factory=set)


_GROUPS: WeakKeyDictionary[Store, Group] = WeakKeyDictionary()


async def put(store: Store, changes: Sequence[Change]) -> list[Stored]:
    """Write these creates, all or none, perhaps with those of others. Raises what the store raises for them."""
    group = _GROUPS.setdefault(unshelved(store), Group())
    future: asyncio.Future[list[Stored]] = asyncio.get_running_loop().create_future()
    group.waiting.append((changes, future))
    if len(group.writers) < MOST_UNDER_WAY:
        writer = asyncio.create_task(_write_all(store, group))
        group.writers.add(writer)
        writer.add_done_callback(group.writers.discard)
    return await future


async def _write_all(store: Store, group: Group) -> None:
    """Until nothing waits."""
    while group.waiting:
        part, group.waiting[:] = group.waiting[:MOST], group.waiting[MOST:]
        await _write(store, part)


async def _write(store: Store, part: Sequence[Waiting]) -> None:
    everything = [change for changes, _ in part for change in changes]
    (stored,) = await asyncio.gather(store.insert_all(everything), return_exceptions=True)  # what is raised is raised to who asked
    if isinstance(stored, BaseException):
        if len(part) == 1:
            _settle(part[0][1], stored)
        else:
            for one in part:
                await _write(store, [one])
        return
    at = 0
    for changes, future in part:
        _settle(future, stored[at : at + len(changes)])
        at += len(changes)


def _settle(future: "asyncio.Future[list[Stored]]", outcome: list[Stored] | BaseException) -> None:
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
