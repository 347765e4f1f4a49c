"""What a source says of a resource meets what is stored: absent keeps, `""` deletes, a value replaces, newer beats older. Pure.

Every source has its own *contribution* per slot: the newest value it gave and when (event time, ties by receipt). A resource is what all
contributions together say, so the order in which messages arrive does not matter. Slots are top-level elements; a list that several v2 fields
fill has one slot per field (`telecom@PID.13`, of identifiers per field and type `identifier@PID.3:SS`), since one field may be absent without
deleting what another gave, and all repetitions of a field that is sent replace all that it gave before (HL7 v2.8 2.10.5). Extensions have one
per url; where no field is told, the kind of an item is its slot (`telecom@home`).

- single elements: the newest contribution of any source wins; `""` takes back only the source's own;
- lists (identifiers, phones, names): each source's items stand beside the others'; a source replaces and deletes only its own;
- what a FHIR client wrote counts as the contribution `~fhir`, as new as the version it was found in;
- what R4 requires and no message told yet is assumed (`~assumed`): older than anything that is said, and gone when something is.

State document (kind `feed`): {_id: 'Patient/1', sources: {source: {slot: {at: stamp, first: stamp, value: JSON text or None}}}}.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from conformance.codec import decode_value, encode

Resource = dict[str, Any]
State = dict[str, Any]
FHIR = "~fhir"
ASSUMED = "~assumed"
UNTOLD: Mapping[tuple[str, str], str] = MappingProxyType({})
APART = frozenset({"resourceType", "id", "meta", "implicitRules", "text"})


@dataclass(frozen=True, slots=True)
class Said:
    """What one message says of one resource.

    stamp: sortable text, event time then receipt (`stamp`); nulls: elements or slots emptied by `""` ('gender', 'telecom@PID.13');
    choice: JSON name -> element name ('deceasedBoolean' -> 'deceased[x]'); origins: (list element, `member_key`) -> the field that gave the item; assumed: elements of res that the message does not tell. A message that is mapped again (same stamp) takes back what it said
    before and does not say now.
    """

    res: Resource
    source: str
    stamp: str
    nulls: Collection[str] = ()
    choice: Callable[[str], str] = str
    origins: Mapping[tuple[str, str], str] = field(default_factory=lambda: UNTOLD)
    assumed: Collection[str] = ()


def stamp(event_time: str, entry: str) -> str:
    """A sortable stamp: event time (UTC, ISO 8601 to the millisecond) and the inbox id of the message."""
    return f"{event_time}|{entry}"


def reconcile(current: Resource | None, state: State | None, said: Said) -> tuple[Resource, State]:
    """The resource and state after this message; the inputs stay as they are. `current` is None for a new resource."""
    sources: dict[str, dict[str, Any]] = {name: dict(slots) for name, slots in (state or {}).get("sources", {}).items()}
    merged: Resource = dict(current) if current is not None else {"resourceType": said.res["resourceType"]}
    slots = _slots(said, sources.get(said.source, {}))
    for slot, contribution in sources.get(said.source, {}).items():
        if contribution["at"] == said.stamp:
            slots.setdefault(slot, [] if "@" in slot or _is_text_list(contribution["value"]) else None)
    before = _given(slots, sources.get(said.source, {}))
    if current is not None:
        _notice_edits(current, sources, {slot for slot, value in slots.items() if not isinstance(value, list)}, said.choice)
    own = sources.setdefault(said.source, {})
    for slot, value in slots.items():
        old = own.get(slot)
        first = min(said.stamp, old["first"]) if old else said.stamp
        if old and old["at"] > said.stamp:
            own[slot] = {**old, "first": first}
        else:
            own[slot] = {"at": said.stamp, "first": first, "value": None if value is None or value == [] else encode(value).decode()}
    for slot, value in slots.items():
        if not isinstance(value, list):
            _merge_single(merged, slot, sources, said.choice)
    for element, items in before.items():
        _merge_list(merged, element, items, sources)
    for name in said.assumed:
        if name in said.res:
            _assume(merged, name, said, sources)
    return merged, {"sources": sources}


def _assume(merged: Resource, name: str, said: Said, sources: dict[str, dict[str, Any]]) -> None:
    """Put an element that R4 requires where nothing is known of it."""
    value = said.res[name]
    slot = name if isinstance(value, list) else said.choice(name.removeprefix("_"))
    if all(said.choice(one.removeprefix("_")) != slot for one in merged):
        merged[name] = value
        text = encode(value if isinstance(value, list) else {name: value}).decode()
        sources.setdefault(ASSUMED, {})[slot] = {"at": "", "first": "", "value": text}


def _given(slots: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, list[Any]]:
    """List element -> what the source gave before in the slots that it now speaks of: each element is merged once, however many slots it has."""
    given: dict[str, list[Any]] = {}
    for slot, value in slots.items():
        if isinstance(value, list):
            given.setdefault(slot.partition("@")[0], []).extend(_items(own.get(slot)))
    return given


def _slots(said: Said, own: Collection[str]) -> dict[str, Any]:
    """Slot -> list of items, or fragment of JSON names for a single element, or None where the sender emptied it."""
    slots: dict[str, Any] = {}
    for name, value in said.res.items():
        if name in APART or name in said.assumed:
            continue
        if isinstance(value, list):
            for number, item in enumerate(value):
                kind = slot_of(name, item)
                place = said.origins.get((name, member_key(name, number, item)))
                slots.setdefault(_told_by(name, place, kind) if place else kind, []).append(item)
                if place and kind in own:  # kept before fields told items apart
                    slots.setdefault(kind, [])
        else:
            slots.setdefault(said.choice(name.removeprefix("_")), {})[name] = value
    lists = {slot.partition("@")[0] for slot, value in slots.items() if isinstance(value, list)}
    for null in said.nulls:
        element, _, kind = null.partition("@")
        if kind:
            for slot in [null, *(one for one in own if one.startswith(f"{null}:"))]:
                slots.setdefault(slot, [])
            continue
        if not _is_list(element, lists, said):
            slots.setdefault(said.choice(element), None)
            continue
        for slot in [element, *(one for one in own if one.partition("@")[0] == element)]:
            slots.setdefault(slot, [])
    return slots


# List element -> path to what tells its kinds apart; HL7 v2 fills each kind from fields of its own.
KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "telecom": ("use",),
        "address": ("use",),
        "identifier": ("type", "coding", "code"),
        "name": ("use",),
        "extension": ("url",),
        "participant": ("type", "coding", "code"),
    }
)


def slot_of(element: str, item: Any) -> str:
    """The slot of a list item: 'telecom@home', or the element itself where items have no kinds."""
    path = KINDS.get(element)
    if path is None:
        return element
    for name in path:
        item = item[0] if isinstance(item, list) and item else item
        item = item.get(name) if isinstance(item, dict) else None
    return f"{element}@{item}" if isinstance(item, str) else element


def _told_by(element: str, place: str, kind: str) -> str:
    """The slot of an item that a field gave; identifiers of one field are told apart by type, since senders list now some, now all of them."""
    return f"{element}@{place}:{kind.partition('@')[2]}" if element == "identifier" else f"{element}@{place}"


def _is_text_list(text: str | None) -> bool:
    return text is not None and text.startswith("[")


def _is_list(element: str, lists: Collection[str], said: Said) -> bool:
    return element in lists or element in LISTS.get(said.res["resourceType"], ())


# List elements that a sender can empty with "" while the message gives no item by which to see that they are lists.
LISTS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "Patient": frozenset(
            {"identifier", "name", "telecom", "address", "communication", "contact", "extension", "generalPractitioner", "link", "photo"}
        ),
        "Encounter": frozenset({"identifier", "type", "participant", "diagnosis", "account", "location", "reasonCode", "extension"}),
        "Practitioner": frozenset({"identifier", "name", "telecom", "address", "qualification"}),
        "Organization": frozenset({"identifier", "telecom", "address", "alias", "contact", "type"}),
        "Location": frozenset({"identifier", "telecom", "alias", "type"}),
        "RelatedPerson": frozenset({"identifier", "name", "telecom", "address", "relationship", "communication"}),
        "Coverage": frozenset({"identifier", "payor", "class", "contract"}),
        "Account": frozenset({"identifier", "subject", "coverage", "guarantor"}),
        "AllergyIntolerance": frozenset({"identifier", "reaction", "note", "category"}),
        "ServiceRequest": frozenset({"identifier", "category", "performer", "reasonCode", "note", "specimen", "supportingInfo", "insurance"}),
    }
)


def _items(contribution: Mapping[str, Any] | None) -> list[Any]:
    if contribution is None or contribution["value"] is None:
        return []
    value = decode_value(contribution["value"].encode())
    return value if isinstance(value, list) else []


def _notice_edits(current: Resource, sources: dict[str, dict[str, Any]], slots: Collection[str], choice: Callable[[str], str]) -> None:
    """Record what a FHIR client changed in single elements since the feed last wrote."""
    at = stamp(str(current.get("meta", {}).get("lastUpdated", "")), "")
    for slot in slots:
        found = {name: value for name, value in current.items() if not isinstance(value, list) and choice(name.removeprefix("_")) == slot}
        if found != _winner(sources, slot):
            sources.setdefault(FHIR, {})[slot] = {"at": at, "first": at, "value": encode(found).decode() if found else None}


def _winner(sources: Mapping[str, Mapping[str, Any]], slot: str) -> dict[str, Any]:
    """The fragment that all contributions to a single element amount to; {} for none."""
    rows = sorted(((slots[slot]["at"], name, slots[slot]["value"]) for name, slots in sources.items() if slot in slots), reverse=True)
    for _, name, value in rows:
        if value is not None:
            return dict(decode_value(value.encode()))
        if name == FHIR:
            return {}
    return {}


def _merge_single(merged: Resource, slot: str, sources: Mapping[str, Mapping[str, Any]], choice: Callable[[str], str]) -> None:
    for name in [name for name in merged if name not in APART and choice(name.removeprefix("_")) == slot]:
        del merged[name]
    merged.update(_winner(sources, slot))


def _merge_list(merged: Resource, element: str, before: list[Any], sources: Mapping[str, Mapping[str, Any]]) -> None:
    """All contributions, the earliest given first, the newest spelling of each item; then what no contribution explains."""
    rows = [
        (contribution["first"], name, slot, contribution)
        for name, slots in sources.items()
        for slot, contribution in slots.items()
        if slot.partition("@")[0] == element
    ]
    chosen: dict[str, tuple[str, Any]] = {}
    for _, _, _, contribution in sorted(rows, key=lambda row: row[:3]):
        for item in _items(contribution):
            key = item_key(element, item)
            if key not in chosen or chosen[key][0] < contribution["at"]:
                chosen[key] = (contribution["at"], item)
    explained = chosen.keys() | {item_key(element, item) for item in before}
    assumed = {item_key(element, item) for item in _items(sources.get(ASSUMED, {}).get(element))}
    result = [item for key, (_, item) in chosen.items() if key not in assumed] or [item for _, item in chosen.values()]
    result += [item for item in merged.get(element, ()) if item_key(element, item) not in explained]
    if result:
        merged[element] = result
    else:
        merged.pop(element, None)


def member_key(element: str, number: int, item: Any) -> str:
    """A member of a list as a message gave it: replaced numbers are taken out of identifiers on the way here, references change in others."""
    return item_key(element, item) if element == "identifier" else str(number)


def item_key(element: str, item: Any) -> str:
    """What makes two items of a list the same: system and value of identifiers and telecoms, else the whole item."""
    if isinstance(item, dict) and element in ("identifier", "telecom") and "value" in item:
        return f"{item.get('system', '')}|{item['value']}"
    return json.dumps(item, sort_keys=True, default=str)
