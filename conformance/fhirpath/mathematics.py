"""Functions on numbers. https://hl7.org/fhirpath/N1/#math; lowBoundary, highBoundary and precision of https://hl7.org/fhirpath/#boundary-functions"""

from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal, DivisionByZero, InvalidOperation, Overflow
from typing import Any

from conformance.fhirpath import quantity, temporal
from conformance.fhirpath.context import Apply, Ctx, Expr
from conformance.fhirpath.errors import ExecutionProblem
from conformance.fhirpath.operators import NUMBERS, answer, number
from conformance.fhirpath.quantity import Quantity
from conformance.fhirpath.temporal import Temporal
from conformance.fhirpath.values import as_quantity, single

MAX_PLACES = 28


def _math(what: str, compute: Callable[..., list[Any]], least: int = 0, most: int = 0) -> tuple[int, int, Callable[..., Apply]]:
    """A function of one number (or quantity) and some numbers; empty on empty input and where mathematics has no answer."""

    def make(args: list[Expr]) -> Apply:
        def run(ctx: Ctx, items: list[Any]) -> list[Any]:
            value = single(items, what)
            others = [single(arg(ctx), what) for arg in args]
            if value is None or None in others:
                return []
            for each in (value, *others):
                if isinstance(each, bool) or not isinstance(each, int | Decimal | Quantity):
                    raise ExecutionProblem(f"{what} needs numbers")
            try:
                return compute(value, *others)
            except (InvalidOperation, DivisionByZero, Overflow):
                return []

        return run

    return least, most, make


def _decimal(value: Any) -> Decimal:
    if isinstance(value, Quantity):
        raise ExecutionProblem("this function needs a number, not a quantity")
    return Decimal(value)


def _whole(mode: str) -> Callable[[Any], list[Any]]:
    return lambda value: number(value if type(value) is int else int(_decimal(value).to_integral_value(mode)))


def _abs(value: Any) -> list[Any]:
    if isinstance(value, Quantity):
        return [Quantity(abs(value.value), value.unit, value.calendar)]
    return number(abs(value))


def _round(value: Any, places: int = 0) -> list[Any]:
    if type(places) is not int or places < 0:
        raise ExecutionProblem("round() needs a number of places, not below zero")
    found = _decimal(value)
    return [found if -int(found.as_tuple().exponent) <= places else found.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP, NUMBERS)]


def _root(value: Any) -> list[Any]:
    return [] if _decimal(value) < 0 else [_short(NUMBERS.sqrt(_decimal(value)))]


def _power(value: Any, exponent: Any) -> list[Any]:
    one, two = _decimal(value), _decimal(exponent)
    if one < 0 and two != two.to_integral_value():
        return []
    found = NUMBERS.power(one, two)
    return number(int(found)) if type(value) is int and type(exponent) is int and exponent >= 0 and abs(found) < 2**31 else [_short(found)]


def _short(value: Decimal) -> Decimal:
    """At most 28 places: irrational results need an end."""
    return NUMBERS.quantize(value, Decimal(1).scaleb(-MAX_PLACES)).normalize(NUMBERS) if -int(value.as_tuple().exponent) > MAX_PLACES else value


def _logarithm(value: Any, base: Any) -> list[Any]:
    one, two = _decimal(value), _decimal(base)
    return [] if one <= 0 or two <= 0 or two == 1 else [_short(NUMBERS.divide(NUMBERS.ln(one), NUMBERS.ln(two)).quantize(Decimal("1e-20")))]


def _natural(value: Any) -> list[Any]:
    return [] if _decimal(value) <= 0 else [_short(NUMBERS.ln(_decimal(value)))]


def _exp(value: Any) -> list[Any]:
    return [_short(NUMBERS.exp(_decimal(value)))] if abs(_decimal(value)) < 10_000 else []


def _boundary(highest: bool) -> Callable[[list[Expr]], Apply]:
    def make(args: list[Expr]) -> Apply:
        def run(ctx: Ctx, items: list[Any]) -> list[Any]:
            value = single(items, "a boundary")
            digits = single(args[0](ctx), "a boundary") if args else None
            if value is None or isinstance(value, bool) or (digits is not None and type(digits) is not int):
                return []
            if isinstance(value, Temporal):
                found = temporal.boundary(value, digits, highest)
                return [] if found is None else [found]
            if isinstance(value, Quantity):
                edge = _edge(value.value, digits, highest)
                return [] if edge is None else [Quantity(edge, value.unit, value.calendar)]
            edge = _edge(Decimal(value), digits, highest) if isinstance(value, int | Decimal) else None
            return [] if edge is None else [edge]

        return run

    return make


def _edge(value: Decimal, digits: int | None, highest: bool) -> Decimal | None:
    """The value plus or minus half a unit of its last place, told to so many places."""
    places = 8 if digits is None else digits
    if not 0 <= places <= 31:
        return None
    half = Decimal(5).scaleb(int(value.as_tuple().exponent) - 1)
    edge = NUMBERS.add(value, half if highest else -half)
    return edge.quantize(Decimal(1).scaleb(-places), ROUND_CEILING if highest else ROUND_FLOOR, NUMBERS)


def _precision(args: list[Expr]) -> Apply:
    def run(ctx: Ctx, items: list[Any]) -> list[Any]:
        value = single(items, "precision()")
        if isinstance(value, Temporal):
            return [value.digits()]
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            return []
        return [max(0, -int(Decimal(value).as_tuple().exponent))]

    return run


def _comparable(args: list[Expr]) -> Apply:
    def run(ctx: Ctx, items: list[Any]) -> list[Any]:
        one, two = as_quantity(single(items, "comparable()")), as_quantity(single(args[0](ctx), "comparable()"))
        return [] if one is None or two is None else answer(quantity.comparable(one, two, ctx.env.units))

    return run


TABLE: dict[str, tuple[int, int, Callable[..., Apply]]] = {
    "abs": _math("abs()", _abs),
    "ceiling": _math("ceiling()", _whole(ROUND_CEILING)),
    "floor": _math("floor()", _whole(ROUND_FLOOR)),
    "truncate": _math("truncate()", _whole("ROUND_DOWN")),
    "round": _math("round()", _round, 0, 1),
    "sqrt": _math("sqrt()", _root),
    "power": _math("power()", _power, 1, 1),
    "log": _math("log()", _logarithm, 1, 1),
    "ln": _math("ln()", _natural),
    "exp": _math("exp()", _exp),
    "lowBoundary": (0, 1, _boundary(False)),
    "highBoundary": (0, 1, _boundary(True)),
    "precision": (0, 0, _precision),
    "comparable": (1, 1, _comparable),
}
