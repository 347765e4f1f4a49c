"""What is kept from message to message of a sender changes nothing: the same as with tables that have seen no message before."""

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from mappers.v2 import convert, message, purity, tables
from mappers.v2.source import Source
from tests.bench.v2 import typical
from tests.mappers.v2.feeds import MSH

DOCTOR = "4711^Weiss^Walter^^^Dr^^^{authority}^L^^^NPI^^^^^^^20200101{clock}"
SENDER = Source("LAB", ZoneInfo("America/New_York"))


def report(*, zone: str = "+0100", authority: str = "HOSP", said: str = "", clock: str = "0830", place: str = "3WEST^310^A^HOSP") -> bytes:
    """A result with a doctor, a ward and a laboratory; `said`: where the message says what HOSP means, `zone`: the offset of MSH-7."""
    doctor = DOCTOR.format(authority=authority, clock=clock)
    return "\r".join(
        [
            MSH.format("ORU^R01").replace("+0100", zone),
            f"PID|1||12345^^^{said or 'HOSP'}^MR||Doe^Jane||19700101|F",
            f"PV1|1|I|{place}||||{doctor}|||||||||||V1",
            f"OBR|1|P1|F1|24323-8^CMP^LN|||20240101083000|||||||||{doctor}",
            f"OBX|1|NM|2345-7^Glucose^LN||90|mg/dL|70-105|N|||F|||20240101083000||{doctor}|||||||LAB^L^^^^HOSP^XX^^^14D",
            "OBX|2|CWE|NOT^Not mapped^LOCAL||Q9^What^99X|||ODD|||F",
        ]
    ).encode()


def seen(done: convert.Conversion) -> Any:
    return done.bundle, done.problems, done.facts.event_time, done.unmapped


VARIANTS = [
    report(),
    report(zone=""),
    report(zone="-0500"),
    report(said="HOSP&1.2.3&ISO"),
    report(said="HOSP&1.2.4&ISO"),
    report(said="HOSP&1.2.3&ISO", zone="-0500"),
    report(authority="HOSP&1.2.5&ISO"),
    report(clock="2530"),
    report(place="3WEST^310^A^HOSP^O"),
    report(place="3WEST^310"),
    report(place="^^^HOSP"),
    report(authority="HO\\T\\SP"),
    typical(1),
    typical(2),
]


@pytest.mark.parametrize("order", [1, -1])
def test_what_was_seen_before_changes_no_message(order: int) -> None:
    known = tables.load_tables()
    fresh = []
    for raw in VARIANTS:
        known.memos.clear()
        fresh.append(seen(convert.convert(message.parse(raw), known, source=SENDER)))
    known.memos.clear()
    for _ in range(2):
        for raw, wanted in [*zip(VARIANTS, fresh, strict=True)][::order]:
            assert seen(convert.convert(message.parse(raw), known, source=SENDER)) == wanted


def test_what_one_message_made_of_a_text_another_may_change() -> None:
    """Elements are copies: whoever merges or repairs one changes no later message."""
    known = tables.load_tables()
    known.memos.clear()
    wanted = seen(convert.convert(message.parse(VARIANTS[0]), known, source=SENDER))[0]
    text = repr(wanted)
    done = convert.convert(message.parse(VARIANTS[0]), known, source=SENDER)
    for entry in done.bundle["entry"]:
        _spoil(entry["resource"])
    assert repr(convert.convert(message.parse(VARIANTS[0]), known, source=SENDER).bundle) == text == repr(wanted)


def _spoil(node: Any) -> None:
    for value in list(node.values()) if isinstance(node, dict) else node:
        if isinstance(value, dict | list):
            _spoil(value)
    if isinstance(node, dict):
        node["spoilt"] = True
    else:
        node.append("spoilt")


def test_a_code_that_no_map_knows_is_listed_each_time_with_its_place() -> None:
    known = tables.load_tables()
    known.memos.clear()
    later = report().replace(b"OBX|2|", b"OBX|2|NM|1-8^Y^LN||1||||||F\rOBX|3|")
    first, again, moved = (convert.convert(message.parse(raw), known, source=SENDER).unmapped for raw in (report(), report(), later))
    assert [(code.code, code.location) for code in first] == [("ODD", "OBX^2^8^1")]
    assert again == first
    assert [(code.code, code.location) for code in moved] == [("ODD", "OBX^3^8^1")]


def test_only_maps_that_look_at_their_own_text_are_kept(tmp_path: Path) -> None:
    known = tables.load_tables()
    assert purity.follows(known, "xcn[practitioner]")
    assert purity.follows(known, "hd[organization]")
    assert not purity.follows(known, "nm[quantity-lengthofstay]")  # a decimal
    rows = (
        "6,IF PID-3 VALUED,name[1].suffix[1],string,,",
        '6,,name[1].text,,,="Dr "+PID-5.1',
        "6,,telecom[1],@telecom,,",
        "6,,qualification[1].issuer(Organization).name,string,,",
    )
    for number, row in enumerate(rows):
        site = tmp_path / str(number)
        (site / "datatypes").mkdir(parents=True)
        (site / "datatypes" / "XCN_Practitioner.csv").write_text(f"field,when,path,as,codes,value\n{row}\n")
        assert not purity.follows(tables.load_tables(site), "xcn[practitioner]"), row
