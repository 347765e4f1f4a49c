"""Application answers of enhanced mode find their sender, and none is in the way of another."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fhir_server import beside
from fhir_server.feed import later, worker
from mappers.v2.message import parse
from tests.feed.exchange import Exchange, adt, pid

WANTS_BOTH = "|||AL|AL"


class Wire:
    """Connections that are open, and what was sent over them or to addresses; `hanging`: an address that never answers."""

    def __init__(self, *open_ones: str) -> None:
        self.open, self.sent = set(open_ones), list[tuple[str, str]]()

    async def push(self, connection: str, block: bytes) -> bool:
        if connection in self.open:
            self.sent.append((connection, parse(block).get("MSA-2")))
        return connection in self.open

    async def send(self, address: str, block: bytes) -> bool:
        if address.startswith("hanging"):
            await asyncio.sleep(3600)
        if address.startswith("up"):
            self.sent.append((address, parse(block).get("MSA-2")))
        return address.startswith("up")


async def taken(exchange: Exchange, sender: str, control: str, connection: str, patient: str = "1") -> None:
    message = adt("A08", pid(patient), sender=sender, control=control, msh_rest=WANTS_BOTH)
    assert await exchange.send(message, transport="mllp", connection=connection) == "CA"


async def worked(exchange: Exchange) -> None:
    while await worker.work_once(exchange.feed):
        await asyncio.sleep(0)


async def test_the_answers_of_a_sender_that_is_gone_are_not_in_the_way_of_others() -> None:
    exchange, wire = Exchange(), Wire("here")
    for number in range(later.PAGE + 10):
        await taken(exchange, "GONE|HOSP", f"G{number}", "closed", f"G{number}")
    await taken(exchange, "LAB|HOSP", "L1", "here", "2")
    await worked(exchange)
    answers = later.Later(exchange.feed, wire.push)
    assert await answers.step() == 1
    assert wire.sent == [("here", "L1")]
    assert list(exchange.feed.connections) == ["LAB.HOSP"], "nothing is looked up for it until it comes again"
    wire.open.add("again")
    await taken(exchange, "GONE|HOSP", "G-last", "again", "3")
    await worked(exchange)
    for entry in exchange.inbox.entries():
        await exchange.inbox.mark(entry.id, {"done": entry.done and entry.done - later.GRACE})
    assert await answers.step() == later.PAGE + 11


async def test_an_address_that_does_not_answer_holds_up_nobody_and_is_left_alone_for_a_while() -> None:
    known = {"sources": [{"name": name, "senders": [f"{name}|HOSP"], "answer_to": f"{name}:1"} for name in ("hanging", "down", "up")]}
    exchange, wire = Exchange(known), Wire()
    for number, name in enumerate(("hanging", "down", "up", "down")):
        await taken(exchange, f"{name}|HOSP", f"C{number}", "", str(number))
    await worked(exchange)
    answers = later.Later(exchange.feed, wire.push, wire.send)
    assert await answers.step() == 1
    assert wire.sent == [("up:1", "C2")]
    assert (list(answers.working), list(answers.resting)) == (["hanging"], ["down"])
    assert len([entry for entry in exchange.inbox.entries() if entry.due]) == 3
    stop = asyncio.Event()
    stop.set()
    await answers.run(stop)
    assert [entry.until for entry in exchange.inbox.entries()] == [None] * 4, "what was not sent can be claimed again"


async def test_an_answer_goes_over_the_connection_of_its_message_and_over_another_only_after_a_moment() -> None:
    exchange, wire = Exchange(), Wire("second")
    await taken(exchange, "LAB|HOSP", "L1", "of-another-process")
    await taken(exchange, "LAB|HOSP", "L2", "second", "2")
    exchange.feed.connections["LAB.HOSP"].pop("of-another-process")
    await worked(exchange)
    answers = later.Later(exchange.feed, wire.push)
    assert await answers.step() == 1
    assert wire.sent == [("second", "L2")]
    entry = exchange.inbox.entries()[0]
    await exchange.inbox.mark(entry.id, {"done": datetime.now(UTC) - later.GRACE - timedelta(seconds=1)})
    assert await answers.step() == 1
    assert wire.sent[1] == ("second", "L1")


async def test_of_several_processes_one_sends_an_answer() -> None:
    known = {"sources": [{"name": "lab", "senders": ["LAB|HOSP"], "answer_to": "up:1"}]}
    exchange, wire = Exchange(known), Wire()
    for number in range(20):
        await taken(exchange, "LAB|HOSP", f"L{number}", "", str(number))
    await worked(exchange)
    both = [later.Later(exchange.feed, wire.push, wire.send) for _ in range(2)]
    await asyncio.gather(*(one.step() for one in both))
    assert sorted(control for _, control in wire.sent) == sorted(f"L{number}" for number in range(20))
    entry = exchange.inbox.entries()[0]
    await exchange.inbox.mark(entry.id, {"due": True, "until": datetime.now(UTC) + timedelta(seconds=60)})
    assert await both[0].step() == 0, "another process is at it"
    await exchange.inbox.mark(entry.id, {"until": datetime.now(UTC) - timedelta(seconds=1)})
    assert await both[0].step() == 1, "it died before it could note that it was sent"


async def test_a_replay_of_what_was_answered_is_not_answered_once_more() -> None:
    exchange, wire = Exchange(), Wire("c")
    await taken(exchange, "LAB|HOSP", "L1", "c")
    await worked(exchange)
    assert await later.Later(exchange.feed, wire.push).step() == 1
    entry = exchange.inbox.entries()[0]
    again = await exchange.inbox.take(entry.id, "", None, datetime.now(UTC), accepted=True)
    assert again is not None
    await worked(exchange)
    done = exchange.inbox.entries()[0]
    assert (done.status, done.due, done.attempt) == ("processed", False, replace(entry, attempt=entry.attempt + 2).attempt)


async def test_only_so_many_connections_are_remembered() -> None:
    exchange = Exchange()
    for number in range(1100):
        exchange.feed.remember(f"s{number}", "c")
        exchange.feed.remember("one", f"c{number}")
    assert len(exchange.feed.connections) == len(exchange.feed.connections["one"]) == 1000
    assert "c1099" in exchange.feed.connections["one"]


async def test_a_defect_in_sending_answers_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    exchange, wire = Exchange(), Wire("here")
    await taken(exchange, "LAB|HOSP", "C1", "here")
    step, defects = later.Later.step, ["a defect"]

    async def broken_once(self: later.Later) -> int:
        if defects:
            raise ValueError(defects.pop())
        return await step(self)

    monkeypatch.setattr(later.Later, "step", broken_once)
    monkeypatch.setattr(beside, "PAUSE_SECONDS", 0.01)
    stop = asyncio.Event()
    work = asyncio.create_task(worker.run(exchange.feed, stop, wire.push))
    async with asyncio.timeout(30):
        while not wire.sent:
            await asyncio.sleep(0.02)
        stop.set()
        await work
    assert wire.sent == [("here", "C1")]
