"""Packages over the admin API: installed, live in every process, agreed on through the database, removed; hostile ones refused."""

import asyncio
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from conformance.outcome import Refusal
from conformance.shelf import install
from conformance.spec import Spec, load_spec
from fhir_server.context import Grant, Right
from fhir_server.jobs import packages, reindex
from fhir_server.search.shelved import Shelved
from fhir_server.security.audit import REFUSED, SUCCESS
from fhir_server.store.mongo.store import MongoStore
from fhir_server.web.app import build
from terminology.service import open_terms
from tests.server.rest.calls import Exchange, exchange_on

CORE = "http://hl7.org/fhir/StructureDefinition/"
URL = "http://example.org/fhir"
PROFILE = {
    "resourceType": "StructureDefinition",
    "id": "named-patient",
    "url": f"{URL}/StructureDefinition/named-patient",
    "name": "NamedPatient",
    "status": "active",
    "kind": "resource",
    "abstract": False,
    "type": "Patient",
    "baseDefinition": CORE + "Patient",
    "derivation": "constraint",
    "differential": {"element": [{"id": "Patient.name", "path": "Patient.name", "min": 1}]},
}
VALUES = {
    "resourceType": "ValueSet",
    "id": "colours",
    "url": f"{URL}/ValueSet/colours",
    "status": "active",
    "compose": {"include": [{"system": f"{URL}/colours", "concept": [{"code": "red"}, {"code": "blue"}]}]},
}
SYSTEM = {
    "resourceType": "CodeSystem",
    "id": "colours",
    "url": f"{URL}/colours",
    "status": "active",
    "content": "complete",
    "concept": [{"code": "red", "display": "Red"}, {"code": "blue"}],
}
PARAM = {
    "resourceType": "SearchParameter",
    "id": "patient-colour",
    "url": f"{URL}/SearchParameter/patient-colour",
    "name": "colour",
    "status": "draft",
    "description": "Favourite colour",
    "code": "colour",
    "base": ["Patient"],
    "type": "token",
    "expression": f"Patient.extension('{URL}/colour').value",
}
GUIDE = {
    "resourceType": "ImplementationGuide",
    "id": "guide",
    "url": f"{URL}/ImplementationGuide/guide",
    "name": "Guide",
    "status": "active",
    "packageId": "example.guide",
    "fhirVersion": ["4.0.1"],
}
CALLER = Grant("root", "tests", (Right("*", frozenset("cruds")),), admin=True)


def archive(*resources: dict[str, Any], name: str = "example.guide", version: str = "1.0.0", **more: Any) -> bytes:
    files = {"package.json": {"name": name, "version": version, "fhirVersions": ["4.0.1"], **more}}
    files |= {f"{res['resourceType']}-{res['id']}.json": {**res, "version": version} for res in resources}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as made:
        for path, content in files.items():
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{path}")
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return out.getvalue()


def part(store: MongoStore, shelf: Path) -> packages.Packages:
    """A worker of its own."""
    spec = Spec(load_spec().tables)
    return packages.begun(spec, open_terms(None, spec=spec), store, shelf)


def exchange(one: packages.Packages) -> Exchange:
    made = exchange_on(Shelved(one.store, one.spec), one.terms)
    return Exchange(replace(made.ctx, spec=one.spec))


async def call(one: packages.Packages, method: str, *path: str, body: bytes = b"") -> Any:
    return await packages.desk(one, method, path, {}, body, "tester")


@pytest.fixture
async def workers(store: MongoStore, tmp_path: Path) -> tuple[packages.Packages, packages.Packages, packages.Packages]:
    """Two workers of one host and one of another."""
    return part(store, tmp_path / "a"), part(store, tmp_path / "a"), part(store, tmp_path / "b")


async def test_an_installed_package_is_live_in_all_processes(workers: Any) -> None:
    first, second, elsewhere = workers
    before = exchange(second)
    assert (await before("GET", "Patient?colour=red")).status == 400
    made = await call(first, "POST", body=archive(PROFILE, VALUES, SYSTEM, PARAM, GUIDE))
    assert made == {"installed": ["example.guide#1.0.0"], "issues": []}
    async with packages.running(second):
        await packages.agree(elsewhere)
        for one in workers:
            await reindex.refresh(reindex.Reindexer(exchange(one).ctx, one.store.database))
            rest = exchange(one)
            await check_live(rest)
    listed = await call(elsewhere, "GET")
    assert [(each["name"], each["version"], each["definitions"]["StructureDefinition"]) for each in listed] == [("example.guide", "1.0.0", 1)]


async def check_live(rest: Exchange) -> None:
    """Everything of the package is in use."""
    claims = {"resourceType": "Patient", "meta": {"profile": [PROFILE["url"]]}}
    assert (await rest("POST", "Patient", claims)).status == 422
    colour = {"url": f"{URL}/colour", "valueCode": "red"}
    assert (await rest("POST", "Patient", claims | {"name": [{"family": "A"}], "extension": [colour]})).status == 201
    found = await rest("GET", "Patient?colour=red&_total=accurate")
    assert found.status == 200
    assert found.res["total"] > 0  # type: ignore[index]
    statement = (await rest("GET", "metadata")).res or {}
    patient = next(each for each in statement["rest"][0]["resource"] if each["type"] == "Patient")
    assert PROFILE["url"] in [url.split("|")[0] for url in patient["supportedProfile"]]
    assert "colour" in [each["name"] for each in patient["searchParam"]]
    assert statement["implementationGuide"] == [f"{URL}/ImplementationGuide/guide|1.0.0"]
    assert (await rest("GET", "StructureDefinition/named-patient")).res["url"] == PROFILE["url"]  # type: ignore[index]
    assert (await rest("GET", f"ValueSet?url={VALUES['url']}")).res["entry"][0]["resource"]["id"] == "colours"  # type: ignore[index]
    expanded = await rest("GET", f"ValueSet/$expand?url={VALUES['url']}")
    assert {each["code"] for each in expanded.res["expansion"]["contains"]} == {"red", "blue"}  # type: ignore[index]


async def test_a_package_parameter_waits_until_what_is_stored_is_indexed(workers: Any) -> None:
    first, _, _ = workers
    rest = exchange(first)
    colour = {"url": f"{URL}/colour", "valueCode": "red"}
    await rest("POST", "Patient", {"resourceType": "Patient", "extension": [colour]})
    await call(first, "POST", body=archive(PARAM))
    assert (await rest("GET", "Patient?colour=red")).status == 400
    job = reindex.Reindexer(rest.ctx, first.store.database, settle=reindex.timedelta(seconds=-5))
    await reindex.refresh(job)
    assert (await rest("GET", "Patient?colour=red")).status == 400
    await reindex.work(job)
    assert len((await rest("GET", "Patient?colour=red")).res["entry"]) == 1  # type: ignore[index]


async def test_several_versions_stand_side_by_side_and_go_one_by_one(workers: Any) -> None:
    first, second, elsewhere = workers
    await call(first, "POST", body=archive(VALUES))
    made = await call(second, "POST", body=archive(VALUES, version="2.0.0"))
    assert [issue["code"] for issue in made["issues"]] == ["conflict"]
    await packages.agree(elsewhere)
    rest = exchange(elsewhere)
    assert (await rest("GET", "ValueSet/colours")).res["version"] == "2.0.0"  # type: ignore[index]
    assert (await rest("GET", "ValueSet/colours-1.0.0")).res["version"] == "1.0.0"  # type: ignore[index]
    assert await call(elsewhere, "DELETE", "example.guide", "2.0.0") == {"removed": ["example.guide#2.0.0"]}
    await packages.agree(first)
    assert [each["version"] for each in await call(first, "GET")] == ["1.0.0"]
    assert (await exchange(first)("GET", "ValueSet/colours")).res["version"] == "1.0.0"  # type: ignore[index]
    await call(first, "POST", body=archive(VALUES, version="2.0.0"))
    await packages.agree(elsewhere)
    assert [each["version"] for each in await call(elsewhere, "GET")] == ["1.0.0", "2.0.0"]


async def test_the_command_beside_a_running_exchange(workers: Any, tmp_path: Path) -> None:
    first, _, elsewhere = workers
    file = tmp_path / "guide.tgz"
    file.write_bytes(archive(VALUES))
    async with packages.running(first), packages.running(elsewhere):
        install(file, first.shelf)
        async with asyncio.timeout(20):
            while not (first.spec.packages and elsewhere.spec.packages):
                await asyncio.sleep(0.05)
    assert first.terms is not None
    assert first.terms.knows(VALUES["url"])


async def test_what_others_depend_on_is_kept(workers: Any) -> None:
    first, _, _ = workers
    await call(first, "POST", body=archive(VALUES))
    await call(first, "POST", body=archive(PROFILE, name="example.more", dependencies={"example.guide": "1.0.0"}))
    with pytest.raises(Refusal) as caught:
        await call(first, "DELETE", "example.guide", "1.0.0")
    assert caught.value.status == 409
    with pytest.raises(Refusal) as caught:
        await call(first, "DELETE", "example.guide", "9")
    assert caught.value.status == 404


def climbing() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as made:
        member = tarfile.TarInfo("../../evil.json")
        member.size = 2
        made.addfile(member, io.BytesIO(b"{}"))
    return out.getvalue()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"no archive", 400),
        (climbing(), 400),
        (archive(VALUES)[:200], 400),
        (archive(VALUES, fhirVersions=["5.0.0"]), 422),
        (archive(VALUES, name="../evil"), 400),
        (archive(VALUES, dependencies={"example.guide": "1.0.0"}), 422),
    ],
)
async def test_hostile_packages_are_refused_and_leave_nothing(workers: Any, body: bytes, status: int) -> None:
    first, _, _ = workers
    with pytest.raises(Refusal) as caught:
        await call(first, "POST", body=body)
    assert caught.value.status == status
    assert await call(first, "GET") == []
    assert not list(first.shelf.glob("*")) if first.shelf.exists() else True


async def test_the_door_lets_only_administrators_in(workers: Any) -> None:
    first, _, _ = workers
    grants = {"admin": CALLER, "other": replace(CALLER, admin=False)}
    noted: list[str] = []

    async def authenticate(headers: Any) -> Grant:
        return grants[headers["x-who"]]

    async def desk(*args: Any) -> Any:
        return await packages.desk(first, *args)

    services: Any = type(
        "Services",
        (),
        {
            "settings": exchange(first).ctx.settings,
            "authenticate": staticmethod(authenticate),
            "store": first.store,
            "authserver": None,
            "verifier": None,
            "prefix": "",
            "tenant": "default",
            "admitted": [0],
            "happened": staticmethod(lambda occurrence: noted.append(f"{occurrence.outcome} {occurrence.text}")),
        },
    )
    app = build(services, lambda *_: asyncio.sleep(0), {"packages": desk})  # type: ignore[arg-type,return-value]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        assert (await client.post("/admin/packages", content=archive(VALUES), headers={"X-Who": "other"})).status_code == 403
        answer = await client.post("/admin/packages", content=archive(VALUES), headers={"X-Who": "admin"})
        assert (answer.status_code, answer.json()["installed"]) == (200, ["example.guide#1.0.0"])
        assert (await client.get("/admin/packages", headers={"X-Who": "other"})).status_code == 403
        assert [each["name"] for each in (await client.get("/admin/packages", headers={"X-Who": "admin"})).json()] == ["example.guide"]
        refused = await client.post("/admin/packages", content=b"junk", headers={"X-Who": "admin"})
        assert (refused.status_code, refused.json()["resourceType"]) == (400, "OperationOutcome")
        assert (await client.delete("/admin/packages/example.guide/1.0.0", headers={"X-Who": "admin"})).status_code == 200
        assert (await client.get("/admin/nothing", headers={"X-Who": "admin"})).status_code == 404
    assert noted[:2] == [f"{REFUSED} POST /admin/packages/", f"{SUCCESS} POST /admin/packages/"]
