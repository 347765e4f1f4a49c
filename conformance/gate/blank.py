"""Texts of nothing but white space: R4 lets them pass by form, but SHOULD have none. https://hl7.org/fhir/R4/datatypes.html#string

Not part of the gate, which would look at every text once more: for who asks for advice.
"""

from typing import Any

from conformance.gate.report import At, expression
from conformance.outcome import Issue

TEXT = "holds only white space: another system may trim it to nothing, which is not a value"


def blanks(res: dict[str, Any]) -> list[Issue]:
    """A warning for each such text in the resource."""
    found: list[Issue] = []
    open_: list[tuple[Any, At]] = [(res, (None, str(res.get("resourceType", "")), None))]
    while open_:
        value, place = open_.pop()
        if isinstance(value, dict):
            open_ += [(inner, (place, name, None)) for name, inner in value.items() if name != "div"]
        elif isinstance(value, list):
            open_ += [(inner, (place[0], place[1], index)) for index, inner in enumerate(value)]
        elif isinstance(value, str) and value.isspace():
            found.append(Issue("warning", "value", TEXT, expression(place)))
    return found
