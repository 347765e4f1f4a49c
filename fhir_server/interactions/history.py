"""history of an instance, a type, the system. https://hl7.org/fhir/R4/http.html#history

Newest first in commit order; `_since`, `_at`, `_count`, `_list`, and `_sort=_lastUpdated` (oldest first) for pollers; `_summary` and `_elements` as
everywhere. A page ends with a signed cursor. What the caller may not see is left out: judged by the resource as it is (or last was) and by each version itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from conformance.dates import interval
from conformance.outcome import bad_request, not_supported
from fhir_server.context import Context, Reply, Request, Resource
from fhir_server.interactions.access import current, known, last_content, within
from fhir_server.interactions.headers import etag
from fhir_server.interactions.read import TRIMMING
from fhir_server.interactions.references import LITERAL, VERSION, references
from fhir_server.interactions.steps import checked_id
from fhir_server.query.clauses import Clause, Everything
from fhir_server.search.bundle import Trim, trimmer
from fhir_server.search.cursor import seal, unseal
from fhir_server.search.parse import parse
from fhir_server.security.visible import required, visible
from fhir_server.store import Stored

CURSOR = "_cursor"
SORTS: Mapping[str, bool] = {"-_lastUpdated": False, "_lastUpdated": True}
READ_AHEAD, MAX_READ = 100, 5000  # versions asked for at once; versions looked at for one page at the most
PREFIXES = ("eq", "ge", "gt", "le", "lt")
CREATED, CHANGED, DELETED = "201 Created", "200 OK", "204 No Content"


@dataclass(frozen=True, slots=True)
class Window:
    """Which versions are asked for: at >= since; at < until; superseded after `alive` (what was current in the time of `_at`);
    listed: (type, id, version or '') of `_list`; count: page size; self_query: the parameters as understood; trims: what shall be shown of each."""

    count: int
    self_query: tuple[tuple[str, str], ...]
    since: datetime | None = None
    until: datetime | None = None
    alive: datetime | None = None
    listed: frozenset[tuple[str, str, str]] | None = None
    ascending: bool = False
    trims: tuple[tuple[str, str], ...] = ()


async def history(ctx: Context, request: Request) -> Reply:
    """GET [type]/[id]/_history, [type]/_history, _history. Raises 400 for a parameter it does not know, 404 for an id never used."""
    rtype = request.path[0] if len(request.path) > 1 else None
    rid = checked_id(request.path[1]) if len(request.path) > 2 else None
    window = await _window(ctx, request.query)
    trim = trimmer(ctx.spec, parse(ctx, rtype, window.trims)) if window.trims else _whole
    path = "/".join(request.path)
    bound = f"{path}?{urlencode(window.self_query)}"
    cursor = dict(request.query).get(CURSOR)
    after = unseal(ctx, bound, cursor) if cursor else ()
    total = None
    if rtype is not None and rid is not None:
        now = await known(ctx, rtype, rid)
        plain = all(bound is None for bound in (window.since, window.until, window.alive, window.listed))
        total = now.vid if plain and isinstance(visible(ctx, rtype, "r"), Everything) else None
    rows, following = await _page(ctx, rtype, rid, window, after)
    links = [("self", request.query if cursor else window.self_query)]
    if following is not None:
        links.append(("next", (*window.self_query, (CURSOR, seal(ctx, bound, following)))))
    return Reply(200, _bundle(ctx, rows, [(relation, f"{ctx.base}/{path}{_query(query)}") for relation, query in links], total, trim))


def _whole(res: Resource) -> Resource:
    return res


def _query(pairs: Sequence[tuple[str, str]]) -> str:
    return f"?{urlencode(pairs, safe=':/|,$')}" if pairs else ""


async def _window(ctx: Context, query: Sequence[tuple[str, str]]) -> Window:
    count, given = ctx.settings.page_size, list[tuple[str, str]]()
    bounds: dict[str, Any] = {}
    for name, value in query:
        if name == "_count":
            count = _count(ctx, value)
            value = str(count)
        elif name == "_since":
            bounds["since"] = _interval(name, value)[0]
        elif name == "_at":
            bounds["alive"], bounds["until"] = _at(value)
        elif name == "_list":
            bounds["listed"] = await _listed(ctx, value)
        elif name == "_sort":
            if value not in SORTS:
                raise not_supported("a history can be sorted by _lastUpdated or -_lastUpdated")
            bounds["ascending"] = SORTS[value]
        elif name in TRIMMING:
            bounds["trims"] = (*bounds.get("trims", ()), (name, value))
        elif name != CURSOR and ctx.prefer.get("handling") != "lenient":
            raise not_supported(f"history has no parameter '{name}'")
        elif name != CURSOR:
            continue
        if name != CURSOR:
            given.append((name, value))
    return Window(0 if ("_summary", "count") in given else count, tuple(given), **bounds)


def _count(ctx: Context, value: str) -> int:
    if not value.isascii() or not value.isdigit():
        raise bad_request("_count is a number")
    return min(int(value[:9]), ctx.settings.max_page_size)


def _interval(name: str, value: str) -> tuple[datetime, datetime]:
    try:
        return interval(value.replace(" ", "+"))
    except ValueError as error:
        raise bad_request(f"{name} is not a date, dateTime or instant") from error


def _at(value: str) -> tuple[datetime | None, datetime | None]:
    """(alive after, at before) of an `_at` with the prefixes of a date search."""
    prefix, text = (value[:2], value[2:]) if value[:2] in PREFIXES else ("eq", value)
    low, high = _interval("_at", text)
    return {"eq": (low, high), "ge": (low, None), "gt": (high, None), "le": (None, high), "lt": (None, low)}[prefix]


async def _listed(ctx: Context, value: str) -> frozenset[tuple[str, str, str]]:
    """What a List refers to; version '' for a reference to the resource as such."""
    stored = await current(ctx, "List", checked_id(value.removeprefix("List/")))
    found = set()
    for text in references((stored.res or {}).get("entry", [])):
        if match := LITERAL.fullmatch(text.removeprefix(f"{ctx.base}/")):
            version = VERSION.search(text)
            found.add((match.group(1), match.group(2), version.group(0).rpartition("/")[2] if version else ""))
    return frozenset(found)


async def _page(
    ctx: Context, rtype: str | None, rid: str | None, window: Window, after: tuple[Any, ...]
) -> tuple[list[Stored], tuple[Any, ...] | None]:
    """(versions of one page, position that the next page continues behind; None at the end)."""
    clause = required(ctx, rtype, "r" if rid else "s") if rtype else None
    limit = clause if rid is None and not isinstance(clause, Everything) else None
    rows: list[Stored] = []
    read = 0
    while read < MAX_READ and window.count:
        asked = max(window.count + 1 - len(rows), READ_AHEAD if read else 1)
        batch = await ctx.store.history(
            rtype, rid, since=window.since, until=window.until, limit=asked, after=after, ascending=window.ascending, clause=limit
        )
        for one in batch:
            if len(rows) == window.count:
                return rows, after
            if await _shows(ctx, one, clause, window):
                rows.append(one)
            after = one.position
        if len(batch) < asked:
            return rows, None
        read += len(batch)
    return rows, after if window.count else None


async def _shows(ctx: Context, one: Stored, clause: Clause | None, window: Window) -> bool:
    """Is this version asked for, and the caller's to see? `clause`: what the store has filtered by already, None for the whole system."""
    if window.listed is not None and window.listed.isdisjoint({(one.rtype, one.rid, ""), (one.rtype, one.rid, str(one.vid))}):
        return False
    if window.alive is not None and one.at < window.alive and not await _was_current(ctx, one, window.alive):
        return False
    limit = visible(ctx, one.rtype, "s") if clause is None else clause
    if isinstance(limit, Everything):
        return True
    if one.res is not None and not within(ctx, limit, one):
        return False
    return clause is not None or await _last_matches(ctx, limit, one)


async def _last_matches(ctx: Context, limit: Clause, one: Stored) -> bool:
    now = await ctx.store.get(one.rtype, one.rid)
    return now is not None and within(ctx, limit, await last_content(ctx, now))


async def _was_current(ctx: Context, one: Stored, moment: datetime) -> bool:
    """True if a version older than `moment` was still current then."""
    if one.res is None:
        return False
    following = await ctx.store.version(one.rtype, one.rid, one.vid + 1)
    return following is None or following.at > moment


def _bundle(ctx: Context, rows: Sequence[Stored], links: Sequence[tuple[str, str]], total: int | None, trim: Trim) -> Resource:
    bundle: Resource = {"resourceType": "Bundle", "type": "history"}
    if total is not None:
        bundle["total"] = total
    bundle["link"] = [{"relation": relation, "url": url} for relation, url in links]
    if rows:
        bundle["entry"] = [_entry(ctx, one, trim) for one in rows]
    return bundle


def _entry(ctx: Context, one: Stored, trim: Trim) -> Resource:
    """https://hl7.org/fhir/R4/bundle.html#history: the resource if there is one, how it came about, and when."""
    url = f"{one.rtype}/{one.rid}"
    entry: Resource = {"fullUrl": f"{ctx.base}/{url}"}
    if one.res is not None:
        entry["resource"] = trim(one.res)
    entry["request"] = {"method": one.method, "url": one.rtype if one.method == "POST" else url}
    status = DELETED if one.res is None else CREATED if one.vid == 1 else CHANGED
    at = one.at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{one.at.microsecond // 1000:03d}Z"
    entry["response"] = {"status": status, "etag": etag(one.vid), "lastModified": at}
    return entry
