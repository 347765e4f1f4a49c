"""UCUM: validation, exact canonical form, conversion, and the lab spellings that stand for one unit only.

https://ucum.org/ucum (the case-sensitive grammar); https://hl7.org/fhir/R4/datatypes.html#Quantity. Factors are exact fractions; only a result
that has no finite decimal (or comes from a logarithmic scale) is rounded, to 34 digits. A mole is UCUM's pure number, an arbitrary unit
([IU]) is a dimension of its own: never convertible to another.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from terminology.scales import SCALES, Scale

FOLDER = Path(__file__).parent / "ucum"
SYSTEM = "http://unitsofmeasure.org"
MAX_LENGTH = 256
EXACT = Context(prec=80)
OUT = Context(prec=34)

Dimension = tuple[tuple[str, int], ...]

_TOKEN = re.compile(
    r"(?P<open>\()|(?P<close>\))|(?P<op>[./])|(?P<note>\{[!-z|~]*\})"
    r"|(?P<unit>(?:10[*^]|(?:\[[!-Z\\^-~]*\]|[!-'*,:-Z\\^-z|~])+(?:\[[!-Z\\^-~]*\])*)(?P<exp>[+-]?[0-9]+)?)"
    r"|(?P<number>[0-9]+)"
)


class BadUnit(ValueError):
    """Not a UCUM expression, or two units that cannot be converted; the text says why and never holds a measured value."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A UCUM expression evaluated: `factor` x product of base units; `scale` is set for a special unit, which measures on a scale of its own.

    scale: None for a linear unit; pre: the prefix in front of a special unit (10 dB = 1 B).
    """

    factor: Fraction
    dimension: Dimension
    scale: Scale | None = None
    pre: Fraction = Fraction(1)


@dataclass(frozen=True, slots=True)
class Atom:
    """A row of units.csv."""

    metric: bool
    arbitrary: bool
    kind: str
    code: str
    upper: str
    name: str
    property: str
    function: str
    value: str
    unit: str


@cache
def atoms() -> tuple[Mapping[str, Atom], Mapping[str, Atom]]:
    """(prefixes, unit atoms) by case-sensitive code."""
    prefixes: dict[str, Atom] = {}
    units: dict[str, Atom] = {}
    with (FOLDER / "units.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            typed: dict[str, Any] = row | {"metric": row["metric"] == "y", "arbitrary": row["arbitrary"] == "y"}
            atom = Atom(**typed)
            (prefixes if atom.kind == "prefix" else units)[atom.code] = atom
    return prefixes, units


@cache
def _upper() -> tuple[Mapping[str, str], Mapping[str, str]]:
    prefixes, units = atoms()
    return {a.upper: a.code for a in prefixes.values()}, {a.upper: a.code for a in reversed(list(units.values())) if a.upper}


@lru_cache(maxsize=4096)
def parse(text: str) -> Unit:
    """The unit that a case-sensitive UCUM expression means ('' is the unity). Raises BadUnit."""
    if len(text) > MAX_LENGTH:
        raise BadUnit(f"a unit has at most {MAX_LENGTH} characters")
    if not text:
        return UNITY
    reader = _Reader(_tokens(text))
    unit = reader.term()
    if reader.at < len(reader.tokens):
        raise BadUnit("unbalanced parenthesis")
    return unit


def valid(text: str) -> bool:
    """True if `text` is a case-sensitive UCUM expression."""
    try:
        parse(text)
    except BadUnit:
        return False
    return True


def _tokens(text: str) -> list[tuple[str, str, str]]:
    """(kind, text, exponent) of each token; two operands may only touch where UCUM allows it (an annotation behind a unit)."""
    found: list[tuple[str, str, str]] = []
    at, previous, before = 0, "", ""
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise BadUnit(f"character {at + 1} cannot stand in a unit")
        kind = "unit" if match.group("unit") else str(match.lastgroup)
        leading = previous == "note" and before == "op"  # `g.m/{hb}m2`, which UCUM's own table of examples writes
        if kind in ("unit", "number", "open") and previous in ("unit", "number", "note", "close") and not leading:
            raise BadUnit(f"an operator is missing before character {at + 1}")
        if kind == "note" and previous in ("note", "close"):
            raise BadUnit(f"the annotation at character {at + 1} follows no unit")
        exponent = match.group("exp") or ""
        symbol = match.group().removesuffix(exponent) if exponent else match.group()
        found.append((kind, symbol, exponent))
        before, previous, at = previous, kind, match.end()
    return found


class _Reader:
    """Reads tokens left to right: `a/b.c` is (a/b).c, https://ucum.org/ucum#section-Syntax-Rules."""

    def __init__(self, tokens: list[tuple[str, str, str]], depth: int = 0) -> None:
        self.tokens, self.at, self.depth = tokens, 0, depth

    def kind(self) -> str:
        """The kind of the token ahead, '' at the end."""
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def term(self) -> Unit:
        """A term up to its end or the closing parenthesis."""
        unit = UNITY
        divide = False
        if self.kind() == "op":
            if self.tokens[self.at][1] != "/":
                raise BadUnit("a unit cannot begin with '.'")
            divide, self.at = True, self.at + 1
        unit = _times(unit, self.component(), divide)
        while self.kind() == "op":
            divide = self.tokens[self.at][1] == "/"
            self.at += 1
            unit = _times(unit, self.component(), divide)
        return unit

    def component(self) -> Unit:
        """A unit, number, annotation or parenthesised term, with the annotation that follows it."""
        if self.at >= len(self.tokens):
            raise BadUnit("an operator is followed by nothing")
        kind, text, exponent = self.tokens[self.at]
        self.at += 1
        if kind == "open":
            return self._inner()
        if kind == "note":
            return self.component() if self.kind() in ("unit", "number", "open") else UNITY
        if kind == "number":
            unit = Unit(Fraction(int(text)), ())
            if not unit.factor:
                raise BadUnit("a factor of 0 measures nothing")
        elif kind == "unit":
            unit = _power(symbol(text), int(exponent or 1))
        else:
            raise BadUnit(f"'{text}' where a unit is expected")
        if self.kind() == "note":
            self.at += 1
        return unit

    def _inner(self) -> Unit:
        self.depth += 1
        if self.depth > 32:
            raise BadUnit("parentheses are nested too deeply")
        unit = self.term()
        if self.kind() != "close":
            raise BadUnit("a parenthesis is not closed")
        self.at += 1
        self.depth -= 1
        return unit


UNITY = Unit(Fraction(1), ())


def _times(left: Unit, right: Unit, divide: bool) -> Unit:
    if left is UNITY and not divide:
        return right
    if right is UNITY:
        return left
    sign = -1 if divide else 1
    powers = dict(left.dimension)
    for name, power in right.dimension:
        powers[name] = powers.get(name, 0) + sign * power
    scale = left.scale or right.scale
    factor = left.factor / right.factor if divide else left.factor * right.factor
    if scale is not None and (powers_only_factor := right if left.scale else left).dimension == () and not (divide and right.scale):
        pre = (left.pre if left.scale else right.pre) * (1 / powers_only_factor.factor if divide else powers_only_factor.factor)
        return Unit(left.factor if left.scale else right.factor, left.dimension if left.scale else right.dimension, scale, pre)
    return Unit(factor, _dimension(powers), BROKEN if scale else None)


def _power(unit: Unit, exponent: int) -> Unit:
    if exponent == 1:
        return unit
    if abs(exponent) > 999:
        raise BadUnit("an exponent is at most 999")
    return Unit(unit.factor**exponent, _dimension({n: p * exponent for n, p in unit.dimension}), BROKEN if unit.scale else None)


def _dimension(powers: Mapping[str, int]) -> Dimension:
    return tuple(sorted((name, power) for name, power in powers.items() if power))


BROKEN = SCALES["broken"]  # a special unit in a product: valid to write, impossible to convert


@cache
def symbol(text: str) -> Unit:
    """The unit of a symbol without exponent: an atom, or a prefix and a metric atom. Raises BadUnit."""
    prefixes, units = atoms()
    if text in units:
        return _atom(text)
    for length in (2, 1):
        prefix, atom = prefixes.get(text[:length]), units.get(text[length:])
        if prefix is not None and atom is not None and atom.metric:
            unit, times = _atom(atom.code), Fraction(prefix.value)
            if unit.scale:
                return Unit(unit.factor, unit.dimension, unit.scale, times)
            return Unit(unit.factor * times, unit.dimension)
    raise BadUnit(f"'{text}' is not a unit of UCUM" if len(text) < 24 else "a symbol is not a unit of UCUM")


@cache
def _atom(code: str) -> Unit:
    atom = atoms()[1][code]
    if atom.kind == "base-unit" or (atom.arbitrary and atom.unit == "1"):
        return Unit(Fraction(1), ((code, 1),))
    proper = parse(atom.unit)
    factor = proper.factor * Fraction(atom.value or "1")
    scale = SCALES[atom.function] if atom.function else None
    return Unit(factor, proper.dimension, scale)


def name(text: str) -> str:
    """A readable form of a UCUM expression: '(meter ^ 3) * (kilogram ^ -1)'. Raises BadUnit."""
    parse(text)
    if not text:
        return "(unity)"
    words = {"op.": " * ", "op/": " / "}
    return "".join(words.get(kind + token) or _word(kind, token, exponent) for kind, token, exponent in _tokens(text))


def _word(kind: str, token: str, exponent: str) -> str:
    if kind != "unit":
        return token
    prefixes, units = atoms()
    if token in units:
        plain = units[token].name
    else:
        length = 2 if token[:2] in prefixes and token[2:] in units else 1
        plain = prefixes[token[:length]].name + units[token[length:]].name
    return f"({plain} ^ {exponent})" if exponent else f"({plain})"


def canonical(value: Decimal, ucum: str) -> tuple[Decimal, str] | None:
    """`value` in base units, and those: (Decimal('0.005'), 'g'); None if `ucum` is no UCUM or cannot be converted.

    Exact wherever the result is a finite decimal. https://hl7.org/fhir/R4/search.html#quantity
    """
    try:
        unit = parse(ucum)
        return _decimal(_to_base(value, unit)), base_code(unit)
    except (BadUnit, ArithmeticError):
        return None


def comparable(left: str, right: str) -> bool:
    """True if both are UCUM and of one dimension."""
    try:
        a, b = parse(left), parse(right)
    except BadUnit:
        return False
    return a.dimension == b.dimension and BROKEN not in (a.scale, b.scale)


def base_code(unit: Unit) -> str:
    """The product of base units: 'g.m-3'; '1' for a pure number."""
    return ".".join(n if p == 1 else f"{n}{p}" for n, p in unit.dimension) or "1"


def convert(value: Decimal, source: str, target: str) -> Decimal:
    """`value` of `source` expressed in `target`. Raises BadUnit (not UCUM, not of one dimension, outside the scale)."""
    a, b = parse(source), parse(target)
    if a.dimension != b.dimension:
        raise BadUnit("the units measure different things")
    try:
        return _decimal(_from_base(_to_base(value, a), b))
    except ArithmeticError as bad:
        raise BadUnit("the value lies outside the scale of the unit") from bad


def _to_base(value: Decimal, unit: Unit) -> Fraction:
    if unit.scale is None:
        return Fraction(value) * unit.factor
    return unit.scale.to_proper(Fraction(value) * unit.pre) * unit.factor


def _from_base(value: Fraction, unit: Unit) -> Fraction:
    if unit.scale is None:
        return value / unit.factor
    return unit.scale.from_proper(value / unit.factor) / unit.pre


def _decimal(value: Fraction) -> Decimal:
    """Exact if the fraction is a finite decimal of at most 80 digits, else rounded to 34."""
    with localcontext(EXACT) as exact:
        made = Decimal(value.numerator) / Decimal(value.denominator)
        if Fraction(made) != value:
            exact.prec = OUT.prec
            made = +made
    return made.normalize(EXACT)


@cache
def spellings() -> Mapping[str, str]:
    """Spelling (as written, or in lower case) -> UCUM code, '?' where it could mean two things."""
    with (FOLDER / "synonyms.csv").open(encoding="utf-8", newline="") as lines:
        return {row["spelling"]: row["ucum"] for row in csv.DictReader(lines)}


@lru_cache(maxsize=8192)
def to_ucum(unit_text: str) -> str | None:
    """The UCUM code that a unit written by a laboratory means; None if it is unknown or could mean two things.

    A listed spelling first (`synonyms.csv`), then UCUM itself, then UCUM's upper-case form (`MMOL/L`), where that is the only reading.
    """
    text = _tidy(unit_text)
    if not text or len(text) > MAX_LENGTH:
        return None
    table = spellings()
    known = table.get(text) or table.get(text.lower())
    if known:
        return known if known != "?" else None
    lowered = lower_case(text)
    if valid(text):
        differs = lowered is not None and text.upper() == text and not _same(lowered, text)
        return None if differs else text
    return lowered if text.upper() == text else None


def _tidy(text: str) -> str:
    """One spelling of micro, multiplication, powers and blanks."""
    for old, new in (("\u00b5", "u"), ("\u03bc", "u"), ("\u00b2", "2"), ("\u00b3", "3"), ("\u00d7", "x"), ("\u00b0", "deg ")):
        text = text.replace(old, new)
    text = re.sub(r"\s*([/.])\s*", r"\1", " ".join(text.split()))
    text = re.sub(r"^(?:x|X)?\s?10\s?(?:\^|\*|e|E|\*\*)\s?(\d+)(?=$|[/ ])", r"10*\1", text)
    return re.sub(r"(?<=[a-z])\^(?=-?\d)", "", text)


def lower_case(text: str) -> str | None:
    """The case-sensitive code of a unit in UCUM's upper-case form (`MG/DL` -> 'mg/dL'), None if it is not one."""
    prefixes, units = _upper()
    try:
        tokens = _tokens(text.upper())
    except BadUnit:
        return None
    parts = []
    for kind, token, exponent in tokens:
        plain = token if kind != "unit" else _lower_symbol(token, prefixes, units)
        if plain is None:
            return None
        parts.append(plain + exponent)
    made = "".join(parts)
    return made if valid(made) else None


def _lower_symbol(text: str, prefixes: Mapping[str, str], units: Mapping[str, str]) -> str | None:
    if text in units:
        return "L" if text == "L" else units[text]
    for length in (2, 1):
        unit = units.get(text[length:])
        if text[:length] in prefixes and unit is not None and atoms()[1][unit].metric:
            return prefixes[text[:length]] + ("L" if unit == "l" else unit)
    return None


def _same(left: str, right: str) -> bool:
    return parse(left) == parse(right)
