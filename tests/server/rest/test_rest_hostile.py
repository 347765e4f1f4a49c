"""Junk in, refusals out: whatever a body holds, the answer is an OperationOutcome with a status below 500, never an exception."""

import copy
import random
from typing import Any

import pytest

from tests.bench.core import observation
from tests.server.rest.calls import Exchange

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATIENT = {
    "resourceType": "Patient",
    "id": "a",
    "meta": {"profile": ["http://p"], "tag": [{"system": "http://t", "code": "x"}], "versionId": "3", "lastUpdated": "2020-01-01T00:00:00Z"},
    "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml"><a href="urn:uuid:1">x</a></div>'},
    "contained": [{"resourceType": "Organization", "id": "o", "name": "x"}],
    "identifier": [{"system": "http://h", "value": "1"}],
    "name": [{"family": "x", "given": ["y"]}],
    "birthDate": "2000-01-01",
    "generalPractitioner": [{"reference": "Practitioner?identifier=http://h|9"}],
    "managingOrganization": {"reference": "#o"},
    "extension": [{"url": "http://e", "valueUri": "urn:uuid:1"}],
    "link": [{"other": {"reference": "Patient/b"}, "type": "seealso"}],
}
JUNK: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**70,
    1.5,
    "",
    " ",
    "x" * 300,
    "\x00",
    "${jndi}",
    "$where",
    [],
    {},
    [[]],
    [None],
    [{}],
    {"$ne": 1},
    {"a.b": {"": []}},
    "é\u202e",
    "1'\"<>|,\\",
)
METHODS = ("POST", "PUT", "PATCH", "DELETE", "GET", "HEAD", "JUMP")


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value inside."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, inner in list(items):
        found.append((value, key))
        found += places(inner)
    return found


def spoilt(res: Any, chance: random.Random) -> Any:
    """A copy with one to three values replaced, removed or repeated, or a key added."""
    res = copy.deepcopy(res)
    for _ in range(chance.randint(1, 3)):
        where = places(res)
        if not where:
            return res
        container, key = chance.choice(where)
        deed = chance.random()
        if deed < 0.7:
            container[key] = copy.deepcopy(chance.choice(JUNK))
        elif deed < 0.85:
            del container[key]
        elif isinstance(container, dict):
            container[chance.choice(["_" + str(key), "$x", "resourceType", "reference", "id", "value"])] = copy.deepcopy(chance.choice(JUNK))
        else:
            container.append(copy.deepcopy(container[key]))
    return res


async def survives(rest: Exchange, method: str, url: str, res: Any, **headers: str) -> None:
    reply = await rest(method, url, res, **headers)
    assert reply.status < 500, (reply, method, url, res)
    if reply.status >= 400:
        assert reply.res is not None
        assert reply.res["resourceType"] == "OperationOutcome"


@pytest.mark.parametrize("level", ["enforce", "warn", "off"])
async def test_spoilt_resources(rest: Exchange, level: str) -> None:
    rest = rest.with_settings(validation=level)
    chance = random.Random(level)
    for number in range(150):
        res = spoilt(PATIENT if number % 2 else {**observation(number), "id": "o"}, chance)
        rtype = "Patient" if number % 2 else "Observation"
        if isinstance(res, dict) and isinstance(res.get("resourceType"), str):
            await survives(rest, "POST", rtype, res)
            await survives(rest, "PUT", f"{rtype}/{'a' if number % 2 else 'o'}", res)
            await survives(rest, "POST", "Patient/$validate", res)


async def test_spoilt_bundles(rest: Exchange) -> None:
    chance = random.Random(5)
    patch = {
        "resourceType": "Parameters",
        "parameter": [{"name": "operation", "part": [{"name": "type", "valueCode": "delete"}, {"name": "path", "valueString": "Patient.name"}]}],
    }
    entries = [
        {"fullUrl": "urn:uuid:1", "resource": PATIENT, "request": {"method": "POST", "url": "Patient", "ifNoneExist": "identifier=http://h|1"}},
        {"fullUrl": "http://x/y/Patient/b", "resource": {**PATIENT, "id": "b"}, "request": {"method": "PUT", "url": "Patient/b", "ifMatch": 'W/"1"'}},
        {"resource": patch, "request": {"method": "PATCH", "url": "Patient/b"}},
        {"request": {"method": "DELETE", "url": "Patient?identifier=http://h|7"}},
        {"request": {"method": "GET", "url": "Patient?name=x&_count=2", "ifNoneMatch": 'W/"1"'}},
        {"request": {"method": "GET", "url": "Patient/b/_history?_since=2020"}},
    ]
    for number in range(250):
        bundle = spoilt(
            {"resourceType": "Bundle", "type": "batch" if number % 2 else "transaction", "entry": chance.sample(entries, chance.randint(1, 6))},
            chance,
        )
        reply = await rest("POST", "", bundle)
        assert reply.status < 500, (reply, bundle)
        for row in reply.res.get("entry", []):
            assert row["response"]["status"][0] != "5", (row, bundle)


@pytest.mark.parametrize("name", ["if_match", "if_none_match", "if_none_exist", "if_modified_since", "prefer", "x_cascade"])
async def test_spoilt_headers(rest: Exchange, name: str) -> None:
    await rest("PUT", "Patient/a", {"resourceType": "Patient", "id": "a"})
    for text in (
        "",
        "*",
        "W/",
        '"',
        'W/"' + "9" * 400 + '"',
        "identifier",
        "identifier=%ff",
        "&&&",
        "=",
        "a=b=c",
        "_id=a|b,c\\",
        "x" * 5000,
        "\x00",
        "return=",
        "Mon, 99 Foo 2020",
        "9999-99-99",
    ):
        for method, url, res in (
            ("GET", "Patient/a", None),
            ("PUT", "Patient/a", {"resourceType": "Patient", "id": "a"}),
            ("POST", "Patient", {"resourceType": "Patient"}),
            ("DELETE", "Basic/none", None),
        ):
            await survives(rest, method, url, res, **{name: text})


async def test_spoilt_paths_and_queries(rest: Exchange) -> None:
    chance = random.Random(11)
    words = (
        "Patient",
        "a",
        "_history",
        "1",
        "_search",
        "*",
        "$meta",
        "$",
        "metadata",
        "..",
        "",
        " ",
        "\x00",
        "é",
        "%",
        "Observation",
        "x" * 200,
        "$versions",
        "0",
        "-1",
    )
    names = (
        "_count",
        "_since",
        "_at",
        "_list",
        "_sort",
        "_cursor",
        "_cascade",
        "_summary",
        "_elements",
        "name",
        "identifier",
        "_id",
        "x",
        "",
        "_type",
        "mode",
        "_has:Observation:subject:code",
        "subject.name",
    )
    values = (
        "",
        "1",
        "-1",
        "a",
        "9" * 50,
        "2020",
        "2020-13-45",
        "true",
        "\x00",
        "|",
        "||",
        "http://h|1",
        ",",
        "\\",
        "$where",
        ".*",
        "ge2020",
        "é" * 50,
        "Patient/a",
        "List/none",
        "AAAA",
    )
    for _ in range(700):
        path = "/".join(chance.choice(words) for _ in range(chance.randint(0, 5)))
        pairs = "&".join(f"{chance.choice(names)}={chance.choice(values)}" for _ in range(chance.randint(0, 3)))
        body = {"resourceType": "Patient"} if chance.random() < 0.4 else None
        await survives(rest, chance.choice(METHODS), f"{path}?{pairs}".replace("%", "%25"), body)
