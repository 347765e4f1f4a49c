"""Races: what R4's conditional interactions promise must hold between processes too. https://hl7.org/fhir/R4/http.html#ccreate, #concurrency"""

import asyncio
import multiprocessing
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import pytest

from fhir_server.query.clauses import EVERYTHING
from fhir_server.store.embedded import Embedded
from fhir_server.store.mongo.store import open_store
from tests.server.rest.calls import Exchange, exchange_on

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATIENT = {"resourceType": "Patient", "identifier": [{"system": "http://h", "value": "1"}]}


def bundle(*entries: dict) -> dict:
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}


async def one(rest: Exchange, way: int) -> int:
    """One of the ways to say 'create this patient unless he is there'; the status."""
    if way % 4 == 0:
        return (await rest("POST", "Patient", PATIENT, if_none_exist="identifier=http://h|1")).status
    if way % 4 == 1:
        return (await rest("POST", "Patient", PATIENT, if_none_exist="identifier=1&_lastUpdated=gt2000")).status
    if way % 4 == 2:
        return (await rest("PUT", "Patient?identifier=http://h|1", PATIENT)).status
    entry = {"request": {"method": "POST", "url": "Patient", "ifNoneExist": "identifier=http://h|1"}, "resource": PATIENT}
    reply = await rest(
        "POST", "", bundle(entry, {"request": {"method": "POST", "url": "Basic"}, "resource": {"resourceType": "Basic", "code": {"text": "x"}}})
    )
    return int(reply.res["entry"][0]["response"]["status"][:3]) if reply.status == 200 else reply.status


def racer(uri: str, name: str, start: float, count: int) -> list[int]:
    """A process of its own: `count` writers at once."""

    async def run() -> list[int]:
        store = await open_store(uri, name=name, transaction_seconds=20)
        rest = exchange_on(store)
        await asyncio.sleep(max(0.0, start - time.time()))
        statuses = await asyncio.gather(*(one(rest, number) for number in range(count)))
        await store.close()
        return list(statuses)

    return asyncio.run(run())


async def test_64_equal_conditional_creates_in_two_processes_make_one_resource(rest: Exchange, mongod: Embedded) -> None:
    store = rest.ctx.store
    await store.ensure(["Patient", "Basic"])
    start = time.time() + 2.5
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(racer, mongod.uri, store.database.name, start, 32) for _ in range(2)]
        statuses = [status for future in futures for status in await asyncio.wrap_future(future)]
    assert len(await store.find("Patient", EVERYTHING)) == 1
    assert Counter(statuses) == {201: 1, 200: 63}


async def test_32_writers_that_increment_with_if_match_lose_nothing(rest: Exchange) -> None:
    await rest("PUT", "Basic/c", {"resourceType": "Basic", "id": "c", "code": {"text": "0"}})
    refused = 0

    async def increment() -> None:
        nonlocal refused
        while True:
            read = await rest("GET", "Basic/c")
            body = {"resourceType": "Basic", "id": "c", "code": {"text": str(int(read.res["code"]["text"]) + 1)}}
            reply = await rest("PUT", "Basic/c", body, if_match=read.headers["ETag"])
            if reply.status == 200:
                return
            assert reply.status == 412
            refused += 1

    await asyncio.gather(*(increment() for _ in range(32)))
    final = await rest("GET", "Basic/c")
    assert (final.res["code"]["text"], final.headers["ETag"]) == ("32", 'W/"33"')
    assert refused > 0


async def test_32_unconditional_updates_at_once_all_make_a_version(rest: Exchange) -> None:
    replies = await asyncio.gather(*(rest("PUT", "Basic/c", {"resourceType": "Basic", "id": "c", "code": {"text": "x"}}) for _ in range(32)))
    assert Counter(reply.status for reply in replies) == {201: 1, 200: 31}
    assert {reply.headers["ETag"] for reply in replies} == {f'W/"{vid}"' for vid in range(1, 33)}


async def test_a_delete_and_a_new_reference_cannot_pass_each_other_under_enforce(rest: Exchange) -> None:
    rest = rest.with_settings(referential_integrity="enforce")
    for number in range(12):
        rid = f"p{number}"
        await rest("PUT", f"Patient/{rid}", {"resourceType": "Patient", "id": rid})
        body = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": f"Patient/{rid}"}}
        deleted, *written = await asyncio.gather(rest("DELETE", f"Patient/{rid}"), *(rest("POST", "Observation", body) for _ in range(3)))
        there = (await rest("GET", f"Patient/{rid}")).status == 200
        assert there == (deleted.status == 409)
        assert {reply.status for reply in written} <= {201, 422}
        assert there or not any(reply.status == 201 for reply in written)


async def test_updates_that_create_the_same_new_id_make_one_resource(rest: Exchange) -> None:
    replies = await asyncio.gather(
        *(rest("PUT", "Basic/n", {"resourceType": "Basic", "id": "n", "code": {"text": "x"}}, if_none_match="*") for _ in range(16))
    )
    assert Counter(reply.status for reply in replies) == {201: 1, 412: 15}
