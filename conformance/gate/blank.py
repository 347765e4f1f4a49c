"""Texts of nothing but white space: R4 lets them pass by form, but SHOULD have none. https://hl7.org/fhir/R4/datatypes.html#string

Only for who reads advice: a write that nobody asked to be told of does not look for them.
"""

from typing import Any

from conformance.gate.report import At, Report

TEXT = "holds only white space: another system may trim it to nothing, which is not a value"


def advise(res: dict[str, Any], at: At, report: Report) -> None:
    """Add a warning for each such text in the resource."""
    open_: list[tuple[Any, At]] = [(res, at)]
    while open_:
        value, place = open_.pop()
        if isinstance(value, dict):
            open_ += [(inner, (place, name, None)) for name, inner in value.items() if name != "div"]
        elif isinstance(value, list):
            open_ += [(inner, (place[0], place[1], index)) for index, inner in enumerate(value)]
        elif isinstance(value, str) and value.isspace():
            report.add("warning", "value", TEXT, place)
