"""Which order a result belongs to, read from the message itself: OBR, or what stands in for it. Pure.

An *anchor* is the segment that a result hangs on: the OBR before it, else RXA or TXA, else the patient's visit. Its id names the results
track (`results.py`): sender, filler order number (placer or collection time where there is none), service, parent result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fhir_server.feed.items import Item
from fhir_server.sources import Source
from mappers.v2.message import Message, Segment

ANCHORS = frozenset({"OBR", "RXA", "TXA"})


@dataclass(frozen=True, slots=True)
class Anchor:
    """One order of a message.

    id: of its state document, without the patient where the order has a number; numbered: False if the patient must be part of the id;
    orders: keys by which a child report finds it; collected: OBR-7; status: OBR-25; segment: the anchor; parents: order keys of OBR-29.
    """

    id: str
    numbered: bool
    segment: Segment
    collected: str = ""
    status: str = ""
    orders: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    parent_group: str = ""


def anchors(message: Message, source: Source) -> dict[int, Anchor]:
    """The anchor of every OBR, RXA, TXA and OBX by the index of its segment; two equal ids in one message are told apart by their order."""
    found: dict[int, Anchor] = {}
    seen: dict[str, int] = {}
    order: Segment | None = None
    current: Anchor | None = None
    for segment in message.segments:
        if segment.name == "ORC":
            order = segment
        elif segment.name == "PID":
            order, current = None, None
        elif segment.name in ANCHORS:
            made = _anchor(segment, order, source)
            seen[made.id] = seen.get(made.id, 0) + 1
            current = made if seen[made.id] == 1 else _again(made, seen[made.id])
            found[segment.index] = current
            order = None
        elif segment.name == "OBX":
            found[segment.index] = current or _loose(message, segment, source)
    return found


def _again(anchor: Anchor, count: int) -> Anchor:
    return Anchor(
        f"{anchor.id}#{count}", anchor.numbered, anchor.segment, anchor.collected, anchor.status, anchor.orders, anchor.parents, anchor.parent_group
    )


def _anchor(segment: Segment, order: Segment | None, source: Source) -> Anchor:
    orc = (order.get("3.1"), order.get("2.1")) if order is not None else ("", "")
    if segment.name == "OBR":
        filler, placer = segment.get("3.1") or orc[0], segment.get("2.1") or orc[1]
        service, collected, status = coded(segment, 4), segment.get("7.1"), segment.get("25")
        parent = segment.text(26)
    else:
        filler, placer, collected, status, parent = orc[0], orc[1], segment.get("3.1" if segment.name == "RXA" else "4.1"), "", ""
        filler = filler or (segment.get("12.1") if segment.name == "TXA" else "")
        service = coded(segment, 5 if segment.name == "RXA" else 2)
    number = f"F|{filler}" if filler else f"P|{placer}" if placer else f"T|{collected}"
    orders = tuple(f"{source.name}|{kind}|{value}" for kind, value in (("F", filler), ("P", placer)) if value)
    return Anchor(
        "|".join(["results", source.name, segment.name, number, service, parent]),
        bool(filler or placer),
        segment,
        collected,
        status,
        orders,
        _parents(segment, source),
        _parent_group(segment),
    )


def _loose(message: Message, segment: Segment, source: Source) -> Anchor:
    """A result without an order (an OBX of an ADT message): it belongs to the patient's visit."""
    return Anchor("|".join(["results", source.name, "PV1", message.get("PV1-19.1"), segment.get("14.1")]), False, segment)


def _parents(segment: Segment, source: Source) -> tuple[str, ...]:
    """OBR-29: placer and filler number of the parent order (EIP; before 2.8 components of subcomponents)."""
    if segment.name != "OBR" or not segment.valued(29):
        return ()
    placer, filler = segment.get("29.1.1"), segment.get("29.2.1")
    return tuple(f"{source.name}|{kind}|{value}" for kind, value in (("F", filler), ("P", placer)) if value)


def _parent_group(segment: Segment) -> str:
    """OBR-26: the group key (OBX-3, OBX-4) of the parent result."""
    if segment.name != "OBR" or not segment.valued(26):
        return ""
    return f"{segment.get('26.1.1') or segment.get('26.1.2')}|{segment.get('26.2.1')}"


def coded(segment: Segment, number: int) -> str:
    """What tells one coded field from another: its code and system, or its text."""
    code = segment.get(f"{number}.1")
    return f"{code}^{segment.get(f'{number}.3')}" if code else segment.get(f"{number}.2")


def group_key(segment: Segment, part: int) -> str:
    """The group of an OBX: OBX-3 and OBX-4; `part` numbers further Observations made of the same OBX."""
    code = segment.get("3.1") or segment.get("3.2")
    return f"{code}|{segment.get('4')}" + (f"|{part}" if part else "")


def result_uid(segment: Segment) -> str:
    """OBX-21, the identifier of this one result; '' if it has none."""
    return "^".join(part for part in (segment.get("21.1"), segment.get("21.2")) if part)


def last_before(message: Message, index: int, names: Sequence[str]) -> Segment | None:
    """The nearest segment of one of these names at or before a place."""
    return next((segment for segment in reversed(message.segments[: index + 1]) if segment.name in names), None)


def name_documents(items: Sequence[Item], found: Mapping[int, Anchor], authority: str) -> None:
    """The document of an OBX (ED, RP) is known as its result is: by order, OBX-3, OBX-4 and OBX-21 or how many there are."""
    seen: dict[str, int] = {}
    for item in items:
        anchor = found.get(item.segment.index) if item.segment is not None and item.segment.name == "OBX" else None
        if item.rtype == "DocumentReference" and not item.keys and item.segment is not None and anchor is not None:
            key = f"DocumentReference|{authority}#result|{anchor.id}|{group_key(item.segment, 0)}|{result_uid(item.segment)}"
            seen[key] = seen.get(key, 0) + 1
            item.keys = (f"{key}|{seen[key]}",)
