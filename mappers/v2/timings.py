"""TQ1, TQ, RPT and RI -> parts of Timing, and durations with a start -> end. https://hl7.org/fhir/R4/datatypes.html#Timing"""

import re
from datetime import datetime, timedelta
from decimal import Decimal

from mappers.v2 import times
from mappers.v2.codings import split
from mappers.v2.place import At
from mappers.v2.run import Element, Run
from mappers.v2.values import NUMBER, number

_UNITS = {
    "S": "s",
    "M": "min",
    "MIN": "min",
    "H": "h",
    "D": "d",
    "W": "wk",
    "L": "mo",
    "MO": "mo",
    "HR": "h",
    "A": "a",
    "Y": "a",
    "WK": "wk",
    "SEC": "s",
}
_EVERY = re.compile(r"Q(\d{1,4})(S|M|H|D|W|L)$")
_TIMES = re.compile(r"(?:X|)(\d{1,3})(?:XD|XDAY)?$")
_NAMED = {
    "BID": "BID",
    "TID": "TID",
    "QID": "QID",
    "QD": "QD",
    "QOD": "QOD",
    "AM": "AM",
    "PM": "PM",
    "QHS": "HS",
    "Q4H": "Q4H",
    "Q6H": "Q6H",
    "Q8H": "Q8H",
    "QAM": "AM",
    "QPM": "PM",
}
_ABBREVIATION = "http://terminology.hl7.org/CodeSystem/v3-GTSAbbreviation"
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "wk": 604800}
_MINUTES = ("M", "MIN", "MINUTE", "MINUTES")


def unit_code(text: str) -> str | None:
    """FHIR unit of time of an HL7 duration unit."""
    return _UNITS.get(text.upper()) or (text if text in ("s", "min", "h", "d", "wk", "mo", "a") else None)


def repeat_pattern(run: Run, raw: str, place: At, level: int) -> Element | None:
    """@repeat_pattern: RPT or RI -> Timing: `Q6H` is a period, `BID` a code, the sent text stays in code.text."""
    parts = split(run, raw, level)
    code = parts[0].upper()
    if not code:
        return None
    made: Element = {"code": {"text": parts[1] or parts[0]}}
    every = _EVERY.match(code)
    if every:
        made["repeat"] = {"frequency": 1, "period": Decimal(every[1]), "periodUnit": _UNITS[every[2]]}
    if code in _NAMED:
        made["code"]["coding"] = [{"system": _ABBREVIATION, "code": _NAMED[code]}]
    period, unit = number(parts[4]), unit_code(parts[5])
    if period and unit and "repeat" not in made:
        made["repeat"] = {"frequency": 1, "period": period, "periodUnit": unit}
    return made


def interval(run: Run, raw: str, place: At, level: int) -> Element | None:
    """@interval: RI (pattern ^ times HHMM,HHMM) -> Timing."""
    made = repeat_pattern(run, raw, place, level) or {}
    parts = split(run, raw, level)
    clocks = [found for found in (times.time(text) for text in parts[1].split(",") if text) if found]
    if clocks:
        made.setdefault("repeat", {})["timeOfDay"] = clocks
        if made.get("code", {}).get("text") == parts[1]:
            made["code"]["text"] = parts[0]
    return made or None


def duration(run: Run, raw: str, place: At, level: int) -> Element | None:
    """@duration: CQ or `M10`-like TQ.3 -> Duration with a UCUM unit of time."""
    parts = split(run, raw, level)
    match = re.match(r"([SMHDWL])(\d+)$", parts[0].upper())
    if match:
        unit, amount = _UNITS[match[1]], Decimal(match[2])
    elif NUMBER.match(parts[0]) and unit_code(parts[1].split("&")[0]):
        unit, amount = str(unit_code(parts[1].split("&")[0])), Decimal(parts[0])
    else:
        return None
    return {"value": amount, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit}


def timing_duration(run: Run, raw: str, place: At, level: int) -> Element | None:
    """@timing_duration: TQ1-13 (CQ) -> how long each occurrence lasts: value and unit together (tim-1)."""
    found = duration(run, raw, place, level)
    return {"repeat": {"duration": found["value"], "durationUnit": found["code"]}} if found else None


def end(run: Run, raw: str, place: At, level: int) -> str | None:
    """@offset_end: start (field before by 3: AIS-4, AIL-6 ...) plus a duration in the unit of the field after -> dateTime."""
    amount = number(run.text(raw.split(run.marks[0], 1)[0]))
    segment, here = place.segment, run.field
    unit = unit_code(segment.get(f"{here + 1}.1") or "MIN") or "min"
    start = times.instant(segment.get(f"{here - 3}.1"), run.zone)
    if amount is None or start is None or unit not in _SECONDS:
        return None
    moment = datetime.fromisoformat(start.replace("Z", "+00:00")) + timedelta(seconds=float(amount) * _SECONDS[unit])
    return moment.isoformat(timespec="seconds")
