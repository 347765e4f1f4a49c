"""ADT: persons and visits, nulls, authorities, merges."""

from zoneinfo import ZoneInfo

import pytest

from mappers.v2.source import Source
from tests.mappers.v2.feeds import mapped, one, resources, segment, target

EVN = "EVN|A01|20240102030000"


def patient(pid: str, **options: object) -> dict:
    return one(mapped("ADT^A01", EVN, pid, **options), "Patient")


def test_names_birth_sex_and_death() -> None:
    found = patient(
        segment(
            "PID", {3: "7", 5: "van Doe&van&Doe^John^Q^Jr^Dr.^^L~Johnny^^^^^^N", 7: "197001021530", 8: "F", 24: "Y", 25: "2", 29: "202301", 30: "Y"}
        )
    )
    assert found["name"][0] == {
        "family": "van Doe",
        "_family": {
            "extension": [
                {"url": "http://hl7.org/fhir/StructureDefinition/humanname-own-prefix", "valueString": "van"},
                {"url": "http://hl7.org/fhir/StructureDefinition/humanname-own-name", "valueString": "Doe"},
            ]
        },
        "given": ["John", "Q"],
        "suffix": ["Jr"],
        "prefix": ["Dr."],
        "use": "official",
    }
    assert found["name"][1] == {"family": "Johnny", "use": "nickname"}
    assert found["birthDate"] == "1970-01-02"
    assert found["_birthDate"]["extension"][0]["valueDateTime"] == "1970-01-02T15:30:00+01:00"
    assert (found["gender"], found["multipleBirthInteger"], found["deceasedDateTime"]) == ("female", 2, "2023-01")
    assert "multipleBirthBoolean" not in found
    assert "deceasedBoolean" not in found


def test_identifiers_by_authority_namespace_and_oid_unified() -> None:
    found = patient("PID|1||7^^^HOSP^MR~8^^^HOSP&1.2.3.4&ISO^PI~9^^^&2.16.840.1.113883.4.1&ISO^SS~10")
    assert [identifier.get("system") for identifier in found["identifier"]] == [
        "urn:oid:1.2.3.4",
        "urn:oid:1.2.3.4",
        "http://hl7.org/fhir/sid/us-ssn",
        None,
    ]
    assert [identifier.get("type", {}).get("coding", [{}])[0].get("code") for identifier in found["identifier"]] == ["MR", "PI", "SS", None]


def test_an_empty_authority_is_the_sources_own() -> None:
    source = Source("north", authority="urn:oid:9.9", authorities={"HOSP": "http://north/mrn"})
    found = patient("PID|1||7~8^^^HOSP", source=source)
    assert [identifier["system"] for identifier in found["identifier"]] == ["urn:oid:9.9", "http://north/mrn"]


def test_addresses_and_phones() -> None:
    found = patient(
        "PID|1||7||D^J||||||1 Main St^Apt 2^Town^ST^12345^USA^H^^County~^^City^^^^M||^PRN^PH^^1^555^1234567~x@y.org^NET^Internet|^WPN^CP^^^555^7654321"
    )
    assert found["address"][0] == {
        "line": ["1 Main St", "Apt 2"],
        "city": "Town",
        "state": "ST",
        "postalCode": "12345",
        "country": "USA",
        "use": "home",
        "district": "County",
    }
    assert found["address"][1] == {"city": "City", "type": "postal"}
    assert [(point["system"], point["value"], point.get("use")) for point in found["telecom"]] == [
        ("phone", "+1 555 1234567", "home"),
        ("email", "x@y.org", None),
        ("phone", "555 7654321", "work"),
    ]


def test_a_null_is_a_fact_and_an_absent_field_is_nothing() -> None:
    conversion = mapped("ADT^A08", EVN, 'PID|1||7||D^J||""|""||||""|""')
    fact = next(fact for fact in conversion.facts.entries if fact.segment == "PID")
    assert fact.nulls >= {"birthDate", "gender"}
    assert "maritalStatus" not in fact.nulls
    assert "birthDate" not in one(conversion, "Patient")


def test_a_null_beside_a_value_is_no_null() -> None:
    conversion = mapped("ADT^A08", EVN, 'PID|1||7||D^J||||||||""|^WPN^PH^^^^5551234')
    fact = next(fact for fact in conversion.facts.entries if fact.segment == "PID")
    assert "telecom" not in fact.nulls


@pytest.mark.parametrize(
    ("event", "pv1", "status", "klass"),
    [
        ("A01", {2: "I", 19: "V1"}, "in-progress", "IMP"),
        ("A08", {2: "I", 45: "20240102"}, "finished", "IMP"),
        ("A03", {2: "I", 19: "V1"}, "finished", "IMP"),
        ("A04", {2: "O", 19: "V1"}, "in-progress", "AMB"),
        ("A05", {2: "P", 19: "V1"}, "planned", "PRENC"),
        ("A08", {2: "E", 19: "V1"}, "in-progress", "EMER"),
        ("A11", {2: "I", 19: "V1"}, "cancelled", "IMP"),
        ("A13", {2: "I", 19: "V1"}, "in-progress", "IMP"),
        ("A08", {2: "", 19: "V1"}, "unknown", "UNK"),
    ],
)
def test_encounter_status_and_class(event: str, pv1: dict[int, str], status: str, klass: str) -> None:
    found = one(mapped(f"ADT^{event}", EVN, "PID|1||7", segment("PV1", pv1)), "Encounter")
    assert (found["status"], found["class"]["code"]) == (status, klass)


def test_places_are_a_chain_and_staff_take_part() -> None:
    conversion = mapped("ADT^A01", EVN, "PID|1||7", "PV1|1|I|W1^R2^B3^FAC||||1^Att^A|2^Ref^R||||||||||||V1")
    visit = one(conversion, "Encounter")
    bed = target(conversion, visit["location"][0]["location"])
    names = [bed["name"]]
    while "partOf" in bed:
        bed = target(conversion, bed["partOf"])
        names.append(bed["name"])
    assert names == ["B3", "R2", "W1", "FAC"]
    assert [(p["type"][0]["coding"][0]["code"], target(conversion, p["individual"])["name"][0]["family"]) for p in visit["participant"]] == [
        ("ATND", "Att"),
        ("REF", "Ref"),
    ]


def test_diagnoses_are_conditions_of_the_visit_in_order() -> None:
    conversion = mapped("ADT^A01", EVN, "PID|1||7", "PV1|1|I", "DG1|1||I10^Hypertension^I10C|||A|||||||||1", "DG1|2||E11^Diabetes^I10C|||W|||||||||2")
    visit = one(conversion, "Encounter")
    assert [(d["rank"], target(conversion, d["condition"])["code"]["coding"][0]["code"]) for d in visit["diagnosis"]] == [(1, "I10"), (2, "E11")]


def test_a_merge_names_the_retired_record() -> None:
    conversion = mapped("ADT^A40", EVN, "PID|1||7^^^H^MR", "MRG|8^^^H^MR")
    survivor, retired = resources(conversion, "Patient")
    assert (survivor["identifier"][0]["value"], retired["identifier"][0]["value"], retired["active"]) == ("7", "8", False)
    assert retired["link"][0]["type"] == "replaced-by"
    assert target(conversion, retired["link"][0]["other"]) is survivor


def test_times_without_offset_take_the_senders_zone_when_msh_has_none() -> None:
    raw_free = mapped("ADT^A01", EVN, segment("PID", {3: "7", 29: "202307011200"}), source=Source(zone=ZoneInfo("America/New_York")))
    assert one(raw_free, "Patient")["deceasedDateTime"] == "2023-07-01T12:00:00+01:00"


def test_an_unknown_type_is_a_problem_not_a_crash() -> None:
    conversion = mapped("ZZZ^Z99", "PID|1")
    assert [problem.code for problem in conversion.problems] == ["200"]
    assert "entry" not in conversion.bundle


@pytest.mark.parametrize(
    ("sent", "date", "time"),
    [
        ("202312312400", "2023-12-31", "2024-01-01T00:00:00+01:00"),
        ("20240228240000", "2024-02-28", "2024-02-29T00:00:00+01:00"),
        ("202401012401", None, None),
        ("99991231240000", None, None),
    ],
)
def test_midnight_said_as_24_is_the_next_day(sent: str, date: str | None, time: str | None) -> None:
    conversion = mapped("ADT^A01", EVN, segment("PID", {3: "7", 7: sent, 29: sent}))
    found = one(conversion, "Patient")
    assert (found.get("birthDate"), found.get("deceasedDateTime")) == (date, time)


def test_entries_are_named_alike_each_time() -> None:
    first, second = (mapped("ADT^A01", EVN, "PID|1||7", "PV1|1|I").bundle for _ in range(2))
    assert first == second


def test_the_business_phone_of_a_relative_is_one_contact_point() -> None:
    """NK1-6 is a work number unless XTN.2 says otherwise; its use stands on the number, not beside it."""
    made = mapped("ADT^A08", "EVN|A08|20240101", "PID|1||1^^^B^MR||A^B", "NK1|1|A^C|SPO|||0302~0303^PRN^CP")
    points = one(made, "RelatedPerson")["telecom"]
    assert points == [{"system": "phone", "value": "0302", "use": "work"}, {"system": "phone", "value": "0303", "use": "home"}]
    assert one(made, "Patient")["contact"][0]["telecom"] == points
