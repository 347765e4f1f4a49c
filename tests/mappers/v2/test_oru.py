"""ORU^R01: what a laboratory says arrives as it was meant."""

import base64
import gc
from decimal import Decimal
from typing import Any

import pytest

from mappers.v2 import tables
from mappers.v2.source import Source
from tests.mappers.v2.feeds import mapped, one, resources, target

PID = "PID|1||77^^^HOSP&1.2.3&ISO^MR||Doe^John^Q^Jr^Dr.||19700102|M"
OBR = "OBR|1|P1^EHR|F1^LAB|24331-1^Lipid panel^LN|||20240101080000|||||||||7^Order^Otto^^^^^^NPI||||||20240101120000|||F"


def result(obx: str, **options: object) -> dict:
    return one(mapped("ORU^R01", PID, OBR, obx, **options), "Observation")


def test_report_results_and_patient_are_linked() -> None:
    conversion = mapped("ORU^R01", PID, OBR, "OBX|1|NM|2093-3^Chol^LN||200|mg/dL^^UCUM|<200|H|||F", "OBX|2|NM|2085-9^HDL^LN||50|mg/dL|>40||||P")
    report, patient = one(conversion, "DiagnosticReport"), one(conversion, "Patient")
    first, second = resources(conversion, "Observation")
    assert [target(conversion, reference) for reference in report["result"]] == [first, second]
    assert target(conversion, first["subject"]) is patient
    assert target(conversion, report["basedOn"][0])["resourceType"] == "ServiceRequest"
    assert (report["status"], first["status"], second["status"]) == ("final", "final", "preliminary")
    assert report["issued"] == "2024-01-01T12:00:00+01:00"
    assert first["valueQuantity"] == {"value": Decimal(200), "unit": "mg/dL", "system": "http://unitsofmeasure.org", "code": "mg/dL"}
    assert second["valueQuantity"] == {"value": Decimal(50), "unit": "mg/dL"}
    assert first["interpretation"][0]["coding"][0]["code"] == "H"
    assert first["referenceRange"] == [
        {"high": {"value": Decimal(200), **{k: v for k, v in first["valueQuantity"].items() if k != "value"}}, "text": "<200"}
    ]
    assert conversion.problems == []


@pytest.mark.parametrize(
    ("kind", "value", "element", "expected"),
    [
        ("NM", "1.00", "valueQuantity", {"value": Decimal("1.00"), "unit": "u"}),
        ("NM", "<5", "valueQuantity", {"value": Decimal(5), "comparator": "<", "unit": "u"}),
        ("NM", "positive", "valueString", "positive"),
        ("SN", ">^100", "valueQuantity", {"comparator": ">", "value": Decimal(100), "unit": "u"}),
        ("SN", "^1^:^128", "valueRatio", {"numerator": {"value": Decimal(1), "unit": "u"}, "denominator": {"value": Decimal(128), "unit": "u"}}),
        ("SN", "^<^5", "valueQuantity", {"comparator": "<", "value": Decimal(5), "unit": "u"}),
        ("SN", "^2^-^5", "valueRange", {"low": {"value": Decimal(2), "unit": "u"}, "high": {"value": Decimal(5), "unit": "u"}}),
        ("SN", "<>^5", "valueString", "<> 5 u"),
        ("SN", "^2^+", "valueString", "2 + u"),
        ("ST", "clear", "valueString", "clear"),
        ("TX", "first~second", "valueString", "first\nsecond"),
        ("FT", "a\\.br\\b", "valueString", "a\nb"),
        ("DT", "20240102", "valueDateTime", "2024-01-02"),
        ("TS", "202401020304", "valueDateTime", "2024-01-02T03:04:00+01:00"),
        ("DTM", "20240102030405.6-0500", "valueDateTime", "2024-01-02T03:04:05.6-05:00"),
        ("TM", "0304", "valueTime", "03:04:00"),
        ("DR", "20240101^20240102", "valuePeriod", {"start": "2024-01-01", "end": "2024-01-02"}),
        ("NR", "1^2", "valueRange", {"low": {"value": Decimal(1), "unit": "u"}, "high": {"value": Decimal(2), "unit": "u"}}),
        ("CQ", "3^mL&&UCUM", "valueQuantity", {"value": Decimal(3), "unit": "mL", "system": "http://unitsofmeasure.org", "code": "mL"}),
        ("XPN", "Doe^John", "valueString", "Doe John"),
        ("CX", "12^^^A", "valueString", "12 A"),
        ("MO", "12.50^USD", "valueQuantity", {"value": Decimal("12.50"), "unit": "USD", "system": "urn:iso:std:iso:4217", "code": "USD"}),
        ("ZZ", "what", "valueString", "what"),
    ],
)
def test_every_value_type_has_its_value(kind: str, value: str, element: str, expected: object) -> None:
    assert result(f"OBX|1|{kind}|1^x^L||{value}|u|||||F")[element] == expected


def test_coded_values_keep_all_codings() -> None:
    found = result("OBX|1|CWE|1^x^L||260373001^Detected^SCT^POS^Positive^99LAB^^^seen||||||F")["valueCodeableConcept"]
    assert found == {
        "coding": [
            {"system": "http://snomed.info/sct", "code": "260373001", "display": "Detected"},
            {"system": "urn:id:99LAB", "code": "POS", "display": "Positive"},
        ],
        "text": "seen",
    }


def test_repeated_codes_become_components() -> None:
    found = result("OBX|1|CE|1^x^L||A^a^L~B^b^L||||||F")
    assert [component["valueCodeableConcept"]["coding"][0]["code"] for component in found["component"]] == ["A", "B"]
    assert "valueCodeableConcept" not in found


def test_arrays_become_sampled_data() -> None:
    assert result("OBX|1|NA|1^x^L||1^2^3~4^5^6|mV|||||F")["valueSampledData"]["data"] == "1 4 2 5 3 6"


def test_units_become_ucum_only_where_the_service_says_so() -> None:
    asked = result("OBX|1|NM|1^x^L||5|furlong|||||F", to_ucum=lambda text: None)["valueQuantity"]
    known = result("OBX|1|NM|1^x^L||5|gm/dl|||||F", to_ucum={"gm/dl": "g/dL"}.get)["valueQuantity"]
    assert asked == {"value": Decimal(5), "unit": "furlong"}
    assert known == {"value": Decimal(5), "unit": "gm/dl", "system": "http://unitsofmeasure.org", "code": "g/dL"}


@pytest.mark.parametrize("text", ["negative", "3.5-5.0 mmol/L", "5-3", "1-2-3", "<5 or >10"])
def test_reference_ranges_are_parsed_on_a_full_match_only(text: str) -> None:
    assert result(f"OBX|1|NM|1^x^L||4|u|{text}||||F")["referenceRange"] == [{"text": text}]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("F", "final"),
        ("P", "preliminary"),
        ("C", "corrected"),
        ("X", "cancelled"),
        ("D", "entered-in-error"),
        ("W", "entered-in-error"),
        ("I", "registered"),
        ("R", "preliminary"),
        ("", "unknown"),
    ],
)
def test_result_status(sent: str, status: str) -> None:
    assert result(f"OBX|1|ST|1^x^L||v||||||{sent}")["status"] == status


def test_embedded_documents_are_stored_once() -> None:
    conversion = mapped("ORU^R01", PID, OBR, "OBX|1|ED|11502-2^Report^LN||LAB^AP^PDF^Base64^JVBERi0xLjQ=||||||F")
    binary, document, report = one(conversion, "Binary"), one(conversion, "DocumentReference"), one(conversion, "DiagnosticReport")
    url = next(entry["fullUrl"] for entry in conversion.bundle["entry"] if entry["resource"] is binary)
    assert (binary["contentType"], binary["data"]) == ("application/pdf", "JVBERi0xLjQ=")
    assert report["presentedForm"][0]["url"] == document["content"][0]["attachment"]["url"] == url


def test_one_provider_is_one_practitioner() -> None:
    conversion = mapped(
        "ORU^R01",
        PID,
        "ORC|RE|P1|F1|||||||||7^Order^Otto^^^^^^NPI",
        OBR,
        *(f"OBX|{n}|ST|{n}^x^L||v||||||F|||||9^Tech^Tina^^^^^^LAB" for n in range(5)),
    )
    assert sorted(item["name"][0]["family"] for item in resources(conversion, "Practitioner")) == ["Order", "Tech"]
    assert len(resources(conversion, "PractitionerRole")) == 2


def test_notes_go_with_what_they_follow() -> None:
    conversion = mapped("ORU^R01", PID, OBR, "NTE|1||of the order", "OBX|1|ST|1^x^L||v||||||F", "NTE|1||first", "NTE|2||second~line")
    assert [note["text"] for note in one(conversion, "Observation")["note"]] == ["first", "second\nline"]
    assert one(conversion, "ServiceRequest")["note"] == [{"text": "of the order"}]


def test_two_reports_keep_their_results_apart() -> None:
    conversion = mapped("ORU^R01", PID, OBR, "OBX|1|ST|1^x^L||a||||||F", OBR.replace("F1", "F2"), "OBX|1|ST|1^x^L||b||||||F")
    reports = resources(conversion, "DiagnosticReport")
    assert [[target(conversion, item)["valueString"] for item in report["result"]] for report in reports] == [["a"], ["b"]]


def test_unknown_codes_are_kept_and_listed() -> None:
    conversion = mapped("ORU^R01", PID, OBR, "OBX|1|ST|1^x^L||v|||QQ^Odd^99X|||F")
    assert one(conversion, "Observation")["interpretation"] == [{"coding": [{"system": "urn:id:99X", "code": "QQ", "display": "Odd"}]}]
    assert [(item.codes, item.code, item.location) for item in conversion.unmapped] == [("InterpretationCodes", "QQ", "OBX^1^8^1")]


@pytest.mark.parametrize(
    ("encoding", "data"), [("Base64", "YT1i"), ("Base64", "YT1iYw"), ("Hex", "613D62"), ("A", "a=b"), ("Quoted-Printable", "a=3Db")]
)
def test_embedded_data_in_every_encoding_that_senders_use(encoding: str, data: str) -> None:
    conversion = mapped("ORU^R01", PID, OBR, f"OBX|1|ED|1^R^L||LAB^TEXT^PLAIN^{encoding}^{data}||||||F")
    content = base64.b64decode(one(conversion, "Binary")["data"])
    assert content.startswith(b"a=b")
    assert not conversion.problems


def test_what_is_left_of_a_field_is_kept_once_and_a_problem_told_once() -> None:
    conversion = mapped("ORU^R01", PID, OBR, "OBX|1|RP|1^R^L||http://x.example/a.pdf^PACS^application^pdf||||||F|||20241399")
    rest = [row for row in one(conversion, "Observation")["extension"] if row["url"] == "urn:hl7-org:v2xml:OBX.5"]
    assert rest == [{"url": "urn:hl7-org:v2xml:OBX.5", "valueString": "http://x.example/a.pdf^PACS^application^pdf"}]
    assert len([problem for problem in conversion.problems if problem.location.startswith("OBX^1^14")]) == 1


def test_what_is_not_wanted_any_more_goes_without_the_collector() -> None:
    """No circle of references: at a hundred messages a second the collector would have to find them all."""
    lines = (PID, "PV1|1|I|W^R^B", "ORC|RE|P1|F1", OBR, "OBX|1|NM|2093-3^Chol^LN||200|mg/dL|<200|H|||F", "NTE|1||x", "SPM|1|S1||BLD", "NK1|1|D^M")
    mapped("ORU^R01", *lines)
    gc.collect()
    gc.disable()
    try:
        mapped("ORU^R01", *lines)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_codes_are_remembered_from_message_to_message_of_a_sender() -> None:
    """Also where the functions that come in are methods, which are new objects each time they are asked for."""

    class Terms:
        asked = 0

        def to_ucum(self, text: str) -> str | None:
            self.asked += 1
            return "mg/dL"

    terms, sender = Terms(), Source("LAB")
    known = tables.load_tables()
    before = len(known.memos)
    for number in range(5):
        mapped("ORU^R01", PID, OBR, f"OBX|1|NM|2093-3^Chol^LN||{number}|mg/dL||H|||F", source=sender, to_ucum=terms.to_ucum)
    assert len(known.memos) == before + 1
    codes = {raw for _, raw, _ in known.memos[id(sender), None, terms.to_ucum][1]}
    assert {"2093-3^Chol^LN", "H", "F"} <= codes


def test_a_code_is_mapped_once_and_told_alike_each_time() -> None:
    """Values of codes are remembered per sender: also that a code has no alternate, and that a part of it is kept as it was sent."""
    obx = "OBX|1|NM|2093-3^Chol^LN||200|mg/dL|||||F^Final^HL70085^odd"
    first, again = result(obx), result(obx)
    assert first == again
    assert first["status"] == "final"
    assert {"url": "urn:hl7-org:v2xml:OBX.11", "valueString": "F^Final^HL70085^odd"} in first["extension"]
    assert first["extension"] is not again["extension"]
    assert first["code"]["coding"][0] is not again["code"]["coding"][0]


@pytest.mark.parametrize(
    ("times", "own", "expected"),
    [
        ("20240101080000|", "", {"effectiveDateTime": "2024-01-01T08:00:00+01:00"}),
        ("20240101|20240102", "", {"effectivePeriod": {"start": "2024-01-01", "end": "2024-01-02"}}),
        ("20240101080000|20240101080000", '""', {"effectiveDateTime": "2024-01-01T08:00:00+01:00"}),
        ("20240101080000|", "20240103", {"effectiveDateTime": "2024-01-03"}),
        ("|", "", {}),
    ],
)
def test_a_result_that_does_not_say_when_is_of_the_time_of_its_order(times: str, own: str, expected: dict[str, Any]) -> None:
    """HL7 v2.8 7.4.2.14: OBX-14 is needed only where it differs from OBR-7."""
    made = mapped("ORU^R01", "PID|1||1^^^B^MR", f"OBR|1||F1^LAB|GLU^Glucose^L|||{times}", f"OBX|1|NM|GLU^Glucose^L||5|mg/dL|||||F|||{own}")
    assert {name: value for name, value in one(made, "Observation").items() if name.startswith("effective")} == expected


def test_results_behind_the_specimen_of_an_oul_r24_are_the_report_s() -> None:
    made = mapped("OUL^R24", "PID|1||1^^^B^MR", "OBR|1||F1^LAB|GLU^Glucose^L", "SPM|1|S1||BLD", "OBX|1|NM|GLU^Glucose^L||5|mg/dL|||||F")
    assert len(one(made, "DiagnosticReport")["result"]) == 1


def test_the_text_of_a_document_and_what_txa_says_of_its_file_are_one_content() -> None:
    txa = "TXA|1|DS^Summary^L|TX|20240101||||||||1^TRANS||||summary.txt|AU||AV"
    made = mapped("MDM^T02", "EVN|T02|20240101", "PID|1||1^^^B^MR", "PV1|1|I", txa, "OBX|1|TX|DS^x^L||One||||||F", "OBX|2|TX|DS^x^L||Two||||||F")
    (content,) = one(made, "DocumentReference")["content"]
    assert content["attachment"]["title"] == "summary.txt"
    assert base64.b64decode(content["attachment"]["data"]) == b"One\nTwo"
