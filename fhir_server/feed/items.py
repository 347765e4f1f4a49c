"""What the mapper made of a message, ready to meet the store: one Item per bundle entry, references found and rewritten. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from fhir_server.feed.reconcile import member_key
from fhir_server.sources import Source
from fhir_server.store import Stored
from mappers.v2.convert import EntryFact, Facts
from mappers.v2.message import Message, Segment

Resource = dict[str, Any]
NOWHERE: Mapping[tuple[str, str], str] = MappingProxyType({})
UNTOLD: Mapping[str, str] = MappingProxyType({})
NOT_STORED = frozenset({"MessageHeader", "Provenance", "Bundle", "OperationOutcome"})  # the inbox and our own Provenance say this better


@dataclass(slots=True, eq=False)
class Item:
    """One resource on its way into the store.

    url: fullUrl in the mapped bundle; segment: the v2 segment that made it; nulls, origins, assumed: see `reconcile.Said`; key: the identity key
    it was found or is kept under; targets: what it refers to, as mapped; numbers: what tells it apart from others of its identifier (`apart`, `siblings`); segments: all that wrote to it; linked: all of it is rewritten; ref: 'Type/id' once decided; new: nothing is stored under that id; write: False where it says nothing new.
    """

    url: str
    res: Resource
    segment: Segment | None = None
    nulls: frozenset[str] = frozenset()
    origins: Mapping[tuple[str, str], str] = field(default_factory=lambda: NOWHERE)
    keys: tuple[str, ...] = ()
    ref: str = ""
    new: bool = False
    write: bool = True
    keep: bool = False
    digest: str = ""
    stored: Stored | None = None
    older: bool = False
    withdrawn: tuple[str, ...] = ()
    targets: frozenset[str] = frozenset()
    rtype: str = ""
    numbers: Mapping[str, str] = field(default_factory=lambda: UNTOLD)
    linked: bool = False
    assumed: frozenset[str] = frozenset()
    segments: tuple[Segment, ...] = ()

    def __post_init__(self) -> None:
        """Look at the resource once."""
        self.rtype = str(self.res["resourceType"])
        self.targets = frozenset(targets(self.res))

    @property
    def rid(self) -> str:
        """The id part of `ref`."""
        return self.ref.partition("/")[2]


@dataclass(frozen=True, slots=True)
class Work:
    """A mapped message: what `apply` writes. entry: its id in the inbox; person_time: event time of demographics (sortable text); occurred: when its event happened, as precisely as it says (FHIR dateTime: EVN-6, else EVN-2, MSH-7); namespaces: see `Facts`; attempt: how often the entry was taken up; also_known: (type, segment index) -> further keys that find it; retiring: index of a PID -> keys that do not name its patient, since they are merged into it."""

    entry: str
    message: Message
    source: Source
    items: Sequence[Item]
    person_time: str
    received: datetime
    attempt: int = 1
    also_known: Mapping[tuple[str, int], tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    retiring: Mapping[int, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    occurred: str = ""
    namespaces: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))


def items_of(bundle: Resource, facts: Facts, message: Message, left_out: frozenset[str] = frozenset()) -> list[Item]:
    """The items of a mapped bundle; `facts.entries` say where each entry came from. What MRG made, and types `left_out`, are no items."""
    known = {fact.full_url: fact for fact in facts.entries}
    items, gone = [], set()
    for entry in bundle.get("entry", ()):
        url, res, fact = entry["fullUrl"], entry["resource"], known.get(entry["fullUrl"])
        if res["resourceType"] in NOT_STORED or res["resourceType"] in left_out or (fact is not None and fact.segment == "MRG"):
            gone.add(url)
        elif fact is None:
            items.append(Item(url, res))
        else:
            segment = _segment(message, res["resourceType"], fact)
            segments = tuple(message.segments[index] for index in fact.segments)
            items.append(Item(url, res, segment, fact.nulls, origins=origins_of(res, fact.origins), assumed=fact.assumed, segments=segments))
    used = {target for item in items for target in item.targets}
    items = [item for item in items if item.segment is None or item.segment.name not in ("MSH", "SFT") or item.url in used]
    for item in items:
        if not gone.isdisjoint(item.targets):
            item.res = without(item.res, gone)
    return items


def _segment(message: Message, rtype: str, fact: EntryFact) -> Segment:
    """The segment that an item is known by: for results the OBX or the order's own segment, also where ORC began the resource."""
    if rtype in ("Observation", "DiagnosticReport"):
        for index in fact.segments:
            if message.segments[index].name in ("OBX", "OBR"):
                return message.segments[index]
    return message.segments[fact.index]


def without(value: Any, gone: Collection[str]) -> Any:
    """A copy without the elements that refer to what is gone."""
    if isinstance(value, dict):
        return {name: without(part, gone) for name, part in value.items() if not _refers(part, gone)}
    if isinstance(value, list):
        return [without(part, gone) for part in value if not _refers(part, gone)]
    return value


def _refers(part: Any, gone: Collection[str]) -> bool:
    """True if this element is, or consists of, nothing but references to what is gone (a link to the retired patient)."""
    if isinstance(part, dict):
        return part.get("reference") in gone or _refers(part.get("other"), gone)
    return isinstance(part, list) and bool(part) and all(_refers(one, gone) for one in part)


def origins_of(res: Resource, origins: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], str]:
    """(list element, `member_key`) -> the field that gave it, the first of several that gave the same."""
    found: dict[tuple[str, str], str] = {}
    for element, fields in origins.items():
        for number, (member, place) in enumerate(zip(res.get(element, ()), fields)):
            if place:
                found.setdefault((element, member_key(element, number, member)), place)
    return found


def targets(value: Any) -> list[str]:
    """Every `reference` text in a resource, and what its attachments point to within the message."""
    found: list[str] = []
    _gather(value, found)
    return found


def _gather(value: Any, found: list[str]) -> None:
    if type(value) is dict:
        for name, part in value.items():
            kind = type(part)
            if kind is str:
                if name == "reference" or (name == "url" and part.startswith("urn:uuid:")):
                    found.append(part)
            elif kind is dict or kind is list:
                _gather(part, found)
    elif type(value) is list:
        for part in value:
            _gather(part, found)


def linked(res: Resource, refs: Mapping[str, str]) -> Resource:
    """A copy with every known reference rewritten; parts without references are shared with the original."""
    made = _linked(res, refs)
    return dict(res) if made is res else made


def _linked(value: Any, refs: Mapping[str, str]) -> Any:
    """The value itself where nothing in it is rewritten, else a copy."""
    made: Any = value
    for name, part in value.items() if type(value) is dict else enumerate(value):
        kind = type(part)
        if kind is dict or kind is list:
            new = _linked(part, refs)
        elif kind is str and (name == "reference" or name == "url"):
            new = refs.get(part, part)
        else:
            continue
        if new is not part:
            made = value.copy() if made is value else made
            made[name] = new
    return made
