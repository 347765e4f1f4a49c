"""The state of one conversion: resources in the making, labels in scope, unmapped codes, problems. One Run per message."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mappers.v2 import times
from mappers.v2.escape import Delimiters
from mappers.v2.message import NULL, Message, Segment
from mappers.v2.problem import WARNING, Problem, erl
from mappers.v2.source import Source

Element = dict[str, Any]
Translate = Callable[[str, str], list[Element]]
ToUcum = Callable[[str], str | None]


class Draft:
    """A resource in the making. `refs` are the Reference objects that point to it; `segment` the segment that first made it;

    `time` the event time of its order, '' if it has none; `origins` (list, member, 'PID.13'): which field gave a member of a list that several fill;
    `assumed`: elements that R4 requires and the message does not tell.
    """

    __slots__ = ("assumed", "nulls", "origins", "refs", "res", "segment", "segments", "shared", "time", "url")

    def __init__(self, res: Element, url: str, segment: Segment, time: str = "") -> None:
        self.res = res
        self.url = url
        self.segment = segment
        self.refs: list[Element] = []
        self.nulls: set[str] = set()
        self.origins: list[tuple[str, Element, str]] = []
        self.segments: list[int] = []
        self.shared = False
        self.time = time
        self.assumed: set[str] = set()


@dataclass(frozen=True, slots=True)
class Unmapped:
    """A code that a map has no row for: its map, the table or system it came from, the code, its text, where it stood."""

    codes: str
    system: str
    code: str
    text: str
    location: str


# what is remembered of pure conversions (codes, units) per sender, from message to message: at most so many senders, values, and sets of authorities
MAX_SENDERS, MAX_VALUES, MAX_CLOCKS, MAX_KNOWN = 256, 20_000, 32, 4_000
Memo = dict[tuple[int | str, str, int], Any]
Memos = dict[tuple[str, frozenset[tuple[str, str]]], Memo]


def _memo(tables: Any, source: Source, translate: Translate | None, to_ucum: ToUcum | None) -> tuple[Memo, Memos]:
    """The memo that goes with these very settings, and those by clock and authorities; a strong reference keeps the source's id from being used again.

    The functions themselves are part of the key, not their ids: a method is another object each time it is asked for.
    """
    memos: dict[tuple[int, Translate | None, ToUcum | None], tuple[Source, Memo, Memos]] = tables.memos
    key = (id(source), translate, to_ucum)
    found = memos.get(key)
    if found is None:
        if len(memos) >= MAX_SENDERS:
            memos.clear()
        found = memos[key] = (source, {}, {})
    _, memo, of_messages = found
    if len(memo) > MAX_VALUES:
        memo.clear()
    return memo, of_messages


class Run:
    """Mutable state while a message is mapped. `segment` and `repetition` say where the mapper stands, for problems.

    `landed`: fields of the segment at hand that gave something; `leftover`: repetitions that found no place, or not all of them, by field;
    `unsaid`: set by a conversion that left out a part of its text.
    """

    __slots__ = (
        "authorities",
        "cache",
        "clock",
        "component",
        "decode",
        "drafts",
        "escape",
        "field",
        "header",
        "interned",
        "known",
        "landed",
        "leftover",
        "linked",
        "marks",
        "memo",
        "message",
        "names",
        "namespaces",
        "number",
        "order_time",
        "problems",
        "ranges",
        "repetition",
        "seed",
        "segment",
        "source",
        "tables",
        "to_ucum",
        "translate",
        "units",
        "unmapped",
        "unsaid",
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
        self.escape = message.delimiters.escape or "\x00"
        self.marks = (message.delimiters.component, message.delimiters.subcomponent, "")
        self.clock = times.fixed(message.get("MSH-7.1"))
        self.zone = times.zone_of(self.clock, source.zone)
        self.names = {segment.name for segment in message.segments}
        lines = "\r".join([source.name, *(segment.line for segment in message.segments)])
        digest = hashlib.blake2b(lines.encode("utf-8", "replace"), digest_size=16).hexdigest()
        self.seed = f"urn:uuid:{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-a{digest[17:20]}-"
        self.drafts: list[Draft] = []
        self.problems: list[Problem] = []
        self.unmapped: list[Unmapped] = []
        self.cache: dict[tuple[str, str], Any] = {}
        self.units: dict[str, tuple[Element, bool]] = {}
        self.ranges: dict[tuple[str, str], Element] = {}
        self.interned: dict[tuple[str, int], tuple[Element, Draft]] = {}
        self.authorities: dict[str, str] = {}
        self.namespaces: dict[str, tuple[str, ...]] = {}
        self.linked: set[tuple[str, str, str]] = set()
        self.order_time = ""
        self.memo: Memo | None = None
        self.known: Memo | None = None
        self.landed: set[int] = set()
        self.leftover: dict[int, list[str]] = {}
        self.unsaid = False
        self.segment = self.header
        self.field = 0
        self.repetition = 0
        self.component = 0
        self.number = 0

    def recall(self) -> None:
        """Find what is known of the sender, and of messages with this clock and these authorities (which are learned before)."""
        if self.message.delimiters != Delimiters():
            return
        self.memo, memos = _memo(self.tables, self.source, self.translate, self.to_ucum)
        key = (self.clock, frozenset(self.authorities.items()))
        known = memos.get(key)
        if known is None or len(known) > MAX_KNOWN:
            if len(memos) >= MAX_CLOCKS:
                memos.clear()
            known = memos[key] = {}
        self.known = known

    def at(self) -> str:
        """The ERL of where the mapper stands."""
        return erl(self.segment.name, self.segment.occurrence, self.field, self.repetition)

    def warn(self, code: str, text: str) -> None:
        """Note a warning at this place."""
        self.problems.append(Problem(WARNING, self.at(), code, text))

    def text(self, raw: str) -> str:
        """Decoded, stripped text of a raw leaf; '' for `""`."""
        if raw == NULL:
            return ""
        return raw.strip() if self.escape not in raw else self.decode(raw).strip()

    def draft(self, rtype: str, res: Element | None = None) -> Draft:
        """A new resource, not yet an entry until it is kept."""
        self.number += 1
        url = f"{self.seed}{self.number:012x}"
        made: Element = {"resourceType": rtype}
        if res:
            made.update(res)
        return Draft(made, url, self.segment, self.order_time)

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
