"""The newest observations of each kind: the search behind `$lastn`. https://hl7.org/fhir/R4/observation-operation-lastn.html"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from conformance.outcome import bad_request, refuse
from fhir_server.context import Context
from fhir_server.query.clauses import both
from fhir_server.search import bundle, parse
from fhir_server.search.aliases import merged
from fhir_server.search.condition import Pair
from fhir_server.search.resolve import resolve
from fhir_server.search.run import Visible
from fhir_server.store import Sort, Stored

Resource = dict[str, Any]
RTYPE, STEP, MOST = "Observation", 500, 20_000
FOCUS = ("patient", "subject")


@dataclass(slots=True)
class Groups:
    """Observations by kind: those whose codes are linked by any chain of common codings are of one kind; the newest `most` of each are kept, and what ties with the last.

    parents: of each coding another one of its kind, or itself; kept: by the last parent, (place in the order of dates, observation).
    """

    most: int
    parents: dict[str, str] = field(default_factory=dict)
    kept: dict[str, list[tuple[int, Stored]]] = field(default_factory=dict)

    def add(self, place: int, row: Stored) -> None:
        """The next observation, which is no newer than those before."""
        roots = list(dict.fromkeys(self._root(key) for key in _keys(row)))
        for other in roots[1:]:
            self.parents[other] = roots[0]
        found = sorted([one for root in roots for one in self.kept.pop(root, ())] + [(place, row)], key=itemgetter(0))
        last = found[: self.most][-1][1]
        self.kept[roots[0]] = found[: self.most] + [one for one in found[self.most :] if _tied(last, one[1])]

    def _root(self, key: str) -> str:
        parent = self.parents.setdefault(key, key)
        while parent != key:
            key, parent = parent, self.parents[parent]
        return key

    def rows(self) -> list[Stored]:
        """All that is kept, most recent first."""
        return [row for _, row in sorted((one for found in self.kept.values() for one in found), key=itemgetter(0))]


def _keys(row: Stored) -> list[str]:
    """What makes two observations one kind: a coding of system and code; of a code without codings its text, letter by letter."""
    code = (row.res or {}).get("code", {})
    return [f"{one.get('system', '')}|{one['code']}" for one in code.get("coding", ()) if "code" in one] or ["~" + code.get("text", "")]


def _tied(one: Stored, other: Stored) -> bool:
    """Both have the same effective time."""
    return one.position[0] is not None and one.position[0] == other.position[0]


async def lastn(ctx: Context, pairs: Sequence[Pair], *, visible: Visible, path: str) -> Resource:
    """The last `max` (default 1) observations of each code among those that match the search parameters, most recent first; of a tie all.

    Raises Refusal 400: no patient or subject, no category or code, a wrong `max`; what would have to read more than MOST observations.
    """
    criteria = [pair for pair in pairs if pair[0] not in ("max", "_format", "_pretty")]
    names = {name.split(":", 1)[0].split(".", 1)[0] for name, _ in criteria}
    if not names & set(FOCUS) or not any(name == "category" or "code" in name.split("-") for name in names):
        raise bad_request("$lastn needs a patient or subject, and a category or a code")
    groups = Groups(_max(pairs))
    clause = both(merged(ctx, RTYPE, await resolve(ctx, parse.condition_of(ctx, RTYPE, criteria), visible)), visible(RTYPE))
    after: tuple[Any, ...] = ()
    for page in range(MOST // STEP):
        rows = await ctx.store.find(RTYPE, clause, sort=[Sort("date", True, "d")], limit=STEP, after=after)
        for at, row in enumerate(rows):
            groups.add(page * STEP + at, row)
        if len(rows) < STEP:
            return _bundle(ctx, groups.rows(), pairs, path)
        after = rows[-1].position
    raise refuse("too-costly", f"$lastn looks at no more than {MOST} observations; narrow the search", status=400)


def _max(pairs: Sequence[Pair]) -> int:
    texts = [value for name, value in pairs if name == "max"]
    if not texts:
        return 1
    if len(texts) > 1 or not texts[0].isdecimal() or not 1 <= int(texts[0]) <= 1000:
        raise bad_request("parameter 'max': the value must be a whole number from 1 to 1000")
    return int(texts[0])


def _bundle(ctx: Context, rows: list[Stored], pairs: Sequence[Pair], path: str) -> Resource:
    entries = [bundle.entry(ctx.base, row.res, "match") for row in rows if row.res is not None]
    return bundle.searchset(entries, {"self": bundle.url(ctx.base, path, pairs)}, len(entries))
