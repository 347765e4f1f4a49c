"""When a message's facts became true: its event time, by the table `times.csv` (message code x kind of fact -> fields, the first valued one).

An older event never overwrites a newer one, so these times order everything that feed writes. HL7 v2.8 chapter 2A (DTM).
"""

import csv
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from zoneinfo import ZoneInfo

from mappers.v2.message import Message, Segment

DTM = re.compile(r"(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:\.(\d{1,6})\d*)?([+-]\d{4})?$")
AHEAD = timedelta(hours=24)  # a sender's clock may be this far ahead of ours; beyond, the time of receipt is taken


def _table() -> Mapping[tuple[str, str], tuple[str, ...]]:
    with Path(__file__).with_name("times.csv").open(encoding="utf-8") as file:
        return MappingProxyType({(row["code"], row["what"]): tuple(row["fields"].split()) for row in csv.DictReader(file)})


TIMES = _table()


@lru_cache(maxsize=256)
def zone_of(text: str) -> tzinfo:
    """The zone of a source's setting: an offset or an IANA name. Raises what `ZoneInfo` raises."""
    match = re.fullmatch(r"([+-])(\d\d):?(\d\d)", text)
    if match is None:
        return ZoneInfo(text)
    return timezone((1 if match[1] == "+" else -1) * timedelta(hours=int(match[2]), minutes=int(match[3])))


def instant(text: str, zone: tzinfo) -> datetime | None:
    """The start of a DTM value in UTC ('2024' is its first moment); None if it is none."""
    match = DTM.match(text.strip())
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part or default) for part, default in zip(match.groups()[:6], (0, 1, 1, 0, 0, 0)))
    micro = int((match[7] or "0").ljust(6, "0"))
    try:
        local = datetime(year, month, day, hour, minute, min(second, 59), micro, zone_of(match[8]) if match[8] else zone)
        return local.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def sortable(moment: datetime) -> str:
    """UTC text to the millisecond; sorts by time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def event_time(message: Message, what: str, zone: tzinfo, received: datetime, segment: Segment | None = None) -> datetime:
    """When facts of this kind ('person', 'result', 'order') became true; `segment` is the OBR or ORC concerned. Receipt where nothing is said."""
    header_zone = _offset(message.get("MSH-7.1")) or zone
    sent = instant(message.get("MSH-7.1"), header_zone)
    for path in TIMES.get((message.code, what)) or TIMES[("*", what)]:
        name, _, field = path.partition("-")
        text = (
            segment.get(f"{field}.1" if "." not in field else field)
            if segment is not None and segment.name == name
            else message.get(_component(path))
        )
        moment = instant(text, header_zone)
        if moment is not None:
            if sent is not None and moment < sent < moment + _precision(text):  # '20240101' said at noon: MSH-7 tells when on that day at the latest
                moment = sent
            return received if moment > received + AHEAD else moment
    return received


LASTS = {8: timedelta(days=1), 10: timedelta(hours=1), 12: timedelta(minutes=1)}  # digits of a DTM value -> how long what it names lasts


def _precision(text: str) -> timedelta:
    """How long the time lasts that a DTM value names; nothing for years and months, which tell no order of events."""
    digits = len(text.strip()) - len(text.strip().lstrip("0123456789"))
    return LASTS.get(digits, timedelta(0))


def _component(path: str) -> str:
    return path if "." in path else f"{path}.1"


def _offset(text: str) -> tzinfo | None:
    match = DTM.match(text.strip())
    return zone_of(match[8]) if match and match[8] else None
