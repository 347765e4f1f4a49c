"""Codes that nothing knows: counted on ingest, kept by the job, listed and removed through the desk."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from conformance.outcome import Refusal
from fhir_server.jobs import terms as job
from fhir_server.operations.terminology_desk import answer
from fhir_server.store.mongo import unknown_codes
from fhir_server.store.mongo.store import MongoStore
from terminology.policy import Policy, read_rows
from terminology.service import Terms, open_terms
from tests.server.rest.calls import exchange_on

LAB = "http://example.org/lab"


def observation(code: str, display: str) -> dict[str, Any]:
    return {"resourceType": "Observation", "status": "final", "code": {"coding": [{"system": LAB, "code": code, "display": display}]}}


async def asked(store: MongoStore, terms: Terms, method: str, path: str, body: bytes = b"", **query: str) -> Any:
    return await answer(store.database, terms, method, tuple(path.split("/")), query, body, "admin")


async def test_unknown_codes_are_counted_listed_and_forgotten(store: MongoStore, tmp_path: Path) -> None:
    terms = open_terms()
    exchange = exchange_on(store, terms)
    for code, times in (("HB", 3), ("NA", 1)):
        for _ in range(times):
            assert (await exchange("POST", "Observation", observation(code, f"Name of {code}"))).status == 201
    async with job.running(terms, store, tmp_path):
        pass
    assert (await exchange("POST", "Observation", observation("NA", "Other name"))).status == 201
    async with job.running(terms, store, tmp_path):
        pass
    rows = await asked(store, terms, "GET", "unknown")
    assert [(row["count"], row["source"], row["system"], row["code"], row["display"]) for row in rows] == [
        (3, "tests", LAB, "HB", "Name of HB"),
        (2, "tests", LAB, "NA", "Name of NA"),
    ]
    assert await asked(store, terms, "GET", "unknown", source="other") == []
    assert len(await asked(store, terms, "GET", "unknown", limit="1")) == 1
    assert await asked(store, terms, "POST", "unknown/forget", b'{"code": "HB"}') == {"removed": 1}
    assert [row["code"] for row in await asked(store, terms, "GET", "unknown", system=LAB)] == ["NA"]


@pytest.mark.parametrize(
    ("method", "path", "body", "query"),
    [
        ("GET", "nothing", b"", {}),
        ("POST", "unknown", b"", {}),
        ("GET", "unknown", b"", {"limit": "0"}),
        ("GET", "unknown", b"", {"limit": "many"}),
        ("POST", "unknown/forget", b"", {}),
        ("POST", "unknown/forget", b'{"source": {"$ne": ""}}', {}),
    ],
)
async def test_what_the_desk_refuses(store: MongoStore, method: str, path: str, body: bytes, query: dict[str, str]) -> None:
    with pytest.raises(Refusal):
        await asked(store, open_terms(), method, path, body, **query)


async def test_a_stored_map_translates_local_codes_as_they_come_in(store: MongoStore, tmp_path: Path) -> None:
    base = open_terms()
    terms = Terms([base.library], Policy((*read_rows(["system,source,translate\n", f"{LAB},*,on\n"]), *base.policy.rows)))
    exchange = exchange_on(store, terms)
    target = {"code": "718-7", "equivalence": "equivalent"}
    group = {"source": LAB, "target": "http://loinc.org", "element": [{"code": "HB", "target": [target]}]}
    res = {"resourceType": "ConceptMap", "url": "http://example.org/map", "status": "active", "group": [group]}
    assert (await exchange("POST", "ConceptMap", res)).status == 201
    async with job.running(terms, store, tmp_path):
        made = await exchange("POST", "Observation", observation("HB", "Hb"))
    assert made.res is not None
    codings = made.res["code"]["coding"]
    assert [(each["system"], each["code"]) for each in codings] == [(LAB, "HB"), ("http://loinc.org", "718-7")]
    found = await exchange("GET", "Observation?code=http://loinc.org|718-7")
    assert found.res is not None
    assert found.res["total"] == 1


async def test_counts_of_two_processes_add_up(store: MongoStore) -> None:
    now = datetime.now(UTC)
    for _ in range(2):
        await unknown_codes.add(store.database, {("lab", LAB, "X"): (5, "")}, now)
    assert (await unknown_codes.listed(store.database, {}, 10))[0]["count"] == 10
