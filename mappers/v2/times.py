"""HL7 v2 times (DT, TM, DTM, TS) -> FHIR date, dateTime, instant, time, with the precision that was sent.

A time needs an offset: the value's own, else that of MSH-7, else the sender's zone. An hour without minutes is zero-filled, as
FHIR has no such precision; midnight said as 24:00 is 00:00 of the next day; anything that is no time of the calendar gives None. https://hl7.org/fhir/R4/datatypes.html#dateTime
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

_DTM = re.compile(r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,9}))?)?)?)?)?)?\s*([+-]\d{4}|Z)?$")
_ISO = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?)?)?\s*([+-]\d\d:?\d\d|Z)?$")
_TM = re.compile(r"(\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.(\d{1,9}))?)?)?(?:[+-]\d{4})?$")
Zone = Callable[[datetime], str]


def fixed(header_time: str) -> str:
    """The offset of MSH-7, '+01:00' or 'Z'; '' where it has none."""
    parts = _parts(header_time.strip())
    return _offset(parts[7]) if parts else ""


def zone_of(clock: str, zone: ZoneInfo) -> Zone:
    """naive local time -> offset '+01:00': `clock` where MSH-7 fixed it (see `fixed`), else by the sender's zone at that time."""
    if clock:
        return lambda _: clock
    return lambda local: _of_zone(local, zone)


def _of_zone(local: datetime, zone: ZoneInfo) -> str:
    delta = local.replace(tzinfo=zone).utcoffset() or timedelta(0)
    minutes = round(delta.total_seconds() / 60)
    sign = "-" if minutes < 0 else "+"
    return f"{sign}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


@lru_cache(maxsize=8192)
def _parts(text: str) -> tuple[str, ...]:
    """Year, month, day, hour, minute, second, fraction, offset as sent ('' where absent); empty if this is no time."""
    match = _DTM.match(text) or _ISO.match(text)
    if match is None:
        return ()
    parts = [part or "" for part in match.groups()]
    for place in (1, 2):
        if parts[place] == "00":
            parts[place:7] = [""] * (7 - place)
    second = "59" if parts[5] == "60" else parts[5]
    last = _ends_day(parts)
    try:
        found = datetime(
            int(parts[0]), int(parts[1] or 1), int(parts[2] or 1), 0 if last else int(parts[3] or 0), int(parts[4] or 0), int(second or 0)
        )
        if last:
            found += timedelta(days=1)
    except (ValueError, OverflowError):
        return ()
    return tuple(parts)


def _ends_day(parts: Sequence[str]) -> bool:
    """True for 24:00, which FHIR forbids ("The time 24:00 may not be used") and senders use for the end of a day."""
    return parts[3] == "24" and not any((parts[4] + parts[5] + parts[6]).strip("0"))


@lru_cache(maxsize=256)
def _offset(sent: str) -> str:
    if sent in ("Z", "z"):
        return "Z"
    digits = sent.replace(":", "")
    if len(digits) != 5 or int(digits[1:3]) > 14 or int(digits[3:]) > 59:
        return ""
    return f"{digits[:3]}:{digits[3:]}"


def date(text: str) -> str | None:
    """The date of a time, as precise as sent: YYYY, YYYY-MM or YYYY-MM-DD."""
    parts = _parts(text.strip())
    return "-".join(part for part in parts[:3] if part) if parts else None


def date_time(text: str, zone: Zone) -> str | None:
    """FHIR dateTime."""
    parts = _parts(text.strip())
    if not parts:
        return None
    return _clock(parts, zone) if parts[3] else "-".join(part for part in parts[:3] if part)


def instant(text: str, zone: Zone) -> str | None:
    """FHIR instant: only from a time with at least a day; what is finer and absent is zero."""
    parts = _parts(text.strip())
    if not parts or not parts[2]:
        return None
    return _clock(parts, zone)


def _clock(parts: tuple[str, ...], zone: Zone) -> str:
    """Day and time of the day with its offset."""
    year, month, day, hour, minute, second, fraction, sent = parts
    if _ends_day(parts):
        local = datetime(int(year), int(month), int(day)) + timedelta(days=1)
        return f"{local.date().isoformat()}T00:00:00{_offset(sent) or zone(local)}"
    hour, minute = hour or "00", minute or "00"
    offset = _offset(sent) if sent else ""
    if not offset:
        offset = zone(datetime(int(year), int(month), int(day), int(hour), int(minute)))
    return f"{year}-{month}-{day}T{hour}:{minute}:{second or '00'}{'.' + fraction if fraction else ''}{offset}"


def time(text: str) -> str | None:
    """FHIR time of a TM; seconds are zero-filled, an offset has no place there."""
    match = _TM.match(text.strip())
    if match is None or int(match[1]) > 23 or int(match[2] or 0) > 59 or int(match[3] or 0) > 59:
        return None
    return f"{match[1]}:{match[2] or '00'}:{match[3] or '00'}" + (f".{match[4]}" if match[4] else "")


def has_clock(text: str) -> bool:
    """True if the time says at least the hour."""
    parts = _parts(text.strip())
    return bool(parts) and bool(parts[3])
