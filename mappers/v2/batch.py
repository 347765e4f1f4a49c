"""Batches: FHS/BHS ... BTS/FTS around messages -> the bytes of each message, untouched. HL7 v2.8 chapter 2, 2.10.3."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from mappers.v2 import charset

_START = re.compile(rb"(?:^|[\r\n\x0b])[ \t]*(?=(?:FHS|BHS|MSH|BTS|FTS)[^A-Za-z0-9\r\n]|(?:BTS|FTS)[\r\n]|(?:BTS|FTS)$)")
_START_TEXT = re.compile(r"(?:^|[\r\n\x0b])[ \t]*(?=(?:FHS|BHS|MSH|BTS|FTS)[^A-Za-z0-9\r\n]|(?:BTS|FTS)[\r\n]|(?:BTS|FTS)$)")


@dataclass(frozen=True, slots=True)
class Group:
    """One batch: its raw header line ('' if absent), how many messages it holds, and what BTS-1 says, None where it says nothing; ended: BTS was there."""

    header: str = ""
    size: int = 0
    counted: int | None = None
    ended: bool = False

    @property
    def empty(self) -> bool:
        """True for a whole batch that holds nothing, as it says."""
        return self.ended and not self.size and not self.counted


@dataclass(frozen=True, slots=True)
class Batch:
    """The pieces of a body: `messages` (bytes of each, from MSH on), the batches they stand in, one after the other, and the raw FHS line ('' if absent).

    `batched` is True if any batch segment was there; `closed` if the file's end was; `files_counted` is what FTS-1 says of the number of batches.
    """

    messages: tuple[bytes, ...]
    groups: tuple[Group, ...]
    file_header: str
    batched: bool
    closed: bool = False
    files_counted: int | None = None
    codec: str = "latin_1"  # of the header lines: they were read by it, and are answered in it

    @property
    def empty(self) -> bool:
        """True for a whole batch or file without messages."""
        nothing = not self.groups and self.closed and not self.files_counted
        return not self.messages and (nothing or (bool(self.groups) and all(group.empty for group in self.groups)))


def split(raw: bytes) -> Batch:
    """The messages of a body, which may be one message, several glued ones, or a batch or file. Never raises on content."""
    codec = charset.wide(raw)
    pieces = [piece.encode(codec) for piece in _cut_text(raw.decode(codec, "replace").removeprefix("\ufeff"))] if codec else _cut(raw)
    heads = [(_head(piece, codec), piece) for piece in pieces]
    messages = tuple(piece for head, piece in heads if head.startswith("MSH"))
    rest = [head for head, _ in heads if head[:3] in ("FHS", "BHS", "BTS", "FTS")]
    trailer = _first(rest, "FTS")
    groups = tuple(_groups(head for head, _ in heads))
    return Batch(messages, groups, _first(rest, "FHS"), bool(rest), bool(trailer), _count(trailer), codec or "latin_1")


def _groups(heads: Iterable[str]) -> Iterator[Group]:
    """The batches of a body by its lines; a header that nothing follows is none, nor is an end that nothing comes before."""
    current: Group | None = None
    for head in heads:
        name = head[:3]
        if name in ("BHS", "FHS", "FTS"):
            if current is not None and current.size:
                yield current
            current = Group(head) if name == "BHS" else None
        elif name == "MSH":
            current = current or Group()
            current = replace(current, size=current.size + 1)
        elif name == "BTS" and current is not None:
            yield replace(current, counted=_count(head), ended=True)
            current = None
    if current is not None and (current.size or current.header):
        yield current


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
