"""Event times: which field, which zone, and what to do with nonsense."""

from datetime import UTC, datetime

import pytest

from fhir_server.feed.times import event_time, instant, sortable, zone_of
from mappers.v2.message import parse

BERLIN = zone_of("Europe/Berlin")
RECEIVED = datetime(2024, 6, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024", "2023-12-31T23:00:00.000Z"),
        ("20240701", "2024-06-30T22:00:00.000Z"),
        ("202401021530", "2024-01-02T14:30:00.000Z"),
        ("20240102153015.1234-0500", "2024-01-02T20:30:15.123Z"),
        ("20240102153060", "2024-01-02T14:30:59.000Z"),
    ],
)
def test_a_time_is_read_in_its_own_offset_or_the_zone(text: str, expected: str) -> None:
    moment = instant(text, BERLIN)
    assert moment is not None
    assert sortable(moment) == expected


@pytest.mark.parametrize("text", ["", '""', "20241301", "yesterday", "0000", "99999"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert instant(text, UTC) is None


def message(code: str, *segments: str, sent: str = "202405010000") -> bytes:
    return "\r".join([f"MSH|^~\\&|A|B|C|D|{sent}||{code}|1|P|2.5", *segments]).encode()


@pytest.mark.parametrize(
    ("raw", "what", "expected"),
    [
        (message("ADT^A08", "EVN|A08|20240401"), "person", "2024-04-01T00:00:00.000Z"),
        (message("ADT^A08", "EVN|A08"), "person", "2024-05-01T00:00:00.000Z"),
        (message("ORU^R01", "OBR|1" + "|" * 21 + "20240402"), "result", "2024-04-02T00:00:00.000Z"),
        (message("ORU^R01", "OBR|1" + "|" * 21 + "20240402"), "person", "2024-05-01T00:00:00.000Z"),
        (message("XXX^Z01"), "order", "2024-05-01T00:00:00.000Z"),
        (message("ADT^A08", "EVN|A08|20340401"), "person", sortable(RECEIVED)),
        (message("ADT^A08", sent=""), "person", sortable(RECEIVED)),
        (message("ADT^A08", "EVN|A08|202404011200", sent="20240401+0200"), "person", "2024-04-01T10:00:00.000Z"),
        (message("ADT^A08", "EVN|A08|20240401", sent="20240401093000"), "person", "2024-04-01T09:30:00.000Z"),
        (message("ADT^A08", "EVN|A08|202404010930", sent="20240401093040"), "person", "2024-04-01T09:30:40.000Z"),
        (message("ADT^A08", "EVN|A08|202404010930", sent="20240401093140"), "person", "2024-04-01T09:30:00.000Z"),
        (message("ADT^A08", "EVN|A08|2024", sent="20240401093140"), "person", "2024-01-01T00:00:00.000Z"),
        (message("ORM^O01", "ORC|NW||||||||20240401093000"), "order", "2024-04-01T09:30:00.000Z"),
        (message("SIU^S12", "SCH||||||||||^^^20240601"), "order", "2024-05-01T00:00:00.000Z"),
    ],
)
def test_the_event_time_is_that_of_the_table(raw: bytes, what: str, expected: str) -> None:
    parsed = parse(raw)
    assert sortable(event_time(parsed, what, UTC, RECEIVED, parsed.nth("OBR"))) == expected
