"""Things of one patient that share an order number: what of their own segment tells them apart (`siblings.csv`). Pure.

A laboratory gives all panels of one specimen its accession number, a ward records every dose under the number of the prescription, a registry
sends what others gave as number 9999. So the number alone names no resource: the service (OBR-4), the time and the drug (RXA-3, RXA-5), the
count of the dispense (RXD-1) do; a `counter` names nothing by itself, the order that it counts within does. Column `alone` says what a number means that comes with something else than what is known under it, where
it stands but once in the message: `same` thing, corrected; `other`: the same where another source said what is known (its codes are its own),
else a sibling; `never` the same. `nameless` numbers name nothing. HL7 v2.8 4.5.1, 4.5.3.4, 4A.4.7; https://hl7.org/fhir/R4/servicerequest.html
"""

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mappers.v2.message import Segment

Told = Mapping[str, str]  # 'OBR.4' -> what it says; 'by' -> the source that said it
NOTHING: Told = MappingProxyType({})
CHANGES = frozenset({"XO", "XX", "XR"})  # ORC-1: the order itself was changed


@dataclass(frozen=True, slots=True)
class Rule:
    """What the table says of a type: its segments with their fields, and the rest as in the columns."""

    fields: tuple[tuple[str, tuple[int, ...]], ...]
    alone: str
    nameless: frozenset[str]
    counter: int


def _table() -> Mapping[str, Rule]:
    found: dict[str, Rule] = {}
    with Path(__file__).with_name("siblings.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            before = found[row["rtype"]].fields if row["rtype"] in found else ()
            fields = (*before, (row["segment"], tuple(int(number) for number in row["fields"].split())))
            found[row["rtype"]] = Rule(fields, row["alone"], frozenset(row["nameless"].split()), int(row["counter"] or 0))
    return MappingProxyType(found)


TABLE = _table()


def told(rtype: str, segments: Sequence[Segment], source: str) -> Told:
    """What the segments of a resource say that tells it from its siblings; nothing if it has none such."""
    rule = TABLE.get(rtype)
    if rule is None:
        return NOTHING
    own = {segment.name: segment for segment in segments}
    said = {f"{name}.{number}": text for name, numbers in rule.fields if name in own for number in numbers if (text := _text(own[name], number))}
    if not said:
        return NOTHING
    return {**said, "by": source, **({"changed": "yes"} if own.get("ORC") is not None and own["ORC"].get("1").upper() in CHANGES else {})}


def by_order(rtype: str, keys: Sequence[str], segment: Segment | None, order: Segment | None, authority: str) -> tuple[str, ...]:
    """The keys of a resource that a counter is among: the number of its order (ORC-3, else ORC-2) in its place."""
    rule = TABLE.get(rtype)
    if rule is None or not rule.counter or segment is None:
        return tuple(keys)
    count, number = segment.get(f"{rule.counter}.1"), (order.get("3.1") or order.get("2.1")) if order is not None else ""
    rest = [key for key in keys if key.rpartition("|")[2] != count]
    if len(rest) == len(keys) or not number:  # an RXA has the numbers of its order themselves, and is never the dose that an RXG let prepare
        return tuple(rest)
    return (*rest, f"{rtype}|{authority}#order|{number}")


def _text(segment: Segment, number: int) -> str:
    """Code and system of a coded field, its text, a time, a count."""
    code = segment.get(f"{number}.1")
    return "^".join(part for part in (code, segment.get(f"{number}.3")) if part) if code else segment.get(f"{number}.2")


def kept(said: Told) -> Told:
    """What is kept with a number for later messages."""
    return {name: text for name, text in said.items() if name != "changed"}


def alike(one: Told, other: Told) -> bool:
    """True if two say the same of all that both say something of."""
    both = one.keys() & other.keys() - {"by", "changed"}
    return bool(both) and all(one[name] == other[name] for name in both)


def chosen(rtype: str, number: str, rows: Sequence[Mapping[str, Any]], said: Told, others: Sequence[Told], taken: Collection[str]) -> str:
    """The reference of the row that a number means, '' for none. others: what the message says of further things of this number; taken: what they are."""
    free = [row for row in rows if row["ref"] not in taken]
    found = next((row for row in free if alike(row.get("told", NOTHING), said)), None)
    found = found or next((row for row in free if not _comparable(row.get("told", NOTHING), said)), None)
    return str((found or _corrected(TABLE[rtype], number, rows, free, said, others) or {"ref": ""})["ref"])


def _comparable(one: Told, other: Told) -> bool:
    return bool(one.keys() & other.keys() - {"by", "changed"})


def _corrected(
    rule: Rule, number: str, rows: Sequence[Mapping[str, Any]], free: Sequence[Mapping[str, Any]], said: Told, others: Sequence[Told]
) -> Mapping[str, Any] | None:
    """The row that the message says something else of than what is known; None for a sibling."""
    if rule.alone == "never" or number in rule.nameless:
        return None
    unsaid = [row for row in free if not any(alike(row["told"], other) for other in others)]
    if rule.alone == "other" and not said.get("changed"):
        unsaid = [row for row in unsaid if row["told"].get("by") != said["by"]]
    return unsaid[0] if unsaid and (others or len(rows) == 1) else None
