"""How each interaction of interactions.csv is asked of the exchange. A path returns the status, and whether the resource was listed."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from fhir_server.context import Reply
from tests.security.matrix.world import Instance
from tests.server.rest.calls import BASE, Exchange

JSON_PATCH = json.dumps([{"op": "add", "path": "/implicitRules", "value": "urn:x"}]).encode()
MEDIA = "application/json-patch+json"
MOST_PAGES = 400


@dataclass
class Asked:
    """One case on its way: who asks, of what, under which id; all replies it saw."""

    caller: Exchange
    instance: Instance
    rid: str
    replies: list[Reply] = field(default_factory=list)

    async def send(self, method: str, url: str, res: Any = None, **more: Any) -> Reply:
        """One request."""
        reply = await self.caller(method, url, res, **more)
        self.replies.append(reply)
        return reply

    @property
    def place(self) -> str:
        """Type/id."""
        return f"{self.instance.rtype}/{self.rid}"

    @property
    def criteria(self) -> str:
        """Type?_id=id."""
        return f"{self.instance.rtype}?_id={self.rid}"

    def body(self, named: bool = True) -> dict[str, Any]:
        """The resource as it is stored."""
        res = self.instance.res(self.rid)
        return res if named else {name: value for name, value in res.items() if name != "id"}

    def lists(self, reply: Reply) -> bool:
        """True if the answer has an entry for the resource."""
        rows = (reply.res or {}).get("entry", ())
        return any(row.get("fullUrl", "").startswith(BASE) and row["fullUrl"].endswith(f"/{self.place}") for row in rows)


Path = Callable[[Asked], Awaitable[str]]
PATHS: dict[str, Path] = {}


def path(name: str) -> Callable[[Path], Path]:
    """Enters a function into the table."""

    def entered(function: Path) -> Path:
        PATHS[name] = function
        return function

    return entered


def simple(name: str, method: str, url: str, **more: Any) -> None:
    """A path that is one request whose status counts; url has {place} and {criteria}."""

    async def ask(asked: Asked) -> str:
        reply = await asked.send(method, url.format(place=asked.place, criteria=asked.criteria, rtype=asked.instance.rtype), **more)
        return str(reply.status)

    PATHS[name] = ask


def written(name: str, method: str, url: str, named: bool = True, **more: Any) -> None:
    """The same with the resource as body."""

    async def ask(asked: Asked) -> str:
        where = url.format(place=asked.place, criteria=asked.criteria, rtype=asked.instance.rtype)
        headers = {key: value.format(criteria=f"_id={asked.rid}") for key, value in more.items()}
        return str((await asked.send(method, where, asked.body(named), **headers)).status)

    PATHS[name] = ask


simple("read", "GET", "{place}")
simple("head-of-version", "HEAD", "{place}/_history/1")
simple("history", "GET", "{place}/_history")
simple("meta", "GET", "{place}/$meta")
simple("validate-stored", "POST", "{place}/$validate")
written("put", "PUT", "{place}")
written("put-if-match", "PUT", "{place}", if_match='W/"999"')
written("put-if-none-match", "PUT", "{place}", if_none_match="*")
written("put-by-criteria-naming-the-id", "PUT", "{criteria}")
simple("patch", "PATCH", "{place}", body=JSON_PATCH, media=MEDIA)
simple("patch-if-match", "PATCH", "{place}", body=JSON_PATCH, media=MEDIA, if_match='W/"999"')
simple("patch-by-criteria", "PATCH", "{criteria}", body=JSON_PATCH, media=MEDIA)
ADDED = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"tag": [{"code": "added"}]}}]}
simple("meta-add", "POST", "{place}/$meta-add", res=ADDED)
simple("delete", "DELETE", "{place}")
simple("delete-if-match", "DELETE", "{place}", if_match='W/"999"')
simple("delete-by-criteria", "DELETE", "{criteria}")
written("create-if-none-exist", "POST", "{rtype}", named=False, if_none_exist="{criteria}")
written("create", "POST", "{rtype}", named=False)


async def _bundle(asked: Asked, kind: str, method: str, url: str, res: Any = None) -> Reply:
    entry: dict[str, Any] = {"request": {"method": method, "url": url}}
    if res is not None:
        entry["resource"] = res
    return await asked.send("POST", "", {"resourceType": "Bundle", "type": kind, "entry": [entry]})


def _inner(reply: Reply) -> str:
    """The status of the one entry, or that of the whole refusal."""
    if reply.status != 200 or reply.res is None:
        return str(reply.status)
    return str(reply.res["entry"][0]["response"]["status"])[:3]


def bundled(name: str, kind: str, method: str, body: bool) -> None:
    """A path that is the one entry of a bundle."""

    async def ask(asked: Asked) -> str:
        return _inner(await _bundle(asked, kind, method, asked.place, asked.body() if body else None))

    PATHS[name] = ask


bundled("read-in-batch", "batch", "GET", False)
bundled("read-in-transaction", "transaction", "GET", False)
bundled("put-in-batch", "batch", "PUT", True)
bundled("put-in-transaction", "transaction", "PUT", True)
bundled("delete-in-transaction", "transaction", "DELETE", False)


def listing(name: str, method: str, url: str) -> None:
    """A path that is a list: every page of it is looked at."""

    async def ask(asked: Asked) -> str:
        where = url.format(
            place=asked.place, criteria=asked.criteria, rtype=asked.instance.rtype, rid=asked.rid, owner=asked.instance.owner or "nobody"
        )
        found, verb = False, method
        for _ in range(MOST_PAGES):
            reply = await asked.send(verb, where)
            if reply.status != 200 or reply.res is None:
                return str(reply.status)
            found = found or asked.lists(reply)
            following = [link["url"] for link in reply.res.get("link", ()) if link["relation"] == "next"]
            if not following:
                return "listed" if found else "unlisted"
            where, verb = following[0].removeprefix(f"{BASE}/"), "GET"
        raise AssertionError("the pages do not end")

    PATHS[name] = ask


listing("search", "GET", "{criteria}")
listing("search-by-post", "POST", "{rtype}/_search?_id={rid}")
listing("search-by-tag", "GET", "{rtype}?_tag=tag-{rid}")
listing("search-every-page", "GET", "{rtype}?_count=2")
listing("search-every-page-sorted", "GET", "{rtype}?_count=3&_sort=-_lastUpdated&_total=accurate")
listing("search-all-types", "GET", "?_type={rtype}&_id={rid}")
listing("search-not-missing", "GET", "{rtype}?_tag:missing=false&_count=100")
listing("search-contained-too", "GET", "{rtype}?_id={rid}&_contained=both")
listing("history-of-type", "GET", "{rtype}/_history?_count=50")
listing("history-of-type-oldest-first", "GET", "{rtype}/_history?_count=7&_sort=_lastUpdated")
listing("history-of-all", "GET", "_history?_count=1000")
listing("in-compartment", "GET", "Patient/{owner}/{rtype}?_id={rid}")
listing("in-compartment-by-post", "POST", "Patient/{owner}/{rtype}/_search?_id={rid}")
listing("in-compartment-of-all-types", "GET", "Patient/{owner}/*?_id={rid}")


@path("search-by-tag-in-batch")
async def _search_in_batch(asked: Asked) -> str:
    reply = await _bundle(asked, "batch", "GET", f"{asked.instance.rtype}?_tag={quote(f'tag-{asked.rid}')}")
    if _inner(reply) != "200" or reply.res is None:
        return _inner(reply)
    inner = reply.res["entry"][0]["resource"]
    return "listed" if asked.lists(Reply(200, inner)) else "unlisted"


@path("search-count")
async def _count(asked: Asked) -> str:
    reply = await asked.send("GET", f"{asked.criteria}&_summary=count")
    if reply.status != 200 or reply.res is None:
        return str(reply.status)
    return {0: "unlisted", 1: "listed"}[reply.res["total"]]
