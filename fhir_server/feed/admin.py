"""The inbox over HTTP for administrators: a table of rows, each a method, a path below `/admin/hl7v2` and a function of the desk.

The door checks that the caller may administer, finds the row (`find`) and renders the answer as JSON. Path parts in braces become arguments.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from conformance.outcome import bad_request
from fhir_server.feed import desk, unmapped
from fhir_server.feed.intake import Feed
from fhir_server.feed.statistics import alerts

Query = Mapping[str, str]
Handler = Callable[[Feed, Mapping[str, str], Query, bytes, str], Awaitable[Any]]  # (feed, path arguments, query, body, who) -> JSON value


@dataclass(frozen=True, slots=True)
class Row:
    """One entry of the table."""

    method: str
    path: tuple[str, ...]
    handler: Handler


def filters_of(query: Query, paging: tuple[str, ...] = ("after", "limit")) -> dict[str, Any]:
    """Filters of the query; times as ISO 8601. Raises Refusal 400."""
    filters: dict[str, Any] = {name: value for name, value in query.items() if name not in paging}
    for name in ("received_ge", "received_lt"):
        if name in filters:
            try:
                filters[name] = datetime.fromisoformat(filters[name])
            except ValueError as error:
                raise bad_request(f"'{name}' is an ISO 8601 time with offset") from error
            if filters[name].tzinfo is None:
                raise bad_request(f"'{name}' needs an offset")
    return filters


def _limit(query: Query) -> int:
    text = query.get("limit", "50")
    if not text.isdecimal() or not 0 < int(text) <= 1000:
        raise bad_request("'limit' is a number from 1 to 1000")
    return int(text)


async def _list(feed: Feed, path: Mapping[str, str], query: Query, body: bytes, who: str) -> Any:
    return await desk.listed(feed, filters_of(query), after=query.get("after", ""), limit=_limit(query))


async def _show(feed: Feed, path: Mapping[str, str], query: Query, body: bytes, who: str) -> Any:
    return await desk.show(feed, path["id"])


async def _resubmit(feed: Feed, path: Mapping[str, str], query: Query, body: bytes, who: str) -> Any:
    return await desk.resubmit(feed, path["id"], body or None, who)


async def _replay(feed: Feed, path: Mapping[str, str], query: Query, body: bytes, who: str) -> Any:
    if "resource" in query:
        if set(query) != {"resource"}:
            raise bad_request("'resource' is given alone: all its messages are replayed")
        return await desk.replay_resource(feed, query["resource"])
    return await desk.replay(feed, filters_of(query, ("after",)), after=query.get("after", ""))


async def _messages(feed: Feed, path: Mapping[str, str], query: Query, body: bytes, who: str) -> Any:
    return await desk.messages_of(feed, f"{path['type']}/{path['rid']}")


async def _alerts(feed: Feed, path: Mapping[str, str], query: Query, body: bytes, who: str) -> Any:
    rows = await alerts(feed.inbox, feed.registry)
    return [{**row, "last": row["last"].isoformat() if row["last"] else None} for row in rows]


async def _unmapped(feed: Feed, path: Mapping[str, str], query: Query, body: bytes, who: str) -> Any:
    return await unmapped.listed(feed.inbox, query.get("source", ""), _limit(query))


async def _merges(feed: Feed, path: Mapping[str, str], query: Query, body: bytes, who: str) -> Any:
    return json.loads(json.dumps(await desk.merges(feed, query.get("resource", "")), default=str))


async def _undo(feed: Feed, path: Mapping[str, str], query: Query, body: bytes, who: str) -> Any:
    return await desk.undo_merge(feed, path["id"], who)


TABLE = (
    Row("GET", ("inbox",), _list),
    Row("GET", ("inbox", "{id}"), _show),
    Row("POST", ("inbox", "{id}", "resubmit"), _resubmit),
    Row("POST", ("replay",), _replay),
    Row("GET", ("messages", "{type}", "{rid}"), _messages),
    Row("GET", ("sources",), _alerts),
    Row("GET", ("unmapped",), _unmapped),
    Row("GET", ("merges",), _merges),
    Row("POST", ("merges", "{id}", "undo"), _undo),
)


def find(method: str, path: tuple[str, ...]) -> tuple[Handler, dict[str, str]] | None:
    """The handler of a request and its path arguments; None if the table has no such row."""
    for row in TABLE:
        if row.method == method and len(row.path) == len(path):
            arguments = {part.strip("{}"): sent for part, sent in zip(row.path, path) if part.startswith("{")}
            if all(part.startswith("{") or part == sent for part, sent in zip(row.path, path)):
                return row.handler, arguments
    return None
