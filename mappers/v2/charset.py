"""Bytes of a message to text: by byte order mark, by MSH-18 (table 0211), by a hint of the transport, and never by failing.

What cannot be read as declared is read as UTF-8 or, last, as Windows-1252, and a Problem says so.
https://terminology.hl7.org/CodeSystem/v2-0211
"""

import codecs
import csv
import re
from contextlib import suppress
from functools import cache
from pathlib import Path

from mappers.v2.problem import WARNING, Problem

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
UNITS = frozenset({"utf-16", "utf-32"})
# Escape sequences \C2842\ and \M2442\ switch the character set as ESC and these bytes do: HL7 v2.8 chapter 2, 2.7.2
_SWITCH = re.compile(rb"\\[CM]((?:[2-7][0-9A-Fa-f]){2,3})\\")
_WIDE = ((b"M\0\0\0S\0\0\0", "utf-32-le"), (b"\0\0\0M\0\0\0S", "utf-32-be"), (b"M\0S\0", "utf-16-le"), (b"\0M\0S", "utf-16-be"))


@cache
def names() -> dict[str, str]:
    """Code of table 0211, or another name that senders give a character set, without punctuation and in upper case -> Python codec."""
    path = Path(__file__).parent / "tables" / "charsets.csv"
    with path.open(encoding="utf-8", newline="") as rows:
        return {_plain(row["code"]): row["codec"] for row in csv.DictReader(rows)}


def _plain(code: str) -> str:
    return "".join(char for char in code.upper() if char.isalnum())


def codec_of(declared: str) -> str | None:
    """The Python codec for the text of MSH-18 (repetitions already separated by '~'), None if no code of it is known.

    Where ASCII stands beside another set, that one is meant: it holds ASCII, and tells what the other bytes are.
    """
    found = [codec for code in declared.split("~") if (codec := names().get(_plain(code)))]
    if any(codec.startswith("iso2022") for codec in found):
        return "iso2022_jp_2"
    return next((codec for codec in found if codec != "ascii"), found[0] if found else None)


def hinted(hint: str) -> str | None:
    """The codec of a transport's charset name (IANA), None for all but those of table 0211: others of Python's codecs are no character sets."""
    found = codec_of(hint)
    if found is None:
        with suppress(LookupError):
            name = codecs.lookup(hint).name
            found = next((codec for codec in names().values() if codecs.lookup(codec).name == name), None)
    return None if found in UNITS else found


def of_media(content_type: str) -> str | None:
    """The charset parameter of a media type, None without one."""
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"') or None
    return None


def wide(raw: bytes) -> str | None:
    """The codec of a text of 16- or 32-bit units, or one that a byte order mark names; None for all others."""
    for mark, codec in _BOMS:
        if raw.startswith(mark):
            return codec
    head = raw.lstrip(b"\x0b\r\n ")[:8]
    return next((codec for mark, codec in _WIDE if head.startswith(mark)), None)


def declared_charset(raw: bytes) -> str:
    """The text of MSH-18, found before the charset is known (delimiters are single bytes there)."""
    start = raw.find(b"MSH")
    if start < 0:
        return ""
    line = raw[start : start + 4096].split(b"\r", 1)[0].split(b"\n", 1)[0]
    if len(line) < 4:
        return ""
    fields = line.split(line[3:4])
    repetition = line[5:6] if len(fields) > 1 and len(fields[1]) > 1 else b"~"
    text = fields[17] if len(fields) > 17 else b""
    return text.replace(repetition, b"~").decode("ascii", "replace")


def decode(raw: bytes, hint: str | None = None) -> tuple[str, str, list[Problem]]:
    """(text, Python codec used, problems); `hint` is the transport's charset name, used where the message declares none."""
    marked = wide(raw)
    if marked:
        return raw.decode(marked, "replace").removeprefix("\ufeff"), marked, []
    declared = declared_charset(raw)
    if not declared:
        return _undeclared(raw, hint)
    codec = codec_of(declared)
    if codec is None or codec in UNITS:  # bytes of 16- or 32-bit units would have been found out above
        text, used, _ = _undeclared(raw, hint)
        why = "the character set of MSH-18 is not known" if codec is None else "MSH-18 names 16- or 32-bit units, which the bytes are not"
        return text, used, [Problem(WARNING, "MSH^1^18", "103", f"{why}; read as {used}")]
    return _declared(raw, codec)


def _declared(raw: bytes, codec: str) -> tuple[str, str, list[Problem]]:
    if codec == "ascii" and raw.isascii():
        return raw.decode("ascii"), codec, []
    if codec == "latin_1" and any(0x80 <= byte <= 0x9F for byte in raw):
        return raw.decode("cp1252", "replace"), "cp1252", [Problem(WARNING, "MSH^1^18", "102", "bytes outside ISO 8859-1; read as Windows-1252")]
    if codec.startswith("iso2022"):
        raw = _SWITCH.sub(lambda match: b"\x1b" + bytes.fromhex(match[1].decode()), raw)
    with suppress(UnicodeDecodeError):
        return raw.decode(codec), codec, []
    if codec == "iso2022_jp_2":  # half-width katakana after ESC ( I: ISO IR13 switched by escape sequences
        with suppress(UnicodeDecodeError):
            return raw.decode("iso2022_jp_ext"), "iso2022_jp_ext", []
    text, used, _ = _undeclared(raw, None)
    return text, used, [Problem(WARNING, "MSH^1^18", "102", f"bytes that the declared character set does not have; read as {used}")]


def _undeclared(raw: bytes, hint: str | None) -> tuple[str, str, list[Problem]]:
    known = hinted(hint) if hint else None
    if known:
        with suppress(UnicodeDecodeError):
            return raw.decode(known), known, []
    try:
        return raw.decode("utf-8"), "utf-8", []
    except UnicodeDecodeError:
        found = Problem(WARNING, "MSH^1^18", "102", "no character set declared and not UTF-8; read as Windows-1252")
        return raw.decode("cp1252", "replace"), "cp1252", [found]
