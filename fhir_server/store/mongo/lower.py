"""Clauses -> MongoDB filters over the index document. docs/search.md says which index answers which filter."""

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import product
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
    both,
    either,
)
from fhir_server.query.indexes import KEY_DATE, KEY_ID, PATIENT_KEY_DATE, UNIVERSAL, WIDE
from fhir_server.query.match import EARTH_KM

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
MOST_BRANCHES = 12
MARK = Keys((WIDE,))


def lower(clause: Clause, dated: bool = False) -> Filter:
    """The filter that selects exactly what the clause matches. dated: rows are wanted in the order of their dates, of a type that has one."""
    branches = _branches(clause, dated)
    return _lower(branches[0] if len(branches) == 1 else Or(branches))


@lru_cache(512)
def _branches(clause: Clause, dated: bool) -> tuple[Clause, ...]:
    wide = spread(clause)
    return tuple(_dated_order(part, dated) for part in (wide.parts if isinstance(wide, Or) else (wide,)))


def index_by_date(clause: Clause) -> str:
    """The index that gives the rows of `lower(clause, True)` by date reading little else, '' if none does for sure: spares the database a trial of plans."""
    branches = _branches(clause, True)
    if all(any(isinstance(part, Patient) for part in _parts(branch)) for branch in branches):
        return PATIENT_KEY_DATE.name
    return KEY_DATE.name if all(_narrows(_parts(branch)) for branch in branches) else ""


def index_by_id(clause: Clause) -> str:
    """The index of keys of a type without patient, if some key is asked for: it gives the rows by id, and the database need not try the index of ids."""
    return KEY_ID.name if all(any(isinstance(part, Keys) for part in _parts(branch)) for branch in _branches(clause, False)) else ""


def _parts(clause: Clause) -> tuple[Clause, ...]:
    return clause.parts if isinstance(clause, And) else (clause,)


def _narrows(parts: tuple[Clause, ...]) -> bool:
    keyed = [part for part in parts if isinstance(part, Keys)]
    dates = any(isinstance(part, Dated) and part.gt is not None and part.lt is not None for part in parts)
    return len(keyed) == 1 and (keyed[0].values != (UNIVERSAL,) or dates)


def _dated_order(clause: Clause, dated: bool) -> Clause:
    """A patient or dates and no key: the key that all resources of such types have, so that the index gives the order by date."""
    parts = _parts(clause)
    if any(isinstance(part, Keys) for part in parts) or not (dated or any(isinstance(part, Patient | Dated) for part in parts)):
        return clause
    return And((*parts, Keys((UNIVERSAL,))))


def spread(clause: Clause) -> Clause:
    """A conjunction of few alternatives as alternatives of conjunctions, so that each can be answered from one compound index."""
    if not isinstance(clause, And):
        return clause
    one_patient = any(isinstance(part, Patient) for part in clause.parts)
    split = [part for part in clause.parts if isinstance(part, Or) and not (one_patient and _is_dates(part))]
    plain = [_unmarked(part) if isinstance(part, Or) and part not in split else part for part in clause.parts if part not in split]
    choices = [part.parts for part in split]
    count = 1
    for choice in choices:
        count *= len(choice)
    if not choices or count > MOST_BRANCHES or not any(isinstance(part, Keys | Patient | Dated) for part in _leaves(clause)):
        return both(*plain, *split)
    return Or(tuple(spread(both(*plain, *chosen)) for chosen in product(*choices)))


def _is_dates(clause: Or) -> bool:
    """Bounds of the hot date. One patient's resources under a key are few: they are read in order and judged, without a branch for each width."""
    return any(isinstance(leaf, Dated) for part in clause.parts for leaf in _parts(part))


def _unmarked(clause: Or) -> Clause:
    """Without the key that marks wide dates: it only leads an index to them, and costs the database's planner more than all the rest."""
    return either(*(both(*(leaf for leaf in _parts(part) if leaf != MARK)) for part in clause.parts))


def _leaves(clause: And) -> list[Clause]:
    found: list[Clause] = []
    for part in clause.parts:
        found += part.parts if isinstance(part, Or | And) else (part,)
    return found


def _lower(clause: Clause) -> Filter:
    return _LOWER[type(clause)](clause)


def _one_of(values: tuple[str, ...]) -> Any:
    return values[0] if len(values) == 1 else {"$in": list(values)}


def _starting(text: str) -> Filter:
    return {"$gte": text, "$lt": text + LAST}


def _contains(clause: Contains) -> Filter:
    stop = re.escape(clause.stop)
    pattern = f"^{re.escape(clause.prefix)}[^{stop}]*{re.escape(clause.text)}{stop if clause.ends else ''}"
    return {"k": {"$elemMatch": {**_starting(clause.prefix), "$regex": pattern}}}


def _range(clause: Range) -> Filter:
    element: Filter = {"k": clause.key}
    _bound(clause, element, "")
    if clause.unit is not None:
        element["u"] = clause.unit
    if clause.also is not None:
        _bound(clause.also, element, "n.")
    return {"r": {"$elemMatch": element}}


def _bound(clause: Range, element: Filter, head: str) -> None:
    for name, side, operator in BOUNDS:
        bound = getattr(clause, name)
        if bound is not None:
            element.setdefault(head + side, {})[operator] = bound


def _dated(clause: Dated) -> Filter:
    bounds = {operator: bound for operator, bound in (("$gt", clause.gt), ("$lt", clause.lt)) if bound is not None}
    return {"d": bounds or {"$ne": None}}


def _updated(clause: Updated) -> Filter:
    bounds = {operator: bound for operator, bound in (("$gte", clause.ge), ("$lt", clause.lt)) if bound is not None}
    return {"at": bounds} if bounds else {}


def _near(clause: Near) -> Filter:
    return {"g": {"$geoWithin": {"$centerSphere": [[clause.longitude, clause.latitude], clause.kilometres / EARTH_KM]}}}


def _and(clause: And) -> Filter:
    parts = [part for part in (_lower(one) for one in clause.parts) if part]
    return parts[0] if len(parts) == 1 else {"$and": parts} if parts else {}


def _or(clause: Or) -> Filter:
    parts = [_lower(one) for one in clause.parts]
    if not parts:
        return NEVER
    return {} if {} in parts else {"$or": parts}


def _contained(clause: Contained) -> Filter:
    inner = _inside(_lower(clause.part))
    return {"c": {"$elemMatch": {"f": clause.rtype, **({"$and": [inner]} if inner else {})}}}


def _inside(wanted: Any) -> Any:
    """The filter on an element of `c`, whose id is `i`."""
    if isinstance(wanted, list):
        return [_inside(one) for one in wanted]
    if not isinstance(wanted, dict):
        return wanted
    return {"i" if name == "_id" else name: _inside(one) for name, one in wanted.items()}


_LOWER: dict[type, Callable[[Any], Filter]] = {
    Everything: lambda clause: {},
    Nothing: lambda clause: NEVER,
    Keys: lambda clause: {"k": _one_of(clause.values)},
    Prefix: lambda clause: {"k": {"$elemMatch": _starting(clause.text)}},
    Contains: _contains,
    Text: lambda clause: {"t": clause.text} if clause.whole else {"t": {"$elemMatch": _starting(clause.text)}},
    Range: _range,
    Dated: _dated,
    Ids: lambda clause: {"_id": _one_of(clause.values)},
    Updated: _updated,
    Patient: lambda clause: {"p": _one_of(clause.values)},
    HasPatient: lambda clause: {"p": {"$ne": None}},
    Near: _near,
    Contained: _contained,
    And: _and,
    Or: _or,
    Not: lambda clause: {"$nor": [_lower(clause.part)]},
}
