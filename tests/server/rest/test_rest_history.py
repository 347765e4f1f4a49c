"""History in time: paging that misses nothing, `_since`, `_at`. https://hl7.org/fhir/R4/http.html#history"""

import asyncio
import random
from urllib.parse import quote

import pytest

from tests.server.rest.calls import BASE, Exchange

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def grow(rest: Exchange, seed: int, length: int) -> list[tuple[str, str]]:
    """Random creates, updates and deletes; what they made, oldest first: ('Patient/1', version)."""
    chance = random.Random(seed)
    made, versions = [], dict[str, int]()
    for _ in range(length):
        rid = f"{chance.choice(['Patient', 'Basic'])}/{chance.randrange(5)}"
        rtype, _, bare = rid.partition("/")
        reply = await (
            rest("DELETE", rid)
            if chance.random() < 0.3
            else rest("PUT", rid, {"resourceType": rtype, "id": bare} | ({"code": {"text": "x"}} if rtype == "Basic" else {}))
        )
        assert reply.status in (200, 201, 204), reply
        vid = reply.headers.get("ETag", "")
        if vid and vid != versions.get(rid):
            versions[rid] = vid
            made.append((rid, vid))
    return made


async def walk(rest: Exchange, url: str) -> list[tuple[str, str]]:
    """All pages of a history, in their order."""
    found: list[tuple[str, str]] = []
    pages = 0
    while url:
        reply = await rest("GET", url)
        assert reply.status == 200, reply
        found += [(row["fullUrl"].removeprefix(f"{BASE}/"), row["response"]["etag"]) for row in reply.res.get("entry", [])]
        url = next((link["url"].removeprefix(f"{BASE}/") for link in reply.res["link"] if link["relation"] == "next"), "")
        pages += 1
        assert pages < 200
    return found


@pytest.mark.parametrize("count", [1, 3, 50])
async def test_pages_hold_every_version_once_in_commit_order(rest: Exchange, count: int) -> None:
    made = await grow(rest, count, 40)
    assert await walk(rest, f"_history?_count={count}") == made[::-1]
    assert await walk(rest, f"_history?_count={count}&_sort=_lastUpdated") == made
    patients = [row for row in made if row[0].startswith("Patient/")]
    assert await walk(rest, f"Patient/_history?_count={count}") == patients[::-1]
    assert await walk(rest, f"Patient/_history?_count={count}&_sort=_lastUpdated") == patients
    for rid in {row[0] for row in made}:
        assert await walk(rest, f"{rid}/_history?_count={count}") == [row for row in made[::-1] if row[0] == rid]


async def test_a_cursor_continues_behind_what_came_meanwhile(rest: Exchange) -> None:
    made = await grow(rest, 7, 20)
    first = await rest("GET", "_history?_count=5")
    await grow(rest, 8, 10)
    follow = next(link["url"].removeprefix(f"{BASE}/") for link in first.res["link"] if link["relation"] == "next")
    assert await walk(rest, follow) == made[::-1][5:]


async def test_since_includes_its_instant(rest: Exchange) -> None:
    made = await grow(rest, 9, 20)
    whole = await rest("GET", "_history?_count=1000")
    stamps = [row["response"]["lastModified"] for row in whole.res["entry"]][::-1]
    since = stamps[10]
    expected = [row for row, stamp in zip(made, stamps, strict=True) if stamp >= since]
    assert await walk(rest, f"_history?_since={since}") == expected[::-1]
    assert await walk(rest, f"_history?_since={quote(since.replace('Z', '+00:00'))}&_count=3") == expected[::-1]


async def test_at_shows_what_was_current_then(rest: Exchange) -> None:
    body = {"resourceType": "Basic", "id": "a", "code": {"text": "x"}}
    stamps = []
    for _ in range(3):
        reply = await rest("PUT", "Basic/a", body)
        stamps.append(reply.res["meta"]["lastUpdated"])
        await asyncio.sleep(0.02)
    other = await rest("PUT", "Basic/b", body | {"id": "b"})
    await rest("DELETE", "Basic/a")
    table = {
        f"_at={stamps[0]}": [("Basic/a", 'W/"1"')],
        f"_at={stamps[1]}": [("Basic/a", 'W/"2"')],
        f"_at={other.res['meta']['lastUpdated']}": [("Basic/b", 'W/"1"'), ("Basic/a", 'W/"3"')],
        "_at=lt2000": [],
        f"_at=le{stamps[0]}": [("Basic/a", 'W/"1"')],
        f"_at=ge{other.res['meta']['lastUpdated']}": [("Basic/a", 'W/"4"'), ("Basic/b", 'W/"1"'), ("Basic/a", 'W/"3"')],
    }
    for query, expected in table.items():
        assert await walk(rest, f"Basic/_history?{query}") == expected, query
        assert await walk(rest, f"Basic/_history?{query}&_count=1") == expected, query
    assert await walk(rest, f"Basic/a/_history?_at={stamps[1]}") == [("Basic/a", 'W/"2"')]


async def test_a_cursor_of_another_history_or_caller_is_refused(rest: Exchange) -> None:
    await grow(rest, 3, 10)
    reply = await rest("GET", "_history?_count=2")
    cursor = reply.res["link"][1]["url"].rpartition("=")[2]
    assert (await rest("GET", f"Patient/_history?_count=2&_cursor={cursor}")).status == 400
    assert (await rest("GET", f"_history?_count=3&_cursor={cursor}")).status == 400
    other = rest.by(*rest.ctx.grant.rights, subject="someone")
    assert (await other("GET", f"_history?_count=2&_cursor={cursor}")).status == 400
    assert (await rest("GET", f"_history?_count=2&_cursor={cursor}")).status == 200
