"""Lexical forms of primitives (https://hl7.org/fhir/R4/datatypes.html#primitive) and the safe subset of narrative."""

from decimal import Decimal

import pytest

from conformance.gate.blank import blanks
from conformance.gate.narrative import problems
from conformance.gate.primitives import FORMS, MAX_STRING
from conformance.spec import load_spec
from conformance.validate import checker

GOOD = {
    "base64Binary": ["YQ==", "YWI=", "YWJj", "YWJj\nYWJj"],
    "boolean": [True, False],
    "canonical": ["http://x/y|1.0", "urn:oid:1.2.3|4.0.1", "#here"],
    "code": ["a", "a b", "a-b", "é"],
    "date": ["2020", "2020-02", "2020-02-29", "1900-02-28", "2000-02-29", "0001-01-01", "9999-12-31"],
    "dateTime": [
        "2020",
        "2020-01-01",
        "2020-01-01T00:00:00Z",
        "2020-01-01T23:59:60Z",
        "2020-02-29T10:00:00.123456+14:00",
        "2020-01-01T00:00:00-13:59",
    ],
    "decimal": [1, 0, -5, Decimal("1.50"), Decimal("-0.0000001"), Decimal("1E+2")],
    "id": ["a", "A-1.b", "x" * 64],
    "instant": ["2020-01-01T00:00:00Z", "2020-01-01T00:00:00.1+01:00", "2020-02-29T00:00:00Z"],
    "integer": [0, -2147483648, 2147483647],
    "markdown": ["a", "# x\n\n* y\t"],
    "oid": ["urn:oid:1.2.840.0", "urn:oid:2.0"],
    "positiveInt": [1, 2147483647],
    "string": ["a", " a ", "line\r\nline\t", "\u00a0x", "😀"],
    "time": ["00:00:00", "23:59:59.999", "12:00:60"],
    "unsignedInt": [0, 2147483647],
    "uri": [
        "http://x",
        "urn:oid:1.2",
        "urn:uuid:53fefa32-fcbb-4ff8-8a92-55ee120877b7",
        "urn:uuid:53FEFA32-FCBB-4FF8-8A92-55EE120877B7",
        "x",
        "mailto:a@b",
    ],
    "url": ["http://x", "ftp://y"],
    "uuid": ["urn:uuid:53fefa32-fcbb-4ff8-8a92-55ee120877b7"],
}
BAD = {
    "base64Binary": ["", "Y", "YQ=", "YQ===", "Y*==", "YQ==YQ==", 1],
    "boolean": ["true", 1, 0, None],
    "canonical": ["", "a b", "urn:oid:x|1"],
    "code": ["", " a", "a ", "a  b", "a\n\nb", 1],
    "date": [
        "",
        "20",
        "2020-1",
        "2020-13",
        "2020-00",
        "2020-04-31",
        "2021-02-29",
        "1900-02-29",
        "0000-01-01",
        "2020-01-01T00:00:00Z",
        "2020-01-01 ",
        2020,
    ],
    "dateTime": [
        "2020-01-01T00:00Z",
        "2020-01-01T00:00:00",
        "2020-01-01T24:00:00Z",
        "2020-01-01T00:00:00+15:00",
        "2020-01-01t00:00:00z",
        "2021-02-29T00:00:00Z",
    ],
    "decimal": ["1.5", True, None, Decimal("NaN"), Decimal("Infinity")],
    "id": ["", "a b", "a_b", "x" * 65, "a/b", "é", 1],
    "instant": ["2020-01-01", "2020-01-01T00:00:00", "2020-01", "2020-01-01T00:00:00.Z"],
    "integer": [2147483648, -2147483649, Decimal("1.0"), "1", True],
    "markdown": ["", "\x00"],
    "oid": ["1.2.3", "urn:oid:3.1", "urn:oid:1.02", "urn:oid:1"],
    "positiveInt": [0, -1, 2147483648],
    "string": ["", "a\x00", "a\x1f", 1],
    "time": ["24:00:00", "12:00", "12:00:00Z", "1:00:00"],
    "unsignedInt": [-1, 2147483648],
    "uri": ["", "a b", " http://x", "urn:oid:x", "urn:uuid:1", "a\u00a0b"],
    "url": ["", "a b"],
    "uuid": ["urn:uuid:53FEFA32-FCBB-4FF8-8A92-55EE120877B7", "53fefa32-fcbb-4ff8-8a92-55ee120877b7"],
}


def accepted(name, value):
    form = FORMS[name]
    return (type(value) is form.json and bool(value) and bool(form.quick(value))) or form.good(value)


@pytest.mark.parametrize("name", sorted(FORMS))
def test_the_forms_of_a_primitive(name):
    assert [value for value in GOOD[name] if not accepted(name, value)] == []
    assert [value for value in BAD[name] if accepted(name, value)] == []
    assert [value for value in BAD[name] if accepted(name, value)] == []  # what was accepted once is not remembered wrongly


def div(inner):
    return f'<div xmlns="http://www.w3.org/1999/xhtml">{inner}</div>'


SAFE = [
    "text",
    "<p>a</p>",
    "<p class='x'>a</p>",
    '<p class="x">a &amp; b</p>',
    "<p>&nbsp;&copy; x</p>",
    '<table border="1"><tr><td colspan="2">a</td></tr></table>',
    '<img src="data:image/png;base64,AA==" alt="x"/>',
    '<img src="#pic"/>',
    '<a href="http://x/y">a</a>',
    '<a href="Patient/1">a</a>',
    '<a name="x"/>text',
    '<p style="color: red">a</p>',
    "<p>a<br/>b</p>",
    "<!-- note --><p>a</p>",
    "<p>1 &lt; 2</p>",
    "é 日本",
]
UNSAFE = [
    "<script>x()</script>",
    "<p onclick='x()'>a</p>",
    "<p ONCLICK='x()'>a</p>",
    '<a href="javascript:x()">a</a>',
    '<a href=" java\nscript:x()">a</a>',
    '<a href="&#106;avascript:x()">a</a>',
    '<a href="vbscript:x">a</a>',
    '<a href="data:text/html,x">a</a>',
    '<img src="data:text/html,x"/>',
    '<p style="width: expression(x())">a</p>',
    '<p style="background: url(javascript:x())">a</p>',
    "<style>p {}</style>a",
    '<link rel="stylesheet" href="x"/>a',
    "<iframe src='x'/>a",
    "<object data='x'/>a",
    "<form action='x'>a</form>",
    "<input type='text'/>a",
    "<svg xmlns='http://www.w3.org/2000/svg'><script>x</script></svg>a",
    "<x:p xmlns:x='urn:x'>a</x:p>",
    "<p>a",
    "<p>a</b>",
    "<p>a</p></div><div>b",
    "<p a='1' a='2'>x</p>",
    '<p class="x" class="y">x</p>',
    "&unknown;",
    "a & b",
    "a ]]> b",
    "<![CDATA[<script>]]>",
    "<?php x ?>a",
    "",
    "  \n ",
    "<p> </p>",
    "a\x0bb",
]


@pytest.mark.parametrize("inner", SAFE)
def test_narrative_that_is_safe(inner):
    assert list(problems(div(inner))) == []


@pytest.mark.parametrize("inner", UNSAFE)
def test_narrative_that_is_not(inner):
    assert list(problems(div(inner))) != []


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        "",
        "text",
        "<div>a</div>",
        '<p xmlns="http://www.w3.org/1999/xhtml">a</p>',
        '<!DOCTYPE div [<!ENTITY x "y">]>' + div("&x;"),
        '<div xmlns="http://www.w3.org/1999/xhtml">a',
        div("a") + "b",
        div("a") + div("b"),
    ],
)
def test_what_is_no_div_of_xhtml(value):
    assert list(problems(value)) != []


@pytest.mark.parametrize("code", ["string", "markdown"])
def test_strings_shall_not_exceed_1_mib(code: str) -> None:
    """https://hl7.org/fhir/R4/datatypes.html#string, counted in characters."""
    assert FORMS[code].good("é" * MAX_STRING)
    assert not FORMS[code].good("x" * (MAX_STRING + 1))


def test_the_gate_refuses_longer_strings_wherever_they_stand() -> None:
    long = "x" * (MAX_STRING + 1)
    check = checker(load_spec(), "Patient")
    for res in ({"name": [{"family": long}]}, {"name": [{"given": ["a", long]}]}, {"extension": [{"url": "http://e", "valueString": long}]}):
        assert [issue.code for issue in check({"resourceType": "Patient", **res}) if issue.severity == "error"] == ["value"]
    data = {"resourceType": "Binary", "contentType": "text/plain", "data": "YWJj" * (MAX_STRING // 4 + 1)}
    assert not checker(load_spec(), "Binary", warnings=False)(data)


def test_strings_should_hold_more_than_white_space() -> None:
    res = {"resourceType": "Patient", "name": [{"family": " \t", "given": ["a", "\u00a0"]}]}
    assert sorted((issue.severity, issue.expression) for issue in blanks(res)) == [
        ("warning", "Patient.name[0].family"),
        ("warning", "Patient.name[0].given[1]"),
    ]
    assert not checker(load_spec(), "Patient", warnings=False)(res)
