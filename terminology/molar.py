"""Mass <-> substance of common analytes (mg/dL <-> mmol/L), by a reviewed table; everything else is refused.

`ucum/molar.csv`: molar mass in g/mol of the substance that the LOINC component names, with the LOINC codes it holds for. Left out on purpose: mixtures and
families (triglyceride, vitamin D, protein, albumin, haemoglobin per chain or tetramer, enzymes), where no single molar mass is right.
"""

import csv
from collections.abc import Mapping
from decimal import Decimal
from functools import cache

from terminology.units import FOLDER, BadUnit, base_code, convert, parse


@cache
def masses() -> Mapping[str, Decimal]:
    """LOINC code or analyte name -> g/mol."""
    found: dict[str, Decimal] = {}
    with (FOLDER / "molar.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            mass = Decimal(row["g_per_mol"])
            found[row["analyte"]] = mass
            found.update((code, mass) for code in row["loinc"].split())
    return found


def convert_analyte(value: Decimal, source: str, target: str, analyte: str) -> Decimal:
    """`value` of `source` in `target` for an analyte (LOINC code or name of the table), through its molar mass where the kinds differ.

    Raises BadUnit if the table has no such analyte, or the units differ by more than mass against substance.
    """
    kinds = _kind(source), _kind(target)
    if kinds[0] == kinds[1]:
        return convert(value, source, target)
    mass = masses().get(analyte)
    if mass is None:
        raise BadUnit("no reviewed molar mass for this analyte")
    if kinds == ("mass", "substance"):
        return convert(value / mass, f"({source}).mol/g", target)
    return convert(value * mass, f"({source}).g/mol", target)


def _kind(unit: str) -> str:
    """'mass' if the unit counts grams once, else 'substance' if it counts moles (a pure number in UCUM)."""
    grams = dict(parse(unit).dimension).get("g", 0)
    if grams == 1:
        return "mass"
    if grams == 0 and "mol" in unit:
        return "substance"
    raise BadUnit(f"{base_code(parse(unit))} is neither a mass nor a substance measure")
