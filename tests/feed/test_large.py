"""A large message is worked on beside the event loop: others have their turn meanwhile."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conformance.outcome import unavailable
from fhir_server.feed import worker
from fhir_server.feed.aside import LARGE_SEGMENTS
from fhir_server.feed.intake import MUCH
from fhir_server.sources import Source
from mappers.v2.message import Message
from tests.feed.exchange import Exchange, map_it, obr, obx, oru, pid

BLOCKING = 0.6


def slowly(message: Message, source: Source) -> Any:
    """A mapping that keeps its thread, as that of 2,000 results does."""
    time.sleep(BLOCKING)
    return map_it(message, source)


async def test_nobody_waits_for_the_mapping_of_a_large_report() -> None:
    exchange = Exchange()
    exchange.feed.convert = slowly
    gaps: list[float] = []

    async def tick() -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(0.005)
            gaps.append(time.perf_counter() - begun)

    ticking = asyncio.create_task(tick())
    rows = [obx(f"C{number}", str(number)) for number in range(LARGE_SEGMENTS + 1)]
    assert await asyncio.wait_for(exchange.send(oru(obr(), *rows)), 60) == "AA"
    ticking.cancel()
    assert len(exchange.all("Observation")) == len(rows)
    assert len(gaps) > BLOCKING / 0.005 / 4, "the loop went on while the message was mapped"


async def test_large_reports_of_two_patients_both_arrive() -> None:
    exchange = Exchange()
    messages = [
        oru(obr(f"F{number}"), *[obx(f"C{row}", "1") for row in range(LARGE_SEGMENTS + 1)], patient=pid(str(number), f"P{number}^X"))
        for number in range(3)
    ]
    assert await asyncio.wait_for(asyncio.gather(*(exchange.send(one) for one in messages)), 60) == ["AA"] * 3
    assert len(exchange.all("Patient")) == 3
    assert len(exchange.all("Observation")) == 3 * (LARGE_SEGMENTS + 1)


async def test_the_heartbeat_leaves_a_long_transaction_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each beat writes the entries that are worked on: a transaction that lasts from one to the next would conflict with every one of them."""
    monkeypatch.setattr(worker, "HEARTBEAT_SECONDS", 0.01)
    exchange = Exchange()
    commit, beats = exchange.means.commit, []

    async def slow(tx: Any, writes: Any) -> Any:
        for _ in range(20):
            await asyncio.sleep(0.01)
        entry = exchange.inbox.entries()[0]
        beats.append(entry.until)
        return await commit(tx, writes)

    exchange.feed.mean = lambda source: replace(exchange.means, commit=slow)
    rows = [obx(f"C{number}", str(number)) for number in range(LARGE_SEGMENTS + 1)]
    stop = asyncio.Event()
    working = asyncio.create_task(worker.run(exchange.feed, stop))
    assert await asyncio.wait_for(exchange.send(oru(obr(), *rows)), 60) == "AA"
    stop.set()
    await asyncio.wait_for(working, 30)
    assert (len(beats), exchange.store.retries) == (1, 0)
    assert beats[0] - datetime.now(UTC) > timedelta(seconds=40), "nobody takes it up meanwhile"
    assert exchange.feed.long == set()


@pytest.mark.parametrize(("rows", "codes"), [(MUCH, ["AR", "AR", "AE", "AE"]), (3, ["AR"] * 4)])
async def test_a_report_too_large_for_a_transaction_is_refused_for_good_a_small_one_invited_again(rows: int, codes: list[str]) -> None:
    exchange = Exchange()
    transact = exchange.store.transact

    async def full(body: Any) -> Any:
        raise unavailable("the transaction is larger than the database's cache has room for now")

    exchange.store.transact = full  # type: ignore[method-assign]
    message = oru(obr(), *[obx(f"C{number}", "1") for number in range(rows)])
    assert [await exchange.send(message) for _ in codes] == codes
    entry = exchange.inbox.entries()[-1]
    assert (entry.status, [problem["code"] for problem in entry.problems]) == ("store-error", ["207"])
    exchange.store.transact = transact  # type: ignore[method-assign]
    assert await exchange.send(message) == "AA", "an operator made room: the same message, sent again or replayed, is taken"
