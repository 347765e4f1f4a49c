"""Tables: every row compiles; a site's folder overrides field by field, code by code; what is wrong in a folder is named."""

import re
from pathlib import Path

import pytest

from mappers.v2 import convert, message, tables
from mappers.v2.condition import compile_condition
from mappers.v2.mapping import compiled
from tests.mappers.v2.feeds import MSH, resources


def test_every_map_compiles() -> None:
    known = tables.load_tables()
    assert len(known.maps) > 100
    for name in known.maps:
        assert compiled(known, name).name == name


def test_every_event_of_the_standard_has_a_structure() -> None:
    known = tables.load_tables()
    events = [f"A{n:02d}" for n in (*range(1, 18), *range(20, 30), *range(31, 46), 47, 50, 54, 55, 60, 61, 62)]
    wanted = [("ADT", event) for event in events]
    wanted += [
        ("ORU", "R01"),
        ("ORU", "R30"),
        ("ORU", "R32"),
        ("OUL", "R22"),
        ("OUL", "R23"),
        ("OUL", "R24"),
        ("ORM", "O01"),
        ("OML", "O21"),
        ("OML", "O33"),
        ("OML", "O35"),
    ]
    wanted += [
        ("OMG", "O19"),
        ("OMP", "O09"),
        ("ORL", "O22"),
        ("RDE", "O11"),
        ("RDE", "O25"),
        ("RDS", "O13"),
        ("RGV", "O15"),
        ("RAS", "O17"),
        ("VXU", "V04"),
        ("DFT", "P03"),
    ]
    wanted += [("MDM", f"T{n:02d}") for n in range(1, 12)] + [("SIU", event) for event in ("S12", "S13", "S14", "S15", "S16", "S17", "S26")]
    wanted += [("BAR", event) for event in ("P01", "P02", "P05", "P12")] + [
        ("PPR", "PC1"),
        ("REF", "I12"),
        ("MFN", "M02"),
        ("MFN", "M08"),
        ("MFN", "M12"),
    ]
    assert [pair for pair in wanted if known.structure_for(*pair) is None] == []
    assert known.structure_for("ADT", "A99") is None


SEGMENT, CODE, MESSAGE = "field,when,path,as,codes,value\n", "from,table,code,display,system\n", "group,segment,when,target,map,refs\n"
WRONG = [
    ("segments__PID_Patient", SEGMENT + "8,,gender[,string,,\n", "PID_Patient.csv: field 8: path not understood"),
    ("segments__PID_Patient", SEGMENT + '8,"IF PID-8 EQUALZ ""x""",gender,string,,\n', "PID_Patient.csv: field 8: a predicate was expected"),
    ("segments__PID_Patient", SEGMENT + "8,,gender,@code,Nope,\n", "PID_Patient.csv: field 8: no code map Nope"),
    ("segments__PID_Patient", "field;path\n8;gender\n", "PID_Patient.csv: the first line does not name the columns field"),
    ("codes__AdministrativeSex", "von,nach\nW,female\n", "AdministrativeSex.csv: the first line does not name the columns from"),
    ("messages__ADT", MESSAGE + "PATIENT,PID,IF PID,Patient[1],PID[Patient],\n", "ADT.csv: PID: a predicate was expected"),
    ("messages__ADT", MESSAGE + "PATIENT,PID,,Patient[1],PID[Patient],Foo[1].x=Patient[1]\n", "ADT.csv: PID: no row makes Foo[1]"),
]


@pytest.mark.parametrize(("name", "text", "said"), WRONG)
def test_what_is_wrong_in_a_site_s_table_is_named_with_its_file(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        site(tmp_path, **{name: text})


def test_a_site_adds_segments_to_a_message_and_replaces_those_of_one_place(tmp_path: Path) -> None:
    known = site(
        tmp_path,
        messages__ADT=MESSAGE + "PATIENT,ZEN,,Patient[1],ZEN[Patient],\nPATIENT,ACC,,Condition[3],ACC[Condition],Condition[3].subject=Patient[1]\n",
        segments__ZEN_Patient=SEGMENT + "1,,extension{http://site/zen}.valueString,string,,\n",
        segments__ACC_Condition=SEGMENT + "1,,onsetDateTime,dateTime,,\n2,,code,@concept,,\n",
    )
    done = convert_with(known, "PID|1||7||D^J\rPV1|1|I|W\rACC|20240101|X^Fall^L\rZEN|om")
    assert resources(done, "Patient")[0]["extension"] == [{"url": "http://site/zen", "valueString": "om"}]
    assert resources(done, "Condition")[0]["onsetDateTime"] == "2024-01-01"
    assert resources(done, "Encounter")[0]["class"]["code"] == "IMP", "the rest of the message's table stays"


def site(folder: Path, **files: str) -> tables.Tables:
    for name, content in files.items():
        path = folder / (name.replace("__", "/") + ".csv")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tables.load_tables(folder)


def convert_with(known: tables.Tables, *lines: str) -> convert.Conversion:
    return convert.convert(message.parse("\r".join([MSH.format("ADT^A01"), "EVN|A01|20240101", *lines]).encode()), known)


def test_a_site_overrides_a_field_and_a_code(tmp_path: Path) -> None:
    known = site(
        tmp_path,
        segments__PID_Patient="field,when,path,as,codes,value\n15,,extension{http://site/tongue}.valueString,@text,,\n",
        codes__AdministrativeSex="from,table,code,display,system\nW,HL70001,female,,http://hl7.org/fhir/administrative-gender\n",
    )
    patient = resources(convert_with(known, "PID|1||7||D^J|||W|||||||fr^French"), "Patient")[0]
    assert patient["extension"][0] == {"url": "http://site/tongue", "valueString": "French"}
    assert patient["extension"][1:] == [{"url": "urn:hl7-org:v2xml:PID.15", "valueString": "fr^French"}], (
        "the code that the row leaves out is kept as sent"
    )
    assert (patient["gender"], patient["name"][0]["family"]) == ("female", "D")
    assert "communication" not in patient


def test_a_site_maps_its_z_segment(tmp_path: Path) -> None:
    known = site(
        tmp_path,
        messages__ANY="group,segment,when,target,map,refs\n,ZPI,,Patient[1],ZPI[Patient],\n",
        segments__ZPI_Patient="field,when,path,as,codes,value\n2,,extension{http://site/pet}.valueString,string,,\n",
    )
    patient = resources(convert_with(known, "PID|1||7", "ZPI|1|Rex"), "Patient")[0]
    assert {"url": "http://site/pet", "valueString": "Rex"} in patient["extension"]


def test_an_unknown_z_segment_is_kept(tmp_path: Path) -> None:
    conversion = convert_with(tables.load_tables(), "PID|1||7", "ZZZ|1|Rex~Max||a&b")
    header = resources(conversion, "MessageHeader")[0]
    assert [item["valueString"] for item in header["extension"] if item["url"].startswith("urn:hl7-org:v2xml:ZZZ")] == ["1", "Rex", "Max", "a&b"]
    assert [problem.location for problem in conversion.problems] == ["ZZZ^1"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("segments__PID_Patient", "field,when,path,as,codes,value\n5,IF PID-5 SOMEHOW,name[1],XPN[HumanName],,\n", "PID_Patient.csv: field 5"),
        ("segments__PID_Patient", "field,when,path,as,codes,value\n5,,name[1],XYZ[HumanName],,\n", "no map"),
        ("segments__PID_Patient", "field,when,path,as,codes,value\n8,,gender,@code,Nothing,\n", "no code map Nothing"),
        ("segments__PID_Patient", "field,when,path,as,codes,value\nfive,,gender,code,,\n", "is no field number"),
        ("segments__PID_Patient", "field,when,path,as,codes,value\n5,,name[1,XPN[HumanName],,\n", "path not understood"),
        ("segments__PID_Patient", "field,when,path,as,codes,value\n5,,name[1],@nothing,,\n", "no function @nothing"),
        ("messages__ADT", "group,segment,when,target,map,refs\n,PID,,Patient[1],PID[Patient],nonsense\n", "a reference is written"),
        ("structures", "name,value\nADT^A01,NOWHERE\n", "no structure NOWHERE"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, name: str, content: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        site(tmp_path, **{name: content})


@pytest.mark.parametrize(
    ("text", "true"),
    [
        ('IF PID-8 EQUALS "f"', True),
        ('IF PID-8 NOT EQUALS "F"', False),
        ('IF PID-8 IN ("M", "F") AND PID-3 VALUED', True),
        ("IF PID-3 COUNT>1", True),
        ("IF PID-3 LST.COUNT EQUALS 1", False),
        ("IF PID-7 LENGTH GREATER THAN 8", False),
        ("IF PID-7 NOT VALUED OR (PID-8 VALUED AND NOT PID-9 VALUED)", True),
        ("IF PID-9 OR PID-8 VALUED", True),
        ("IF PID-9 AND PID-8 NOT VALUED", False),
        ('IF PID-3.4 IS "A"', True),
        ('IF PID-7 STARTS "1970"', True),
        ("IF PV1 NOT VALUED", True),
    ],
)
def test_conditions(text: str, true: bool) -> None:
    class Here:
        fields = ("PID", "", "", "7^^^A~8^^^B", "", "", "", "19700102", "F")
        name = "PID"
        raw = ""

        def value(self, name: str, number: int, component: int) -> str:
            raw = self.fields[number].split("~")[0] if number < len(self.fields) else ""
            parts = raw.split("^")
            return parts[max(component, 1) - 1] if component <= len(parts) else ""

        def count(self, name: str, number: int) -> int:
            return len(self.fields[number].split("~"))

        def has_segment(self, name: str) -> bool:
            return name == "PID"

    Here.segment = Here()
    assert compile_condition(text)(Here()) is true
