"""The state of one conversion: resources in the making, labels in scope, unmapped codes, problems. One Run per message."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mappers.v2 import times
from mappers.v2.message import NULL, Message, Segment
from mappers.v2.problem import WARNING, Problem, erl
from mappers.v2.source import Source

Element = dict[str, Any]
Translate = Callable[[str, str], list[Element]]
ToUcum = Callable[[str], str | None]


@dataclass(slots=True, eq=False)
class Draft:
    """A resource in the making. `refs` are the Reference objects that point to it; `segment` the segment that first made it."""

    res: Element
    url: str
    segment: Segment
    refs: list[Element] = field(default_factory=list)
    nulls: set[str] = field(default_factory=set)
    segments: list[int] = field(default_factory=list)
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Unmapped:
    """A code that a map has no row for: its map, the table or system it came from, the code, its text, where it stood."""

    codes: str
    system: str
    code: str
    text: str
    location: str


class Run:
    """Mutable state while a message is mapped. `segment` and `repetition` say where the mapper stands, for problems.

    `landed`: fields of the segment at hand that gave something; `leftover`: repetitions that found no place, by field.
    """

    __slots__ = (
        "authorities",
        "cache",
        "component",
        "decode",
        "drafts",
        "field",
        "header",
        "landed",
        "leftover",
        "marks",
        "message",
        "names",
        "number",
        "problems",
        "repetition",
        "seed",
        "segment",
        "source",
        "tables",
        "to_ucum",
        "translate",
        "unmapped",
        "zone",
    )

    def __init__(self, message: Message, tables: Any, source: Source, translate: Translate | None, to_ucum: ToUcum | None) -> None:
        self.message = message
        self.tables = tables
        self.source = source
        self.translate = translate
        self.to_ucum = to_ucum
        self.decode = message.decode
        self.header = message.header or message.segments[0]
        self.marks = (message.delimiters.component, message.delimiters.subcomponent, "")
        self.zone = times.zone_of(message.get("MSH-7.1"), source.zone)
        self.names = {segment.name for segment in message.segments}
        self.seed = int.from_bytes(
            hashlib.blake2b("\r".join([source.name, *(s.line for s in message.segments)]).encode("utf-8", "replace"), digest_size=16).digest(), "big"
        )
        self.drafts: list[Draft] = []
        self.problems: list[Problem] = []
        self.unmapped: list[Unmapped] = []
        self.cache: dict[tuple[str, str], Any] = {}
        self.authorities: dict[str, str] = {}
        self.landed: set[int] = set()
        self.leftover: dict[int, list[str]] = {}
        self.segment = self.header
        self.field = 0
        self.repetition = 0
        self.component = 0
        self.number = 0

    def at(self) -> str:
        """The ERL of where the mapper stands."""
        return erl(self.segment.name, self.segment.occurrence, self.field, self.repetition)

    def warn(self, code: str, text: str) -> None:
        """Note a warning at this place."""
        self.problems.append(Problem(WARNING, self.at(), code, text))

    def text(self, raw: str) -> str:
        """Decoded, stripped text of a raw leaf; '' for `""`."""
        return "" if raw == NULL else self.decode(raw).strip()

    def draft(self, rtype: str, res: Element | None = None) -> Draft:
        """A new resource, not yet an entry until it is kept."""
        self.number += 1
        bits = (self.seed + self.number * 0x9E3779B97F4A7C15) % (1 << 128)
        digits = f"{bits:032x}"
        url = f"urn:uuid:{digits[:8]}-{digits[8:12]}-8{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"
        return Draft({"resourceType": rtype, **(res or {})}, url, self.segment)

    def keep(self, draft: Draft) -> Draft:
        """Make a draft an entry of the bundle."""
        draft.segments.append(self.segment.index)
        self.drafts.append(draft)
        return draft

    def refer(self, draft: Draft) -> Element:
        """A new Reference to a draft, rewritten if the draft is merged into another."""
        reference: Element = {"reference": draft.url}
        draft.refs.append(reference)
        return reference
