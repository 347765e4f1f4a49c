"""The JSON codec. https://hl7.org/fhir/R4/json.html, RFC 8259"""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance import codec
from conformance.outcome import Refusal


@pytest.mark.parametrize(
    "text", ["1.00", "1e-7", "0.0000001", "1E2", "-0.0", "1.5e+3", "123456789012345678901234567890.1234", "0.1", "100", "1E-400"]
)
def test_a_number_comes_back_as_it_was_spelt(text: str) -> None:
    assert codec.encode(codec.decode(b'{"v":' + text.encode() + b"}")) == b'{"v":' + text.encode() + b"}"


@pytest.mark.parametrize("text", ["1.2345678901234567890123456789012345", "1" * 35, "1e7000", "1e-7000", "1e999999999999999"])
def test_a_number_that_decimal128_cannot_hold_is_refused(text: str) -> None:
    with pytest.raises(Refusal) as caught:
        codec.decode(b'{"valueDecimal":' + text.encode() + b"}")
    assert caught.value.status == 400


HOSTILE = [
    b"",
    b"{",
    b"[]",
    b'"x"',
    b"null",
    b'{"a":1,}',
    b'{"a":01}',
    b'{"a":NaN}',
    b'{"a":Infinity}',
    b'{"a":1} x',
    b"\xef\xbb\xbf{}",
    b'{"a":"\xff"}',
    b'{"a":"\\ud800"}',
    b'{"a":"x\ny"}',
    b"{'a':1}",
    b'{"a":1,"a":2}',
    b'{"a" :1,"a":2}',
    b'{"a":{"b":1,"c":{"d":2,"d":3}}}',
    b'{"a":[{"b":1,"b":1}]}',
    b'{"a":1,"\\u0061":2}',
    b'{"x":"\\":","a":1,"a" :2}',
]


@pytest.mark.parametrize("data", HOSTILE)
def test_what_is_not_one_json_object_with_unique_keys_is_400(data: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        codec.decode(data)
    assert caught.value.status == 400


def test_the_place_is_named_and_the_content_is_not() -> None:
    with pytest.raises(Refusal) as caught:
        codec.decode(b'{"family": "Secret",\n  "x": ?}')
    assert "line 2, column 8" in str(caught.value)
    assert "Secret" not in str(caught.value)


@pytest.mark.parametrize("data", [b'{"a":' * 100 + b"1" + b"}" * 100, b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"])
def test_deep_nesting_is_413(data: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        codec.decode(data)
    assert caught.value.status == 413


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(st.dictionaries(st.text(), VALUES), st.sampled_from([None, 1]), st.sampled_from([(",", ":"), (" , ", " : ")]))
def test_any_json_with_unique_keys_is_read_like_the_standard_library_reads_it(value: dict, indent: int | None, separators: tuple[str, str]) -> None:
    data = json.dumps(value, indent=indent, separators=separators, ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert codec.decode(data) == value
    assert codec.decode(codec.encode(value)) == value
    assert codec.decode(codec.encode_pretty(value)) == value


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6))
def test_decimals_keep_value_and_precision(value: Decimal) -> None:
    if len(value.as_tuple().digits) <= codec.DIGITS:
        assert codec.decode(b'{"v":' + str(value).encode() + b"}")["v"].as_tuple() == value.as_tuple()
