"""Conversions `toX()` and `convertsToX()`. https://hl7.org/fhirpath/N1/#conversion"""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from conformance.fhirpath import temporal
from conformance.fhirpath.context import Apply, Ctx, Expr
from conformance.fhirpath.errors import ExecutionProblem
from conformance.fhirpath.operators import INT32, answer
from conformance.fhirpath.quantity import CALENDAR, Quantity
from conformance.fhirpath.temporal import Temporal
from conformance.fhirpath.values import Node, single, text

_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
_DECIMAL = re.compile(r"[+-]?[0-9]{1,400}(?:\.[0-9]{1,400})?")
_QUANTITY = re.compile(r"([+-]?[0-9]{1,400}(?:\.[0-9]{1,400})?)\s*(?:'([^']+)'|([a-zA-Z]+))?")
_TRUE, _FALSE = frozenset(("true", "t", "yes", "y", "1", "1.0")), frozenset(("false", "f", "no", "n", "0", "0.0"))


def _boolean(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | Decimal):
        return bool(value) if value in (0, 1) else None
    if isinstance(value, str):
        return True if value.casefold() in _TRUE else False if value.casefold() in _FALSE else None
    return None


def _integer(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    return value if type(value) is int and -INT32 <= value < INT32 else None


def _decimal(value: Any) -> Any:
    if isinstance(value, bool):
        return Decimal(int(value)).quantize(Decimal("0.1"))
    if isinstance(value, int | Decimal):
        return Decimal(value)
    return Decimal(value) if isinstance(value, str) and _DECIMAL.fullmatch(value) else None


def _quantity(value: Any) -> Any:
    if isinstance(value, Quantity):
        return value
    if isinstance(value, bool | int | Decimal):
        return Quantity(_decimal(value), "1")
    found = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if found is None or (found.group(3) and found.group(3) not in CALENDAR):
        return None
    return Quantity(Decimal(found.group(1)), found.group(2) or found.group(3) or "1", calendar=bool(found.group(3)))


def _date(value: Any) -> Any:
    if isinstance(value, str):
        value = temporal.read("dateTime", value)
    if not isinstance(value, Temporal) or value.kind == "time":
        return None
    return Temporal("date", value.parts[:3])


def _datetime(value: Any) -> Any:
    if isinstance(value, str):
        return temporal.read("dateTime", value)
    if not isinstance(value, Temporal) or value.kind == "time":
        return None
    return Temporal("dateTime", value.parts, value.offset)


def _time(value: Any) -> Any:
    if isinstance(value, str):
        return temporal.read("time", value.removeprefix("T"))
    return value if isinstance(value, Temporal) and value.kind == "time" else None


def _convert(what: str, compute: Callable[[Any], Any], test: bool) -> tuple[int, int, Callable[..., Apply]]:
    def make(args: list[Expr]) -> Apply:
        def run(ctx: Ctx, items: list[Any]) -> list[Any]:
            value = single(items, what)
            if value is None:
                return []
            found = compute(value)
            if test:
                return answer(found is not None)
            return [] if found is None else [found]

        return run

    return 0, 0, make


def _string(test: bool) -> Callable[..., Apply]:
    def make(args: list[Expr]) -> Apply:
        def run(ctx: Ctx, items: list[Any]) -> list[Any]:
            if len(items) > 1:
                raise ExecutionProblem("toString() needs one item, not several")
            if not items or (isinstance(items[0], Node) and items[0].value is None):
                return []
            found = text(items[0])
            if test:
                return answer(found is not None)
            return [] if found is None else [found]

        return run

    return make


_KINDS: dict[str, Callable[[Any], Any]] = {
    "Boolean": _boolean, "Integer": _integer, "Decimal": _decimal, "Quantity": _quantity, "Date": _date, "DateTime": _datetime, "Time": _time,
}  # fmt: skip
TABLE: dict[str, tuple[int, int, Callable[..., Apply]]] = {
    **{f"to{name}": _convert(f"to{name}()", compute, False) for name, compute in _KINDS.items()},
    **{f"convertsTo{name}": _convert(f"convertsTo{name}()", compute, True) for name, compute in _KINDS.items()},
    "toString": (0, 0, _string(False)),
    "convertsToString": (0, 0, _string(True)),
}
TABLE["toQuantity"] = (0, 1, TABLE["toQuantity"][2])
TABLE["convertsToQuantity"] = (0, 1, TABLE["convertsToQuantity"][2])
