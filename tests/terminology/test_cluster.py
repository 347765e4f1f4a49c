"""The shelf in the database: what one server loaded the others fetch, whole or not at all; loads can be repeated and withdrawn."""

import asyncio
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest

from conformance.outcome import Refusal
from conformance.spec import load_spec
from fhir_server.jobs import terms as job
from fhir_server.settings import Settings
from fhir_server.store.mongo import shelf as cluster
from fhir_server.store.mongo.store import MongoStore
from fhir_server.web.app import beside_fhir
from fhir_server.web.door import Services
from terminology import shelf
from terminology.load import draft, load
from terminology.service import Terms, open_terms
from tests.terminology.test_load import A, write_loinc

LOINC = "http://loinc.org"


def look(terms: Terms) -> str:
    terms.stamped[1] = 0.0
    terms.refresh()
    return terms.check(LOINC, A).finding


async def published(store: MongoStore, folder: Path, source: Path) -> list[str]:
    systems, resources = draft("loinc", [source], folder)
    await cluster.publish(store.database, folder, systems, resources)
    await cluster.fetch(store.database, folder)
    return systems


async def test_a_server_without_the_index_fetches_it(store: MongoStore, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    terms = open_terms(there)
    assert await cluster.fetch(store.database, there) == []
    names = await published(store, here, write_loinc(tmp_path))
    assert await cluster.fetch(store.database, there) == names
    assert look(terms) == "ok"
    assert look(open_terms(here)) == "ok"
    assert await cluster.fetch(store.database, there) == []
    assert not list(there.glob("*.new"))


async def test_a_load_can_be_repeated_and_replaced(store: MongoStore, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    source = write_loinc(tmp_path)
    first = await published(store, here, source)
    assert await published(store, here, source) == first
    await cluster.fetch(store.database, there)
    terms = open_terms(there)
    path = source / "LoincTable" / "Loinc.csv"
    path.write_text(path.read_text().replace("Thing two", "Thing other"))
    second = await published(store, here, source)
    assert second != first
    assert await cluster.fetch(store.database, there) == second
    assert look(terms) == "ok"
    assert shelf.contents(there)["systems"] == second
    left = await store.database["terminology.files"].distinct("_id")
    assert {str(each).partition("/")[0] for each in left} == set(second)


async def test_what_is_withdrawn_goes_everywhere(store: MongoStore, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    await published(store, here, write_loinc(tmp_path))
    await cluster.fetch(store.database, there)
    terms = open_terms(there)
    assert look(terms) == "ok"
    await cluster.withdraw(store.database, "loinc-2.99")
    await cluster.fetch(store.database, there)
    assert look(terms) == "unknown-system"


async def test_a_shelf_from_before_is_published(store: MongoStore, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    names = load("loinc", [write_loinc(tmp_path)], here)
    await cluster.fetch(store.database, here)
    assert await cluster.fetch(store.database, there) == names


async def test_a_damaged_copy_is_not_put_into_force(store: MongoStore, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    (name,) = await published(store, here, write_loinc(tmp_path))
    await store.database["terminology.files"].delete_one({"_id": f"{name}/word.npy"})
    with pytest.raises(Refusal, match="lacks a part"):
        await cluster.fetch(store.database, there)
    assert shelf.contents(there) == {"systems": [], "resources": []}
    assert [path.name for path in there.iterdir() if path.is_dir()] == []


async def test_servers_that_publish_at_once_lose_nothing(store: MongoStore, tmp_path: Path) -> None:
    source = write_loinc(tmp_path)
    other = tmp_path / "other" / "Loinc_3.00"
    shutil.copytree(source, other)
    await asyncio.gather(published(store, tmp_path / "a", source), published(store, tmp_path / "b", other))
    now = await cluster.current(store.database)
    assert now is not None
    assert sorted(shelf.base(each) for each in now["systems"]) == ["loinc-2.99", "loinc-3.00"]


async def test_workers_take_up_the_shelf_in_the_background(store: MongoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "EVERY", 0.02)
    await published(store, tmp_path / "here", write_loinc(tmp_path))
    terms = open_terms(tmp_path / "there")
    async with job.running(terms, store, tmp_path / "there"), asyncio.timeout(10):
        while look(terms) != "ok":
            await asyncio.sleep(0.02)


async def test_a_new_server_is_not_ready_before_its_shelf_has_come(store: MongoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "EVERY", 0.02)
    names = await published(store, tmp_path / "here", write_loinc(tmp_path))
    terms, gate = open_terms(tmp_path / "there"), asyncio.Event()
    fetch = cluster.fetch

    async def late(*arguments: Any) -> list[str]:
        await gate.wait()
        return await fetch(*arguments)

    monkeypatch.setattr(cluster, "fetch", late)
    services = Services(Settings(), load_spec(), terms, store, Mock(), Mock(), Mock(), Mock())
    app = beside_fhir(services, Mock(), {})
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")
    async with client as http, asyncio.timeout(10), job.running(terms, store, tmp_path / "there"):
        assert terms.awaited == names
        answer = await http.get("/health/ready")
        assert (answer.status_code, "terminology" in answer.json()["reason"]) == (503, True)
        gate.set()
        while (await http.get("/health/ready")).status_code != 200:
            await asyncio.sleep(0.02)
        assert terms.check(LOINC, A).finding == "ok"
