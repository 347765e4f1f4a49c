"""FHIR -> HL7 v2 -> FHIR: what was said is still said. The `hl7` package reads what we write."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import hl7
import pytest

from mappers.v2 import convert, message, outbound, tables
from mappers.v2.outbound import Envelope
from tests.mappers.v2.feeds import mapped, one, resources, segment, target

ENVELOPE = Envelope(("LAB", "HOSP"), ("EHR", "CLINIC"), "99", datetime(2024, 3, 1, 12, 0, tzinfo=UTC))
PID = segment(
    "PID",
    {
        3: "77^^^HOSP&1.2.3&ISO^MR~9^^^CLINIC^PI",
        5: "van Doe&van&Doe^John^Q^Jr^Dr.^^L~Nick^^^^^^N",
        6: "Smith^Anna",
        7: "197001021530",
        8: "F",
        11: "1 Main St^Apt 2^Town^ST^12345^USA^H^^County~PO 1^^City^^^^M",
        10: "2106-3^White^CDCREC",
        13: "5551234^PRN^PH~^NET^Internet^x@y.org",
        14: "5559876^WPN^PH",
        15: "en^English^ISO639",
        16: "M^Married^HL70002",
        17: "CAT",
        18: "ACC1^^^HOSP&1.2.3&ISO^AN",
        24: "Y",
        25: "2",
        29: "20230105",
        30: "Y",
    },
)
PV1 = segment(
    "PV1",
    {
        2: "I",
        3: "W1^R2^B3^FAC",
        7: "1^Att^A^^^Dr^^^NPI",
        8: "2^Ref^R",
        10: "MED",
        14: "7",
        19: "V1^^^HOSP&1.2.3&ISO^VN",
        36: "01",
        44: "20240101080000+0100",
        45: "20240105",
    },
)
OBR = segment(
    "OBR",
    {
        1: "1",
        2: "P1^EHR",
        3: "F1^LAB^1.9^ISO",
        4: "24331-1^Lipid panel^LN^LIP^Lipids^99L",
        7: "20240101080000+0100",
        16: "7^Order^Otto^^^^^^NPI",
        22: "20240101120000+0100",
        25: "F",
    },
)
RESULTS = [
    "OBX|1|NM|2093-3^Chol^LN||1.00|mg/dL^^UCUM|<200|H|||F|||20240101080000+0100",
    "OBX|2|SN|1^a^L||>^100|u|1-2||||P",
    "OBX|3|SN|1^b^L||^1^:^128|||||C",
    "OBX|4|SN|1^c^L||^2^-^5|u||||X",
    "OBX|5|CWE|1^d^L||260373001^Detected^SCT^POS^Positive^99LAB^^^seen||||||F",
    "OBX|6|TX|1^e^L||a \\F\\ b \\S\\ c \\T\\ d \\R\\ e\\.br\\f||||||F",
    "OBX|7|DTM|1^f^L||202401020304+0100||||||F",
    "OBX|8|TM|1^g^L||0304||||||F",
    "OBX|9|DR|1^h^L||20240101^20240102||||||F",
    "OBX|10|NA|1^i^L||1^2^3~4^5^6|mV|||||F",
    "OBX|11|ED|1^j^L||^AP^PDF^Base64^JVBERi0xLjQ=||||||F",
]


def again(conversion: convert.Conversion, event: str) -> tuple[message.Message, convert.Conversion]:
    known = tables.load_tables()
    raw = outbound.build(conversion.bundle, event, ENVELOPE, known)
    parsed = message.parse(raw)
    return parsed, convert.convert(parsed, known)


def same(one_of: dict[str, Any], other: dict[str, Any], *names: str) -> None:
    for name in names:
        assert one_of.get(name) == other.get(name), name


def test_results_come_back() -> None:
    sent = mapped(
        "ORU^R01",
        PID,
        OBR,
        "NTE|1|L|of the order \\T\\ more\\.br\\and more",
        *RESULTS,
        "NTE|1||of the last",
        "SPM|1|S1&EHR^S2&LIS||119364003^Serum^SCT|||||||||||||20240101080000+0100|20240101090000+0100",
    )
    parsed, back = again(sent, "ORU^R01")
    assert parsed.problems == ()
    assert [item.severity for item in back.problems if item.severity == "E"] == []
    for before, after in zip(resources(sent, "Observation"), resources(back, "Observation"), strict=True):
        same(
            before,
            after,
            "code",
            "status",
            "effectiveDateTime",
            "interpretation",
            "referenceRange",
            "note",
            "component",
            *(name for name in before if name.startswith("value")),
        )
    same(one(sent, "DiagnosticReport"), one(back, "DiagnosticReport"), "code", "status", "issued", "effectiveDateTime", "identifier")
    same(one(sent, "ServiceRequest"), one(back, "ServiceRequest"), "note", "identifier")
    same(one(sent, "Specimen"), one(back, "Specimen"), "identifier", "type", "collection", "receivedTime")
    assert one(back, "Binary") == one(sent, "Binary")
    assert resources(back, "Observation")[0]["valueQuantity"]["value"].as_tuple() == Decimal("1.00").as_tuple()


@pytest.mark.parametrize("event", ["ADT^A01", "ADT^A08"])
def test_persons_and_visits_come_back(event: str) -> None:
    sent = mapped(
        event,
        "EVN|A01|20240101",
        PID,
        "NK1|1|Doe^Jane^^^^^L|SPO^Spouse^HL70063|1 St^^Town|5551111^PRN^PH",
        PV1,
        "AL1|1|DA^Drug allergy^HL70127|70618^Penicillin^RXNORM|SV|rash",
        "DG1|1||I10^Hypertension^I10C|||W",
    )
    parsed, back = again(sent, event)
    assert (parsed.code, parsed.trigger, parsed.version) == ("ADT", event[4:], "2.5.1")
    same(
        one(sent, "Patient"),
        one(back, "Patient"),
        "identifier",
        "name",
        "birthDate",
        "_birthDate",
        "gender",
        "address",
        "telecom",
        "maritalStatus",
        "multipleBirthInteger",
        "deceasedDateTime",
        "contact",
        "communication",
    )
    kept = [[item for item in one(way, "Patient")["extension"] if item["url"].endswith(("religion", ".10", ".18"))] for way in (sent, back)]
    assert len(kept[0]) == 3
    assert kept[0] == kept[1]
    before, after = one(sent, "Encounter"), one(back, "Encounter")
    same(before, after, "class", "status", "identifier", "period", "hospitalization", "serviceType")
    assert [target(back, item["individual"])["name"] for item in after["participant"]] == [
        target(sent, item["individual"])["name"] for item in before["participant"]
    ]
    assert target(back, after["location"][0]["location"])["name"] == "B3"
    same(one(sent, "AllergyIntolerance"), one(back, "AllergyIntolerance"), "code", "category", "reaction", "criticality")
    same(one(sent, "Condition"), one(back, "Condition"), "code")


def test_the_hl7_package_reads_what_we_write() -> None:
    raw = outbound.build(mapped("ORU^R01", PID, OBR, *RESULTS).bundle, "ORU^R01", ENVELOPE, tables.load_tables())
    read = hl7.parse(raw.decode())
    assert read["PID.F3.R1.C4.S2"] == "1.2.3"
    assert read["PID.F5.R1.C1.S1"] == "van Doe"
    assert [str(row[3][0][0]) for row in read.segments("OBX")][:2] == ["2093-3", "1"]


def test_what_cannot_be_sent_says_why() -> None:
    with pytest.raises(ValueError, match="no Patient"):
        outbound.build({"resourceType": "Bundle"}, "ADT^A01", ENVELOPE, tables.load_tables())
    with pytest.raises(ValueError, match="no mapping to VXU"):
        outbound.build({"resourceType": "Bundle"}, "VXU^V04", ENVELOPE, tables.load_tables())
    with pytest.raises(ValueError, match="no DiagnosticReport"):
        outbound.build(mapped("ADT^A01", "EVN|A01|2024", PID).bundle, "ORU^R01", ENVELOPE, tables.load_tables())
