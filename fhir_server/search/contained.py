"""`_containedType=contained`: the resources inside others, page by page. https://hl7.org/fhir/R4/search.html#contained

The database finds containers; several resources inside one may match. A page never has more of them than asked for, so it may end within a container:
the cursor then says how many of it were shown.
"""

from collections.abc import Sequence
from typing import Any

from fhir_server.context import Context
from fhir_server.query.clauses import Clause
from fhir_server.query.match import matches
from fhir_server.search import bundle
from fhir_server.search.extract import extractor
from fhir_server.search.plan import Plan
from fhir_server.store import Stored

Resource = dict[str, Any]
WITHIN = "c"  # 'c2' where a cursor names the order: two of the next container were shown


def shown(position: Sequence[Any]) -> int:
    """How many resources of the first container behind a position were shown before."""
    mark = str(position[1]) if position else ""
    return int(mark.removeprefix(WITHIN)) if mark.startswith(WITHIN) else 0


def inner_matches(ctx: Context, plan: Plan, row: Stored, wanted: Clause, trim: bundle.Trim) -> list[Resource]:
    """Entries of the contained resources that match, and with `_contained=both` of the resource itself if it does."""
    if row.res is None:
        return []
    extract = extractor(ctx.spec, ctx.terms, ctx.base)
    whole = plan.contained == "both" and row.rtype in plan.types and matches(wanted, extract(row.res), rid=row.rid, at=row.at)
    inner = [
        one for one in row.res.get("contained", ()) if one["resourceType"] in plan.types and matches(wanted, extract(one), rid=one.get("id", ""))
    ]
    return [bundle.entry(ctx.base, trim(row.res), "match")] * whole + [_entry(ctx, row, one) for one in inner]


def _entry(ctx: Context, row: Stored, inner: Resource) -> Resource:
    """A contained resource under its container's address."""
    return {"fullUrl": f"{ctx.base}/{row.rtype}/{row.rid}#{inner.get('id', '')}", "resource": inner, "search": {"mode": "match"}}


def cut(found: Sequence[list[Resource]], before: int, most: int) -> tuple[list[Resource], int, int]:
    """The first `most` entries behind `before` of the first container; where to go on: (containers that are done, entries of the next that were shown)."""
    entries: list[Resource] = []
    for at, inner in enumerate(found):
        rest = inner[before:]
        room = most - len(entries)
        entries += rest[:room]
        if len(rest) > room:
            return entries, at, before + room
        before = 0
    return entries, len(found), 0
