"""minValue and maxValue of a profile. https://hl7.org/fhir/R4/elementdefinition-definitions.html#ElementDefinition.minValue_x_

Dates are compared as the time they may mean, so a limit is broken only where that is certain; quantities only in the same unit. A limit that is a duration
from now (minValueQuantity on a date) is not judged: it would make a resource invalid by mere waiting.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from conformance.dates import interval

Beyond = Callable[[Any], bool]
"""True for a value that is certainly beyond the limit."""
DATES = ("Date", "DateTime", "Instant")


def limits(definition: Mapping[str, Any]) -> list[Beyond]:
    """The tests of an ElementDefinition's limits."""
    return [made for key, limit in definition.items() if key.startswith(("minValue", "maxValue")) and (made := _limit(key, limit)) is not None]


def _limit(key: str, limit: Any) -> Beyond | None:
    low, kind = key.startswith("min"), key[len("minValue") :]
    if kind in DATES:
        return _date(str(limit), low)
    if kind == "Quantity":
        return _quantity(limit, low) if isinstance(limit, dict) and "value" in limit else None
    if kind == "Time":
        return lambda value: isinstance(value, str) and (value < limit if low else value > limit)
    return lambda value: _number(value) and (value < limit if low else value > limit)


def _date(limit: str, low: bool) -> Beyond:
    first, end = interval(limit)

    def beyond(value: Any) -> bool:
        try:
            start, stop = interval(value) if isinstance(value, str) else (first, end)
        except ValueError:
            return False  # its form was reported
        return stop <= first if low else start >= end

    return beyond


def _quantity(limit: Mapping[str, Any], low: bool) -> Beyond:
    unit, bound = _unit(limit), limit["value"]

    def beyond(value: Any) -> bool:
        if not isinstance(value, dict) or not _number(value.get("value")) or (any(unit) and _unit(value) != unit):
            return False
        return bool(value["value"] < bound if low else value["value"] > bound)

    return beyond


def _unit(quantity: Mapping[str, Any]) -> tuple[Any, Any]:
    return (quantity.get("system"), quantity["code"]) if "code" in quantity else (None, quantity.get("unit"))


def _number(value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)
