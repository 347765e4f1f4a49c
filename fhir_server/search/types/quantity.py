"""Quantities. https://hl7.org/fhir/R4/search.html#quantity

Stored in `r`: {k: 'value-quantity', l: value, u: [code, unit, 'system|code']} as stated, and {k: 'value-quantity|g.m-3', l: canonical value} for UCUM units, so that
5.4 mg/dL is found by 54 mg/L. Ranges, SampledData and values with a comparator are intervals ('value-quantity+').
"""

from decimal import Decimal
from functools import lru_cache
from typing import Any

from fhir_server.query.clauses import Clause, either
from fhir_server.search.asked import Asked, Emit, Out
from fhir_server.search.escape import split, unescape
from fhir_server.search.schema import Field
from fhir_server.search.types.number import EXACT, HIGHEST, LOWEST, Wanted, compare, entry, exact, wanted
from terminology.units import canonical

UCUM, CURRENCY = "http://unitsofmeasure.org", "urn:iso:std:iso:4217"

Shape = tuple[str, Decimal, Decimal, list[str] | None]


def shapes(value: Any) -> list[Shape]:
    """(what stands behind the name, low, high, unit spellings) for one Quantity, Money, Range, Age, Duration or SampledData; [] without a number."""
    found = _interval(value) if type(value) is dict else None
    if found is None:
        return []
    low, high, stated = found
    unit = stated.get("code")
    if unit and stated.get("system") == UCUM:
        least = _canonical(low, unit)
        most = least if low is high else _canonical(high, unit)
        if least is not None and most is not None:
            spelt = [unit, stated["unit"]] if stated.get("unit", unit) != unit else [unit]
            bounds = (least[0], most[0]) if least[0] <= most[0] else (most[0], least[0])
            return [("", low, high, spelt), (f"|{least[1]}", *bounds, None)]
    return [("", low, high, _units(stated))]


def shapes_once(value: Any, out: Out) -> list[Shape]:
    """The same, made once for all parameters that take this value of a resource."""
    found: list[Shape] | None = out.shapes.get(id(value))
    if found is None:
        found = out.shapes[id(value)] = shapes(value)
    return found


def _interval(value: dict[str, Any]) -> tuple[Decimal, Decimal, dict[str, Any]] | None:
    """([low, high], the part that states the unit)."""
    if value.get("value") is not None:
        low = high = exact(value["value"])
        comparator = value.get("comparator", "")
        return LOWEST if comparator[:1] == "<" else low, HIGHEST if comparator[:1] == ">" else high, value
    if "low" in value or "high" in value:
        low_side, high_side = value.get("low") or {}, value.get("high") or {}
        least, most = low_side.get("value"), high_side.get("value")
        if least is None and most is None:
            return None
        return LOWEST if least is None else exact(least), HIGHEST if most is None else exact(most), low_side or high_side
    return _sampled(value) if "origin" in value else None


def _sampled(value: dict[str, Any]) -> tuple[Decimal, Decimal, dict[str, Any]] | None:
    """The lowest and highest sample in the origin's unit (https://hl7.org/fhir/R4/datatypes.html#SampledData)."""
    origin = value["origin"]
    zero, factor = exact(origin.get("value", 0)), exact(value.get("factor", 1))
    named = {"L": value.get("lowerLimit"), "U": value.get("upperLimit")}
    samples = [named.get(text, text) for text in str(value.get("data", "")).split() if text != "E"]
    numbers = [EXACT.add(zero, EXACT.multiply(exact(one), factor)) for one in samples if one is not None]
    return (min(numbers), max(numbers), origin) if numbers else None


def _units(stated: dict[str, Any]) -> list[str]:
    code, system = stated.get("code") or stated.get("currency"), stated.get("system", CURRENCY if "currency" in stated else "")
    spelt = [code, stated.get("unit"), f"{system}|{code}" if code else None]
    return list(dict.fromkeys(one for one in spelt if one))


@lru_cache(16384)
def _canonical(value: Decimal, unit: str) -> tuple[Decimal, str] | None:
    """Value and base units of a UCUM quantity at most 34 digits long; None if the unit is not UCUM. Infinity stays."""
    if not value.is_finite():
        found = canonical(Decimal(1), unit)
        return None if found is None else (value, found[1])
    found = canonical(value, unit)
    return None if found is None else (EXACT.plus(found[0]), found[1])


def emitter(name: str, field: Field) -> Emit:
    """Writes the ranges of the values of a parameter."""

    def emit(values: list[Any], out: Out) -> None:
        for value in values:
            made = shapes_once(value, out)
            if not made:
                out.k[f"{name}="] = None
            for suffix, low, high, units in made:
                out.r.append(entry(name + suffix, low, high, units))

    return emit


def keys_of(asked: Asked, text: str) -> list[tuple[str, Wanted, str | None]]:
    """(what stands behind the name, the sought number, unit spelling) of `number`, `number|system|code` or `number||code`."""
    pieces = [unescape(piece) for piece in split(text, "|")]
    sought = wanted(pieces[0])
    if sought is None or len(pieces) not in (1, 3):
        raise asked.wrong("the value must be number, number|system|code or number||code, with an optional prefix")
    if len(pieces) == 1 or not any(pieces[1:]):
        return [("", sought, None)]
    system, code = pieces[1:]
    if not code:
        raise asked.wrong("a system needs a code")
    if system == UCUM:
        found = [_canonical(bound, code) for bound in (sought.value, sought.low, sought.high)]
        if found[0] is not None and found[1] is not None and found[2] is not None:
            low, high = sorted((found[1][0], found[2][0]))
            return [(f"|{found[0][1]}", Wanted(sought.prefix, found[0][0], low, high), None)]
    return [("", sought, f"{system}|{code}" if system else code)]


def clause(asked: Asked, text: str) -> Clause:
    """What one value means."""
    found = keys_of(asked, text)
    return either(*(compare(name + suffix, sought, unit) for name in asked.field.names for suffix, sought, unit in found))
