"""Work beside the requests: it ends with the process's service, is told to finish where it can, and starts again after a defect, with a word in the log."""

import asyncio
import logging

import pytest

from fhir_server import beside as module
from fhir_server.beside import beside


async def test_it_runs_beside_the_block_and_ends_with_it() -> None:
    seen: list[str] = []

    async def work() -> None:
        try:
            while True:
                seen.append("round")
                await asyncio.sleep(0)
        finally:
            seen.append("end")

    async with beside("work", work):
        await asyncio.sleep(0.01)
    assert seen[0] == "round"
    assert seen[-1] == "end"


async def test_a_defect_is_logged_and_the_work_starts_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    starts: list[int] = []
    again = asyncio.Event()

    async def work() -> None:
        starts.append(1)
        if len(starts) < 3:
            raise LookupError("a defect")
        again.set()
        await asyncio.sleep(60)

    with caplog.at_level(logging.ERROR):
        async with beside("the work", work):
            await asyncio.wait_for(again.wait(), 5)
    assert [record.message for record in caplog.records] == ["the work broke off and starts again"] * 2


async def test_it_does_not_start_again_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    starts: list[int] = []

    async def work() -> None:
        starts.append(1)
        raise LookupError

    async with beside("work", work):
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    assert starts == [1]


async def test_work_that_watches_an_event_is_waited_for() -> None:
    stop, done = asyncio.Event(), []

    async def work() -> None:
        await stop.wait()
        await asyncio.sleep(0.01)
        done.append("what was in work")

    async with beside("work", work, stop):
        assert not done
    assert done == ["what was in work"]
