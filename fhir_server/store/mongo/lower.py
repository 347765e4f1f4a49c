"""Clauses -> MongoDB filters over the index document."""

from collections.abc import Callable
from typing import Any

from fhir_server.query.clauses import And, Clause, Everything, Ids, Keys, Not, Nothing, Or, Patient, Prefix, Range, Updated

Filter = dict[str, Any]
NEVER: Filter = {"_id": {"$in": []}}
BOUNDS = (
    ("low_ge", "l", "$gte"),
    ("low_gt", "l", "$gt"),
    ("low_le", "l", "$lte"),
    ("low_lt", "l", "$lt"),
    ("high_ge", "h", "$gte"),
    ("high_gt", "h", "$gt"),
    ("high_le", "h", "$lte"),
    ("high_lt", "h", "$lt"),
)
LAST = "\U0010ffff"


def lower(clause: Clause) -> Filter:
    """The filter that selects exactly what the clause matches."""
    return _LOWER[type(clause)](clause)


def _one_of(values: tuple[str, ...]) -> Any:
    return values[0] if len(values) == 1 else {"$in": list(values)}


def _range(clause: Range) -> Filter:
    element: Filter = {"k": clause.key}
    for name, side, operator in BOUNDS:
        bound = getattr(clause, name)
        if bound is not None:
            element.setdefault(side, {})[operator] = bound
    return {"r": {"$elemMatch": element}}


def _updated(clause: Updated) -> Filter:
    bounds = {operator: bound for operator, bound in (("$gte", clause.ge), ("$lt", clause.lt)) if bound is not None}
    return {"at": bounds} if bounds else {}


def _and(clause: And) -> Filter:
    parts = [part for part in (lower(one) for one in clause.parts) if part]
    return parts[0] if len(parts) == 1 else {"$and": parts} if parts else {}


def _or(clause: Or) -> Filter:
    parts = [lower(one) for one in clause.parts]
    if not parts:
        return NEVER
    return {} if {} in parts else {"$or": parts}


_LOWER: dict[type, Callable[[Any], Filter]] = {
    Everything: lambda clause: {},
    Nothing: lambda clause: NEVER,
    Keys: lambda clause: {"k": _one_of(clause.values)},
    Prefix: lambda clause: {"k": {"$elemMatch": {"$gte": clause.text, "$lt": clause.text + LAST}}},
    Range: _range,
    Ids: lambda clause: {"_id": _one_of(clause.values)},
    Updated: _updated,
    Patient: lambda clause: {"p": _one_of(clause.values)},
    And: _and,
    Or: _or,
    Not: lambda clause: {"$nor": [lower(clause.part)]},
}
