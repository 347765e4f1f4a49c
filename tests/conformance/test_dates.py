"""Partial dates as intervals. https://hl7.org/fhir/R4/search.html#date"""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.dates import HIGHEST, LOWEST, instant, interval, now


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("2020", "2020-01-01T00:00Z", "2021-01-01T00:00Z"),
        ("2020-02", "2020-02-01T00:00Z", "2020-03-01T00:00Z"),
        ("2020-12", "2020-12-01T00:00Z", "2021-01-01T00:00Z"),
        ("2020-02-29", "2020-02-29T00:00Z", "2020-03-01T00:00Z"),
        ("2020-02-29T10:20", "2020-02-29T10:20Z", "2020-02-29T10:21Z"),
        ("2020-02-29T10:20:30", "2020-02-29T10:20:30Z", "2020-02-29T10:20:31Z"),
        ("2020-02-29T10:20:30+01:30", "2020-02-29T08:50:30Z", "2020-02-29T08:50:31Z"),
        ("2020-02-29T10:20:30.5-05:00", "2020-02-29T15:20:30.500Z", "2020-02-29T15:20:30.600Z"),
        ("2020-02-29T10:20:30.123Z", "2020-02-29T10:20:30.123Z", "2020-02-29T10:20:30.124Z"),
        ("2020-02-29T10:20:30.1239999999Z", "2020-02-29T10:20:30.123Z", "2020-02-29T10:20:30.124Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z", "2017-01-01T00:00:01Z"),
        ("2016-12-31T18:59:60.5-05:00", "2017-01-01T00:00:00.5Z", "2017-01-01T00:00:00.6Z"),
    ],
)
def test_a_date_stands_for_all_the_time_it_may_mean(text: str, low: str, high: str) -> None:
    assert interval(text) == (at(low), at(high))


@pytest.mark.parametrize(
    "text",
    ["", "20", "0000", "2020-13", "2021-02-29", "2020-00-01", "2020-01-32", "2020-01-01T24:00:00Z", "2020-01-01T10", "2020-01-01T10:60:00Z", "2020-01-01T10:00:61Z",
     "2020-01-01T10:00:00+15:00", "2020-01-01T10:00:00+14:30", "2020-1-1", "20200101", "2020-W01-1", "2020-01-01 10:00:00Z", "2020-01-01T10:00:00,5Z", "２０２０", "2020\n", " 2020",
     "2020-01-01Z", "2020-01-01T10:00:00z", "2020-01-01T10:00:00." + "1" * 60 + "Z"],
)  # fmt: skip
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        interval(text)


def test_the_ends_of_time_do_not_crash() -> None:
    assert interval("9999") == (at("9999-01-01T00:00Z"), HIGHEST)
    assert interval("9999-12")[1] == interval("9999-12-31")[1] == interval("9999-12-31T23:59:59Z")[1] == HIGHEST
    assert interval("9999-12-31T23:59:60-14:00") == (HIGHEST, HIGHEST)
    assert interval("0001")[0] == LOWEST
    assert interval("0001-01-01T00:00:00+14:00")[0] == LOWEST
    assert interval("0001-01-01", timezone(timedelta(hours=5)))[0] == LOWEST
    assert interval("9999-12-31", timezone(timedelta(hours=-5)))[1] == HIGHEST


def test_a_local_day_follows_the_clock_changes_of_its_zone() -> None:
    low, high = interval("2020-03-29", ZoneInfo("Europe/Berlin"))
    assert (low, high) == (at("2020-03-28T23:00Z"), at("2020-03-29T22:00Z"))
    assert interval("2020-07-01T12:00:00", ZoneInfo("Europe/Berlin"))[0] == at("2020-07-01T10:00Z")
    assert interval("2020-07-01T12:00:00Z", ZoneInfo("Europe/Berlin"))[0] == at("2020-07-01T12:00Z")


@given(
    st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29)), st.integers(-14 * 60, 14 * 60), st.sampled_from(["seconds", "milliseconds", "minutes"])
)
def test_full_times_agree_with_the_standard_library(moment: datetime, minutes: int, spec: str) -> None:
    text = moment.replace(tzinfo=timezone(timedelta(minutes=minutes))).isoformat(timespec=spec)
    low, high = interval(text)
    assert low == datetime.fromisoformat(text)
    assert high - low == {"seconds": timedelta(seconds=1), "milliseconds": timedelta(milliseconds=1), "minutes": timedelta(minutes=1)}[spec]


@given(st.dates(), st.sampled_from([4, 7, 10]))
def test_parts_hold_their_days(day: object, length: int) -> None:
    low, high = interval(str(day)[:length])
    inner = interval(str(day))
    assert low <= inner[0] < inner[1] <= high
    assert low.tzinfo is UTC


@given(st.datetimes())
def test_a_stamp_is_an_instant_that_reads_back_to_the_millisecond(moment: datetime) -> None:
    text = instant(moment)
    assert interval(text)[0] == moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=UTC)
    assert text.endswith("Z")
    assert len(text) == 24


def test_a_stamp_is_told_in_utc() -> None:
    assert instant(at("2024-05-01T12:00:00.123456+02:00")) == "2024-05-01T10:00:00.123Z"
    assert now().microsecond % 1000 == 0
