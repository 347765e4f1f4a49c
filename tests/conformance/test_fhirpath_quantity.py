"""The compact UCUM table of FHIRPath quantities. https://ucum.org/ucum and https://hl7.org/fhirpath/N1/#quantity"""

from decimal import Decimal
from fractions import Fraction

import pytest

from conformance.fhirpath.quantity import CALENDAR, Quantity, canonical, combine, comparable, pair


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("1 g", "1000 mg"), ("1 mg/dL", "0.01 g/L"), ("1 10*3/uL", "1000000000 /L"), ("60 {beats}/min", "1 /s"), ("1 mmol/L", "1000 umol/L"), ("1 [in_i]", "2.54 cm"), ("1 mm[Hg]", "133.322 Pa"),
        ("1 kPa", "1000 Pa"), ("1 L", "1 dm3"), ("1 ug/kg/min", "60 ug/kg/h"), ("1 m.s-1", "1 m/s"), ("1 wk", "7 d"), ("1 %", "0.01 1"), ("1 mL/min/{1.73_m2}", "1 mL/min"), ("1 U/L", "1000 mU/L"),
        ("1 kat", "1 mol/s"), ("1 kcal", "4184 J"), ("1 [IU]/mL", "1000 [iU]/L"), ("1 s/4.m", "0.25 s.m"),
    ],
)  # fmt: skip
def test_equal_quantities(one: str, two: str) -> None:
    left, right = (Quantity(Decimal(text.split(" ")[0]), text.split(" ")[1]) for text in (one, two))
    both = pair(left, right)
    assert both is not None
    assert both[0] == both[1]
    assert comparable(left, right)


@pytest.mark.parametrize(
    ("one", "two"), [("g", "m"), ("mol/L", "g/L"), ("[arb'U]", "U"), ("a", "year"), ("mo", "month"), ("nonsense", "g"), ("Cel", "K"), ("²", "m")]
)
def test_quantities_that_cannot_be_compared(one: str, two: str) -> None:
    assert pair(Quantity(Decimal(1), one), Quantity(Decimal(1), two)) is None


@pytest.mark.parametrize("code", ["a//b", "g/", "g.", "()", "m(2)", "", "/", "g" * 100, "10*999", "²", "{", "}"])
def test_codes_that_are_no_units_are_not_read(code: str) -> None:
    assert canonical(Quantity(Decimal(1), f"{code}x")) is None


def test_products_and_quotients_are_exact() -> None:
    assert combine(Quantity(Decimal("2.0"), "cm"), Quantity(Decimal("2.0"), "m"), 1) == Quantity(Decimal("0.04"), "m2")
    assert combine(Quantity(Decimal(4), "g"), Quantity(Decimal(2), "m"), -1) == Quantity(Decimal(2), "g.m-1")
    assert combine(Quantity(Decimal(4), "g"), Quantity(Decimal(0), "m"), -1) is None


def test_calendar_words_are_durations() -> None:
    assert set(CALENDAR.values()) == {"year", "month", "week", "day", "hour", "minute", "second", "millisecond"}
    assert pair(Quantity(Decimal(1), "week", True), Quantity(Decimal(7), "days", True)) == (Fraction(604800), Fraction(604800))
    assert pair(Quantity(Decimal(1), "year", True), Quantity(Decimal(12), "months", True)) == (12, 12)
