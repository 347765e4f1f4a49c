"""Batches: FHS/BHS ... BTS/FTS around messages -> the bytes of each message, untouched. HL7 v2.8 chapter 2, 2.10.3."""

import re
from dataclasses import dataclass

from mappers.v2 import charset

_START = re.compile(rb"(?:^|[\r\n\x0b])[ \t]*(?=(?:FHS|BHS|MSH|BTS|FTS)[^A-Za-z0-9\r\n]|(?:BTS|FTS)[\r\n]|(?:BTS|FTS)$)")
_START_TEXT = re.compile(r"(?:^|[\r\n\x0b])[ \t]*(?=(?:FHS|BHS|MSH|BTS|FTS)[^A-Za-z0-9\r\n]|(?:BTS|FTS)[\r\n]|(?:BTS|FTS)$)")


@dataclass(frozen=True, slots=True)
class Batch:
    """The pieces of a body: `messages` (bytes of each, from MSH on) and the raw header and trailer lines ('' if absent).

    `counted` is what BTS-1 says, None where it is absent; `batched` is True if any batch segment was there.
    """

    messages: tuple[bytes, ...]
    file_header: str
    batch_header: str
    counted: int | None
    batched: bool
    codec: str = "latin_1"  # of the header lines: they were read by it, and are answered in it


def split(raw: bytes) -> Batch:
    """The messages of a body, which may be one message, several glued ones, or a batch or file. Never raises on content."""
    codec = charset.wide(raw)
    pieces = [piece.encode(codec) for piece in _cut_text(raw.decode(codec, "replace").removeprefix("\ufeff"))] if codec else _cut(raw)
    heads = [(_head(piece, codec), piece) for piece in pieces]
    messages = tuple(piece for head, piece in heads if head.startswith("MSH"))
    rest = [head for head, _ in heads if head[:3] in ("FHS", "BHS", "BTS", "FTS")]
    trailer = next((head for head in rest if head.startswith("BTS")), "")
    return Batch(messages, _first(rest, "FHS"), _first(rest, "BHS"), _count(trailer), bool(rest), codec or "latin_1")


def _cut(raw: bytes) -> list[bytes]:
    marks = [match.end() for match in _START.finditer(raw)]
    return [raw[start:end] for start, end in zip(marks, [*marks[1:], len(raw)], strict=False)]


def _cut_text(text: str) -> list[str]:
    marks = [match.end() for match in _START_TEXT.finditer(text)]
    return [text[start:end] for start, end in zip(marks, [*marks[1:], len(text)], strict=False)]


def _head(piece: bytes, codec: str | None) -> str:
    text = piece[:4096].decode(codec, "replace").removeprefix("\ufeff") if codec else piece[:4096].decode("latin_1")
    return re.split(r"[\r\n]", text.lstrip(), maxsplit=1)[0]


def _first(heads: list[str], name: str) -> str:
    return next((head for head in heads if head.startswith(name)), "")


def _count(trailer: str) -> int | None:
    digits = trailer[4:].split(trailer[3:4], 1)[0].strip() if len(trailer) > 4 else ""
    return int(digits) if digits.isdecimal() and len(digits) < 9 else None
