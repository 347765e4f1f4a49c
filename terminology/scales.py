"""The scales of UCUM's special units: temperature, acidity, levels, potencies. https://ucum.org/ucum#section-Special-Units-on-non-ratio-Scales

Each scale maps a value to the amount of its proper unit and back; temperatures exactly, the rest to 40 digits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction

DIGITS = Context(prec=40, traps=[InvalidOperation])


@dataclass(frozen=True, slots=True)
class Scale:
    """to_proper: value on the scale -> amount of the proper unit; from_proper: back. Both raise ArithmeticError outside their domain."""

    name: str
    to_proper: Callable[[Fraction], Fraction]
    from_proper: Callable[[Fraction], Fraction]


def _decimal(value: Fraction) -> Decimal:
    return DIGITS.divide(Decimal(value.numerator), Decimal(value.denominator))


def _positive(value: Fraction) -> Decimal:
    if value <= 0:
        raise ArithmeticError("no logarithm")
    return _decimal(value)


def _offset(name: str, offset: str) -> Scale:
    """value + offset, in the size of the proper unit (`[degF]`: 5 K/9)."""
    shift = Fraction(offset)
    return Scale(name, lambda value: value + shift, lambda amount: amount - shift)


def _power(name: str, base: int, per: Fraction) -> Scale:
    """value = per x log_base(amount)."""

    def to_proper(value: Fraction) -> Fraction:
        if abs(value / per) > 400:
            raise ArithmeticError("beyond the scale")
        return Fraction(DIGITS.power(Decimal(base), _decimal(value / per)))

    def from_proper(amount: Fraction) -> Fraction:
        number = _positive(amount)
        log = DIGITS.log10(number) if base == 10 else DIGITS.divide(DIGITS.ln(number), DIGITS.ln(Decimal(base)))
        return Fraction(log) * per

    return Scale(name, to_proper, from_proper)


def _natural() -> Scale:
    def to_proper(value: Fraction) -> Fraction:
        if abs(value) > 900:
            raise ArithmeticError("beyond the scale")
        return Fraction(DIGITS.exp(_decimal(value)))

    return Scale("ln", to_proper, lambda amount: Fraction(DIGITS.ln(_positive(amount))))


def _tangent(name: str, of_degrees: bool) -> Scale:
    """value = 100 x tan(angle); the angle's proper unit is rad or deg."""

    def to_proper(value: Fraction) -> Fraction:
        angle = math.atan(float(value) / 100)
        return Fraction(math.degrees(angle) if of_degrees else angle)

    def from_proper(amount: Fraction) -> Fraction:
        return Fraction(math.tan(math.radians(float(amount)) if of_degrees else float(amount)) * 100)

    return Scale(name, to_proper, from_proper)


def _root() -> Scale:
    def from_proper(amount: Fraction) -> Fraction:
        if amount < 0:
            raise ArithmeticError("no root")
        return Fraction(DIGITS.sqrt(_decimal(amount)))

    return Scale("sqrt", lambda value: value * value, from_proper)


def _never(value: Fraction) -> Fraction:
    raise ArithmeticError("a special unit cannot be part of a product")


SCALES: dict[str, Scale] = {
    scale.name: scale
    for scale in (
        _offset("Cel", "273.15"),
        _offset("degF", "459.67"),
        _offset("degRe", "218.52"),
        _power("pH", 10, Fraction(-1)),
        _power("lg", 10, Fraction(1)),
        _power("lgTimes2", 10, Fraction(2)),
        _power("ld", 2, Fraction(1)),
        _power("hpX", 10, Fraction(-1)),
        _power("hpC", 100, Fraction(-1)),
        _power("hpM", 1000, Fraction(-1)),
        _power("hpQ", 50000, Fraction(-1)),
        _natural(),
        _tangent("tanTimes100", of_degrees=False),
        _tangent("100tan", of_degrees=True),
        _root(),
        Scale("broken", _never, _never),
    )
}
