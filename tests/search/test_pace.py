"""Searches that ask for much take turns; what a search may ask for is bounded."""

import asyncio
import subprocess
import sys
import textwrap
import time

import pytest

from conformance.outcome import Refusal
from fhir_server.search.pace import asks_much, turn
from tests.search.world import ask, context, fill

TWO_IN_A_LANE = textwrap.dedent(
    """
    import os, signal, time
    from fhir_server.store.lane import Lane

    lane = Lane(rest=0.0, longest=0.0)
    inside, told = os.pipe()
    child = os.fork()
    if not child:
        lane._enter()
        os.write(told, b"x")
        time.sleep(30)
        os._exit(0)
    os.read(inside, 1)
    print(lane._enter())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(lane._enter())
    """
)


@pytest.mark.parametrize(
    ("name", "value", "much"),
    [
        ("code", ",".join("abc" * 30), False),
        ("code", ",".join("x" * 200), True),
        ("_count", "100", False),
        ("_count", "1000000", True),
        ("_include", "Observation:subject", False),
        ("_include", "Observation:*", True),
        ("_revinclude:iterate", "Observation:subject", True),
        ("name:contains", "x", True),
    ],
)
def test_what_asks_for_much(name, value, much):
    assert asks_much([(name, value)]) is much


async def test_much_runs_one_after_another_and_little_beside_it():
    running, most = 0, 0

    async def one(pairs):
        nonlocal running, most
        async with turn(pairs):
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1

    much = [("_count", "1000")]
    await asyncio.gather(*(one(much) for _ in range(3)))
    assert most == 1
    await asyncio.gather(one(much), one([("code", "a")]), one([("code", "b")]))
    assert most >= 2


async def test_much_rests_afterwards():
    times = []
    for _ in range(2):
        started = time.perf_counter()
        async with turn([("_count", "1000")]):
            await asyncio.sleep(0.05)
        times.append(time.perf_counter() - started)
    assert times[1] - times[0] > 0.1


def test_one_process_at_a_time_is_in_a_lane_and_a_dead_one_leaves_it():
    """A script of its own forks, as the server does: forking the tests' process, with its threads, could hang."""
    done = subprocess.run([sys.executable, "-c", TWO_IN_A_LANE], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("False\nTrue\n", "")


async def test_what_is_too_costly_is_refused_after_a_pause(store):
    ctx, started = context(store), time.perf_counter()
    with pytest.raises(Refusal) as refused:
        await ask(ctx, "Observation?" + ".".join(["subject"] * 30) + ".name=x")
    assert [issue.code for issue in refused.value.issues] == ["too-costly"]
    assert time.perf_counter() - started >= 0.1


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("Observation?" + ".".join(["subject"] * 30) + ".name=x", "subject"),
        ("Observation?" + ".".join(["focus"] * 7) + ".code=x", "focus"),
        ("Observation?date=" + ",".join(["ge2020"] * 101), "date"),
        ("Observation?value-quantity=" + ",".join(["5"] * 101), "value-quantity"),
        ("Observation?code=" + ",".join(["x"] * 1001), "code"),
        ("Observation?" + "&".join("code=" + ",".join("x" * 900) for _ in range(3)), "code"),
        ("Observation?" + "&".join(["code=x"] * 201), "parameters"),
        ("Patient?_filter=" + "(" * 60 + "name co x" + ")" * 60, "_filter"),
        ("Patient?_filter=general-practitioner[name co x].general-practitioner[name co x].name co x", "_filter"),
    ],
)
async def test_too_much_is_refused_at_once_and_by_name(store, query, named):
    started = time.perf_counter()
    with pytest.raises(Refusal) as refused:
        await ask(context(store), query)
    assert refused.value.status == 400
    assert named in str(refused.value)
    assert time.perf_counter() - started < 2


async def test_a_thousand_values_are_answered(store):
    await fill(store, [{"resourceType": "Patient", "id": "a", "name": [{"family": "Q7"}]}])
    bundle = await ask(context(store), "Patient?family=" + ",".join(f"q{number}" for number in range(1000)))
    assert bundle["total"] == 1
