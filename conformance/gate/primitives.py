"""Lexical forms of the primitive types, with the calendar. https://hl7.org/fhir/R4/datatypes.html#primitive

Each check is `value -> bool` on the value as the codec gives it: str, bool, int, Decimal. FORMS has one row a type.
"""

import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any

_YEAR = r"(?:[0-9](?:[0-9](?:[0-9][1-9]|[1-9]0)|[1-9]00)|[1-9]000)"
_DAY = r"(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31|02-29)"  # 02-29: leap years are looked at after
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?"
_ZONE = r"(?:Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))"

_TEXT = r"[^\x00-\x08\x0b\x0c\x0e-\x1f]"
_OID = r"[0-2](?:\.(?:0|[1-9][0-9]*))+"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

_date = re.compile(rf"{_YEAR}(?:-(?:{_DAY}|0[1-9]|1[0-2]))?").fullmatch
_datetime = re.compile(rf"{_YEAR}(?:-(?:{_DAY}(?:T{_CLOCK}{_ZONE})?|0[1-9]|1[0-2]))?").fullmatch
_instant = re.compile(rf"{_YEAR}-{_DAY}T{_CLOCK}{_ZONE}").fullmatch
_time = re.compile(_CLOCK).fullmatch
_id = re.compile(r"[A-Za-z0-9\-.]{1,64}").fullmatch
_code = re.compile(r"\S+(?:\s\S+)*", re.ASCII).fullmatch  # a no-break space is no white space in the published form
printable = str.isprintable  # quicker than a pattern; what is not printable may still be good (line ends), what is may be too long
MAX_STRING = 1024 * 1024  # characters, https://hl7.org/fhir/R4/datatypes.html#string
_string = re.compile(rf"{_TEXT}{{1,{MAX_STRING}}}").fullmatch
# urn:oid: and urn:uuid: in their own form; a canonical may add |version or #fragment to them
_uri = re.compile(rf"(?!urn:(?:oid|uuid):)\S+|urn:oid:{_OID}(?:[|#]\S+)?|urn:uuid:(?i:{_UUID})(?:[|#]\S+)?").fullmatch
_oid = re.compile(rf"urn:oid:{_OID}").fullmatch
_uuid = re.compile(rf"urn:uuid:{_UUID}").fullmatch
_FEBRUARY = "-02-29"
# the same but 29 February, so that no calendar is needed
_COMMON = _DAY.replace("|02-29", "")
_common_date = re.compile(rf"{_YEAR}(?:-(?:{_COMMON}|0[1-9]|1[0-2]))?").fullmatch
_common_datetime = re.compile(rf"{_YEAR}(?:-(?:{_COMMON}(?:T{_CLOCK}{_ZONE})?|0[1-9]|1[0-2]))?").fullmatch
_common_instant = re.compile(rf"{_YEAR}-{_COMMON}T{_CLOCK}{_ZONE}").fullmatch
_booleans = frozenset([True, False]).__contains__
_never = frozenset[str]().__contains__
# system and profile URIs come again and again: those found good are kept, up to a number
_GOOD_URIS: set[str] = set()
MAX_GOOD_URIS, MAX_KEPT_URI = 4096, 200
_blank = re.compile(r"\s+")


def _leap_day(text: str) -> bool:
    """True unless the text names 29 February of a common year."""
    if text[4:10] != _FEBRUARY:
        return True
    year = int(text[:4])
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def is_date(value: Any) -> bool:
    """YYYY, YYYY-MM or YYYY-MM-DD."""
    return type(value) is str and _date(value) is not None and _leap_day(value)


def is_datetime(value: Any) -> bool:
    """A date, or a date with time to the second and a zone."""
    return type(value) is str and _datetime(value) is not None and _leap_day(value)


def is_instant(value: Any) -> bool:
    """Date, time to the second and zone."""
    return type(value) is str and _instant(value) is not None and _leap_day(value)


def is_time(value: Any) -> bool:
    """hh:mm:ss, no zone."""
    return type(value) is str and _time(value) is not None


def is_string(value: Any) -> bool:
    """Not empty, no control characters but tab, line feed and carriage return, at most 1,048,576 characters."""
    return type(value) is str and _string(value) is not None


def is_code(value: Any) -> bool:
    """No blank at either end, single blanks inside."""
    return type(value) is str and _code(value) is not None


def is_id(value: Any) -> bool:
    """1 to 64 letters, digits, '-' and '.'."""
    return type(value) is str and _id(value) is not None


def is_uri(value: Any) -> bool:
    """Not empty, no white space; urn:oid: and urn:uuid: in their own form."""
    if type(value) is not str or _uri(value) is None:
        return False
    if len(_GOOD_URIS) < MAX_GOOD_URIS and len(value) <= MAX_KEPT_URI:
        _GOOD_URIS.add(value)
    return True


def is_oid(value: Any) -> bool:
    """urn:oid: and dotted numbers without leading zeros."""
    return type(value) is str and _oid(value) is not None


def is_uuid(value: Any) -> bool:
    """urn:uuid: and a lower-case UUID."""
    return type(value) is str and _uuid(value) is not None


def is_base64(value: Any) -> bool:
    """Base64 with padding; white space is allowed between groups."""
    if type(value) is not str or value == "":
        return False
    try:
        binascii.a2b_base64(_blank.sub("", value), strict_mode=True)
    except ValueError:
        return False
    return True


def is_boolean(value: Any) -> bool:
    """true or false, not a string."""
    return value is True or value is False


def is_integer(value: Any) -> bool:
    """A 32-bit signed whole number."""
    return type(value) is int and -2147483648 <= value <= 2147483647


def is_unsigned(value: Any) -> bool:
    """0 to 2,147,483,647."""
    return type(value) is int and 0 <= value <= 2147483647


def is_positive(value: Any) -> bool:
    """1 to 2,147,483,647."""
    return type(value) is int and 1 <= value <= 2147483647


def is_decimal(value: Any) -> bool:
    """A JSON number."""
    return type(value) is int or (isinstance(value, Decimal) and value.is_finite())


@dataclass(frozen=True, slots=True)
class Form:
    """A primitive type: its check, its JSON type, what its form is, for texts, and a quick test of values of the JSON type.

    quick: runs without a Python frame; what it lets through is good, what it does not is asked of `good`.
    """

    good: Callable[[Any], bool]
    json: type
    text: str
    quick: Callable[[Any], Any]


_STRING_TEXT = "text, not empty, without control characters, of at most 1,048,576 characters"

FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "base64Binary": Form(is_base64, str, "base64", _never),
        "boolean": Form(is_boolean, bool, "true or false", _booleans),
        "canonical": Form(is_uri, str, "a URL without white space", _GOOD_URIS.__contains__),
        "code": Form(is_code, str, "a code: not empty, no white space at the ends, single blanks inside", _code),
        "date": Form(is_date, str, "a date of the calendar: YYYY, YYYY-MM or YYYY-MM-DD", _common_date),
        "dateTime": Form(is_datetime, str, "a date of the calendar, or date and time with seconds and zone", _common_datetime),
        "decimal": Form(is_decimal, Decimal, "a number", Decimal.is_finite),
        "id": Form(is_id, str, "an id: 1 to 64 of A-Z a-z 0-9 - .", _id),
        "instant": Form(is_instant, str, "date and time with seconds and zone", _common_instant),
        "integer": Form(is_integer, int, "a whole number of 32 bits", range(-2147483648, 2147483648).__contains__),
        "markdown": Form(is_string, str, _STRING_TEXT, printable),
        "oid": Form(is_oid, str, "urn:oid: and an OID", _oid),
        "positiveInt": Form(is_positive, int, "a whole number from 1", range(1, 2147483648).__contains__),
        "string": Form(is_string, str, _STRING_TEXT, printable),
        "time": Form(is_time, str, "a time: hh:mm:ss without zone", _time),
        "unsignedInt": Form(is_unsigned, int, "a whole number from 0", range(2147483648).__contains__),
        "uri": Form(is_uri, str, "a URI without white space", _GOOD_URIS.__contains__),
        "url": Form(is_uri, str, "a URL without white space", _GOOD_URIS.__contains__),
        "uuid": Form(is_uuid, str, "urn:uuid: and a lower-case UUID", _uuid),
    }
)
"""Primitive type -> Form; xhtml is judged by `narrative`."""
