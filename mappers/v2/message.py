"""Bytes of one HL7 v2 message (ER7) -> Message: charset, delimiters, segments; fields are split when first asked for.

Never raises on content: what is wrong is listed in `Message.problems`. Line ends may be CR, LF or CRLF; a line that is no
segment continues the field before it. HL7 v2.8 chapter 2, 2.5 and 2.6.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import compress
from typing import Any

from mappers.v2 import charset
from mappers.v2.escape import Delimiters, decoder
from mappers.v2.problem import ERROR, WARNING, Problem, erl

NULL = '""'
_LINE_END = re.compile(r"\r\n|\r|\n")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
_CONTROL_BYTES = bytes(code for code in range(32) if code not in b"\t\n\r")
_VERSION = re.compile(r"2(\.\d){0,2}(\.\d)?$")
_NAME = re.compile(r"[A-Z][A-Z0-9]{2}$")
_HEADERS = ("MSH", "FHS", "BHS")
_PATH = re.compile(r"(?:([A-Z][A-Z0-9]{2})(?:\((\d+)\))?-)?(\d+)(?:\((\d+)\))?(?:\.(\d+))?(?:\.(\d+))?$")
_DEFAULTS = "^~\\&"


class Segment:
    """One segment: `name`, `index` (from 0 in the message), `occurrence` (from 1 among its name), `line` as it was sent.

    `fields[n]` is the raw text of field n (MSH-1 is the delimiter itself); absent fields are ''. `present`: (n, raw text) of those that are not empty.
    """

    __slots__ = ("decode", "delimiters", "fields", "index", "line", "name", "occurrence", "present")

    def __init__(self, line: str, index: int, occurrence: int, delimiters: Delimiters, decode: Callable[[str], str]) -> None:
        self.line = line
        self.name = line[:3]
        self.index = index
        self.occurrence = occurrence
        self.delimiters = delimiters
        self.decode = decode

    fields: list[str]
    present: list[tuple[int, str]]

    def __getattr__(self, name: str) -> Any:
        """`fields` and `present`, made when first asked for: called only while the slot is empty."""
        if name == "present":
            self.split()
            return self.present
        if name != "fields":
            raise AttributeError(name)
        self.fields = self._parts()
        return self.fields

    def split(self) -> None:
        """Make `fields` and `present` at once: who reads all of a segment saves the detour of a slot that is still empty."""
        self.fields = parts = self._parts()
        self.present = list(compress(enumerate(parts), parts))

    def _parts(self) -> list[str]:
        parts = self.line.split(self.delimiters.field)
        if self.name in _HEADERS:
            parts.insert(1, self.delimiters.field)
        return parts

    def text(self, number: int) -> str:
        """Raw text of a field, '' if absent."""
        fields = self.fields
        return fields[number] if number < len(fields) else ""

    def repetitions(self, number: int) -> list[str]:
        """Raw repetitions of a field, empty if the field is empty. MSH-1 and MSH-2 never repeat."""
        text = self.text(number)
        if not text:
            return []
        mark = self.delimiters.repetition
        if not mark or mark not in text or (number < 3 and self.name in _HEADERS):
            return [text]
        return text.split(mark)

    def valued(self, number: int) -> bool:
        """True if the field has content that is neither delimiters only nor `""`."""
        return content(self.text(number), self.delimiters)

    def get(self, path: str) -> str:
        """Decoded text of '3', '3.1', '3(2).4.2' (repetition, component, subcomponent from 1); '' if absent or `""`."""
        found = self._place(path)
        raw = found[0] if found else ""
        return "" if raw == NULL else self.decode(raw)

    def _place(self, path: str) -> list[str]:
        _, _, number, repetition, component, sub = _parsed(path)
        repeated = self.repetitions(number)
        if not 0 < repetition <= len(repeated):
            return []
        raw = repeated[repetition - 1]
        if component is None or (number < 3 and self.name in _HEADERS):
            return [raw]
        return [part(part(raw, component, self.delimiters.component), 1 if sub is None else sub, self.delimiters.subcomponent)]


def part(raw: str, number: int, mark: str) -> str:
    """The `number`-th part of raw text split at `mark`."""
    if not mark or mark not in raw:
        return raw if number == 1 else ""
    parts = raw.split(mark)
    return parts[number - 1] if 0 < number <= len(parts) else ""


def content(raw: str, delimiters: Delimiters) -> bool:
    """True if raw text of a field or part holds more than delimiters and `""`."""
    if not raw or raw == NULL:
        return False
    if raw[0].isalnum():
        return True
    rest = raw.replace(NULL, "").strip(delimiters.component + delimiters.subcomponent + delimiters.repetition + " ")
    return bool(rest)


@lru_cache(maxsize=4096)
def _parsed(path: str) -> tuple[str, int, int, int, int | None, int | None]:
    """Segment name ('' for none), its occurrence, field, repetition, component, subcomponent (None where the path names none)."""
    match = _PATH.match(path)
    if match is None:
        raise ValueError(f"not a field path: {path}")
    name, occurrence, number, repetition, component, sub = match.groups()
    inner = [None if text is None else int(text) for text in (component, sub)]
    return name or "", int(occurrence or 1), int(number), int(repetition or 1), inner[0], inner[1]


@dataclass(frozen=True, slots=True)
class Message:
    """A parsed message. `charset` is the Python codec its bytes were read with; `problems` what is wrong with its form."""

    segments: tuple[Segment, ...]
    delimiters: Delimiters
    charset: str
    problems: tuple[Problem, ...]
    decode: Callable[[str], str] = field(repr=False)

    def get(self, path: str) -> str:
        """Decoded text of 'PID-3.1', 'PID-3(2).4.2', 'OBX(3)-5'; '' if absent. Without a number the first such segment."""
        name, occurrence, *_ = _parsed(path)
        found = self.nth(name, occurrence)
        return found.get(path.split("-", 1)[1]) if found else ""

    def nth(self, name: str, occurrence: int = 1) -> Segment | None:
        """The n-th segment (from 1) of a name."""
        for segment in self.segments:
            if segment.name == name and segment.occurrence == occurrence:
                return segment
        return None

    def all(self, name: str) -> Iterator[Segment]:
        """Every segment of a name, in order."""
        return (segment for segment in self.segments if segment.name == name)

    @property
    def header(self) -> Segment | None:
        """MSH."""
        return self.segments[0] if self.segments and self.segments[0].name == "MSH" else self.nth("MSH")

    @property
    def control_id(self) -> str:
        """MSH-10."""
        return self.get("MSH-10")

    @property
    def code(self) -> str:
        """MSH-9.1, the message code: ADT, ORU ..."""
        return self.get("MSH-9.1").upper()

    @property
    def trigger(self) -> str:
        """MSH-9.2, the trigger event, or EVN-1 where MSH-9 leaves it out (before 2.3)."""
        return (self.get("MSH-9.2") or self.get("EVN-1")).upper()

    @property
    def version(self) -> str:
        """MSH-12.1, '' if absent."""
        return self.get("MSH-12.1")

    @property
    def processing_id(self) -> str:
        """MSH-11.1: P, T, D."""
        return self.get("MSH-11.1").upper()


def parse(raw: bytes, charset_hint: str | None = None) -> Message:
    """One message from bytes. `charset_hint`: the transport's charset name, used where MSH-18 is empty."""
    text, codec, problems = charset.decode(raw, charset_hint)
    if _has_control(text):
        cleaned = _CONTROL.sub("", text)
        if len(cleaned.strip()) < len(text.strip("\x0b\x1c\r\n \t")):
            problems.append(Problem(WARNING, "", "102", "control characters were removed"))
        text = cleaned
    split = _LINE_END.split(text) if "\n" in text else text.split("\r")
    lines = [line for line in split if line.strip()]
    start = next((place for place, line in enumerate(lines) if line.lstrip().startswith("MSH")), None)
    if start is None:
        problems.append(Problem(ERROR, "", "101", "no MSH segment"))
        start, delimiters = 0, Delimiters()
    else:
        lines[start] = lines[start].lstrip()
        delimiters = _delimiters(lines[start], problems)
    decode = decoder(delimiters, codec)
    segments = tuple(_segments(lines[start:], delimiters, decode, problems))
    message = Message(segments, delimiters, codec, (), decode)
    problems.extend(_header_problems(message))
    return Message(segments, delimiters, codec, tuple(problems), decode)


def _has_control(text: str) -> bool:
    """True if the text holds control characters. Bytes are looked through several times as quickly as text."""
    if not text.isascii():
        return _CONTROL.search(text) is not None
    data = text.encode("ascii")
    return len(data.translate(None, _CONTROL_BYTES)) != len(data)


def _delimiters(line: str, problems: list[Problem]) -> Delimiters:
    mark = line[3:4]
    if not mark or mark.isalnum():
        problems.append(Problem(ERROR, "MSH^1^1", "102", "no field separator"))
        return Delimiters()
    sent = line[4:].split(mark, 1)[0]
    characters = sent[:5]
    if len(characters) < 4:
        unused = [char for char in _DEFAULTS + "#@!$%*" if char not in characters and char != mark]
        wanted = [characters[place] if place < len(characters) else _default(place, unused) for place in range(4)]
        problems.append(Problem(WARNING, "MSH^1^2", "102", "fewer than four encoding characters"))
        characters = "".join(wanted)
    if len(set(mark + characters)) < 1 + len(characters) or any(char.isalnum() for char in characters):
        problems.append(Problem(ERROR, "MSH^1^2", "102", "encoding characters are not distinct punctuation"))
        characters = _DEFAULTS
    return Delimiters(mark, characters[0], characters[1], characters[2], characters[3], characters[4:5])


def _default(place: int, unused: list[str]) -> str:
    wanted = _DEFAULTS[place]
    if wanted in unused:
        unused.remove(wanted)
        return wanted
    return unused.pop(0)


def _segments(lines: list[str], delimiters: Delimiters, decode: Callable[[str], str], problems: list[Problem]) -> Iterator[Segment]:
    seen: dict[str, int] = {}
    for index, line in enumerate(_joined(lines, delimiters, problems)):
        name = line[:3]
        seen[name] = seen.get(name, 0) + 1
        yield Segment(line, index, seen[name], delimiters, decode)


def _joined(lines: list[str], delimiters: Delimiters, problems: list[Problem]) -> list[str]:
    if all(is_segment(line, delimiters.field) for line in lines):
        return lines
    out: list[list[str]] = []
    for line in lines:
        if is_segment(line, delimiters.field):
            out.append([line])
        elif is_segment(line.lstrip(), delimiters.field):
            out.append([line.lstrip()])
        elif out:
            if len(out[-1]) == 1:
                problems.append(
                    Problem(WARNING, erl(out[-1][0][:3], 1), "100", "a line end inside a field; what follows was joined to the segment before it")
                )
            out[-1].append(line)
        else:
            problems.append(Problem(WARNING, "", "100", "a line before the first segment was left out"))
    return ["\n".join(parts) if len(parts) > 1 else parts[0] for parts in out]


def is_segment(line: str, mark: str) -> bool:
    """True if a line begins like a segment: three characters of a name, then the field separator or the end."""
    return line[3:4] in (mark, "") and _is_name(line[:3])


@lru_cache(maxsize=1024)
def _is_name(text: str) -> bool:
    """True for the three characters of a segment's name."""
    return _NAME.match(text) is not None


def _header_problems(message: Message) -> Iterator[Problem]:
    if message.header is None:
        return
    for number, what in ((9, "message type"), (10, "control id"), (12, "version id")):
        if number == 12 and message.version and not _VERSION.match(message.version):
            yield Problem(WARNING, erl("MSH", 1, 12), "203", "MSH-12 names no version of HL7 2; the message is read as 2.x all the same")
        if not message.header.valued(number):
            severity = ERROR if number == 9 else WARNING
            yield Problem(severity, erl("MSH", 1, number), "101", f"MSH-{number} ({what}) is missing")
