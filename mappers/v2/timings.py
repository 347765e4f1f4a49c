"""TQ1, TQ, RPT and RI -> parts of Timing, and durations with a start -> end. https://hl7.org/fhir/R4/datatypes.html#Timing"""

import re
from datetime import date, datetime, timedelta
from decimal import Decimal

from mappers.v2 import times
from mappers.v2.codings import split
from mappers.v2.message import Segment
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
MOST_UNITS = 100_000_000  # of a duration that is worked with; a longer one is kept as it was sent
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "wk": 604800}


def unit_code(text: str) -> str | None:
    """FHIR unit of time of an HL7 duration unit."""
    return _UNITS.get(text.upper()) or (text if text in ("s", "min", "h", "d", "wk", "mo", "a") else None)


def repeat_pattern(run: Run, raw: str, place: At, level: int) -> Element | None:
    """@repeat_pattern: RPT or RI -> Timing: `Q6H` is a period, `BID` a code, `AC` an event; the sent text stays in code.text."""
    return _pattern(run, raw, level, split(run, raw, level), 1)


def _pattern(run: Run, raw: str, level: int, parts: list[str], rest_from: int) -> Element | None:
    sub = run.marks[level + 1] if level < 2 else ""
    name = [run.text(part) for part in raw.split(run.marks[level], 1)[0].split(sub)] if sub else [parts[0]]
    code = name[0].upper()
    repeat = _repeat(run, code, parts)
    made: Element = {"repeat": repeat} if repeat else {}
    text = " ".join(part for part in (name[1] if len(name) > 1 and name[1] else name[0], parts[10]) if part)
    if text:
        made["code"] = {"text": text}
        if code in _NAMED:
            made["code"]["coding"] = [{"system": _ABBREVIATION, "code": _NAMED[code]}]
    rest = [*name[2:], *parts[rest_from:4], parts[6]]
    rest += [] if "period" in repeat and not _EVERY.match(code) else parts[4:6]
    rest += [] if "offset" in repeat else parts[8:10]
    rest += [] if "when" in repeat else parts[7:8]
    rest += name[:1] if len(name) > 1 and name[1] and code not in _NAMED and not repeat else []
    run.unsaid = any(rest)
    return made or None


def _repeat(run: Run, code: str, parts: list[str]) -> Element:
    """Timing.repeat of a pattern: every n units, or RPT.5 and 6, and the event of RPT.8 with the offset of RPT.9 and 10."""
    made: Element = {}
    every = _EVERY.match(code)
    period, unit = number(parts[4]), unit_code(parts[5].split(run.marks[1] or "&")[0])
    if every:
        made = {"frequency": 1, "period": Decimal(every[1]), "periodUnit": _UNITS[every[2]]}
    elif period and unit:
        made = {"frequency": 1, "period": period, "periodUnit": unit}
    row = run.tables.codes["eventrelatedperiod"].get((parts[7] or code).casefold())
    if row and row["system"].endswith("v3-TimingEvent"):
        made["when"] = [row["code"]]
        offset, scale = number(parts[8]), unit_code(parts[9].split(run.marks[1] or "&")[0])
        if offset and scale in ("min", "h", "d") and offset == offset.to_integral_value():
            made["offset"] = int(offset) * {"min": 1, "h": 60, "d": 1440}[scale]
    return made


def interval(run: Run, raw: str, place: At, level: int) -> Element | None:
    """@interval: RI (pattern ^ times HHMM,HHMM) -> Timing."""
    parts = split(run, raw, level)
    made = _pattern(run, raw, level, parts, 2) or {}
    clocks = [found for found in (times.time(text) for text in parts[1].split(",") if text) if found]
    if clocks:
        made.setdefault("repeat", {})["timeOfDay"] = clocks
    run.unsaid = run.unsaid or len(clocks) < len([text for text in parts[1].split(",") if text])
    return made or None


def duration(run: Run, raw: str, place: At, level: int) -> Element | None:
    """@duration: CQ or `M10`-like TQ.3 -> Duration with a UCUM unit of time."""
    parts = split(run, raw, level)
    match = re.match(r"([SMHDWL])(\d{1,9})$", parts[0].upper())
    if match:
        unit, amount = _UNITS[match[1]], Decimal(match[2])
    elif NUMBER.match(parts[0]) and unit_code(parts[1].split("&")[0]):
        unit, amount = str(unit_code(parts[1].split("&")[0])), Decimal(parts[0])
    else:
        return None
    run.unsaid = any(parts[2:]) or bool(match and parts[1])
    return {"value": amount, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit}


def timing_duration(run: Run, raw: str, place: At, level: int) -> Element | None:
    """@timing_duration: TQ1-13 (CQ) -> how long each occurrence lasts: value and unit together (tim-1)."""
    found = duration(run, raw, place, level)
    return {"repeat": {"duration": found["value"], "durationUnit": found["code"]}} if found else None


def offset_minutes(run: Run, raw: str, place: At, level: int) -> int | None:
    """@offset_minutes: TQ1-5 (CQ) -> minutes from the event of TQ1-3.8; None where no such event is known (tim-9)."""
    parts = split(run, raw, level)
    amount, unit = number(parts[0]), unit_code(parts[1].split("&")[0])
    row = run.tables.codes["eventrelatedperiod"].get(place.value("TQ1", 3, 8).casefold())
    if amount is None or unit not in _SECONDS or not (row and row["system"].endswith("v3-TimingEvent")):
        return None
    minutes = amount * _SECONDS[unit] / 60
    return int(minutes) if minutes == minutes.to_integral_value() and 0 <= minutes <= MOST_UNITS else None


def bounds_end(run: Run, raw: str, place: At, level: int) -> str | None:
    """@bounds_end: TQ1-7 plus the duration TQ1-6."""
    return _moved(run, place.value("TQ1", 7, 1), duration(run, raw, place, level), 1)


def bounds_start(run: Run, raw: str, place: At, level: int) -> str | None:
    """@bounds_start: TQ1-8 less the duration TQ1-6."""
    return _moved(run, place.value("TQ1", 8, 1), duration(run, raw, place, level), -1)


def minutes_end(run: Run, raw: str, place: At, level: int) -> str | None:
    """@minutes_end: the start two fields before (PR1-5) plus so many minutes (PR1-7)."""
    amount = number(split(run, raw, level)[0])
    start = place.value(place.segment.name, run.field - 2, 1)
    return _moved(run, start, None if amount is None else {"value": amount, "code": "min"}, 1)


def _moved(run: Run, text: str, length: Element | None, sign: int) -> str | None:
    """A dateTime moved by a Duration; a day stays a day where whole days are added. None for months and years, which have no one length."""
    start = times.date_time(text, run.zone)
    if start is None or len(start) < 10 or length is None or length["code"] not in _SECONDS:
        return None
    return _sum(start, length["value"] * sign, str(length["code"]))


def _sum(start: str, amount: Decimal, unit: str) -> str | None:
    """A FHIR date or time plus an amount of a unit of time; None for a sum that no calendar has, or part of a day to a day."""
    if abs(amount) > MOST_UNITS:
        return None
    step = timedelta(seconds=float(amount) * _SECONDS[unit])
    try:
        if len(start) > 10:
            return (datetime.fromisoformat(start.replace("Z", "+00:00")) + step).isoformat(timespec="seconds")
        return (date.fromisoformat(start) + step).isoformat() if step % timedelta(days=1) == timedelta(0) else None
    except OverflowError:
        return None


def unit_beside(run: Run, segment: Segment) -> str:
    """The unit of time in the field after the one at hand, minutes without one; a field that says more than its code is kept."""
    sent, here = segment.text(run.field + 1), run.field + 1
    code = segment.get(f"{here}.1")
    unit = unit_code(code or "MIN")
    if sent and unit and sent.rstrip(run.marks[0]) == code:
        run.landed.add(here)
    return unit or "min"


def end(run: Run, raw: str, place: At, level: int) -> str | None:
    """@offset_end: start (field before by 3: AIS-4, AIL-6 ...) plus a duration in the unit of the field after -> dateTime."""
    amount = number(run.text(raw.split(run.marks[0], 1)[0]))
    segment, here = place.segment, run.field
    unit = unit_beside(run, segment)
    start = times.instant(segment.get(f"{here - 3}.1"), run.zone)
    if amount is None or start is None or unit not in _SECONDS:
        return None
    return _sum(start, amount, unit)
