"""The clause algebra over a resource's index document.

`search/types/*` build clauses, `store/mongo/lower.py` turns them into MongoDB filters, `query/match.py` evaluates them on an index
document (the oracle; also what scopes and subscriptions use). Everything is immutable and hashable.

An index document (built by `search/extract.py`, stored beside the resource) has
  k: [str]              keys: token, reference, uri, folded string, presence ... each prefixed by its parameter
  r: [{k, l, h}]        ranges: date, number, quantity as half-open or closed [low, high] per parameter (and composite) key
  p: str | None         the patient this resource is about ('Patient/1'): a fast path only
  d: datetime | None    the clinical date (low bound) of the resource: the hot sort key
  s: {param: value}     scalar sort values for the parameters that can be sorted by
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
class Range:
    """One element of `r` has this key and low/high within the given bounds; None leaves a side open.

    low_ge: element.l >= low_ge; low_gt: element.l > ...; likewise for `h`. Both bounds apply to the same element.
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


Clause = Everything | Nothing | Keys | Prefix | Range | Ids | Updated | Patient | And | Or | Not
