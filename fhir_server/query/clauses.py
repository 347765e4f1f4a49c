"""The clause algebra over a resource's index document.

`search/types/*` build clauses, `store/mongo/lower.py` turns them into MongoDB filters, `query/match.py` evaluates them on an index
document (the oracle; also what scopes and subscriptions use). Everything is immutable and hashable. docs/search.md has the reasons.

An index document (built by `search/extract.py`, stored beside the resource) has
  k: [str]              keys: token, reference, uri, folded string, each prefixed by its parameter ('code=http://loinc.org|718-7')
  r: [{k, l, h, u, n}]  ranges: a key, low, high (absent: equal to low), unit spellings, a second {l, h} for composites of two ranges
  t: [str]              texts: 'code~glucose in blood' (for :text), 'n~word' of the narrative, 'c~word' of the rest (for _text, _content)
  p: str                the one patient this resource is about ('Patient/1'); such a reference is then not among the keys
  d: datetime           the low bound of the type's hot date (query/indexes.py), if it has a value
  g: [lon, lat]         a position, for `near`
  c: [{f, k, r, t, p}]  index documents of contained resources; f is their type
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

Index = dict[str, Any]
Bound = datetime | Decimal


@dataclass(frozen=True, slots=True)
class Everything:
    """Matches every resource."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """Matches no resource."""


@dataclass(frozen=True, slots=True)
class Keys:
    """`k` holds at least one of these exact strings."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prefix:
    """`k` holds a string that starts with this text (a range scan, never a regular expression of client text)."""

    text: str


@dataclass(frozen=True, slots=True)
class Contains:
    """`k` holds a string that starts with `prefix` and has `text` in what follows up to `stop`; `ends`: right before `stop`.

    Lowered to a scan of the keys that start with `prefix`; `text` is escaped.
    """

    prefix: str
    text: str
    stop: str
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """`t` holds this string (`whole`) or one that starts with it."""

    text: str
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Range:
    """One element of `r` has this key and low/high within the given bounds; None leaves a side open.

    low_ge: element.l >= low_ge; low_gt: element.l > ...; likewise for `h`. All bounds apply to the same element, as do `unit`
    (one of the element's spellings `u`) and `also` (bounds on its second range; its key is not looked at).
    """

    key: str
    low_ge: Bound | None = None
    low_gt: Bound | None = None
    low_le: Bound | None = None
    low_lt: Bound | None = None
    high_ge: Bound | None = None
    high_gt: Bound | None = None
    high_le: Bound | None = None
    high_lt: Bound | None = None
    unit: str | None = None
    also: "Range | None" = None


@dataclass(frozen=True, slots=True)
class Dated:
    """`d` exists and lies within the bounds (gt, ge, lt, le); None leaves a side open."""

    gt: datetime | None = None
    lt: datetime | None = None


@dataclass(frozen=True, slots=True)
class Ids:
    """The resource's id is one of these."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Updated:
    """meta.lastUpdated within [ge, lt); None leaves a side open."""

    ge: datetime | None = None
    lt: datetime | None = None


@dataclass(frozen=True, slots=True)
class Patient:
    """`p` is one of these references: the fast path for one patient's data."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HasPatient:
    """`p` has a value."""


@dataclass(frozen=True, slots=True)
class Near:
    """`g` lies within so many kilometres of a point (degrees, WGS84; great circle on a sphere)."""

    longitude: float
    latitude: float
    kilometres: float


@dataclass(frozen=True, slots=True)
class Contained:
    """A contained resource of this type has an index document (an element of `c`) that matches the part."""

    rtype: str
    part: "Clause"


@dataclass(frozen=True, slots=True)
class And:
    """All of the parts."""

    parts: "tuple[Clause, ...]"


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of the parts."""

    parts: "tuple[Clause, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    """Not the part."""

    part: "Clause"


Clause = (
    Everything | Nothing | Keys | Prefix | Contains | Text | Range | Dated | Ids | Updated | Patient | HasPatient | Near | Contained | And | Or | Not
)

EVERYTHING, NOTHING = Everything(), Nothing()


def both(*parts: Clause) -> Clause:
    """The conjunction, simplified: flat, without Everything, Nothing if one part is."""
    flat: dict[Clause, None] = {}
    for part in parts:
        inner = part.parts if isinstance(part, And) else (part,)
        for one in inner:
            if isinstance(one, Nothing):
                return NOTHING
            if not isinstance(one, Everything):
                flat[one] = None
    if not flat:
        return EVERYTHING
    return next(iter(flat)) if len(flat) == 1 else And(tuple(flat))


def either(*parts: Clause) -> Clause:
    """The disjunction, simplified: flat, without Nothing, keys merged, Everything if one part is."""
    if len(parts) == 1:
        return parts[0]
    flat: dict[Clause, None] = {}
    keys: dict[str, None] = {}
    for part in parts:
        inner = part.parts if isinstance(part, Or) else (part,)
        for one in inner:
            if isinstance(one, Keys):
                keys.update(dict.fromkeys(one.values))
            elif isinstance(one, Everything):
                return EVERYTHING
            elif not isinstance(one, Nothing):
                flat[one] = None
    alternatives = (*((Keys(tuple(keys)),) if keys else ()), *flat)
    if not alternatives:
        return NOTHING
    return alternatives[0] if len(alternatives) == 1 else Or(alternatives)


def negated(part: Clause) -> Clause:
    """The negation, simplified."""
    if isinstance(part, Not):
        return part.part
    if isinstance(part, Everything):
        return NOTHING
    return EVERYTHING if isinstance(part, Nothing) else Not(part)
