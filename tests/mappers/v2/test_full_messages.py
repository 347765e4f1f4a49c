"""Nothing is lost: messages with every field of every segment populated, by plain words, by composites, by times, numbers and codes.

Each leaf (component, subcomponent, repetition) of each field must be found in the bundle, and the bundle must be valid R4. The words are
unique, so that no leaf is found in the place of another. Types are not heeded: what is no time in a time's place must stay as well.
"""

import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from conformance import codec, spec, validate
from mappers.v2 import convert, message, tables
from tests.mappers.v2 import leaves

FIELDS = 50
EVENTS = {
    "ADT": ("ADT^A01", "ADT^A20", "ADT^A40", "ADT^A47", "ADT^A60", "BAR^P05"),
    "ORU": ("ORU^R01", "ORU^R30"),
    "ORDER": ("ORM^O01", "OML^O21", "OMG^O19", "ORL^O22"),
    "ORDER_BY_SPECIMEN": ("OML^O33", "OML^O35"),
    "OUL": ("OUL^R22", "OUL^R23"),
    "OUL_R24": ("OUL^R24",),
    "PHARMACY": ("RDE^O11", "RDS^O13", "RGV^O15", "RAS^O17", "OMP^O09"),
    "VXU": ("VXU^V04",),
    "MDM": ("MDM^T02", "MDM^T10"),
    "SIU": ("SIU^S12", "SIU^S15"),
    "DFT": ("DFT^P03",),
    "PPR": ("PPR^PC1",),
    "REF": ("REF^I12",),
    "MFN": ("MFN^M02", "MFN^M08"),
}
# fields that steer the reading of others or of the message
STEERING = {"MSH": {1, 2, 7, 9, 10, 11, 12, 15, 16, 18}, "OBX": {2, 5}, "EVN": {1}}
SHAPES = ("{0}", "{0}^{1}^{2}^{3}^{4}^{5}^{6}^{7}^{8}", "{0}&{1}^{2}&{3}&{4}^{5}", "{0}^{1}~{2}^{3}", "{9}", "{10}", "A^{0}^HL70001^{1}^{2}^L")
VALUES = {
    "NM": "{10}",
    "SN": ">^{10}^-^{10}",
    "TX": "{0} {1}~{2}",
    "ST": "{0}~{1}",
    "CE": "{0}^{1}^{2}^{3}^{4}^{5}",
    "CWE": "{0}^{1}^{2}^{3}^{4}^{5}^{6}^{7}^{8}",
    "ED": "{0}^AP^PDF^Base64^JVBERi0=",
    "RP": "{0}^{1}^AP^PDF",
    "DT": "20240102",
    "TM": "081500",
    "DTM": "20240102081500",
    "NA": "{10}^{10}~{10}",
    "CX": "{0}^{1}^{2}^{3}^{4}",
    "XPN": "{0}&{1}^{2}^{3}",
    "XAD": "{0}&{1}^{2}^{3}^{4}",
    "XTN": "{0}^{1}^{2}^{3}^1^{10}^{10}",
    "XCN": "{0}^{1}^{2}^{3}",
    "PL": "{0}^{1}^{2}^{3}^{4}^{5}",
    "MO": "{10}^USD",
    "CP": "{10}&USD^{0}",
    "IS": "{0}",
    "ZZ": "{0}^{1}",
}


def words() -> Iterator[str]:
    return (f"zq{number}w" for number in itertools.count(10001))


def filled(shape: str, word: Iterator[str], number: Iterator[int]) -> str:
    found = next(number)
    day = f"{1900 + found % 120}{found % 12 + 1:02d}{found % 28 + 1:02d}{found % 24:02d}{found % 60:02d}{found % 59:02d}"
    return shape.format(*[next(word) for _ in range(9)], day, found)


def segment(name: str, event: str, shape: str, word: Iterator[str], number: Iterator[int], kind: str = "") -> str:
    fields = [filled(shape, word, number) for _ in range(FIELDS)]
    for place in STEERING.get(name, ()):
        fields[place - 1] = ""
    if name == "MSH":
        fields[6:12] = ["20240102030405", "", event, "1", "P", "2.8"]
        return "|".join(["MSH", "^~\\&", *fields[2:]])
    if name == "OBX":
        fields[1], fields[4] = kind, filled(VALUES[kind], word, number)
    if name == "EVN":
        fields[0] = event[4:]
    return "|".join([name, *fields])


def full(structure: tables.Structure, event: str, shape: str) -> str:
    """A message with every segment of the structure in its order, an OBX per value type at the first place of one."""
    word, number = words(), itertools.count(20001)
    lines, seen = [], set()
    for _, name in structure.rows:
        for kind in (VALUES if "OBX" not in seen else ("NM", "CE")) if name == "OBX" else ("",):
            lines.append(segment(name, event, shape, word, number, kind))
        seen.add(name)
    return "\r".join(lines)


@cache
def gate() -> Any:
    return validate.checker(spec.load_spec(), "Bundle")


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_no_leaf_of_a_full_message_is_lost(name: str) -> None:
    known = tables.load_tables()
    for event, shape in [*((EVENTS[name][0], shape) for shape in SHAPES), *((event, SHAPES[1]) for event in EVENTS[name][1:])]:
        parsed = message.parse(full(known.structures[name], event, shape).encode())
        done = convert.convert(parsed, known)
        counted, missing = leaves.missing(parsed, done.bundle)
        assert counted > 500
        assert missing == [], (event, shape)
        if event == EVENTS[name][0]:
            issues = gate()(codec.decode(codec.encode(done.bundle)))
            assert [(issue.expression, issue.text) for issue in issues if issue.severity in ("error", "fatal")] == [], (event, shape)
