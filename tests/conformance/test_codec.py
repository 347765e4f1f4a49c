"""The JSON codec: exact decimals, unique keys, limits, places of errors. https://hl7.org/fhir/R4/json.html"""

import json
from copy import deepcopy
from decimal import Decimal

import pytest
from bson import Decimal128
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance import codec
from conformance.outcome import Refusal

SPELLINGS = [
    "1.00",
    "1e-7",
    "1E2",
    "1E+2",
    "0.0000001",
    "123456789012345678901234567890",
    "0.123456789012345678901234567890",
    "-0.0",
    "-1.50e+03",
    "0e0",
    "100",
]


@pytest.mark.parametrize("text", SPELLINGS)
def test_a_number_goes_out_as_it_came_in(text: str) -> None:
    body = b'{"value":' + text.encode() + b"}"
    value = codec.decode(body)
    assert codec.encode(value) == body
    assert codec.encode(deepcopy(value)) == body


@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=None).filter(
        lambda d: len(d.as_tuple().digits) <= 34 and -6176 <= int(d.as_tuple().exponent) <= 6111
    )
)
def test_every_decimal_that_is_accepted_fits_the_database(value: Decimal) -> None:
    assert codec.fits(value)
    assert Decimal128(value).to_decimal().as_tuple() == value.as_tuple()


@pytest.mark.parametrize("text", ["1" * 35, "0." + "1" * 35, "1e6112", "1e-6177", "1e99999999", "1e" + "9" * 30, "9" * 5000, "-" + "9" * 36])
def test_a_number_that_decimal128_cannot_hold_is_refused_by_the_name_of_its_element(text: str) -> None:
    body = '{"resourceType":"Observation","component":[{"valueQuantity":{"value":' + text + "}}]}"
    with pytest.raises(Refusal) as caught:
        codec.decode(body.encode())
    assert caught.value.status == 400
    assert "value" in caught.value.issues[0].expression
    assert text[:20] not in str(caught.value)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(
    JSON_VALUES,
    st.sampled_from([None, 0, 2]),
    st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : "), (",", "\t:"), (",", "\n\n:")]),
    st.booleans(),
)
@settings(max_examples=300)
def test_it_agrees_with_the_standard_library(value: object, indent: int | None, separators: tuple[str, str], ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, separators=separators, ensure_ascii=ascii_only)
    assert codec.decode_value(text.encode()) == value
    assert json.loads(codec.encode(codec.decode_value(text.encode()))) == value


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":2}',
        b'{"a" :1,"a" :2}',
        b'{"a"  :1, "a":2}',
        b'{"a"\n:1,"a"\t:2}',
        b'{"x":"\\":","a":1,"\\u0061":2}',
        b'{"x":[{"y":{"":1,"":2}}]}',
        b'{"a":{"b":1},"c":"\\":\\":","a":{"b":1}}',
    ],
)
def test_a_duplicate_key_is_refused_with_its_place(body: bytes) -> None:
    with pytest.raises(Refusal, match=r"line [12], column .*same key twice"):
        codec.decode(body)


@given(st.lists(st.sampled_from(["a", "b", '":', ":", "a\\", " :"]), min_size=1, max_size=5), st.sampled_from([":", " :", "\n:", "  : "]))
def test_keys_and_texts_that_look_like_keys_do_not_confuse_the_count(names: list[str], colon: str) -> None:
    body = "{" + ",".join(json.dumps(name) + colon + json.dumps(name) for name in names) + "}"
    if len(set(names)) == len(names):
        assert list(codec.decode(body.encode())) == names
    else:
        with pytest.raises(Refusal):
            codec.decode(body.encode())


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (b'{"a":1,}', "line 1, column 8"),
        (b'{\n  "a": tru\n}', "line 3, column 1"),
        (b'{"a":"\xff"}', "line 1, column 7"),
        ('{"ä":"\n"}'.encode(), "line 1, column 7"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"a":"\\udc00\\ud800"}', "surrogate"),
        (b'{"a":NaN}', "line 1, column 6"),
        (b'{"a":-Infinity}', "line 1, column 7"),
        (b"{} {}", "line 1, column 4"),
        (b'{"a":"x', "ends too early"),
        (b"\xff\xfe{\x00}\x00", "line 1, column 1"),
        (b"", "empty"),
        (b"   ", "empty"),
        (b'{"a":"\\u0000"}', "NUL"),
        (b'{"a\\u0000":1}', "NUL"),
        (b'{"a":"\x00"}', "line 1, column 7"),
        (b"[]", "one JSON object"),
        (b"1e5", "one JSON object"),
    ],
)
def test_broken_text_is_refused_with_its_place(body: bytes, place: str) -> None:
    with pytest.raises(Refusal, match=place) as caught:
        codec.decode(body)
    assert caught.value.status == 400


def test_a_refusal_never_repeats_content() -> None:
    for body in (
        b'{"family":"Chalmers","family":"Chalmers"}',
        b'{"family":"Chalmers"',
        b'{"family":"Chalmers\x01"}',
        b'{"Chalmers":1,"Chalmers":1}',
        b'{"a":"Chalmers\\u0000"}',
    ):
        with pytest.raises(Refusal) as caught:
            codec.decode(body)
        assert "Chalmers" not in str(caught.value)


@pytest.mark.parametrize("pair", [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_beyond_the_limit_is_413(pair: tuple[bytes, bytes]) -> None:
    start, end = pair
    inner = b"{}" if start == b"[" else b"1"
    assert codec.decode_value(start * 63 + inner + end * 63) is not None
    for depth in (65, 900, 100_000):
        with pytest.raises(Refusal) as caught:
            codec.decode_value(start * depth + inner + end * depth)
        assert caught.value.status == 413


def test_nesting_around_a_number_that_does_not_fit_is_no_crash() -> None:
    for depth in (100, 400, 900):
        for number in (b"1e99999", b"9" * 5000):
            with pytest.raises(Refusal) as caught:
                codec.decode_value(b"[" * depth + number + b"]" * depth)
            assert caught.value.status in (400, 413)


def test_depth_counts_levels() -> None:
    assert [codec.depth(value) for value in (1, {}, [], [[1], {"a": {"b": []}}])] == [0, 1, 1, 4]


def test_integers_beyond_int64_become_decimals() -> None:
    value = codec.decode(b'{"a":9223372036854775807,"b":9223372036854775808,"c":[-9223372036854775809]}')
    assert value == {"a": 2**63 - 1, "b": Decimal(2**63), "c": [Decimal(-(2**63) - 1)]}
    assert type(value["a"]) is int
    assert type(value["b"]) is Decimal
    assert codec.encode(value) == b'{"a":9223372036854775807,"b":9223372036854775808,"c":[-9223372036854775809]}'


def test_pretty_is_the_same_value_on_more_lines() -> None:
    value = codec.decode(b'{"a":[1.00,{"b":"c"}]}')
    assert codec.encode_pretty(value) == b'{\n  "a": [\n    1.00,\n    {\n      "b": "c"\n    }\n  ]\n}'


@pytest.mark.parametrize("text", ["-0", "-0.0", "-0.00", "-0e1", "0", "0.0"])
def test_a_negative_zero_keeps_its_sign(text: str) -> None:
    for body in (f'{{"a":{text},"b":":-0,"}}', f'{{"b":":-0,","a":{text}}}'):
        assert codec.encode(codec.decode(body.encode())) == body.encode()
    for spaced in (f'{{"a" : {text}\n}}', f'{{"a":\n\t{text} }}'):
        assert codec.encode(codec.decode(spaced.encode())) == f'{{"a":{text}}}'.encode()
