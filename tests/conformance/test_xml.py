"""FHIR XML. https://hl7.org/fhir/R4/xml.html"""

import json
import tarfile

import pytest
from lxml import etree

from conformance import codec, xml
from conformance.outcome import Refusal
from conformance.spec import load_spec
from tests.packages import npm_package

SPEC = load_spec()
PATIENT = b"""<?xml version="1.0" encoding="UTF-8"?>
<!-- a comment is ignored -->
<Patient xmlns="http://hl7.org/fhir" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="http://hl7.org/fhir x.xsd">
  <id value="1"/>
  <text><status value="generated"/><div xmlns="http://www.w3.org/1999/xhtml">A <b>b</b>&#160;&lt;c <br/> d</div></text>
  <contained><Organization><id value="o"/><name value="X &amp; Y"/></Organization></contained>
  <extension url="https://x.example/e"><valueDecimal value="1.00"/></extension>
  <active value="true"/>
  <name id="n1"><family value="L&quot;"/><given value="A"/><given><extension url="https://x.example/r"><valueCode value="u"/></extension></given><given value="C"/></name>
  <birthDate value="1970-01"><extension url="https://x.example/t"><valueDateTime value="1970-01-01T10:00:00Z"/></extension></birthDate>
  <multipleBirthInteger value="2"/>
</Patient>"""
EXPECTED = {
    "resourceType": "Patient",
    "id": "1",
    "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">A <b>b</b>&#160;&lt;c <br/> d</div>'},
    "contained": [{"resourceType": "Organization", "id": "o", "name": "X & Y"}],
    "extension": [{"url": "https://x.example/e", "valueDecimal": codec.decode(b'{"v":1.00}')["v"]}],
    "active": True,
    "name": [
        {
            "id": "n1",
            "family": 'L"',
            "given": ["A", None, "C"],
            "_given": [None, {"extension": [{"url": "https://x.example/r", "valueCode": "u"}]}, None],
        }
    ],
    "birthDate": "1970-01",
    "_birthDate": {"extension": [{"url": "https://x.example/t", "valueDateTime": "1970-01-01T10:00:00Z"}]},
    "multipleBirthInteger": 2,
}


def test_xml_is_read_as_its_json_form() -> None:
    assert xml.from_xml(PATIENT, SPEC) == EXPECTED


@pytest.mark.parametrize("pretty", [True, False])
def test_the_json_form_is_written_as_xml_that_reads_back_the_same(pretty: bool) -> None:
    written = xml.to_xml(EXPECTED, SPEC, pretty=pretty)
    assert etree.fromstring(written).tag == "{http://hl7.org/fhir}Patient"
    assert codec.encode(xml.from_xml(written, SPEC)) == codec.encode(EXPECTED)
    assert (b"\n  <id" in written) is pretty


@pytest.mark.parametrize("text", ["1.00", "1e-7", "0.0000001", "1E2", "123456789012345678901234567890"])
def test_a_decimal_keeps_its_text_both_ways(text: str) -> None:
    source = f'<Observation xmlns="http://hl7.org/fhir"><valueQuantity><value value="{text}"/></valueQuantity></Observation>'.encode()
    res = xml.from_xml(source, SPEC)
    assert codec.encode(res) == f'{{"resourceType":"Observation","valueQuantity":{{"value":{text}}}}}'.encode()
    assert f'value="{text}"'.encode() in xml.to_xml(res, SPEC)


def test_line_ends_and_tabs_in_a_value_survive() -> None:
    res = {"resourceType": "Patient", "name": [{"text": "a\nb\tc\r\nd"}]}
    assert xml.from_xml(xml.to_xml(res, SPEC), SPEC) == res


def test_narrative_whose_prefix_is_declared_outside_is_written_anew() -> None:
    source = b'<Patient xmlns="http://hl7.org/fhir" xmlns:h="http://www.w3.org/1999/xhtml"><text><status value="generated"/><h:div>x<h:b>y</h:b></h:div></text></Patient>'
    div = etree.fromstring(xml.from_xml(source, SPEC)["text"]["div"])
    assert div.tag == "{http://www.w3.org/1999/xhtml}div"


HEAD = b'<Patient xmlns="http://hl7.org/fhir">'
HOSTILE = {
    "empty": (b"", 400),
    "not closed": (HEAD, 400),
    "two roots": (HEAD + b"</Patient><x/>", 400),
    "no namespace": (b"<Patient/>", 400),
    "unknown type": (b'<Nonsense xmlns="http://hl7.org/fhir"/>', 400),
    "unknown element": (HEAD + b'<nonsense value="x"/></Patient>', 400),
    "unknown attribute": (HEAD + b'<active value="true" evil="x"/></Patient>', 400),
    "text": (HEAD + b"hello</Patient>", 400),
    "repeated single": (HEAD + b'<active value="true"/><active value="false"/></Patient>', 400),
    "doctype": (b"<!DOCTYPE x []>" + HEAD + b"</Patient>", 400),
    "entity": (b"<!DOCTYPE x [<!ENTITY e 'v'>]>" + HEAD + b"<id value='&e;'/></Patient>", 400),
    "undeclared entity": (HEAD + b"<text><status value='generated'/><div xmlns='http://www.w3.org/1999/xhtml'>&nbsp;</div></text></Patient>", 400),
    "deep": (HEAD + b"<contact>" * 5000 + b"</contact>" * 5000 + b"</Patient>", 413),
    "not UTF-8": (HEAD + b"<id value='\xff'/></Patient>", 400),
    "UTF-16": ("<?xml version='1.0' encoding='UTF-16'?><Patient xmlns='http://hl7.org/fhir'/>".encode("utf-16"), 400),
    "contained without resource": (HEAD + b"<contained/></Patient>", 400),
    "huge number": (b'<Observation xmlns="http://hl7.org/fhir"><valueQuantity><value value="1e99999999"/></valueQuantity></Observation>', 400),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_not_fhir_xml_is_refused(name: str) -> None:
    data, status = HOSTILE[name]
    with pytest.raises(Refusal) as caught:
        xml.from_xml(data, SPEC)
    assert caught.value.status == status


def test_what_xml_cannot_say_is_406() -> None:
    for res in ({"resourceType": "Patient", "nonsense": 1}, {"resourceType": "Patient", "name": [{"text": "\x01"}]}, {"resourceType": "Nonsense"}):
        with pytest.raises(Refusal) as caught:
            xml.to_xml(res, SPEC)
        assert caught.value.status == 406


def test_broken_narrative_cannot_break_out_of_its_element() -> None:
    res = {"resourceType": "Patient", "text": {"status": "generated", "div": "</text><id value='evil'/>"}}
    assert "id" not in xml.from_xml(xml.to_xml(res, SPEC), SPEC)


@pytest.mark.slow
def test_every_r4_example_comes_back_equal_through_xml() -> None:
    unequal = []
    with tarfile.open(npm_package("hl7.fhir.r4.examples@4.0.1")) as archive:
        for member in archive:
            if not member.name.endswith(".json") or member.name.endswith(("package.json", ".index.json")):
                continue
            stream = archive.extractfile(member)
            assert stream is not None
            res = codec.decode(stream.read())
            back = xml.from_xml(xml.to_xml(res, SPEC), SPEC)
            if _text(back) != _text(res):
                unequal.append(member.name)
    assert not unequal


def _text(value: object) -> str:
    return json.dumps(json.loads(codec.encode(value), parse_float=lambda number: f"number {number}"), sort_keys=True)
