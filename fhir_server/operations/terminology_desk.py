"""Terminology over HTTP for administrators, below `/admin/terminology`: the codes that nothing here knows, and what is loaded.

GET unknown?source=&system=&limit= lists unknown codes, the most frequent first; POST unknown/forget {source, system, code} (any of them) removes rows that
have been mapped; GET loaded lists the code systems in force.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from conformance import codec
from conformance.outcome import bad_request, refuse
from fhir_server.store.mongo import unknown_codes
from fhir_server.store.mongo.client import Database
from terminology.service import Terms

MAX_ROWS = 1000
Query = Mapping[str, str]
Handler = Callable[[Database, Terms, Query, bytes], Awaitable[Any]]


async def answer(database: Database, terms: Terms, method: str, path: tuple[str, ...], query: Query, body: bytes, who: str) -> Any:
    """The JSON value of a request. Raises Refusal 404 where the table has no such row."""
    handler = TABLE.get((method, *path))
    if handler is None:
        raise refuse("not-found", "terminology has no such path")
    return await handler(database, terms, query, body)


async def _unknown(database: Database, terms: Terms, query: Query, body: bytes) -> Any:
    text = query.get("limit", "100")
    if not text.isdecimal() or not 0 < int(text) <= MAX_ROWS:
        raise bad_request(f"'limit' is a number from 1 to {MAX_ROWS}")
    rows = await unknown_codes.listed(database, query, int(text))
    return [{**row, "first": row["first"].isoformat(), "last": row["last"].isoformat()} for row in rows]


async def _forget(database: Database, terms: Terms, query: Query, body: bytes) -> Any:
    given = codec.decode(body) if body else {}
    if not any(isinstance(given.get(name), str) and given[name] for name in unknown_codes.FIELDS):
        raise bad_request("the body is a JSON object with source, system or code")
    return {"removed": await unknown_codes.forget(database, {name: str(value) for name, value in given.items()})}


async def _loaded(database: Database, terms: Terms, query: Query, body: bytes) -> Any:
    terms.refresh()
    library = terms.library
    return [{"system": url, "versions": library.versions(url)[::-1]} for url in sorted(library.urls("CodeSystem"))]


TABLE: Mapping[tuple[str, ...], Handler] = {
    ("GET", "unknown"): _unknown,
    ("POST", "unknown", "forget"): _forget,
    ("GET", "loaded"): _loaded,
}
