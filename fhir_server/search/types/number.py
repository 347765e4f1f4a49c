"""Numbers. https://hl7.org/fhir/R4/search.html#number

Stored in `r`: {k: 'probability', l: value} for a value, {k: 'probability+', l, h} for a Range. Values are exact decimals (34 digits); the implicit precision of the *search* value counts
for eq, ne and ap, and is ignored by the other prefixes.
"""

import re
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from fhir_server.query.clauses import Clause, Range, either
from fhir_server.search.asked import Asked, Emit, Out
from fhir_server.search.schema import Field

EXACT = Context(prec=34, Emin=-6143, Emax=6144)
LOWEST, HIGHEST = Decimal("-Infinity"), Decimal("Infinity")
PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")
NUMBER = re.compile(r"(eq|ne|gt|lt|ge|le|sa|eb|ap)?([+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?)([eE][+-]?[0-9]{1,4})?")
TENTH = Decimal("0.1")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A search value: prefix, the value, and the interval of its implicit precision [low, high)."""

    prefix: str
    value: Decimal
    low: Decimal
    high: Decimal


@lru_cache(4096)
def exact(value: Any) -> Decimal:
    """An int or decimal as it is stored and compared: a plain Decimal of at most 34 digits."""
    return EXACT.create_decimal(value)


def wanted(text: str) -> Wanted | None:
    """The search value of 'ge5.40' or '1e2'; None if it is not a number.

    Half a unit of the last digit on both sides; the standard's own example gives a whole number with exponent one digit more ('1e2' is [95, 105)).
    """
    found = NUMBER.fullmatch(text)
    if found is None:
        return None
    prefix, digits, exponent = found.groups()
    try:
        value = exact(digits + (exponent or ""))
    except InvalidOperation:
        return None
    decimals = len(digits.partition(".")[2])
    power = int((exponent or "e0")[1:]) - decimals - (1 if exponent and not decimals else 0)
    half = EXACT.scaleb(Decimal(5), power - 1)
    return Wanted(prefix or "eq", value, EXACT.subtract(value, half), EXACT.add(value, half))


def approximate(value: Decimal) -> tuple[Decimal, Decimal]:
    """The value less and more a tenth of itself."""
    tenth = EXACT.multiply(abs(value), TENTH)
    return EXACT.subtract(value, tenth), EXACT.add(value, tenth)


def interval(value: Any) -> tuple[Decimal, Decimal] | None:
    """[low, high] of a number or a Range of numbers; None if it has no bound."""
    if isinstance(value, dict):
        low, high = (value.get(side, {}).get("value") for side in ("low", "high"))
        if low is None and high is None:
            return None
        return LOWEST if low is None else exact(low), HIGHEST if high is None else exact(high)
    if isinstance(value, str) or value is None:
        return None
    return exact(value), exact(value)


def entry(key: str, low: Decimal, high: Decimal, units: list[str] | None = None) -> dict[str, Any]:
    """An element of `r`."""
    made: dict[str, Any] = {"k": key, "l": low} if low is high or low == high else {"k": key + "+", "l": low, "h": high}
    if units:
        made["u"] = units
    return made


def emitter(name: str, field: Field) -> Emit:
    """Writes the ranges of the values of a parameter."""

    def emit(values: list[Any], out: Out) -> None:
        for value in values:
            bounds = interval(value)
            if bounds is None:
                out.k[f"{name}="] = None
            else:
                out.r.append(entry(name, *bounds))

    return emit


def clause(asked: Asked, text: str) -> Clause:
    """What one value means."""
    found = wanted(text)
    if found is None:
        raise asked.wrong("the value must be a number with an optional prefix")
    return either(*(compare(name, found) for name in asked.field.names))


def compare(key: str, sought: Wanted, unit: str | None = None) -> Clause:
    """Values under `key` (points) and `key`+ (ranges) that stand to the sought value as its prefix says."""
    points = either(*(Range(key, unit=unit, **bounds) for bounds in _points(sought)))
    ranges = either(*(Range(key + "+", unit=unit, **bounds) for bounds in bounds_of(sought)))
    return either(points, ranges)


def _points(sought: Wanted) -> list[dict[str, Any]]:
    low, high = approximate(sought.value)
    table: dict[str, list[dict[str, Any]]] = {
        "eq": [{"low_ge": sought.low, "low_lt": sought.high}],
        "ne": [{"low_lt": sought.low}, {"low_ge": sought.high}],
        "gt": [{"low_gt": sought.value}],
        "sa": [{"low_gt": sought.value}],
        "lt": [{"low_lt": sought.value}],
        "eb": [{"low_lt": sought.value}],
        "ge": [{"low_ge": sought.value}],
        "le": [{"low_le": sought.value}],
        "ap": [{"low_ge": min(low, sought.low), "low_le": max(high, sought.high)}],
    }
    return table[sought.prefix]


def bounds_of(sought: Wanted) -> list[dict[str, Any]]:
    """Alternatives of bounds on a stored range [l, h] (https://hl7.org/fhir/R4/search.html#prefix)."""
    low, high = approximate(sought.value)
    table: dict[str, list[dict[str, Any]]] = {
        "eq": [{"low_ge": sought.low, "high_lt": sought.high}],
        "ne": [{"low_lt": sought.low}, {"high_ge": sought.high}],
        "gt": [{"high_gt": sought.value}],
        "sa": [{"low_gt": sought.value}],
        "lt": [{"low_lt": sought.value}],
        "eb": [{"high_lt": sought.value}],
        "ge": [{"high_ge": sought.value}],
        "le": [{"low_le": sought.value}],
        "ap": [{"low_le": max(high, sought.high), "high_ge": min(low, sought.low)}],
    }
    return table[sought.prefix]
