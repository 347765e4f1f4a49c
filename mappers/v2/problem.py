"""What is wrong with a message, said once: a severity, a place and a code of HL7 table 0357.

A text names segment, field and rule, never a value that could be a patient's data. `ack` turns problems into ERR segments.
https://www.hl7.eu/HL7v2x/v281/std281/ch02.html (2.14.5 ERR, tables 0357 and 0516).
"""

from dataclasses import dataclass

ERROR, WARNING, INFORMATION = "E", "W", "I"

# HL7 table 0357, message error condition codes, https://terminology.hl7.org/CodeSystem/v2-0357
CONDITIONS = {
    "0": "Message accepted",
    "100": "Segment sequence error",
    "101": "Required field missing",
    "102": "Data type error",
    "103": "Table value not found",
    "104": "Value too long",
    "198": "Non-Conformant Cardinality",
    "199": "Other HL7 Error",
    "200": "Unsupported message type",
    "201": "Unsupported event code",
    "202": "Unsupported processing id",
    "203": "Unsupported version id",
    "204": "Unknown key identifier",
    "205": "Duplicate key identifier",
    "206": "Application record locked",
    "207": "Application error",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding: severity E | W | I (table 0516), location as ERL 'OBX^3^5^1^1' ('' if the whole message), code of table 0357."""

    severity: str
    location: str
    code: str
    text: str


def erl(segment: str, occurrence: int, field: int = 0, repetition: int = 0, component: int = 0) -> str:
    """The ERL of a place: segment id, its occurrence from 1, field, repetition, component; zeros at the end are left out."""
    parts = [segment, str(occurrence)]
    for number in (field, repetition, component):
        if not number:
            break
        parts.append(str(number))
    return "^".join(parts)


def failed(problems: "list[Problem]") -> bool:
    """True if any problem is an error."""
    return any(problem.severity == ERROR for problem in problems)
