"""What the mapper made of a message, ready to meet the store: one Item per bundle entry, references found and rewritten. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from fhir_server.feed.sources import Source
from fhir_server.store import Stored
from mappers.v2.message import Message, Segment

Resource = dict[str, Any]
NOT_STORED = frozenset({"MessageHeader", "Provenance", "Bundle", "OperationOutcome"})  # the inbox and our own Provenance say this better


@dataclass(slots=True, eq=False)
class Item:
    """One resource on its way into the store.

    url: fullUrl in the mapped bundle; segment: the v2 segment that made it; nulls, origins: see `reconcile.Said`; key: the identity key
    it was found or is kept under; ref: 'Type/id' once decided; new: nothing is stored under that id; write: False where it says nothing new.
    """

    url: str
    res: Resource
    segment: Segment | None = None
    nulls: frozenset[tuple[str, str]] = frozenset()
    origins: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    keys: tuple[str, ...] = ()
    ref: str = ""
    new: bool = False
    write: bool = True
    keep: bool = False
    digest: str = ""
    stored: Stored | None = None
    older: bool = False
    withdrawn: tuple[str, ...] = ()

    @property
    def rtype(self) -> str:
        """The resource type."""
        return str(self.res["resourceType"])

    @property
    def rid(self) -> str:
        """The id part of `ref`."""
        return self.ref.partition("/")[2]


@dataclass(frozen=True, slots=True)
class Work:
    """A mapped message: what `apply` writes. entry: its id in the inbox; person_time: event time of demographics (sortable text)."""

    entry: str
    message: Message
    source: Source
    items: Sequence[Item]
    person_time: str
    received: Any


def items_of(bundle: Resource, facts: Any, message: Message) -> list[Item]:
    """The items of a mapped bundle; `facts.entries` say where each entry came from."""
    known = {fact.full_url: fact for fact in facts.entries}
    items = []
    for entry in bundle["entry"]:
        res = entry["resource"]
        fact = known.get(entry["fullUrl"])
        if res["resourceType"] in NOT_STORED:
            continue
        if fact is None:
            items.append(Item(entry["fullUrl"], res))
        else:
            items.append(Item(entry["fullUrl"], res, message.segments[fact.index], frozenset(fact.nulls), fact.origins))
    return items


def targets(value: Any) -> Iterator[str]:
    """Every `reference` text in a resource."""
    if isinstance(value, dict):
        for name, part in value.items():
            if name == "reference" and isinstance(part, str):
                yield part
            elif isinstance(part, dict | list):
                yield from targets(part)
    elif isinstance(value, list):
        for part in value:
            yield from targets(part)


def linked(value: Any, refs: Mapping[str, str]) -> Any:
    """A copy with every known reference rewritten; parts without references are shared with the original."""
    if isinstance(value, dict):
        return {name: refs.get(part, part) if name == "reference" and isinstance(part, str) else linked(part, refs) for name, part in value.items()}
    if isinstance(value, list):
        return [linked(part, refs) for part in value]
    return value
