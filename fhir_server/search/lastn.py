"""The newest observations of each kind: the search behind `$lastn`. https://hl7.org/fhir/R4/observation-operation-lastn.html"""

from collections.abc import Sequence
from typing import Any

from conformance.outcome import bad_request, refuse
from fhir_server.context import Context
from fhir_server.query.clauses import both
from fhir_server.search import bundle, parse
from fhir_server.search.aliases import merged
from fhir_server.search.condition import Pair
from fhir_server.search.fold import fold
from fhir_server.search.resolve import resolve
from fhir_server.search.run import Visible
from fhir_server.store import Sort, Stored

Resource = dict[str, Any]
RTYPE, STEP, MOST = "Observation", 500, 20_000
FOCUS = ("patient", "subject")
KINDS = ("category", "code", "combo-code", "component-code")


async def lastn(ctx: Context, pairs: Sequence[Pair], *, visible: Visible, path: str) -> Resource:
    """The last `max` (default 1) observations of each code among those that match the search parameters, newest first.

    Raises Refusal 400: no patient or subject, no category or code, a wrong `max`; what would have to read more than MOST observations.
    """
    criteria = [pair for pair in pairs if pair[0] not in ("max", "_format", "_pretty")]
    names = {name.split(":", 1)[0].split(".", 1)[0] for name, _ in criteria}
    if not names & set(FOCUS) or not names & set(KINDS):
        raise bad_request("$lastn needs a patient or subject, and a category or a code")
    most = _max(pairs)
    clause = both(merged(ctx, RTYPE, await resolve(ctx, parse.condition_of(ctx, RTYPE, criteria), visible)), visible(RTYPE))
    kept: dict[int, list[Stored]] = {}
    groups: dict[str, int] = {}
    after: tuple[Any, ...] = ()
    for _ in range(MOST // STEP):
        rows = await ctx.store.find(RTYPE, clause, sort=[Sort("date", True, "d")], limit=STEP, after=after)
        for row in rows:
            group = kept.setdefault(_group(row, groups), [])
            if len(group) < most:
                group.append(row)
        if len(rows) < STEP:
            return _bundle(ctx, [row for group in kept.values() for row in group], pairs, path)
        after = rows[-1].position
    raise refuse("too-costly", f"$lastn looks at no more than {MOST} observations; narrow the search", status=400)


def _max(pairs: Sequence[Pair]) -> int:
    texts = [value for name, value in pairs if name == "max"]
    if not texts:
        return 1
    if len(texts) > 1 or not texts[0].isdecimal() or not 1 <= int(texts[0]) <= 1000:
        raise bad_request("parameter 'max': the value must be a whole number from 1 to 1000")
    return int(texts[0])


def _group(row: Stored, groups: dict[str, int]) -> int:
    """The number of the kind: observations that share a coding (or, without one, their text) are of one kind."""
    code = (row.res or {}).get("code", {})
    keys = [f"{one.get('system', '')}|{one['code']}" for one in code.get("coding", ()) if "code" in one] or ["~" + fold(code.get("text", ""))]
    number = next((groups[key] for key in keys if key in groups), len(groups))
    for key in keys:
        groups.setdefault(key, number)
    return number


def _bundle(ctx: Context, rows: list[Stored], pairs: Sequence[Pair], path: str) -> Resource:
    entries = [bundle.entry(ctx.base, row.res, "match") for row in rows if row.res is not None]
    return bundle.searchset(entries, {"self": bundle.url(ctx.base, path, pairs)}, len(entries))
