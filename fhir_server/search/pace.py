"""Searches that ask for much take turns in each process and rest afterwards, so that they never hold up their neighbours for long.

What asks for much is told by its parameters, before they are read: many values, long pages, includes that go on or take everything.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fhir_server.context import Context

MUCH_VALUES, MUCH_ROWS = 100, 500
REST, LONGEST_REST = 3.0, 1.0  # times what the search took; seconds
FOLLOWED = ("_include", "_revinclude")


@dataclass(frozen=True, slots=True)
class Pace:
    """The one place of a process (of its event loop)."""

    loop: asyncio.AbstractEventLoop
    place: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))


@asynccontextmanager
async def turn(ctx: Context, pairs: Sequence[tuple[str, str]]) -> AsyncIterator[None]:
    """Runs its block at once, or in turn if the search asks for much."""
    if not asks_much(pairs):
        yield
        return
    pace = _pace(ctx)
    await pace.place.acquire()
    started = time.perf_counter()
    try:
        yield
    finally:
        pace.loop.call_later(min(REST * (time.perf_counter() - started), LONGEST_REST), pace.place.release)


def asks_much(pairs: Sequence[tuple[str, str]]) -> bool:
    """Many values in all, a long page, or includes without a bound of their own."""
    values = 0
    for name, value in pairs:
        values += 1 + value.count(",")
        kind, _, modifier = name.partition(":")
        if (kind in FOLLOWED and (modifier or value.endswith("*"))) or (name == "_count" and value.isdecimal() and int(value[:9]) > MUCH_ROWS):
            return True
    return values > MUCH_VALUES


def _pace(ctx: Context) -> Pace:
    loop = asyncio.get_running_loop()
    known: Pace | None = ctx.spec.memo.get("search.pace")
    if known is None or known.loop is not loop:
        known = ctx.spec.memo["search.pace"] = Pace(loop)
    return known
