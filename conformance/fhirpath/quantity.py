"""Quantities and a compact part of UCUM, enough to compare, multiply and divide common units exactly. https://hl7.org/fhirpath/N1/#quantity

Whoever has a complete UCUM (package terminology) passes its `canonical` as the argument `units`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from itertools import groupby

Canonical = tuple[Fraction, tuple[tuple[str, int], ...]]
Units = Callable[[Decimal, str], tuple[Decimal, str] | None]

CALENDAR = {word + plural: word for word in ("year", "month", "week", "day", "hour", "minute", "second", "millisecond") for plural in ("", "s")}
_CALENDAR_UCUM = {"week": "wk", "day": "d", "hour": "h", "minute": "min", "second": "s", "millisecond": "ms", "year": "a", "month": "mo"}
_PREFIXES = {
    "Y": 24, "Z": 21, "E": 18, "P": 15, "T": 12, "G": 9, "M": 6, "k": 3, "h": 2, "da": 1,
    "d": -1, "c": -2, "m": -3, "u": -6, "n": -9, "p": -12, "f": -15, "a": -18, "z": -21, "y": -24,
}  # fmt: skip
# unit -> (factor, base units, metric); facts of https://ucum.org/ucum
_UNITS: dict[str, tuple[str, str, bool]] = {
    "m": ("1", "m", True), "g": ("1", "g", True), "s": ("1", "s", True), "rad": ("1", "rad", True), "K": ("1", "K", True), "C": ("1", "C", True), "cd": ("1", "cd", True),
    "mol": ("602213670000000000000000", "1", True), "10*": ("10", "1", False), "10^": ("10", "1", False), "%": ("0.01", "1", False), "[ppth]": ("0.001", "1", False), "[ppm]": ("0.000001", "1", False), "1": ("1", "1", False),
    "min": ("60", "s", False), "h": ("3600", "s", False), "d": ("86400", "s", False), "wk": ("604800", "s", False), "a": ("31557600", "s", False), "mo": ("2629800", "s", False),
    "L": ("0.001", "m3", True), "l": ("0.001", "m3", True), "t": ("1000000", "g", True), "Hz": ("1", "s-1", True), "N": ("1000", "g.m.s-2", True),
    "Pa": ("1000", "g.m-1.s-2", True), "J": ("1000", "g.m2.s-2", True), "W": ("1000", "g.m2.s-3", True), "bar": ("100000000", "g.m-1.s-2", True), "kat": ("602213670000000000000000", "s-1", True),
    "U": ("10036894500000000", "s-1", True), "eq": ("602213670000000000000000", "1", True), "cal": ("4184", "g.m2.s-2", True), "m[Hg]": ("133322000", "g.m-1.s-2", True),
    "[in_i]": ("0.0254", "m", False), "[ft_i]": ("0.3048", "m", False), "[yd_i]": ("0.9144", "m", False), "[mi_i]": ("1609.344", "m", False), "[lb_av]": ("453.59237", "g", False),
    "[oz_av]": ("28.349523125", "g", False), "[iU]": ("1", "[iU]", True), "[IU]": ("1", "[iU]", True), "[arb'U]": ("1", "[arb'U]", False), "osm": ("602213670000000000000000", "1", True),
}  # fmt: skip


_ALONE = re.compile(r"(^|[./])\{[^{}]*\}")
_ANNOTATION = re.compile(r"\{[^{}]*\}")
_PARTS = re.compile(r"(^|[./])([^./]*)")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with a UCUM code, or with a calendar word (`calendar`)."""

    value: Decimal
    unit: str
    calendar: bool = False

    def calendar_unit(self) -> str:
        """The calendar word in singular ('month' also where it is quoted), '' for a UCUM unit."""
        return CALENDAR.get(self.unit, "")

    def ucum(self) -> str:
        """The UCUM code; a calendar word's is that of the definite duration."""
        word = self.calendar_unit()
        return _CALENDAR_UCUM[word] if word else self.unit or "1"

    def text(self) -> str:
        """`5.0 'mg'`, `1 week`."""
        return f"{format(self.value, 'f')} {self.unit}" if self.calendar else f"{format(self.value, 'f')} '{self.unit}'"


@lru_cache(maxsize=2048)
def _canonical(code: str) -> Canonical | None:
    """Factor and sorted base units of a UCUM code, None if this table cannot read it. Only `.`, `/`, exponents and annotations are understood."""
    if len(code) > 60 or not code.isascii() or "(" in code or code[-1:] in ("/", "."):
        return None
    factor, powers = Fraction(1), dict[str, int]()
    for operator, part in _PARTS.findall(_strip(code)):  # strictly from left to right: `a/b.c` is `(a/b).c`
        row = _term(part) if part else None
        if row is None:
            return None
        sign = -1 if operator == "/" else 1
        factor *= row[0] ** sign
        for base, power in row[1]:
            powers[base] = powers.get(base, 0) + sign * power
    return factor, tuple(sorted((base, power) for base, power in powers.items() if power))


def _strip(code: str) -> str:
    """Without annotations in braces; one that stands alone, like a leading '/', counts as 1."""
    bare = _ANNOTATION.sub("", _ALONE.sub(r"\g<1>1", code))
    return "1" + bare if bare.startswith("/") else bare


def _term(part: str) -> Canonical | None:
    """One unit with prefix and exponent ('mm2', 's-1', '10')."""
    if part.isdigit():
        return Fraction(int(part)), ()
    pieces = ["".join(group) for _, group in groupby(part, str.isdigit)]
    power = 1
    name = part
    if len(pieces) > 1 and pieces[-1].isdigit() and not part.endswith("]"):
        name, power = part[: -len(pieces[-1])], int(pieces[-1])
        if name[-1] in "+-":
            name, power = name[:-1], -power if name[-1] == "-" else power
    row = _unit(name)
    if row is None or abs(power) > 12:
        return None
    return row[0] ** power, tuple((base, exponent * power) for base, exponent in row[1])


@lru_cache(maxsize=512)
def _unit(name: str) -> Canonical | None:
    if name in _UNITS:
        factor, bases, _ = _UNITS[name]
        return Fraction(factor), _powers(bases)
    for size in (1, 2):
        prefix, rest = name[:size], name[size:]
        if prefix in _PREFIXES and rest in _UNITS and _UNITS[rest][2]:
            factor, bases, _ = _UNITS[rest]
            return Fraction(factor) * Fraction(10) ** _PREFIXES[prefix], _powers(bases)
    return None


def _powers(bases: str) -> tuple[tuple[str, int], ...]:
    found = []
    for each in bases.split("."):
        name = each.rstrip("-0123456789")
        if name:
            found.append((name, int(each[len(name) :] or 1)))
    return tuple(found)


def canonical(amount: Quantity, units: Units | None = None) -> tuple[Fraction, object] | None:
    """(exact value in base units, the base units) for comparison; None for a unit that cannot be read."""
    code = amount.ucum()
    row = _canonical(code)
    if row is not None:
        return Fraction(amount.value) * row[0], row[1]
    if units is not None and (found := units(amount.value, code)) is not None:
        return Fraction(found[0]), found[1]
    return None


def pair(left: Quantity, right: Quantity, units: Units | None = None) -> tuple[Fraction, Fraction] | None:
    """Both values in one unit; None if they cannot be compared (also a calendar year or month against UCUM's)."""
    if (left.unit or "1") == (right.unit or "1"):
        return Fraction(left.value), Fraction(right.value)
    words = {left.calendar_unit(), right.calendar_unit()}
    if words & {"year", "month"}:
        return _months(left, right) if words <= {"year", "month"} else None
    one, two = canonical(left, units), canonical(right, units)
    return (one[0], two[0]) if one and two and one[1] == two[1] else None


def _months(left: Quantity, right: Quantity) -> tuple[Fraction, Fraction]:
    return tuple(Fraction(each.value) * (12 if each.calendar_unit() == "year" else 1) for each in (left, right))  # type: ignore[return-value]


def comparable(left: Quantity, right: Quantity, units: Units | None = None) -> bool:
    """`comparable()`: True if the units have the same dimension."""
    one, two = canonical(left, units), canonical(right, units)
    return (left.ucum() == right.ucum()) if one is None or two is None else one[1] == two[1]


def combine(left: Quantity, right: Quantity, sign: int) -> Quantity | None:
    """Product (sign 1) or quotient (-1) in base units, exact; None for units that cannot be read and for division by zero."""
    one, two = _canonical(left.ucum()), _canonical(right.ucum())
    if one is None or two is None or (sign < 0 and right.value == 0):
        return None
    powers = dict(one[1])
    for base, power in two[1]:
        powers[base] = powers.get(base, 0) + sign * power
    value = Fraction(left.value) * one[0] * (Fraction(right.value) * two[0]) ** sign
    unit = ".".join(f"{base}{power if power != 1 else ''}" for base, power in sorted(powers.items()) if power)
    return Quantity(to_decimal(value), unit or "1")


def to_decimal(value: Fraction) -> Decimal:
    """A fraction as decimal, to 28 digits where it does not end."""
    return Decimal(value.numerator) / Decimal(value.denominator)
