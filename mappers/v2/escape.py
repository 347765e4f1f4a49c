"""Escape sequences of HL7 v2 text, decoded once, at the leaf; and encoded when a message is built.

`\\F\\ \\S\\ \\T\\ \\R\\ \\E\\ \\P\\` stand for delimiters, `\\Xdd..\\` for bytes in the message's charset (control characters are left out), `\\.br\\ \\.sp\\ \\.ce\\` for
line ends, `\\H\\ \\N\\` for highlighting (dropped); what is not known stays as it was sent. HL7 v2.8 chapter 2, 2.7.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

_LINES = re.compile(r"\.(br|sp|ce|sk)\+?(\d{0,3})$")
_FORMAT = re.compile(r"\.(fi|nf|in|ti)[+-]?\d{0,3}$")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # what a FHIR string must not hold: https://hl7.org/fhir/R4/datatypes.html#string
_HEX = re.compile(r"X([0-9A-Fa-f]{2})+$")


@dataclass(frozen=True, slots=True)
class Delimiters:
    """The six delimiters of a message: MSH-1 and the characters of MSH-2 ('' where a message has none)."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"
    truncation: str = ""

    @property
    def encoding_characters(self) -> str:
        """MSH-2."""
        return self.component + self.repetition + self.escape + self.subcomponent + self.truncation


def decoder(delimiters: Delimiters, codec: str) -> Callable[[str], str]:
    """A function from escaped text to text; `codec` is the Python codec in which hexadecimal escapes are read."""
    mark = delimiters.escape
    if not mark:
        return _same
    plain = {
        "F": delimiters.field,
        "S": delimiters.component,
        "T": delimiters.subcomponent,
        "R": delimiters.repetition,
        "E": mark,
        "P": delimiters.truncation or "#",
    }
    pattern = re.compile(re.escape(mark) + "([^" + re.escape(mark) + "\r\n]{1,4096})" + re.escape(mark))

    def replace(match: re.Match[str]) -> str:
        body = match.group(1)
        known = plain.get(body)
        return known if known is not None else _special(body, match.group(0), codec)

    def decode(text: str) -> str:
        return pattern.sub(replace, text) if mark in text else text

    return decode


def _same(text: str) -> str:
    return text


def _special(body: str, whole: str, codec: str) -> str:
    if body in ("H", "N"):
        return ""
    lines = _LINES.match(body)
    if lines:
        unit = " " if lines.group(1) == "sk" else "\n"
        return unit * min(int(lines.group(2) or 1), 200)
    if _FORMAT.match(body):
        return ""
    if _HEX.match(body):
        return _CONTROL.sub("", bytes.fromhex(body[1:]).decode(codec, "replace"))
    return whole


def encode(text: str, delimiters: Delimiters) -> str:
    """Text made safe as the content of a leaf: delimiters and line ends escaped."""
    mark = delimiters.escape
    table = {mark: "E", delimiters.field: "F", delimiters.component: "S", delimiters.subcomponent: "T", delimiters.repetition: "R"}
    if delimiters.truncation:
        table[delimiters.truncation] = "P"
    out = "".join(f"{mark}{table[char]}{mark}" if char in table else char for char in text)
    return out.replace("\r\n", "\n").replace("\r", "\n").replace("\n", f"{mark}.br{mark}")
