"""JSON bytes <-> dict with exact decimals: the only JSON codec of the exchange.

https://hl7.org/fhir/R4/json.html#primitive: a decimal's precision is significant, so `1.00` comes back as `1.00`; and as spelt: `1e-7` stays
`1e-7`. Decoding is msgspec's; what it does not see (duplicate keys, depth, numbers MongoDB cannot hold, NUL) is found by one walk over the result
and a few searches of the bytes. A refusal gives line and column, or the path of the element, never a piece of the content.
"""

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn, Self

import msgspec

from conformance.outcome import Refusal, bad_request, refuse, too_large

MAX_DEPTH = 64
DIGITS, EXPONENT_LOW, EXPONENT_HIGH = 34, -6176, 6111  # IEEE 754 decimal128, which is what BSON holds
INT64 = 2**63
_PLACE = re.compile(r"\(byte (\d+)\)")
_LONE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]')
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9]{0,63}")
_MINUS_ZERO = re.compile(rb":[ \t\n\r]*-0[ \t\n\r]*[,}]")
_SPACED_KEY = re.compile(rb'"[ \t\n\r]+:')


class Spelt(Decimal):
    """A decimal whose text as sent differs from Python's own spelling of the value (`1e-7`, `1E2`); `text` is what goes out again."""

    text: str

    def __new__(cls, text: str) -> Self:
        """From the text as sent. Raises decimal.InvalidOperation if it is no number."""
        made = super().__new__(cls, text)
        made.text = text
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (Spelt, (self.text,))


class _Unstorable(Exception):
    """A number in the text does not fit Decimal128 (found inside msgspec's decoder, located afterwards)."""


def number(text: str) -> Decimal:
    """The exact decimal of a JSON number's text, with its spelling. Raises decimal.InvalidOperation if it is no number."""
    value = Decimal(text)
    return value if str(value) == text else Spelt(text)


def text_of(value: Decimal) -> str:
    """The spelling of a decimal: as sent, otherwise Python's."""
    return value.text if isinstance(value, Spelt) else str(value)


def fits(value: Decimal | int) -> bool:
    """True if Decimal128 (34 digits, exponent -6176..6111) holds this number exactly, precision included."""
    _, digits, exponent = Decimal(value).as_tuple()
    return isinstance(exponent, int) and len(digits) <= DIGITS and EXPONENT_LOW <= exponent <= EXPONENT_HIGH


def _hook(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation as error:  # an exponent beyond what any decimal library holds
        raise _Unstorable from error
    if (len(text) > DIGITS or not -6000 < value.adjusted() < 6000) and not fits(value):  # a short text in that range always fits
        raise _Unstorable
    return value if str(value) == text else Spelt(text)


def _raw(value: Any) -> Any:
    if isinstance(value, Spelt):
        return msgspec.Raw(value.text.encode())
    raise TypeError(f"{type(value).__name__} is not JSON")


_decode = msgspec.json.Decoder(float_hook=_hook).decode
encode = msgspec.json.Encoder(decimal_format="number", enc_hook=_raw).encode
"""Any JSON value as compact UTF-8 bytes. Raises TypeError for what is not JSON."""


Written = msgspec.Raw
"""A part of a value that is JSON bytes already: `encode` copies it, `read` gives the value."""


def read(value: Any) -> Any:
    """The value itself, or what was written of it."""
    return _decode(value) if type(value) is Written else value


def encode_pretty(value: Any) -> bytes:
    """Any JSON value as bytes, indented by two blanks."""
    return msgspec.json.format(encode(value), indent=2)


def decode(data: bytes, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """A JSON object. Raises Refusal 400 (malformed, with line and column; duplicate key; number that cannot be kept; not an object) or 413 (nesting)."""
    value = decode_value(data, max_depth)
    if not isinstance(value, dict):
        raise bad_request("the body must be one JSON object")
    return value


def decode_value(data: bytes, max_depth: int = MAX_DEPTH) -> Any:
    """Any JSON value; refusals as in `decode`."""
    try:
        value = _decode(data)
    except _Unstorable as error:
        raise _unstorable(data, max_depth) from error
    except UnicodeDecodeError as error:
        raise _malformed(data, _bad_byte(data), "the text is not valid UTF-8") from error
    except msgspec.DecodeError as error:
        raise _explain(data, str(error), max_depth) from error
    except RecursionError as error:
        raise _too_deep(max_depth) from error
    except ValueError as error:  # Python refuses integers of more than 4,300 digits
        raise _unstorable(data, max_depth) from error
    keys, wide, zero = _walk(value, max_depth)
    # each key is followed by `":` unless blanks come between; a text may hold `":` too, so equal counts prove that no key was lost
    if keys != data.count(b'":') or (_may_be_spaced(data) and _SPACED_KEY.search(data)):
        _refuse_duplicates(data)
    if b"\\" in data and b"\\u0000" in data:
        _refuse_nul(value, "")
    if zero and _MINUS_ZERO.search(data):
        value = json.loads(data.decode("utf-8"), parse_int=_signed, parse_float=_hook)
    return _widen(value, "") if wide else value


def _may_be_spaced(data: bytes) -> bool:
    """False if no colon follows a blank: told by quick searches, while the exact one costs as much as the decoding."""
    return b" :" in data or b"\n" in data or b"\r" in data or b"\t" in data


def _signed(text: str) -> int | Decimal:
    """A whole number; `-0`, which no int can tell from 0, as a decimal."""
    return Decimal(text) if text == "-0" else int(text)


def _walk(value: Any, limit: int) -> tuple[int, bool, bool]:
    """Level by level: the number of keys in `value`, whether an integer is beyond int64, whether one is 0. Raises Refusal for more than `limit` levels."""
    keys, depth, wide, zero = 0, 0, type(value) is int and not -INT64 <= value < INT64, type(value) is int and value == 0
    level = [value] if type(value) is dict or type(value) is list else []
    while level:
        if depth == limit:
            raise _too_deep(limit)
        depth += 1
        below: list[Any] = []
        for holder in level:
            if type(holder) is dict:
                keys += len(holder)
            for inner in holder.values() if type(holder) is dict else holder:
                kind = type(inner)
                if kind is str:
                    continue
                if kind is dict or kind is list:
                    below.append(inner)
                elif kind is int:
                    zero = zero or inner == 0
                    wide = wide or not -INT64 <= inner < INT64
        level = below
    return keys, wide, zero


def _widen(value: Any, place: str) -> Any:
    """The value with integers beyond int64 as decimals. Raises Refusal 400 for one of more than 34 digits."""
    if isinstance(value, dict):
        return {name: _widen(inner, f"{place}.{name}".removeprefix(".")) for name, inner in value.items()}
    if isinstance(value, list):
        return [_widen(inner, f"{place}[{at}]") for at, inner in enumerate(value)]
    if type(value) is not int or -INT64 <= value < INT64:
        return value
    if abs(value) >= 10**DIGITS:
        raise _does_not_fit(place)
    return Decimal(value)


def depth(value: Any) -> int:
    """How many levels of objects and arrays a value has; 0 for a text or number."""
    levels = 0
    level = [value]
    while level := [one for one in level if isinstance(one, dict | list)]:
        levels += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return levels


def _too_deep(limit: int) -> Refusal:
    return too_large(f"the body is nested deeper than {limit} levels")


def _does_not_fit(place: str) -> Refusal:
    where = f" in '{place}'" if place else ""
    return refuse(
        "value", f"the number{where} has more than {DIGITS} digits or an exponent out of range, and could not be kept exactly", expression=place
    )


def _unstorable(data: bytes, limit: int) -> Refusal:
    """The refusal that names the element whose number does not fit: a second, slower look."""
    try:
        value = json.loads(data.decode("utf-8"), parse_float=_hook_or_none, parse_int=_hook_or_none)
        return _does_not_fit(_place_of(value, lambda inner: inner is _MISFIT, ""))
    except RecursionError:
        return _too_deep(limit)
    except ValueError as error:  # msgspec stopped at the number; the text is broken after it
        return bad_request(f"the body holds a number of more than {DIGITS} digits, and is malformed after it ({type(error).__name__})")


class _Misfit:
    """Stands for the number that does not fit."""


_MISFIT = _Misfit()


def _hook_or_none(text: str) -> Any:
    if len(text) > 4000:
        return _MISFIT
    try:
        return 0 if fits(Decimal(text)) else _MISFIT
    except InvalidOperation:
        return _MISFIT


def _place_of(value: Any, wanted: Any, place: str) -> str:
    """Dotted path of the first value that `wanted` accepts, '' if none."""
    if wanted(value):
        return place
    if isinstance(value, dict):
        start = place or (value["resourceType"] if isinstance(value.get("resourceType"), str) else "")
        rows = [(f"{start}.{name}".removeprefix("."), inner) for name, inner in value.items() if _NAME.fullmatch(name)]
    else:
        rows = [(f"{place}[{at}]", inner) for at, inner in enumerate(value)] if isinstance(value, list) else []
    return next((found for name, inner in rows if (found := _place_of(inner, wanted, name))), "")


def _refuse_nul(value: Any, place: str) -> None:
    """NUL may stand in no FHIR string (https://hl7.org/fhir/R4/datatypes.html#string) and in no BSON key."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if "\0" in name:
                raise refuse("structure", "a key of the body holds the character NUL")
            _refuse_nul(inner, f"{place}.{name}" if place else name)
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            _refuse_nul(inner, f"{place}[{at}]")
    elif isinstance(value, str) and "\0" in value:
        raise refuse("value", f"the text in '{place}' holds the character NUL", expression=place)


def _explain(data: bytes, message: str, limit: int) -> Refusal:
    """msgspec's complaint as a refusal with line and column; where it knows no place, the standard library's parser finds it."""
    found = _PLACE.search(message)
    if data.startswith(b"\xef\xbb\xbf"):
        return _malformed(data, 0, "the text starts with a byte order mark")
    lone = _LONE.search(data)
    if lone and "surrogate" in message:
        return _malformed(data, lone.start(), "half of a surrogate pair stands alone")
    if found:
        return _malformed(
            data, int(found.group(1)) - ("trailing characters" in message), message.split(" (byte")[0].removeprefix("JSON is malformed: ")
        )
    if not data.strip():
        return bad_request("the body is empty")
    try:
        json.loads(data.decode("utf-8"), parse_int=str, parse_constant=_constant)
    except json.JSONDecodeError as error:
        return _malformed(
            data, len(data[: error.pos].decode("utf-8", "ignore").encode()) if error.pos < len(data) else len(data), "the text ends too early"
        )
    except RecursionError:
        return _too_deep(limit)
    except UnicodeDecodeError as error:
        return _malformed(data, error.start, "the text is not valid UTF-8")
    if lone:
        return _malformed(data, lone.start(), "half of a surrogate pair stands alone")
    return _unstorable(data, limit)


def _malformed(data: bytes, offset: int, why: str) -> Refusal:
    line = data.count(b"\n", 0, offset) + 1
    start = data.rfind(b"\n", 0, offset) + 1
    column = len(data[start:offset].decode("utf-8", "replace")) + 1
    return refuse("structure", f"malformed JSON at line {line}, column {column}: {why}")


def _bad_byte(data: bytes) -> int:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return 0


class _Duplicate(Exception):
    """Some object of the text has a key twice."""


def _refuse_duplicates(data: bytes) -> None:
    """The exact, slow look, taken only where the count of keys leaves a doubt (RFC 8259 section 4: names should be unique)."""
    text = data.decode("utf-8")
    try:
        json.loads(text, object_pairs_hook=_unique, parse_float=str, parse_int=str, parse_constant=_constant)
    except _Duplicate as error:
        raise _malformed(data, _second_key(text), "an object has the same key twice") from error


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise _Duplicate


def _second_key(text: str) -> int:
    """Byte offset of the first key that repeats one of its object."""
    open_keys: list[set[str]] = []
    last: re.Match[str] | None = None
    for token in _TOKENS.finditer(text):
        sign = token.group()
        if sign in "{[":
            open_keys.append(set())
        elif sign in "}]":
            open_keys.pop()
        elif sign == ":" and last is not None:
            name = json.loads(last.group())
            if name in open_keys[-1]:
                return len(text[: last.start()].encode())
            open_keys[-1].add(name)
        last = token if sign[0] == '"' else None
    return 0


def _constant(text: str) -> NoReturn:
    raise bad_request(f"{text} is not a JSON value")
