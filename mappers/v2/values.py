"""Leaves: raw text of a field or component -> a FHIR primitive, by the name of its type. None where the text is no such value.

Each is `(run, raw) -> value | None`; a text that is there but is no value of the type is noted as a problem (table 0357, 102).
https://hl7.org/fhir/R4/datatypes.html#primitive
"""

import base64
import binascii
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from mappers.v2 import times
from mappers.v2.message import content
from mappers.v2.run import Run

Leaf = Callable[[Run, str], Any]
NUMBER = re.compile(r"[+-]?(?=(?:\d\.?|\.){1,34}$)(?:\d+(?:\.\d*)?|\.\d+)$")  # 34 digits are what decimal128 holds
_YES = {"Y": True, "N": False, "1": True, "0": False, "T": True, "F": False, "TRUE": True, "FALSE": False, "YES": True, "NO": False}


def first(run: Run, raw: str) -> str:
    """Text of the first component of the first subcomponent: what a coded or timed leaf is, however it was padded."""
    component, sub, _ = run.marks
    head, _, rest = raw.partition(component)
    if sub:
        head, _, more = head.partition(sub)
        rest = rest or more
    if rest and content(rest, run.message.delimiters):
        run.unsaid = True
    return run.text(head)


def string(run: Run, raw: str, place: object = None, level: int = 0) -> str | None:
    """All of the text; delimiters at its ends are no part of it. Takes what any conversion is given, as the commonest of all: place and level say nothing to it."""
    component, sub, _ = run.marks
    if raw and (raw[-1] == component or raw[-1] == sub):
        raw = raw.rstrip(component + sub)
    return run.text(raw) or None


def code(run: Run, raw: str) -> str | None:
    """A code: no spaces around, single ones inside."""
    return " ".join(first(run, raw).split()) or None


def uri(run: Run, raw: str) -> str | None:
    """A URI; characters that none may have are percent-encoded."""
    text = first(run, raw)
    return quote(text, safe=":/?#[]@!$&'()*+,;=%-._~") if text else None


def boolean(run: Run, raw: str) -> bool | None:
    """Table 0136 and its usual spellings."""
    text = first(run, raw).upper()
    found = _YES.get(text)
    if found is None and text:
        run.warn("103", "not a yes/no indicator")
    return found


def number(text: str) -> Decimal | None:
    """The exact decimal of an NM text, None if it is none (or has more digits than decimal128 holds: text in the wrong place, an attack)."""
    return Decimal(text) if NUMBER.match(text) else None


def decimal(run: Run, raw: str) -> Decimal | None:
    """NM as decimal, with the digits that were sent."""
    text = first(run, raw)
    found = number(text)
    if found is None and text:
        run.warn("102", "not a number")
    return found


def _whole(least: int) -> Leaf:
    def whole(run: Run, raw: str) -> int | None:
        found = decimal(run, raw)
        if found is None:
            return None
        if found != found.to_integral_value() or not least <= found < 2147483648:
            run.warn("102", f"not a whole number of at least {least}")
            return None
        return int(found)

    return whole


def _timed(convert: Callable[[str, times.Zone], str | None]) -> Leaf:
    def timed(run: Run, raw: str) -> str | None:
        text = first(run, raw)
        found = convert(text, run.zone)
        if found is None and text:
            run.warn("102", "not a time of the calendar")
        return found

    return timed


_DATE = _timed(lambda text, zone: times.date(text))


def _day(run: Run, raw: str) -> str | None:
    """The date of a time; that it had a clock is noted as left out."""
    found: str | None = _DATE(run, raw)
    run.unsaid = run.unsaid or times.has_clock(first(run, raw))
    return found


def birth_time(run: Run, raw: str) -> str | None:
    """A dateTime, only if the value says more than the day."""
    text = first(run, raw)
    return times.date_time(text, run.zone) if times.has_clock(text) else None


def base64_text(run: Run, raw: str) -> str | None:
    """base64 as sent, white space removed; None if it is none."""
    text = "".join(raw.split())
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        run.warn("102", "not base64")
        return None
    return text or None


def identifier_text(run: Run, raw: str) -> str | None:
    """The code of an id: what `id` allows, anything else dropped."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", first(run, raw))[:64] or None


LEAVES: dict[str, Leaf] = {
    "string": string,
    "markdown": string,
    "xhtml": string,
    "code": code,
    "uri": uri,
    "url": uri,
    "canonical": uri,
    "id": identifier_text,
    "boolean": boolean,
    "integer": _whole(-2147483648),
    "positiveInt": _whole(1),
    "unsignedInt": _whole(0),
    "decimal": decimal,
    "date": _day,
    "dateTime": _timed(times.date_time),
    "instant": _timed(times.instant),
    "time": _timed(lambda text, zone: times.time(text)),
    "base64Binary": base64_text,
    "birthTime": birth_time,
}
