"""Dates and times of FHIRPath against the standard library. https://hl7.org/fhirpath/N1/#datetime-arithmetic"""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from conformance.dates import interval
from conformance.fhirpath import temporal
from conformance.fhirpath.errors import ExecutionProblem
from conformance.fhirpath.quantity import Quantity
from conformance.fhirpath.temporal import Temporal, add, boundary, equal, less

ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=st.one_of(ZONES, st.just(UTC)))
TEXTS = st.one_of(
    st.tuples(st.dates(), st.sampled_from([4, 7, 10])).map(lambda pair: str(pair[0])[: pair[1]]),
    st.tuples(TIMES, st.sampled_from(["seconds", "milliseconds"])).map(lambda pair: pair[0].isoformat(timespec=pair[1])),
)


def read(text: str) -> Temporal:
    return Temporal.read("dateTime", text)


@given(TIMES, TIMES)
def test_full_times_are_ordered_as_moments(one: datetime, two: datetime) -> None:
    left, right = (read(moment.isoformat(timespec="milliseconds")) for moment in (one, two))
    low, high = (moment.replace(microsecond=moment.microsecond // 1000 * 1000) for moment in (one, two))
    assert equal(left, right) is (low == high)
    assert less(left, right) is (low < high)


@given(TEXTS, TEXTS)
def test_what_is_certain_holds_for_the_intervals_too(one: str, two: str) -> None:
    left, right = read(one), read(two)
    (low, high), (other_low, other_high) = interval(one), interval(two)
    answer = less(left, right)
    if answer is True:
        assert low < other_high
    if answer is None:
        assert low < other_high
        assert other_low < high
    if equal(left, right) is True:
        assert low == other_low
    assert equal(left, right) == equal(right, left)


@given(TIMES, st.integers(-3000, 3000), st.sampled_from(["days", "hours", "minutes", "seconds", "weeks", "milliseconds"]))
def test_durations_move_times_as_timedeltas_do(moment: datetime, amount: int, unit: str) -> None:
    assume(70 < moment.year < 9930)  # 3,000 weeks are 58 years: the sum stays within what datetime can hold
    moved = add(read(moment.isoformat(timespec="milliseconds")), Quantity(Decimal(amount), unit, True), 1)
    assert interval(moved.text())[0] == interval((moment + timedelta(**{unit: amount})).isoformat(timespec="milliseconds"))[0]


@given(st.dates(date(100, 1, 1), date(9000, 1, 1)), st.integers(-600, 600))
def test_months_keep_the_day_or_take_the_last_of_the_month(day: date, months: int) -> None:
    moved = add(Temporal.read("date", str(day)), Quantity(Decimal(months), "months", True), 1)
    assert moved.parts[0] * 12 + moved.parts[1] == day.year * 12 + day.month + months
    assert moved.parts[2] == day.day or (moved.parts[2] < day.day and add(moved, Quantity(Decimal(1), "day", True), 1).parts[2] == 1)


@given(TEXTS)
def test_text_and_boundaries_stay_inside(text: str) -> None:
    moment = read(text)
    assert read(moment.text()) == moment
    low, high = boundary(moment, 17, False), boundary(moment, 17, True)
    assert low is not None
    assert high is not None
    assert less(high, low) is not True
    if moment.offset is not None or moment.precision > 3:
        assert interval(text)[0] <= interval(low.text())[0] <= interval(high.text())[0] < interval(text)[1]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("date", "2020-01-01T10"),
        ("date", "2020-13"),
        ("time", "25:00"),
        ("time", "10:00Z"),
        ("dateTime", "10:00"),
        ("dateTime", "2020-01T10"),
        ("dateTime", "2020-01-01T10:00+15:00"),
        ("date", ""),
    ],
)
def test_what_is_no_date_is_none(kind: str, text: str) -> None:
    assert temporal.read(kind, text) is None


def test_times_turn_around_midnight_and_have_no_months() -> None:
    assert add(Temporal.read("time", "23:30"), Quantity(Decimal(45), "minutes", True), 1).text() == "00:15"
    with pytest.raises(ExecutionProblem):
        add(Temporal.read("time", "23:30"), Quantity(Decimal(1), "month", True), 1)
