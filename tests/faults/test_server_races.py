"""Races over HTTP against two workers: conditional creates and version-checked updates. https://hl7.org/fhir/R4/http.html#ccreate"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from tests.scenarios.running import Server, serve

JSON = {"Content-Type": "application/fhir+json"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("races") / "data", "--workers", "2") as running:
        yield running


def clients(server: Server, count: int) -> list[httpx.AsyncClient]:
    """Clients with a connection each, so that both workers take part."""
    return [httpx.AsyncClient(base_url=server.base, timeout=60) for _ in range(count)]


def patient(value: str) -> dict:
    return {"resourceType": "Patient", "identifier": [{"system": "https://mrn.example", "value": value}]}


async def together(server: Server, count: int, act) -> list[httpx.Response]:
    """`act(client, number)` of `count` clients at once."""
    everyone = clients(server, count)
    try:
        return await asyncio.gather(*(act(one, number) for number, one in enumerate(everyone)))
    finally:
        await asyncio.gather(*(one.aclose() for one in everyone))


async def count(server: Server, value: str) -> int:
    async with httpx.AsyncClient(base_url=server.base) as http:
        return (await http.get("/Patient", params={"identifier": f"https://mrn.example|{value}"})).json()["total"]


async def test_64_equal_conditional_creates_make_one_resource(server: Server) -> None:
    value = uuid.uuid4().hex

    async def create(http: httpx.AsyncClient, number: int) -> httpx.Response:
        return await http.post("/Patient", json=patient(value), headers={**JSON, "If-None-Exist": f"identifier=https://mrn.example|{value}"})

    answers = await together(server, 64, create)
    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 63}
    assert await count(server, value) == 1


async def test_64_equal_conditional_creates_inside_transactions_make_one_resource(server: Server) -> None:
    value = uuid.uuid4().hex
    criteria = f"identifier=https://mrn.example|{value}"
    entry = {
        "fullUrl": f"urn:uuid:{uuid.uuid4()}",
        "resource": patient(value),
        "request": {"method": "POST", "url": "Patient", "ifNoneExist": criteria},
    }
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}

    async def transact(http: httpx.AsyncClient, number: int) -> httpx.Response:
        return await http.post("", json=bundle, headers=JSON)

    answers = await together(server, 64, transact)
    assert {answer.status_code for answer in answers} == {200}
    assert Counter(answer.json()["entry"][0]["response"]["status"][:3] for answer in answers) == {"201": 1, "200": 63}
    assert await count(server, value) == 1


async def test_64_equal_conditional_updates_make_one_resource(server: Server) -> None:
    value = uuid.uuid4().hex

    async def update(http: httpx.AsyncClient, number: int) -> httpx.Response:
        return await http.put("/Patient", params={"identifier": f"https://mrn.example|{value}"}, json=patient(value), headers=JSON)

    answers = await together(server, 64, update)
    assert {answer.status_code for answer in answers} <= {200, 201}
    assert await count(server, value) == 1


async def test_32_writers_with_if_match_lose_no_increment(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.base) as http:
        rid = (await http.post("/Patient", json={"resourceType": "Patient", "multipleBirthInteger": 0}, headers=JSON)).json()["id"]

    async def increment(http: httpx.AsyncClient, number: int) -> httpx.Response:
        while True:
            read = await http.get(f"/Patient/{rid}")
            res = read.json()
            res["multipleBirthInteger"] += 1
            answer = await http.put(f"/Patient/{rid}", json=res, headers={**JSON, "If-Match": read.headers["etag"]})
            if answer.status_code == 200:
                return answer
            assert answer.status_code == 412, answer.text

    await together(server, 32, increment)
    async with httpx.AsyncClient(base_url=server.base) as http:
        res = (await http.get(f"/Patient/{rid}")).json()
    assert res["multipleBirthInteger"] == 32
    assert res["meta"]["versionId"] == "33"
