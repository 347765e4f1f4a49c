"""The leaf coverage checker: is each populated leaf of a message found in its bundle?

A leaf is found as it was sent, as a word of a text, as a FHIR date, as an equal number, as the code or the system that a table makes
of it, or base64-encoded. Fields of tables/ignored.csv and parts of tables/ignored_parts.csv (each with its reason) do not count.
"""

import base64
import csv
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import Any

from mappers.v2 import tables, times
from mappers.v2.message import NULL, Message, Segment

FOLDER = Path(tables.__file__).parent / "tables"
_WORD = re.compile(r"[\s|^~&/:#;,()%]+")


def leaves(message: Message) -> Iterator[tuple[str, str]]:
    """(place 'PID-3.4.2', decoded text) of each populated leaf that counts."""
    known = tables.load_tables()
    ignored = known.ignored
    parts = {(row["segment"], row["place"]) for row in tables.rows_of(FOLDER / "ignored_parts.csv")}
    for segment in message.segments:
        for number in range(1, len(segment.fields)):
            if number in ignored.get(segment.name, ()) or (number == 2 and segment.name == "MSH"):
                continue
            for place, text in _field(segment, number):
                if not _listed(segment.name, place, parts):
                    yield f"{segment.name}-{place}", text


def all_of(message: Message) -> Iterator[tuple[str, str]]:
    """Every populated leaf, those of the lists too."""
    for segment in message.segments:
        for number in range(1, len(segment.fields)):
            if segment.name != "MSH" or number > 2:
                yield from ((f"{segment.name}-{place}", text) for place, text in _field(segment, number))


def _listed(name: str, place: str, parts: set[tuple[str, str]]) -> bool:
    tail = "." + place.partition(".")[2]
    return (name, place) in parts or ("*", tail) in parts


def _field(segment: Segment, number: int) -> Iterator[tuple[str, str]]:
    marks = segment.delimiters
    text_field = segment.name in ("NTE", "OBX") and segment.get("2").upper() in ("TX", "FT", "ST") and number == 5
    for repetition in segment.repetitions(number):
        if text_field or (segment.name == "NTE" and number == 3):
            yield str(number), segment.decode(repetition.rstrip("^&")).strip()
            continue
        for component, raw in enumerate(repetition.split(marks.component), 1):
            for sub, leaf in enumerate(raw.split(marks.subcomponent) if marks.subcomponent else [raw], 1):
                text = segment.decode(leaf).strip()
                if text and leaf != NULL and text != '"':
                    yield f"{number}.{component}" + (f".{sub}" if sub > 1 else ""), text


def texts(segment: Segment, number: int) -> list[str]:
    """Decoded text of each leaf of a field."""
    return [text for _, text in _field(segment, number)]


@cache
def _mapped() -> dict[str, frozenset[str]]:
    """v2 code, folded -> the FHIR codes that the code maps make of it ('' for one that FHIR has nothing for)."""
    found: dict[str, set[str]] = {}
    for rows in tables.load_tables().codes.values():
        for code, row in rows.items():
            found.setdefault(code, set()).add(row["code"])
    return {code: frozenset(made) for code, made in found.items()}


class Found:
    """What a bundle says, in forms that leaves can be looked up in."""

    def __init__(self, bundle: dict[str, Any]) -> None:
        self.strings: set[str] = set()
        self.numbers: set[Decimal] = set()
        self._gather(bundle)
        self.words = {word for text in self.strings for word in _WORD.split(text)}
        self.blob = "\x00".join(sorted(self.strings)).casefold()
        known = tables.load_tables()
        self.systems = known.systems
        self.authorities = known.authorities

    def _gather(self, node: Any) -> None:
        if isinstance(node, dict):
            for name, value in node.items():
                if name == "data" and isinstance(value, str) and "origin" not in node:
                    self.strings.add(base64.b64decode(value).decode("utf-8", "replace"))
                self._gather(value)
        elif isinstance(node, list):
            for value in node:
                self._gather(value)
        elif isinstance(node, bool):
            self.strings.add("true" if node else "false")
        elif isinstance(node, int | Decimal):
            self.numbers.add(Decimal(node))
        elif isinstance(node, str):
            self.strings.add(node)

    def has(self, text: str) -> bool:
        """True if the leaf is found."""
        if text in self.strings or text in self.words or self._number(text) or self._time(text):
            return True
        folded = " ".join(text.split()).casefold()
        if len(text) > 2 and (folded in self.blob or text.casefold() in self.blob):
            return True
        if len(text) > 40 and "".join(text.split()) in {"".join(string.split()) for string in self.strings}:
            return True
        return self._coded(text)

    def _number(self, text: str) -> bool:
        try:
            return Decimal(re.sub(r"^[<>=]+", "", text)) in self.numbers
        except InvalidOperation:
            return False

    def _time(self, text: str) -> bool:
        if times.time(text) in self.strings:
            return True
        day = times.date(text)
        if not day:
            return False
        clock = times.date_time(text, lambda _: "") or ""
        return clock[:19].casefold() in self.blob or f"{clock[:16]}".casefold() in self.blob

    def _coded(self, text: str) -> bool:
        mapped = _mapped().get(text.casefold(), frozenset())
        if any(code and code in self.strings for code in mapped) or "" in mapped:
            return True
        system = self.systems.get(text.upper()) or self.authorities.get(text.upper())
        table = re.fullmatch(r"(?:HL7|V2-)?-?(\d{4})", text, re.IGNORECASE)
        if table:
            system = f"http://terminology.hl7.org/CodeSystem/v2-{table[1]}"
        return bool(system) and str(system).casefold() in self.blob


def missing(message: Message, bundle: dict[str, Any]) -> tuple[int, list[tuple[str, str]]]:
    """(number of leaves that count, those that are not found)."""
    found = Found(bundle)
    listed = list(leaves(message))
    return len(listed), [(place, text) for place, text in listed if not found.has(text)]


def reasons() -> list[dict[str, str]]:
    """The rows of ignored_parts.csv."""
    with (FOLDER / "ignored_parts.csv").open(encoding="utf-8", newline="") as rows:
        return list(csv.DictReader(rows))
