"""UCUM as a code system: its grammar makes it infinite, so codes are judged by parsing, and only common units can be listed.

https://hl7.org/fhir/R4/ucum.html
"""

from typing import Any

from terminology import units
from terminology.parameters import made
from terminology.trouble import outcome, trouble

Json = dict[str, Any]
ALL = f"{units.SYSTEM}/vs"


def unit_value_set(url: str) -> Json | None:
    """The implicit value set of all units, None for any other url."""
    return {"resourceType": "ValueSet", "url": ALL, "status": "active", "compose": {"include": [{"system": units.SYSTEM}]}} if url == ALL else None


def check_unit(coding: Json, whole: bool) -> Json:
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
