"""Partial dates as half-open intervals of UTC, and the spelling of stamps.

https://hl7.org/fhir/R4/datatypes.html#dateTime and https://hl7.org/fhir/R4/search.html#date: a date stands for all the time it may mean, `2020-03` for the whole
month. Intervals are [low, high) in whole milliseconds, which is what the database keeps; what lies outside the years 0001..9999 is cut off there.
"""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache

LOWEST = datetime.min.replace(tzinfo=UTC)
HIGHEST = datetime.max.replace(tzinfo=UTC)
_FORM = re.compile(
    r"(?P<year>[0-9]{4})(?:-(?P<month>[0-9]{2})(?:-(?P<day>[0-9]{2})"
    r"(?:T(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9])(?::(?P<second>[0-5][0-9]|60)(?:\.(?P<fraction>[0-9]{1,40}))?)?"
    r"(?P<zone>Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))?)?)?)?"
)
_WIDTHS = (timedelta(seconds=1), timedelta(milliseconds=100), timedelta(milliseconds=10), timedelta(milliseconds=1))
_DAY, _MINUTE = timedelta(days=1), timedelta(minutes=1)


@lru_cache(maxsize=16384)
def interval(text: str, zone: tzinfo = UTC) -> tuple[datetime, datetime]:
    """[low, high) in UTC of a date, dateTime, instant or a part of one; a value without offset is taken in `zone`. Raises ValueError."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError("not a date of the form YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm:ss with an offset")
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    if hour is None:
        low = datetime(int(year), int(month or 1), int(day or 1), tzinfo=zone)
        return _utc(low), _utc(_after(low, month, day))
    width = _WIDTHS[min(len(fraction or ""), 3)]
    if (
        offset is not None
        and second is not None
        and second != "60"
        and (fraction is None or len(fraction) <= 3)
        and year != "0001"
        and year != "9999"
    ):
        low = datetime.fromisoformat(text).astimezone(UTC)  # the common form, twice as quick as by hand
        return low, low + width
    leap = second == "60"
    low = datetime(int(year), int(month), int(day), int(hour), int(minute), 0 if second is None or leap else int(second), tzinfo=zone)
    low = _shift(_utc(low) if offset is None else low.replace(tzinfo=UTC), _offset(offset) + (_MINUTE if leap else timedelta()))
    if second is None:
        return low, _shift(low, _MINUTE)
    low = _shift(low, timedelta(milliseconds=int((fraction or "").ljust(3, "0")[:3])))
    return low, _shift(low, width)


def _after(low: datetime, month: str | None, day: str | None) -> datetime | None:
    """Start of the next year, month or day; None beyond the year 9999."""
    if month is None:
        return low.replace(year=low.year + 1) if low.year < 9999 else None
    if day is None:
        if low.month < 12:
            return low.replace(month=low.month + 1)
        return low.replace(year=low.year + 1, month=1) if low.year < 9999 else None
    naive = low.replace(tzinfo=None)
    return (naive + _DAY).replace(tzinfo=low.tzinfo) if (low.year, low.month, low.day) != (9999, 12, 31) else None


def _utc(moment: datetime | None) -> datetime:
    if moment is None:
        return HIGHEST
    if moment.tzinfo is UTC:
        return moment
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return LOWEST if moment.year == 1 else HIGHEST


def _offset(text: str | None) -> timedelta:
    """What to add to local time to get UTC."""
    if text is None or text == "Z":
        return timedelta()
    ahead = timedelta(hours=int(text[1:3]), minutes=int(text[4:6]))
    return -ahead if text[0] == "+" else ahead


def _shift(moment: datetime, by: timedelta) -> datetime:
    try:
        return moment + by
    except OverflowError:
        return LOWEST if by < timedelta() else HIGHEST


@lru_cache(maxsize=256)  # all resources of a bundle have one stamp
def instant(moment: datetime) -> str:
    """A FHIR instant in UTC with milliseconds, `2024-05-01T10:00:00.123Z`; a moment without zone is UTC already."""
    aware = moment if moment.tzinfo is None or moment.tzinfo is UTC else moment.astimezone(UTC)
    return aware.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def now() -> datetime:
    """This moment in UTC, cut to the milliseconds that are stored."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
