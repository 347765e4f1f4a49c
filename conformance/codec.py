"""JSON bytes <-> dict with exact decimals: the only JSON codec of the exchange.

https://hl7.org/fhir/R4/json.html#primitive: a decimal's precision is significant, so `1.00` comes back as `1.00`; and as spelt: `1e-7` stays
`1e-7`. Decoding is msgspec's; what it does not see (duplicate keys, depth, numbers MongoDB cannot hold) is found by one walk over the result.
"""

import json
import re
from decimal import Decimal
from typing import Any, NoReturn, Self

import msgspec

from conformance.outcome import Refusal, bad_request, refuse, too_large

MAX_DEPTH = 64
DIGITS, EXPONENT_LOW, EXPONENT_HIGH = 34, -6176, 6111  # IEEE 754 decimal128
INT64 = 2**63
_PLACE = re.compile(r"\(byte (\d+)\)")
_SPACED_COLONS = (b'" :', b'"\t:', b'"\n:', b'"\r:')


class Spelt(Decimal):
    """A decimal whose text as sent differs from Python's own spelling of the value (`1e-7`, `1E2`); `text` is what goes out again."""

    text: str

    def __new__(cls, text: str) -> Self:
        """From the text as sent."""
        made = super().__new__(cls, text)
        made.text = text
        return made


def _number(text: str) -> Decimal:
    value = Decimal(text)
    return value if str(value) == text else Spelt(text)


def _raw(value: Any) -> Any:
    if isinstance(value, Spelt):
        return msgspec.Raw(value.text.encode())
    raise TypeError(f"{type(value).__name__} is not JSON")


_decode = msgspec.json.Decoder(float_hook=_number).decode
encode = msgspec.json.Encoder(decimal_format="number", enc_hook=_raw).encode
"""Any JSON value as compact UTF-8 bytes. Raises TypeError for what is not JSON."""


def encode_pretty(value: Any) -> bytes:
    """Any JSON value as bytes, indented by two blanks."""
    return msgspec.json.format(encode(value), indent=2)


def decode(data: bytes, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """A JSON object. Raises Refusal 400 (malformed, with line and column; duplicate key; not an object) or 413 (nesting)."""
    value = decode_value(data, max_depth)
    if not isinstance(value, dict):
        raise bad_request("the body must be one JSON object")
    return value


def decode_value(data: bytes, max_depth: int = MAX_DEPTH) -> Any:
    """Any JSON value; refusals as in `decode`."""
    try:
        value = _decode(data)
    except UnicodeDecodeError as error:
        raise _malformed(data, _bad_byte(data), "the text is not valid UTF-8") from error
    except msgspec.DecodeError as error:
        raise _explain(data, str(error)) from error
    except RecursionError as error:
        raise too_large(f"the body is nested deeper than {max_depth}") from error
    keys = _walk(value, max_depth, "")
    if keys != data.count(b'":') or any(spaced in data for spaced in _SPACED_COLONS):
        _refuse_duplicates(data)
    return value


def _walk(value: Any, depth: int, place: str) -> int:
    """Count the keys below `value`. Raises Refusal for nesting beyond `depth` and for numbers that cannot be stored."""
    if depth < 0:
        raise too_large("the body is nested too deeply")
    keys = 0
    if type(value) is dict:
        keys = len(value)
        for name, inner in value.items():
            kind = type(inner)
            if kind is str or kind is bool:
                continue
            if kind is dict or kind is list:
                keys += _walk(inner, depth - 1, name)
            else:
                _storable(inner, name)
    elif type(value) is list:
        for inner in value:
            kind = type(inner)
            if kind is dict or kind is list:
                keys += _walk(inner, depth - 1, place)
            elif kind is not str:
                _storable(inner, place)
    return keys


def _storable(value: Any, name: str) -> None:
    """A number must fit Decimal128 (34 digits), or int64: what the database cannot hold exactly is refused by the name of its element."""
    if isinstance(value, Decimal):
        _, digits, exponent = value.as_tuple()
        if not isinstance(exponent, int) or len(digits) > DIGITS or exponent < EXPONENT_LOW or exponent > EXPONENT_HIGH - (DIGITS - len(digits)):
            raise refuse("value", f"the number in '{name}' has more than {DIGITS} digits or an exponent out of range", expression=name)
    elif isinstance(value, int) and not -INT64 <= value < INT64 and abs(value) >= 10**DIGITS:
        raise refuse("value", f"the number in '{name}' has more than {DIGITS} digits", expression=name)


def _explain(data: bytes, message: str) -> Refusal:
    found = _PLACE.search(message)
    if found:
        return _malformed(data, int(found.group(1)), message.split(" (byte")[0].removeprefix("JSON is malformed: "))
    if "out of range" in message:
        return refuse("value", "a number is out of the range that can be stored")
    return _malformed(data, len(data), "the text ends too early or holds a broken escape")


def _malformed(data: bytes, offset: int, why: str) -> Refusal:
    line = data.count(b"\n", 0, offset) + 1
    column = offset - (data.rfind(b"\n", 0, offset) + 1) + 1
    return refuse("structure", f"malformed JSON at line {line}, column {column}: {why}")


def _bad_byte(data: bytes) -> int:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _refuse_duplicates(data: bytes) -> None:
    """The exact, slow look, taken only where the count of keys leaves a doubt (RFC 8259 section 4: names should be unique)."""
    json.loads(data, object_pairs_hook=_unique, parse_float=str, parse_int=str, parse_constant=_constant)


def _unique(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise refuse("structure", "duplicate key in a JSON object" + (f": '{name}'" if name.isidentifier() and len(name) < 64 else ""))
        seen.add(name)


def _constant(text: str) -> NoReturn:
    raise bad_request(f"{text} is not a JSON value")
