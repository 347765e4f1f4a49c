"""$closure: tables that grow, replays, names, terminology that changes; over the routes, with the table in the database."""

import asyncio
from typing import Any

import pytest
import pytest_asyncio

from conformance.spec import load_spec
from fhir_server.context import Reply
from fhir_server.search.shelved import Shelved
from fhir_server.store.mongo.store import MongoStore
from terminology.service import open_terms
from tests.server.rest.calls import Exchange, exchange_on, rid_of

LOCAL = "http://example.org/fhir/CodeSystem/local"


def system(version: str = "1", *, case: bool = True) -> dict[str, Any]:
    below = [{"code": "b", "concept": [{"code": "c"}]}, {"code": "d"}]
    return {
        "resourceType": "CodeSystem",
        "url": LOCAL,
        "version": version,
        "status": "active",
        "content": "complete",
        "caseSensitive": case,
        "hierarchyMeaning": "is-a",
        "concept": [{"code": "a", "concept": below}],
    }


@pytest_asyncio.fixture
async def exchange(store: MongoStore) -> Exchange:
    made = exchange_on(Shelved(store, load_spec()), open_terms())
    assert (await made("POST", "CodeSystem", system())).status == 201
    return made


def body(name: str | None, *codes: str, version: str = "", of: str = LOCAL) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [{"name": "name", "valueString": name}] if name is not None else []
    rows += [{"name": "concept", "valueCoding": {"system": of, "code": code}} for code in codes]
    rows += [{"name": "version", "valueString": version}] if version else []
    return {"resourceType": "Parameters", "parameter": rows}


def entries(reply: Reply) -> set[tuple[str, str, str]]:
    assert reply.status == 200, reply.res
    groups = (reply.res or {}).get("group", [])
    return {(e["code"], t["equivalence"], t["code"]) for g in groups for e in g["element"] for t in e["target"]}


def version(reply: Reply) -> str:
    assert reply.status == 200, reply.res
    return str((reply.res or {}).get("version"))


async def test_a_table_is_initialised_grows_and_is_replayed(exchange: Exchange) -> None:
    begun = await exchange("POST", "$closure", body("problems"))
    assert (version(begun), entries(begun)) == ("0", set())
    first = await exchange("POST", "$closure", body("problems", "c"))
    assert (version(first), entries(first)) == ("1", set())
    second = await exchange("POST", "ConceptMap/$closure", body("problems", "a", "d"))
    assert entries(second) == {("c", "subsumes", "a"), ("d", "subsumes", "a")}
    third = await exchange("POST", "$closure", body("problems", "b"))
    assert entries(third) == {("c", "subsumes", "b"), ("b", "subsumes", "a")}
    again = await exchange("POST", "$closure", body("problems", "b"))
    assert (version(again), entries(again)) == ("4", set())
    assert entries(await exchange("POST", "$closure", body("problems", version="2"))) == entries(third)
    whole = await exchange("POST", "$closure", body("problems", version="0"))
    assert (version(whole), entries(whole)) == ("4", entries(second) | entries(third))
    assert entries(await exchange("POST", "$closure", body("problems", version="4"))) == set()
    assert (await exchange("POST", "$closure", body("problems"))).status == 200
    assert entries(await exchange("POST", "$closure", body("problems", version="0"))) == set()


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (body("bad name!"), 400),
        (body(None), 400),
        (body("unknown", "a"), 404),
        (body("unknown", version="0"), 404),
        (body("known", "zz"), 404),
        (body("known", "a", of="http://example.org/none"), 404),
        (body("known", "a", version="0"), 400),
        (body("known", version="7"), 400),
        (body("known", version="-1"), 400),
    ],
)
async def test_what_is_refused(exchange: Exchange, asked: dict[str, Any], status: int) -> None:
    assert (await exchange("POST", "$closure", body("known"))).status == 200
    answer = await exchange("POST", "$closure", asked)
    assert (answer.status, answer.res and answer.res["resourceType"]) == (status, "OperationOutcome")


async def test_a_table_changes_state_and_is_no_get(exchange: Exchange) -> None:
    assert (await exchange("GET", "$closure?name=problems")).status == 405


async def test_other_terminology_means_another_table(exchange: Exchange) -> None:
    await exchange("POST", "$closure", body("problems"))
    await exchange("POST", "$closure", body("problems", "a"))
    rid = rid_of(await exchange("POST", "CodeSystem", system("2")))
    for asked in (body("problems", "b"), body("problems", version="0")):
        assert (await exchange("POST", "$closure", asked)).status == 422
    await exchange("DELETE", f"CodeSystem/{rid}")
    assert entries(await exchange("POST", "$closure", body("problems", "b"))) == {("b", "subsumes", "a")}


async def test_two_spellings_of_one_code_are_equal(store: MongoStore) -> None:
    exchange = exchange_on(store, open_terms())
    await exchange("POST", "CodeSystem", system(case=False))
    await exchange("POST", "$closure", body("t"))
    assert entries(await exchange("POST", "$closure", body("t", "b", "B"))) == {("B", "equal", "b")}


async def test_calls_at_once_lose_nothing(exchange: Exchange) -> None:
    await exchange("POST", "$closure", body("t"))
    answers = await asyncio.gather(*(exchange("POST", "$closure", body("t", code)) for code in "abcd"))
    found = [each for answer in answers for each in entries(answer)]
    assert sorted(found) == sorted(entries(await exchange("POST", "$closure", body("t", version="0"))))
    assert len(found) == 4
    assert sorted(map(version, answers)) == ["1", "2", "3", "4"]
