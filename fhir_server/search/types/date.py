"""Dates, times, Periods, Timings. https://hl7.org/fhir/R4/search.html#date

Every value is a half-open interval [l, h) of UTC. Stored in `r` under a key that tells its width: 'date' up to a day, 'date+m' up to 32
days, 'date+y' up to 367 days, 'date+e' longer or open. A query asks each width apart: with the width bounded, an overlap is a bounded range of `l`,
so the index reads little more than what matches. A Timing counts with its outer limits only.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from conformance.dates import HIGHEST, LOWEST, interval
from fhir_server.query.clauses import Clause, Dated, Keys, Range, both, either
from fhir_server.query.indexes import WIDE
from fhir_server.search.asked import Asked, Emit, Out
from fhir_server.search.escape import unescape
from fhir_server.search.schema import Field

PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")
DAY, MILLISECOND = timedelta(days=1), timedelta(milliseconds=1)
WIDTHS = (("", DAY), ("+m", timedelta(days=32)), ("+y", timedelta(days=367)))
OPEN = "+e"
WIDER = (("+m", DAY, WIDTHS[1][1]), ("+y", WIDTHS[1][1], WIDTHS[2][1]), (OPEN, WIDTHS[2][1], None))  # wider than, at most

Interval = tuple[datetime, datetime]


def width(low: datetime, high: datetime) -> str:
    """The suffix of the key that an interval is stored under."""
    span = high - low
    return next((suffix for suffix, most in WIDTHS if span <= most), OPEN)


def interval_of(value: Any) -> Interval | None:
    """[low, high) of a date, dateTime, instant, Period or Timing; None if it has no bound or is not readable."""
    if isinstance(value, str):
        try:
            return interval(value)
        except ValueError:
            return None
    if not isinstance(value, dict):
        return None
    if "event" in value or "repeat" in value:
        return _timing(value)
    start, end = (interval_of(value[side]) if isinstance(value.get(side), str) else None for side in ("start", "end"))
    if start is None and end is None:
        return None
    low, high = LOWEST if start is None else start[0], HIGHEST if end is None else end[1]
    return (low, high) if low < high else (high, low)


def _timing(value: dict[str, Any]) -> Interval | None:
    """The outer limits of the events and the bounds."""
    found = [one for event in value.get("event", ()) if (one := interval_of(event)) is not None]
    repeat = value.get("repeat")
    bounds = interval_of(repeat["boundsPeriod"]) if isinstance(repeat, dict) and "boundsPeriod" in repeat else None
    if bounds is not None:
        found.append(bounds)
    return (min(one[0] for one in found), max(one[1] for one in found)) if found else None


def emitter(name: str, field: Field, *, day: bool = False) -> Emit:
    """Writes the ranges of the values of a parameter. day: the first low bound is kept in `d` too."""
    keys = {suffix: name + suffix for suffix in ("", "+m", "+y", OPEN)}
    hot = field.hot

    def emit(values: list[Any], out: Out) -> None:
        for value in values:
            found = interval_of(value)
            if found is None:
                out.k[f"{name}="] = None
            else:
                low, high = found
                suffix = "" if high - low <= DAY else width(low, high)
                out.r.append({"k": keys[suffix], "l": low, "h": high})
                if day and out.day is None:
                    out.day = low
                if hot and suffix:
                    out.k[WIDE] = None

    return emit


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds on one stored interval [l, h); None leaves a side open."""

    low_ge: datetime | None = None
    low_lt: datetime | None = None
    high_gt: datetime | None = None
    high_le: datetime | None = None


def wanted(asked: Asked, text: str) -> tuple[Bounds, ...]:
    """The alternatives that one value with its prefix means (https://hl7.org/fhir/R4/search.html#prefix)."""
    plain = unescape(text)
    prefix, rest = (plain[:2], plain[2:]) if plain[:2] in PREFIXES else ("eq", plain)
    try:
        low, high = interval(rest.replace(" ", "+"))
    except ValueError as error:
        raise asked.wrong("the value must be a date or a part of one, with an optional prefix") from error
    if prefix == "ap":
        low, high = approximate(low, high, asked.now)
    inside = Bounds(low_ge=low, high_le=high)
    table: dict[str, tuple[Bounds, ...]] = {
        "eq": (inside,),
        "ne": (Bounds(low_lt=low), Bounds(high_gt=high)),
        "gt": (Bounds(high_gt=high),),
        "lt": (Bounds(low_lt=low),),
        "ge": (Bounds(low_ge=low), Bounds(high_gt=high)),  # above or inside: the same
        "le": (Bounds(high_le=high), Bounds(low_lt=low)),
        "sa": (Bounds(low_ge=high),),
        "eb": (Bounds(high_le=low),),
        "ap": (Bounds(low_lt=high, high_gt=low),),
    }
    return table[prefix]


def bare(asked: Asked, text: str) -> Interval:
    """The period that a date without prefix means. Raises 400."""
    try:
        return interval(text.replace(" ", "+"))
    except ValueError as error:
        raise asked.wrong("the value must be a date or a part of one") from error


def approximate(low: datetime, high: datetime, now: datetime) -> Interval:
    """The interval widened on both sides by a tenth of its distance from now."""
    gap = max(low - now, now - high, timedelta()) / 10
    return (low - gap if low - LOWEST > gap else LOWEST), (high + gap if HIGHEST - high > gap else HIGHEST)


def clause(asked: Asked, text: str) -> Clause:
    """What one value means."""
    return of(asked.field, wanted(asked, text))


def of(field: Field, alternatives: tuple[Bounds, ...]) -> Clause:
    """Some stored interval keeps the bounds of one of the alternatives."""
    return either(*(_named(field, name, alternatives) for name in field.names))


def merged(left: tuple[Bounds, ...], right: tuple[Bounds, ...]) -> tuple[Bounds, ...]:
    """Both conditions on the same interval, for parameters with a single value per resource."""
    return tuple(_and(one, other) for one in left for other in right)


def _and(one: Bounds, other: Bounds) -> Bounds:
    return Bounds(
        _most(one.low_ge, other.low_ge, max),
        _most(one.low_lt, other.low_lt, min),
        _most(one.high_gt, other.high_gt, max),
        _most(one.high_le, other.high_le, min),
    )


def _most(one: datetime | None, other: datetime | None, pick: Any) -> datetime | None:
    if one is None or other is None:
        return other if one is None else one
    chosen: datetime = pick(one, other)
    return chosen


def _named(field: Field, name: str, alternatives: tuple[Bounds, ...]) -> Clause:
    narrow = distinct(alternatives, DAY)
    wide = [_range(name + suffix, bounds, most) for suffix, least, most in WIDER for bounds in distinct(alternatives, most, least)]
    if not field.hot:
        return either(*(_range(name, bounds, DAY) for bounds in narrow), *wide)
    return either(*(_hot(field, name, bounds) for bounds in narrow), both(Keys((WIDE,)), either(*wide)))


def _hot(field: Field, name: str, bounds: Bounds) -> Clause:
    """Bounds that stand on `d` too. Those of the low end alone say all there, whatever the width, where a resource has one date."""
    one = _range(name, bounds, DAY)
    return _dated(one) if field.single and bounds.high_gt is None and bounds.high_le is None else both(one, _dated(one))


def distinct(alternatives: tuple[Bounds, ...], most: timedelta | None, least: timedelta = timedelta()) -> list[Bounds]:
    """The alternatives without those that another one covers, for intervals wider than `least` and no wider than `most`."""
    kept: list[Bounds] = []
    for one in dict.fromkeys(alternatives):
        if not any(_covers(other, one, most, least) for other in kept):
            kept = [other for other in kept if not _covers(one, other, most, least)] + [one]
    return kept


def _covers(wider: Bounds, one: Bounds, most: timedelta | None, least: timedelta) -> bool:
    """Every interval of such a width that keeps the bounds of `one` keeps those of `wider`."""
    return (
        (wider.low_ge is None or _at_least(one.low_ge, wider.low_ge) or _at_least(_less(one.high_gt, most), wider.low_ge))
        and (wider.low_lt is None or _at_most(one.low_lt, wider.low_lt) or _at_most(_less(one.high_le, least), wider.low_lt))
        and (wider.high_gt is None or _at_least(one.high_gt, wider.high_gt) or _at_least(_more(one.low_ge, least), wider.high_gt))
        and (wider.high_le is None or _at_most(one.high_le, wider.high_le) or _at_most(_more(one.low_lt, most), wider.high_le))
    )


def _at_least(moment: datetime | None, least: datetime) -> bool:
    return moment is not None and moment >= least


def _at_most(moment: datetime | None, most: datetime) -> bool:
    return moment is not None and moment <= most


def _less(moment: datetime | None, span: timedelta | None) -> datetime | None:
    return None if moment is None or span is None or moment - LOWEST < span else moment - span


def _more(moment: datetime | None, span: timedelta | None) -> datetime | None:
    return None if moment is None or span is None or HIGHEST - moment < span else moment + span


def _range(key: str, bounds: Bounds, most: timedelta | None) -> Range:
    """The bounds on intervals of one width: what follows for `l` from `h` is said as well, so that the index scan has two ends."""
    reach = _less(bounds.high_gt, most)  # l >= h - most > high_gt - most
    low_ge, low_gt = bounds.low_ge, reach - MILLISECOND if reach is not None and reach - LOWEST > MILLISECOND else None
    if low_ge is not None and low_gt is not None:
        low_ge, low_gt = (low_ge, None) if low_ge > low_gt else (None, low_gt)
    low_lt = bounds.low_lt if bounds.high_le is None else min(bounds.low_lt or HIGHEST, bounds.high_le)
    return Range(key, low_ge=low_ge, low_gt=low_gt, low_lt=low_lt, high_gt=bounds.high_gt, high_le=bounds.high_le)


def _dated(one: Range) -> Clause:
    """The bounds of `l` once more on `d`, which stands in the indexes of keys."""
    least, most = one.low_gt, one.low_lt
    if least is None and isinstance(one.low_ge, datetime) and one.low_ge > LOWEST:
        least = one.low_ge - MILLISECOND
    return Dated(gt=least if isinstance(least, datetime) else None, lt=most if isinstance(most, datetime) else None)


def updated(asked: Asked, text: str) -> tuple[datetime | None, datetime | None, bool]:
    """`_lastUpdated`: [ge, lt) of the stamp and whether it must lie outside of it (ne). Stamps are whole milliseconds."""
    plain = unescape(text)
    prefix, rest = (plain[:2], plain[2:]) if plain[:2] in PREFIXES else ("eq", plain)
    try:
        low, high = interval(rest.replace(" ", "+"))
    except ValueError as error:
        raise asked.wrong("the value must be a date or a part of one, with an optional prefix") from error
    if prefix == "ap":
        low, high = approximate(low, high, asked.now)
    table: dict[str, tuple[datetime | None, datetime | None]] = {
        "eq": (low, high),
        "ne": (low, high),
        "ap": (low, high),
        "gt": (high, None),
        "sa": (high, None),
        "ge": (low, None),
        "lt": (None, low),
        "eb": (None, low),
        "le": (None, high),
    }
    return *table[prefix], prefix == "ne"
