"""Searches that ask for much take turns and rest afterwards, so that they never hold up their neighbours for long.

What asks for much is told by its parameters, before they are read: many values, long pages, includes that go on or take everything, texts looked
for inside of others. What asks for too much is refused by those who read it (issue type too-costly); the refusal is answered after a pause,
so that a client that asks for nothing else cannot keep a processor busy. https://hl7.org/fhir/R4/valueset-issue-type.html
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from conformance.outcome import Refusal
from fhir_server.store.lane import Lane

MUCH_VALUES, MUCH_ROWS = 100, 500
FOLLOWED = ("_include", "_revinclude")
LANE = Lane(rest=3.0, longest=1.0)
PAUSE_SECONDS = 0.1


@asynccontextmanager
async def turn(pairs: Sequence[tuple[str, str]]) -> AsyncIterator[None]:
    """Runs its block at once, or in turn if the search asks for much."""
    try:
        if asks_much(pairs):
            async with LANE.turn():
                yield
        else:
            yield
    except Refusal as refusal:
        if any(issue.code == "too-costly" for issue in refusal.issues):
            await asyncio.sleep(PAUSE_SECONDS)
        raise


def asks_much(pairs: Sequence[tuple[str, str]]) -> bool:
    """Many values in all, a long page, includes without a bound of their own, or a scan of all texts."""
    values = 0
    for name, value in pairs:
        values += 1 + value.count(",")
        kind, _, modifier = name.partition(":")
        endless = kind in FOLLOWED and (modifier or value.endswith("*"))
        if endless or modifier.endswith("contains") or (name == "_count" and value.isdecimal() and int(value[:9]) > MUCH_ROWS):
            return True
    return values > MUCH_VALUES
