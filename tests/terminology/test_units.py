"""UCUM: grammar, exact factors, scales, lab spellings, molar masses."""

import os
from decimal import Context, Decimal
from pathlib import Path

import pytest
from lxml import etree

from terminology import molar, units

# Two rows of the suite contradict UCUM itself: 3-111 divides by mg as if it multiplied; 3-115 reads a/b.c as a/(b.c), which UCUM reads from left to right.
ERRATA = {"3-111": Decimal(6300), "3-115": None}


def suite(section: str) -> list[etree._Element]:
    folder = os.environ.get("FHIR_SUITES")
    if not folder:
        pytest.skip("FHIR_SUITES is not set")
    root = etree.parse(Path(folder) / "ucum" / "UcumFunctionalTests.2.xml").getroot()
    return root.findall(f"{section}/case")


def test_every_validation_case_of_the_functional_tests() -> None:
    cases = suite("validation")
    wrong = [c.get("unit") for c in cases if units.valid(c.get("unit") or "") != (c.get("valid") == "true")]
    assert len(cases) >= 525
    assert wrong == []


def test_every_conversion_within_its_digits() -> None:
    for case in suite("conversion"):
        outcome = ERRATA.get(case.get("id") or "", Decimal(case.get("outcome") or ""))
        value, source, target = Decimal(case.get("value") or ""), case.get("srcUnit") or "", case.get("dstUnit") or ""
        if outcome is None:
            with pytest.raises(units.BadUnit):
                units.convert(value, source, target)
            continue
        rounded = Context(prec=len(outcome.as_tuple().digits)).plus(units.convert(value, source, target))
        assert rounded == outcome, case.get("id")


def test_names_read_as_the_functional_tests_say() -> None:
    for case in suite("displayNameGeneration"):
        assert units.name(case.get("unit") or "").lower() == (case.get("display") or "").lower()


def test_multiplied_quantities_compare_in_base_units() -> None:
    for case in suite("multiplication"):
        made = units.canonical(Decimal(case.get("v1") or "") * Decimal(case.get("v2") or ""), f"({case.get('u1')}).({case.get('u2')})")
        assert made == units.canonical(Decimal(case.get("vRes") or ""), case.get("uRes") or "")


def test_every_atom_evaluates() -> None:
    for code in units.atoms()[1]:
        assert units.valid(code), code


@pytest.mark.parametrize(
    ("value", "source", "target", "outcome"),
    [
        ("98.6", "[degF]", "Cel", "37"),
        ("37", "Cel", "K", "310.15"),
        ("-40", "Cel", "[degF]", "-40"),
        ("5.5", "mmol/L", "umol/mL", "5.5"),
        ("30", "dB", "B", "3"),
        ("3", "B", "1", "1000"),
        ("7", "[pH]", "mol/L", "1E-7"),
        ("1", "[lb_av]", "kg", "0.45359237"),
        ("1", "a_j", "d", "365.25"),
        ("120", "mm[Hg]", "kPa", "15.99864"),
    ],
)
def test_known_conversions(value: str, source: str, target: str, outcome: str) -> None:
    assert units.convert(Decimal(value), source, target) == Decimal(outcome)


@pytest.mark.parametrize(("source", "target"), [("mg", "mL"), ("[IU]/L", "U/L"), ("[iU]", "[arb'U]"), ("Cel/s", "K/s"), ("mg/dL", "mmol/L")])
def test_incomparable_units_are_refused(source: str, target: str) -> None:
    with pytest.raises(units.BadUnit):
        units.convert(Decimal(1), source, target)


def test_canonical_form_is_exact_and_shared() -> None:
    assert units.canonical(Decimal("5.10"), "mg/dL") == (Decimal("51.0"), "g.m-3")
    assert units.canonical(Decimal("0.051"), "g/L") == (Decimal("51"), "g.m-3")
    assert units.canonical(Decimal(1), "[IU]/L") == units.canonical(Decimal(1000), "m[iU]/L")
    assert units.canonical(Decimal(1), "nonsense") is None
    assert units.canonical(Decimal(99999), "B") is None


@pytest.mark.parametrize(
    ("text", "ucum"),
    [
        ("mg/dl", "mg/dL"),
        ("MG/DL", "mg/dL"),
        ("MMOL/L", "mmol/L"),
        ("x10E3/uL", "10*3/uL"),
        ("10^9/L", "10*9/L"),
        ("K/uL", "10*3/uL"),
        ("IU/L", "[IU]/L"),
        ("µg/mL", "ug/mL"),
        ("mm Hg", "mm[Hg]"),
        ("GM/DL", "g/dL"),
        ("°C", "Cel"),
        ("mL/min/1.73m²", "mL/min/{1.73_m2}"),
        ("pH", "[pH]"),
        ("%", "%"),
    ],
)
def test_lab_spellings_with_one_meaning(text: str, ucum: str) -> None:
    assert units.to_ucum(text) == ucum


@pytest.mark.parametrize("text", ["", "units", "oz", "G/L", "MG", "C", "F", "gobbledygook", "x" * 300])
def test_spellings_with_two_meanings_or_none_stay_unmapped(text: str) -> None:
    assert units.to_ucum(text) is None


def test_every_listed_spelling_is_ucum() -> None:
    assert [code for code in units.spellings().values() if code != "?" and not units.valid(code)] == []


@pytest.mark.parametrize("text", ["((((" * 20, "m" * 300, "m.", ".m", "m//s", "2.5m", "m 2", "{a", "a}", "10*99999", "0.m", "/"])
def test_hostile_units_are_refused(text: str) -> None:
    assert not units.valid(text)


def test_mass_and_substance_of_a_reviewed_analyte() -> None:
    assert round(molar.convert_analyte(Decimal(90), "mg/dL", "mmol/L", "2345-7"), 2) == Decimal("5.00")
    assert molar.convert_analyte(Decimal("5.0"), "mmol/L", "mg/dL", "glucose") == Decimal("90.078")
    assert molar.convert_analyte(Decimal(1), "g/L", "mg/dL", "no such analyte") == 100
    with pytest.raises(units.BadUnit):
        molar.convert_analyte(Decimal(150), "mg/dL", "mmol/L", "2571-8")
    with pytest.raises(units.BadUnit):
        molar.convert_analyte(Decimal(1), "mg/dL", "mm[Hg]", "glucose")
