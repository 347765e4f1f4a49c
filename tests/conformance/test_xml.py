"""XML <-> JSON dict. https://hl7.org/fhir/R4/xml.html"""

import re
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
from lxml import etree

from conformance import codec
from conformance.codec import text_of
from conformance.outcome import Refusal
from conformance.spec import load_spec
from conformance.xml import from_xml, to_xml
from tests.conformance.examples import examples

SPEC = load_spec()
NS = 'xmlns="http://hl7.org/fhir"'


def told(value: Any) -> Any:
    """The value with decimals as text and narratives in canonical XML."""
    if isinstance(value, dict):
        return {name: etree.canonicalize(_named(inner)) if name == "div" else told(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [told(inner) for inner in value]
    return f"decimal {text_of(value)}" if isinstance(value, Decimal) else value


def _named(div: str) -> str:
    return re.sub("&(?!amp;|lt;|gt;|quot;|apos;)[A-Za-z]+;", lambda found: unescape(found.group()), div)


def check_round_trip(res: dict[str, Any], *forms: bool) -> None:
    for pretty in forms:
        assert told(from_xml(to_xml(res, SPEC, pretty), SPEC, 100)) == told(res), res.get("id")


def test_examples_come_back_equal_through_xml() -> None:
    for res in examples(60):
        if len(codec.encode(res)) < 500_000:
            check_round_trip(res, False, True)


def test_an_element_may_be_called_resource_type() -> None:
    check_round_trip({"resourceType": "ExampleScenario", "status": "draft", "instance": [{"resourceId": "a", "resourceType": "Patient"}]}, False)


@pytest.mark.slow
def test_every_example_comes_back_equal_through_xml() -> None:
    broken = []
    for res in examples():
        try:
            check_round_trip(res, False)
        except (AssertionError, Refusal) as error:
            broken.append((res["resourceType"], res.get("id"), str(error)[:200]))
    assert broken == []


def test_elements_are_told_in_the_order_of_the_standard_with_ids_and_extensions_of_primitives() -> None:
    res = codec.decode(
        b"""{"resourceType":"Patient","name":[{"id":"n","given":["A",null,"C"],"_given":[null,{"extension":[{"url":"u","valueCode":"masked"}]},{"id":"g"}],"family":"F"}],
        "contained":[{"resourceType":"Organization","id":"o"}],"_birthDate":{"extension":[{"url":"x","valueDecimal":1.00}]},"active":true,"id":"1",
        "text":{"status":"generated","div":"<div xmlns=\\"http://www.w3.org/1999/xhtml\\">a &amp; <b>b</b>&nbsp;<!-- c --></div>"},"gender":"a\\"<&\\n"}"""
    )
    text = to_xml(res, SPEC).decode()
    assert text == (
        '<?xml version="1.0" encoding="UTF-8"?><Patient xmlns="http://hl7.org/fhir"><id value="1"/><text><status value="generated"/>'
        '<div xmlns="http://www.w3.org/1999/xhtml">a &amp; <b>b</b>\u00a0<!-- c --></div></text><contained><Organization><id value="o"/></Organization></contained>'
        '<active value="true"/><name id="n"><family value="F"/><given value="A"/><given><extension url="u"><valueCode value="masked"/></extension></given>'
        '<given id="g" value="C"/></name><gender value="a&quot;&lt;&amp;&#10;"/><birthDate><extension url="x"><valueDecimal value="1.00"/></extension></birthDate></Patient>'
    )
    again = from_xml(text.encode(), SPEC)
    assert again["name"] == res["name"]
    assert again["gender"] == res["gender"]
    assert codec.encode(again["_birthDate"]) == b'{"extension":[{"url":"x","valueDecimal":1.00}]}'


@pytest.mark.parametrize("text", ["1e-7", "1E2", "0.0000001", "1.00", "-0.0", "123456789012345678901234567890.1234"])
def test_decimals_keep_their_text(text: str) -> None:
    body = f'<Observation {NS}><valueQuantity><value value="{text}"/></valueQuantity></Observation>'.encode()
    res = from_xml(body, SPEC)
    assert codec.encode(res) == f'{{"resourceType":"Observation","valueQuantity":{{"value":{text}}}}}'.encode()
    assert body in to_xml(res, SPEC)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (f'<!DOCTYPE Patient [<!ENTITY x "y">]><Patient {NS}><id value="&x;"/></Patient>', 400),
        (f'<!DOCTYPE Patient SYSTEM "file:///etc/passwd"><Patient {NS}/>', 400),
        (f'<Patient {NS}><id value="&x;"/></Patient>', 400),
        (f'<Patient {NS}><birthDate value="2020"/><birthDate value="2021"/></Patient>', 400),
        (f"<Patient {NS}><hobby/></Patient>", 400),
        (f'<Patient {NS}><active value="yes"/></Patient>', 400),
        (f"<Patient {NS}>Chalmers</Patient>", 400),
        (f'<Patient {NS}><name>Chalmers<family value="x"/></name></Patient>', 400),
        (f'<Patient {NS}><name surname="Chalmers"/></Patient>', 400),
        (f'<Patient {NS}><resourceType value="Patient"/></Patient>', 400),
        (f'<Patient {NS}><contact><extension url="a"><extension url="b"><valueFoo value="1"/></extension></extension></contact></Patient>', 400),
        (f'<Observation {NS}><valueQuantity><value value="1e99999999999999999999"/></valueQuantity></Observation>', 400),
        (f'<Observation {NS}><valueQuantity><value value="NaN"/></valueQuantity></Observation>', 400),
        (f'<Observation {NS}><valueInteger value="1.0"/></Observation>', 400),
        (f"<Patient {NS}><active/></Patient>", 400),
        (f"<Patient {NS}><name><given/></name></Patient>", 400),
        (f'<Patient {NS}><multipleBirthInteger value="01"/></Patient>', 400),
        (f'<Observation {NS}><valueInteger value="-0"/></Observation>', 400),
        (f"<Attachment {NS}/>", 400),
        ('<Patient xmlns="urn:other"/>', 400),
        ("<Patient/>", 400),
        (f"<Patient {NS}>", 400),
        ("", 400),
        ("Chalmers", 400),
        ('<?xml version="1.0" encoding="ISO-8859-1"?><Patient xmlns="http://hl7.org/fhir"/>', 400),
        (f"<Patient {NS}>" + "<extension url='a'>" * 70 + "</extension>" * 70 + "</Patient>", 413),
        (f"<Bundle {NS}><entry><resource/></entry></Bundle>", 400),
        (f"<Bundle {NS}><entry><resource><Patient/><Patient/></resource></entry></Bundle>", 400),
    ],
)
def test_what_is_no_resource_is_refused_without_repeating_it(body: str, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        from_xml(body.encode(), SPEC)
    assert caught.value.status == status
    assert "Chalmers" not in str(caught.value)


def test_other_encodings_are_refused() -> None:
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        with pytest.raises(Refusal):
            from_xml(f"<Patient {NS}/>".encode(encoding), SPEC)
    assert from_xml(b"\xef\xbb\xbf" + f"<Patient {NS}/>".encode(), SPEC) == {"resourceType": "Patient"}


@pytest.mark.parametrize(
    "res",
    [
        {"resourceType": "Patient", "hobby": "x"},
        {"resourceType": "Person1"},
        {"resourceType": "Patient", "name": ["x"]},
        {"resourceType": "Patient", "birthDate": {"value": "2020"}},
        {"resourceType": "Patient", "_birthDate": "x"},
        {"resourceType": "Patient", "contained": ["x"]},
        {"resourceType": "Patient", "_birthDate": {"extension": [5]}},
        {"resourceType": "Patient", "gender": "\x0b"},
        {"resourceType": "Patient", "text": {"status": "generated", "div": "<div>"}},
        {"resourceType": "Patient", "text": {"status": "generated", "div": '<!DOCTYPE div [<!ENTITY a "b">]><div>&a;</div>'}},
        {"resourceType": "Patient", "text": {"status": "generated", "div": "<p/>"}},
    ],
)
def test_what_xml_cannot_tell_is_refused(res: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        to_xml(res, SPEC)
    assert caught.value.status == 406


def test_large_texts_are_read() -> None:
    data = "QUJD" * 4_000_000
    assert from_xml(f'<Binary {NS}><contentType value="a/b"/><data value="{data}"/></Binary>'.encode(), SPEC)["data"] == data
