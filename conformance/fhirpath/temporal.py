"""Dates, dateTimes and times with their precision. https://hl7.org/fhirpath/N1/#datetime-equality and https://hl7.org/fhirpath/N1/#datetime-arithmetic"""

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property, lru_cache
from typing import Self

from conformance.fhirpath.errors import ExecutionProblem
from conformance.fhirpath.quantity import Quantity

_FORM = re.compile(
    r"(?:([0-9]{4})(?:-([0-9]{2})(?:-([0-9]{2}))?)?)?(T?)(?:([0-9]{2})(?::([0-9]{2})(?::([0-9]{2})(?:\.([0-9]+))?)?)?)?(Z|[+-][0-9]{2}:[0-9]{2})?"
)
_NAMES = {"date": "Date", "dateTime": "DateTime", "time": "Time"}
_LOWEST = (1, 1, 1, 0, 0, 0, 0)
_DIGITS = {"time": (0, 0, 0, 2, 4, 6, 9), "other": (4, 6, 8, 10, 12, 14, 17)}
_HOUR = 3_600_000
_DAY = 24 * _HOUR
_STEPS = {"week": (7 * _DAY, 2), "day": (_DAY, 2), "hour": (_HOUR, 3), "minute": (60_000, 4), "second": (1000, 5), "millisecond": (1, 6)}
_UCUM_STEPS = {"wk": "week", "d": "day", "h": "hour", "min": "minute", "s": "second", "ms": "millisecond"}


@dataclass(frozen=True)
class Temporal:
    """kind: date | dateTime | time; parts: year, month, day, hour, minute, second, millisecond as far as known (a time's first three are 1); offset: minutes or None."""

    kind: str
    parts: tuple[int, ...]
    offset: int | None = None

    @classmethod
    def literal(cls, kind: str, text: str) -> Self:
        """From a literal without '@'. Raises ValueError."""
        return cls.read("time" if kind == "time" else "dateTime" if kind == "datetime" else "date", text)

    @classmethod
    def read(cls, kind: str, text: str) -> Self:
        """From FHIR or FHIRPath text. Raises ValueError if it is no such date or time."""
        found = _FORM.fullmatch(text)
        if found is None:
            raise ValueError("not a date or time")
        year, month, day, mark, hour, minute, second, fraction, zone = found.groups()
        if (year is None) != (kind == "time") or (hour and kind == "date") or (zone and hour is None) or (hour and year and not (mark and day)):
            raise ValueError("not a date or time")
        parts = [1, 1, 1] if kind == "time" else [int(each) for each in (year, month, day) if each]
        parts += [int(each) for each in (hour, minute, second) if each]
        if fraction:
            parts.append(int(fraction.ljust(3, "0")[:3]))
        if zone and kind == "time":
            raise ValueError("a time has no zone")
        full = (*parts, *_LOWEST[len(parts) :])
        datetime(full[0], full[1], full[2], full[3], full[4], tzinfo=UTC)  # raises ValueError for what the calendar does not have
        if full[5] > 60:
            raise ValueError("no such second")
        return cls(kind, tuple(parts), _minutes(zone))

    @property
    def type_name(self) -> str:
        """System type: Date, DateTime or Time."""
        return _NAMES[self.kind]

    @cached_property
    def precision(self) -> int:
        """Number of known parts; seconds and milliseconds count as one precision (6)."""
        return min(len(self.parts), 6)

    @cached_property
    def span(self) -> tuple[int, int]:
        """[low, high) in milliseconds since year 1, on the clock of UTC where an offset is known; a full second is a point (high = low + 1)."""
        low = _millis((*self.parts, *_LOWEST[len(self.parts) :]))
        if self.precision == 6:
            high = low + 1
        else:
            high = low + _width(self.parts)
        shift = (self.offset or 0) * 60_000
        return low - shift, high - shift

    def text(self) -> str:
        """As FHIR writes it; a dateTime without time of day as a date."""
        parts = self.parts
        day = "-".join(f"{part:0{width}d}" for part, width in zip(parts[:3], (4, 2, 2), strict=False))
        clock = ":".join(f"{part:02d}" for part in parts[3:6]) + (f".{parts[6]:03d}" if len(parts) > 6 else "")
        if self.kind == "time":
            return clock
        return day + (f"T{clock}" if clock else "") + _zone(self.offset)

    def digits(self) -> int:
        """Precision in digits: 4 for a year, 17 for milliseconds; of a time 2 to 9."""
        return _DIGITS["time" if self.kind == "time" else "other"][len(self.parts) - 1]


@lru_cache(maxsize=4096)
def read(kind: str, text: str) -> Temporal | None:
    """Temporal of FHIR text, None if it is not of that form."""
    try:
        return Temporal.read(kind, text)
    except ValueError:
        return None


def equal(left: Temporal, right: Temporal) -> bool | None:
    """`=`: None where the precisions leave it open."""
    if (left.kind == "time") != (right.kind == "time"):
        return False
    (low, high), (other_low, other_high) = _comparable(left, right)
    if left.precision == right.precision and (left.offset is None) == (right.offset is None):
        return low == other_low
    return False if high <= other_low or other_high <= low else None


def less(left: Temporal, right: Temporal) -> bool | None:
    """`<`: None where the precisions leave it open. Raises ExecutionProblem for a time against a date."""
    if (left.kind == "time") != (right.kind == "time"):
        raise ExecutionProblem("a time cannot be compared with a date")
    (low, high), (other_low, other_high) = _comparable(left, right)
    if left.precision == right.precision and (left.offset is None) == (right.offset is None):
        return low < other_low
    return True if high <= other_low else False if low >= other_high else None


def _comparable(left: Temporal, right: Temporal) -> tuple[tuple[int, int], tuple[int, int]]:
    """Both spans; one without offset against one with is widened by all the offsets it may have (+14:00 to -12:00)."""
    one, two = left.span, right.span
    if left.kind != "time" and left.precision > 3 and right.precision > 3 and (left.offset is None) != (right.offset is None):
        if left.offset is None:
            one = (one[0] - 14 * _HOUR, one[1] + 12 * _HOUR)
        else:
            two = (two[0] - 14 * _HOUR, two[1] + 12 * _HOUR)
    return one, two


def add(moment: Temporal, amount: Quantity, sign: int) -> Temporal:
    """`date + quantity`, sign -1 for minus. Raises ExecutionProblem for a unit that is no duration and beyond the years 1 to 9999."""
    value = int(amount.value) * sign
    unit = amount.calendar_unit()
    if unit in ("year", "month"):
        return _add_months(moment, value * (12 if unit == "year" else 1))
    word = unit or _UCUM_STEPS.get(amount.unit, "")
    if word not in _STEPS:
        raise ExecutionProblem("a date can only be moved by a duration")
    millis, place = _STEPS[word]
    if word == "second":
        total = int(amount.value * 1000) * sign
        total = total if len(moment.parts) > 6 else total // 1000 * 1000
    else:
        total = value * millis
    if place >= len(moment.parts):  # a finer unit moves a coarse date by whole units of its own precision
        return _add_coarse(moment, total)
    return _from_millis(moment, _millis((*moment.parts, *_LOWEST[len(moment.parts) :])) + total)


def _add_coarse(moment: Temporal, total: int) -> Temporal:
    size = len(moment.parts)
    if size <= 2:
        days = abs(total) // _DAY
        months = (days // 365) * 12 if size == 1 else days // 30
        return _add_months(moment, months if total > 0 else -months)
    unit = {3: _DAY, 4: _HOUR, 5: 60_000, 6: 1000}[size]
    whole = abs(total) // unit * unit
    return _from_millis(moment, _millis((*moment.parts, *_LOWEST[size:])) + (whole if total > 0 else -whole))


def _add_months(moment: Temporal, months: int) -> Temporal:
    if moment.kind == "time":
        raise ExecutionProblem("a time cannot be moved by months")
    parts = moment.parts
    if len(parts) == 1:
        year, month = parts[0] + int(months / 12), 1
    else:
        years, rest = divmod(parts[0] * 12 + parts[1] - 1 + months, 12)
        year, month = years, rest + 1
    if not 1 <= year <= 9999:
        raise ExecutionProblem("a date is moved beyond the years 1 to 9999")
    day = (min(parts[2], monthrange(year, month)[1]),) if len(parts) > 2 else ()
    return Temporal(moment.kind, ((year, month)[: len(parts)] + day + parts[3:]), moment.offset)


def _from_millis(moment: Temporal, millis: int) -> Temporal:
    if moment.kind == "time":
        millis %= _DAY
    days, rest = divmod(millis, _DAY)
    if not 0 <= days < date.max.toordinal():
        raise ExecutionProblem("a date is moved beyond the years 1 to 9999")
    day = date.fromordinal(days + 1)
    full = (day.year, day.month, day.day, rest // _HOUR, rest // 60_000 % 60, rest // 1000 % 60, rest % 1000)
    return Temporal(moment.kind, full[: len(moment.parts)], moment.offset)


def boundary(moment: Temporal, digits: int | None, highest: bool) -> Temporal | None:
    """The least or greatest moment it may stand for, told to so many digits; None if there is no such precision."""
    places = _DIGITS["time" if moment.kind == "time" else "other"]
    wanted = digits if digits is not None else {"date": 8, "dateTime": 17, "time": 9}[moment.kind]
    if wanted not in places or wanted == 0:
        return None
    size = places.index(wanted) + 1
    parts = list(moment.parts)
    while len(parts) < size:
        parts.append(_highest(parts) if highest else _LOWEST[len(parts)])
    offset = moment.offset
    if size > 3 and moment.kind == "dateTime" and offset is None:
        offset = -12 * 60 if highest else 14 * 60
    kind = "dateTime" if size > 3 and moment.kind == "date" else moment.kind
    return Temporal(kind, tuple(parts[:size]), offset if size > 3 else None)


def _highest(parts: list[int]) -> int:
    place = len(parts)
    return monthrange(parts[0], parts[1])[1] if place == 2 else (9999, 12, 31, 23, 59, 59, 999)[place]


def now() -> Temporal:
    """The present as dateTime in UTC, to the millisecond."""
    moment = datetime.now(UTC)
    parts = (moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second, moment.microsecond // 1000)
    return Temporal("dateTime", parts, 0)


def _minutes(zone: str | None) -> int | None:
    if zone is None:
        return None
    if zone == "Z":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[4:6])
    if hours > 14 or minutes > 59:
        raise ValueError("no such offset")
    return (hours * 60 + minutes) * (-1 if zone[0] == "-" else 1)


def _zone(offset: int | None) -> str:
    if offset is None:
        return ""
    return "Z" if offset == 0 else f"{'-' if offset < 0 else '+'}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}"


def _millis(full: tuple[int, ...]) -> int:
    year, month, day, hour, minute, second, milli = full
    return (date(year, month, day).toordinal() - 1) * _DAY + hour * _HOUR + minute * 60_000 + second * 1000 + milli


def _width(parts: tuple[int, ...]) -> int:
    if len(parts) == 1:
        return (366 if monthrange(parts[0], 2)[1] == 29 else 365) * _DAY
    if len(parts) == 2:
        return monthrange(parts[0], parts[1])[1] * _DAY
    return {3: _DAY, 4: _HOUR, 5: 60_000}[len(parts)]
