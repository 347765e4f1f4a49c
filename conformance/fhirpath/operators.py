"""Operators as closures over their operands. https://hl7.org/fhirpath/N1/#operations"""

from collections.abc import Callable
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow
from typing import Any

from conformance.fhirpath import quantity, temporal
from conformance.fhirpath.context import MAX_TEXT, Ctx, Env, Expr
from conformance.fhirpath.errors import ExecutionProblem
from conformance.fhirpath.quantity import Quantity
from conformance.fhirpath.temporal import Temporal
from conformance.fhirpath.values import as_quantity, equal, equivalent, key, less, single, text, truth

INT32 = 2**31
NUMBERS = Context(prec=60, Emax=6200, Emin=-6200, traps=[InvalidOperation, DivisionByZero, Overflow])
YES, NO = [True], [False]
_NONE: list[Any] = []


def answer(value: bool | None) -> list[Any]:
    """A boolean as collection, None as the empty one."""
    return _NONE if value is None else YES if value else NO


def distinct(env: Env, items: list[Any]) -> list[Any]:
    """The items without repeats, first ones kept."""
    env.spend(len(items))
    return list({key(item): item for item in reversed(items)}.values())[::-1] if len(items) > 1 else items


def number(value: int | Decimal) -> list[Any]:
    """A computed number as collection: empty if an integer leaves 32 bits."""
    if type(value) is int:
        return [value] if -INT32 <= value < INT32 else []
    return [value]


def sign(op: str, operand: Expr) -> Expr:
    """`+x` and `-x`."""

    def run(ctx: Ctx) -> list[Any]:
        value = single(operand(ctx), "a sign")
        if value is None:
            return []
        if isinstance(value, Quantity):
            return [Quantity(value.value.copy_negate() if op == "-" else value.value, value.unit, value.calendar)]
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise ExecutionProblem("a sign needs a number")
        return [value if op == "+" else -value if isinstance(value, int) else value.copy_negate()]

    return run


def _and(left: Expr, right: Expr) -> Expr:
    def run(ctx: Ctx) -> list[Any]:
        one = truth(left(ctx), "'and'")
        if one is False:
            return NO
        two = truth(right(ctx), "'and'")
        return NO if two is False else YES if one and two else _NONE

    return run


def _or(left: Expr, right: Expr) -> Expr:
    def run(ctx: Ctx) -> list[Any]:
        one = truth(left(ctx), "'or'")
        if one:
            return YES
        two = truth(right(ctx), "'or'")
        return YES if two else NO if one is False and two is False else _NONE

    return run


def _xor(left: Expr, right: Expr) -> Expr:
    def run(ctx: Ctx) -> list[Any]:
        one, two = truth(left(ctx), "'xor'"), truth(right(ctx), "'xor'")
        return answer(None if one is None or two is None else one != two)

    return run


def _implies(left: Expr, right: Expr) -> Expr:
    def run(ctx: Ctx) -> list[Any]:
        one = truth(left(ctx), "'implies'")
        if one is False:
            return YES
        two = truth(right(ctx), "'implies'")
        return YES if two else NO if one and two is False else _NONE

    return run


LOGIC: dict[str, Callable[[Expr, Expr], Expr]] = {"and": _and, "or": _or, "xor": _xor, "implies": _implies}


def _collections(decide: Callable[[Env, list[Any], list[Any]], bool | None]) -> Callable[[Expr, Expr], Expr]:
    return lambda left, right: lambda ctx: answer(decide(ctx.env, left(ctx), right(ctx)))


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _membership(item: list[Any], items: list[Any], op: str) -> bool | None:
    if not item:
        return None
    if len(item) > 1:
        raise ExecutionProblem(f"'{op}' needs one item, not several")
    wanted = key(item[0])
    return any(key(each) == wanted for each in items)


def _ordered(decide: Callable[[bool | None, bool | None], bool | None]) -> Callable[[Expr, Expr], Expr]:
    """decide(left < right, right < left) -> answer."""

    def make(left: Expr, right: Expr) -> Expr:
        def run(ctx: Ctx) -> list[Any]:
            one, two = single(left(ctx), "a comparison"), single(right(ctx), "a comparison")
            if one is None or two is None:
                return []
            return answer(decide(less(one, two, ctx.env.units), less(two, one, ctx.env.units)))

        return run

    return make


def _arithmetic(compute: Callable[[Any, Any], list[Any]]) -> Callable[[Expr, Expr], Expr]:
    def make(left: Expr, right: Expr) -> Expr:
        def run(ctx: Ctx) -> list[Any]:
            one, two = single(left(ctx), "arithmetic"), single(right(ctx), "arithmetic")
            if one is None or two is None:
                return []
            try:
                return compute(one, two)
            except (InvalidOperation, DivisionByZero, Overflow) as error:
                raise ExecutionProblem("a number is out of range") from error

        return run

    return make


def _numbers(one: Any, two: Any, op: str) -> tuple[Any, Any]:
    for each in (one, two):
        if isinstance(each, bool) or not isinstance(each, int | Decimal):
            raise ExecutionProblem(f"'{op}' needs two numbers")
    return one, two


def _plus(one: Any, two: Any) -> list[Any]:
    if isinstance(one, str) and isinstance(two, str):
        return [_short(one + two)]
    return _sum(one, two, 1)


def _sum(one: Any, two: Any, direction: int) -> list[Any]:
    if isinstance(one, Temporal) and isinstance(two, Quantity):
        return [temporal.add(one, two, direction)]
    if isinstance(one, Quantity) and isinstance(two, Quantity):
        return _sum_quantities(one, two, direction)
    one, two = _numbers(one, two, "+" if direction > 0 else "-")
    if type(one) is int and type(two) is int:
        return number(one + two * direction)
    return [NUMBERS.add(Decimal(one), Decimal(two) * direction)]


def _sum_quantities(one: Quantity, two: Quantity, direction: int) -> list[Any]:
    if one.unit == two.unit:
        return [Quantity(NUMBERS.add(one.value, two.value * direction), one.unit, one.calendar)]
    both, unit = quantity.pair(one, two), quantity.pair(one, Quantity(Decimal(1), one.unit, one.calendar))
    if both is None or unit is None:
        return []
    base = quantity.canonical(Quantity(Decimal(1), one.unit))
    total = both[0] + both[1] * direction
    return [Quantity(quantity.to_decimal(total / base[0]), one.unit, one.calendar)] if base else []


def _times(one: Any, two: Any) -> list[Any]:
    if isinstance(one, Quantity) or isinstance(two, Quantity):
        return _scaled(one, two, 1)
    one, two = _numbers(one, two, "*")
    return number(one * two) if type(one) is int and type(two) is int else [NUMBERS.multiply(Decimal(one), Decimal(two))]


def _scaled(one: Any, two: Any, direction: int) -> list[Any]:
    left, right = as_quantity(one), as_quantity(two)
    if left is None or right is None:
        raise ExecutionProblem("only numbers and quantities can be multiplied and divided")
    if right.unit == "1" or (left.unit == "1" and direction > 0):
        if direction < 0 and right.value == 0:
            return []
        value = NUMBERS.multiply(left.value, right.value) if direction > 0 else NUMBERS.divide(left.value, right.value)
        keep = left if right.unit == "1" else right
        return [Quantity(value, keep.unit, keep.calendar)]
    product = quantity.combine(left, right, direction)
    return [product] if product else []


def _divide(one: Any, two: Any) -> list[Any]:
    if isinstance(one, Quantity) or isinstance(two, Quantity):
        return _scaled(one, two, -1)
    one, two = _numbers(one, two, "/")
    return [] if two == 0 else [NUMBERS.divide(Decimal(one), Decimal(two))]


def _div(one: Any, two: Any) -> list[Any]:
    one, two = _numbers(one, two, "div")
    if two == 0:
        return []
    whole = NUMBERS.divide_int(Decimal(one), Decimal(two))
    return number(int(whole)) if type(one) is int or abs(whole) < INT32 else [whole]


def _mod(one: Any, two: Any) -> list[Any]:
    one, two = _numbers(one, two, "mod")
    if two == 0:
        return []
    rest = NUMBERS.remainder(Decimal(one), Decimal(two))
    return number(int(rest)) if type(one) is int and type(two) is int else [rest]


def _concatenate(left: Expr, right: Expr) -> Expr:
    def run(ctx: Ctx) -> list[Any]:
        parts = []
        for items in (left(ctx), right(ctx)):
            if len(items) > 1:
                raise ExecutionProblem("'&' needs one item, not several")
            part = text(items[0]) if items else ""
            parts.append(part or "")
        return [_short("".join(parts))]

    return run


def _short(value: str) -> str:
    if len(value) > MAX_TEXT:
        raise ExecutionProblem(f"the expression builds a text of more than {MAX_TEXT} characters")
    return value


BINARY: dict[str, Callable[[Expr, Expr], Expr]] = {
    "=": _collections(lambda env, left, right: equal(left, right, env.units)),
    "!=": _collections(lambda env, left, right: _not(equal(left, right, env.units))),
    "~": _collections(lambda env, left, right: equivalent(left, right, env.units)),
    "!~": _collections(lambda env, left, right: not equivalent(left, right, env.units)),
    "in": _collections(lambda env, left, right: _membership(left, right, "in")),
    "contains": _collections(lambda env, left, right: _membership(right, left, "contains")),
    "<": _ordered(lambda below, above: below),
    ">": _ordered(lambda below, above: above),
    "<=": _ordered(lambda below, above: _not(above)),
    ">=": _ordered(lambda below, above: _not(below)),
    "+": _arithmetic(_plus),
    "-": _arithmetic(lambda one, two: _sum(one, two, -1)),
    "*": _arithmetic(_times),
    "/": _arithmetic(_divide),
    "div": _arithmetic(_div),
    "mod": _arithmetic(_mod),
    "&": _concatenate,
}
