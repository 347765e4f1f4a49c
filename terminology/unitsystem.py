"""UCUM as a code system: its grammar makes it infinite, so codes are judged by parsing, and only enumerated units can be listed.

https://hl7.org/fhir/R4/ucum.html
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from terminology import units
from terminology.concepts import BadFilter, Json, Meta
from terminology.language import Designation
from terminology.parameters import made
from terminology.sets import NOTHING, Members
from terminology.trouble import outcome, trouble

ALL = f"{units.SYSTEM}/vs"
UCUM = Meta(url=units.SYSTEM, name="UCUM", title="Unified Code for Units of Measure", date="1998")  # one grammar since it was first published
MOST = 65_536  # units that are told apart in one process; far more than are in use


@dataclass(frozen=True)
class UnitSystem:
    """The System of all UCUM expressions. A unit gets its number when it is first asked for; `everything` holds the numbers of those to come as well."""

    meta: Meta = field(default_factory=lambda: UCUM)
    codes: list[str] = field(default_factory=list, compare=False, repr=False)
    numbers: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def size(self) -> int:
        """How many units could be told apart."""
        return MOST

    def find(self, code: str) -> int | None:
        """The number of a valid expression; beyond MOST they share the last one."""
        known = self.numbers.get(code)
        if known is not None or not units.valid(code):
            return known
        if len(self.codes) < MOST:
            self.codes.append(code)
            self.numbers[code] = len(self.codes) - 1
            return self.numbers[code]
        self.codes[-1] = code
        return MOST - 1

    def code(self, n: int) -> str:
        """The expression."""
        return self.codes[n]

    def display(self, n: int) -> str:
        """The expression itself: UCUM has no displays, and what feeds write there varies."""
        return self.codes[n]

    def definition(self, n: int) -> str:
        """The expression in words."""
        return units.name(self.codes[n])

    def names(self, n: int) -> Sequence[Designation]:
        """None: any display will do."""
        return ()

    def properties(self, n: int) -> Sequence[Json]:
        """The expression in base units."""
        return [{"code": "canonical", "valueString": units.base_code(units.parse(self.codes[n]))}]

    def extensions(self, n: int) -> Sequence[Json]:
        """None."""
        return ()

    def inactive(self, n: int) -> bool:
        """Never."""
        return False

    def abstract(self, n: int) -> bool:
        """Never."""
        return False

    def status(self, n: int) -> str:
        """None."""
        return ""

    def parents(self, n: int) -> Members:
        """UCUM has no hierarchy."""
        return NOTHING

    def children(self, n: int) -> Members:
        """UCUM has no hierarchy."""
        return NOTHING

    def descendants(self, n: int) -> Members:
        """UCUM has no hierarchy."""
        return NOTHING

    def ancestors(self, n: int) -> Members:
        """UCUM has no hierarchy."""
        return NOTHING

    def select(self, prop: str, op: str, value: str) -> Members:
        """`canonical = unit` means what is commensurable (https://hl7.org/fhir/R4/ucum.html#4.3.5.3): it cannot be listed. Raises BadFilter."""
        raise BadFilter("units are not selected by filters here: enumerate them")

    def everything(self) -> Members:
        """All units, also those that nobody has asked for yet."""
        return np.arange(MOST, dtype=np.int32)

    def abstracts(self) -> Members:
        """None."""
        return NOTHING

    def inactives(self) -> Members:
        """None."""
        return NOTHING

    def search(self, text: str) -> Members:
        """None: units are found by their expression."""
        return NOTHING


def unit_value_set(url: str) -> Json | None:
    """The implicit value set of all units, None for any other url."""
    return {"resourceType": "ValueSet", "url": ALL, "status": "active", "compose": {"include": [{"system": units.SYSTEM}]}} if url == ALL else None


def check_unit(coding: Json, whole: bool) -> dict[str, Any]:
    """The Parameters of $validate-code for a UCUM code. whole: it came as a Coding."""
    code = str(coding.get("code", ""))
    place = "Coding.code" if whole else "code"
    try:
        shown = units.name(code)
    except units.BadUnit as bad:
        found = [trouble("malformed-code", place, url=units.SYSTEM, reason=bad)]
        answer = made(
            ("result", "valueBoolean", False),
            ("code", "valueCode", code),
            ("system", "valueUri", units.SYSTEM),
            ("issues", "resource", outcome(found)),
        )
        answer["parameter"].append({"name": "message", "valueString": found[0].text})
        return answer
    return made(
        ("result", "valueBoolean", True), ("code", "valueCode", code), ("system", "valueUri", units.SYSTEM), ("display", "valueString", shown)
    )
