"""A clause evaluated on one index document, in plain Python: the oracle of `store/mongo/lower.py`, and what scopes and subscriptions use."""

from collections.abc import Callable, Mapping
from datetime import datetime
from math import asin, cos, radians, sin, sqrt
from operator import ge, gt, le, lt
from typing import Any

from fhir_server.query.clauses import (
    And,
    Clause,
    Contained,
    Contains,
    Dated,
    Everything,
    HasPatient,
    Ids,
    Index,
    Keys,
    Near,
    Not,
    Nothing,
    Or,
    Patient,
    Prefix,
    Range,
    Text,
    Updated,
)

EARTH_KM = 6378.1  # the radius MongoDB's documentation uses for $centerSphere
_BOUNDS = (
    ("low_ge", "l", ge),
    ("low_gt", "l", gt),
    ("low_le", "l", le),
    ("low_lt", "l", lt),
    ("high_ge", "h", ge),
    ("high_gt", "h", gt),
    ("high_le", "h", le),
    ("high_lt", "h", lt),
)


def matches(clause: Clause, index: Index, *, rid: str = "", at: datetime | None = None) -> bool:
    """Does the resource with this index document, id and commit stamp match?"""
    return _EVALUATE[type(clause)](clause, index, rid, at)


def _keys(clause: Keys, index: Index, rid: str, at: datetime | None) -> bool:
    keys = index.get("k", ())
    return any(value in keys for value in clause.values)


def _prefix(clause: Prefix, index: Index, rid: str, at: datetime | None) -> bool:
    return any(key.startswith(clause.text) for key in index.get("k", ()))


def _contains(clause: Contains, index: Index, rid: str, at: datetime | None) -> bool:
    for key in index.get("k", ()):
        if key.startswith(clause.prefix):
            rest = key[len(clause.prefix) :].split(clause.stop, 1)[0]
            if rest.endswith(clause.text) if clause.ends else clause.text in rest:
                return True
    return False


def _text(clause: Text, index: Index, rid: str, at: datetime | None) -> bool:
    texts = index.get("t", ())
    return clause.text in texts if clause.whole else any(one.startswith(clause.text) for one in texts)


def _range(clause: Range, index: Index, rid: str, at: datetime | None) -> bool:
    return any(one["k"] == clause.key and _within(clause, one) for one in index.get("r", ()))


def _within(clause: Range, one: Mapping[str, Any]) -> bool:
    """All bounds of the clause hold for one element of `r`."""
    for name, side, holds in _BOUNDS:
        bound = getattr(clause, name)
        if bound is not None and not holds(one["l"] if side == "l" else one.get("h", one["l"]), bound):
            return False
    if clause.unit is not None and clause.unit not in one.get("u", ()):
        return False
    return clause.also is None or _within(clause.also, one["n"])


def _dated(clause: Dated, index: Index, rid: str, at: datetime | None) -> bool:
    found = index.get("d")
    return found is not None and (clause.gt is None or found > clause.gt) and (clause.lt is None or found < clause.lt)


def _updated(clause: Updated, index: Index, rid: str, at: datetime | None) -> bool:
    return at is not None and (clause.ge is None or at >= clause.ge) and (clause.lt is None or at < clause.lt)


def _near(clause: Near, index: Index, rid: str, at: datetime | None) -> bool:
    if "g" not in index:
        return False
    return kilometres(clause.longitude, clause.latitude, *index["g"]) <= clause.kilometres


def kilometres(longitude: float, latitude: float, other_longitude: float, other_latitude: float) -> float:
    """Great-circle distance of two points in degrees."""
    low, high = radians(latitude), radians(other_latitude)
    half = sin((high - low) / 2) ** 2 + cos(low) * cos(high) * sin(radians(other_longitude - longitude) / 2) ** 2
    return 2 * EARTH_KM * asin(min(1.0, sqrt(half)))


def _contained(clause: Contained, index: Index, rid: str, at: datetime | None) -> bool:
    return any(one["f"] == clause.rtype and matches(clause.part, one, rid=one.get("i", ""), at=at) for one in index.get("c", ()))


_EVALUATE: dict[type, Callable[[Any, Index, str, datetime | None], bool]] = {
    Everything: lambda clause, index, rid, at: True,
    Nothing: lambda clause, index, rid, at: False,
    Keys: _keys,
    Prefix: _prefix,
    Contains: _contains,
    Text: _text,
    Range: _range,
    Dated: _dated,
    Ids: lambda clause, index, rid, at: rid in clause.values,
    Updated: _updated,
    Patient: lambda clause, index, rid, at: index.get("p") in clause.values,
    HasPatient: lambda clause, index, rid, at: "p" in index,
    Near: _near,
    Contained: _contained,
    And: lambda clause, index, rid, at: all(matches(part, index, rid=rid, at=at) for part in clause.parts),
    Or: lambda clause, index, rid, at: any(matches(part, index, rid=rid, at=at) for part in clause.parts),
    Not: lambda clause, index, rid, at: not matches(clause.part, index, rid=rid, at=at),
}
