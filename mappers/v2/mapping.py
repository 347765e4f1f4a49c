"""Rows of one map -> closures: a segment map writes fields into a resource, a data type map turns raw text into an element.

Compiled once per Tables and map, on first use.
"""

import json
import marshal
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mappers.v2 import purity, recall
from mappers.v2.condition import compile_condition
from mappers.v2.functions import FUNCTIONS, Codes, Convert
from mappers.v2.message import NULL, Segment, content
from mappers.v2.path import Slots, plain, slots_of, steps, writer
from mappers.v2.place import At
from mappers.v2.run import Draft, Element, Run
from mappers.v2.tables import ELSEWHERE, Row, Tables
from mappers.v2.values import LEAVES, Leaf, string

# types whose equal content within a message is one resource from the start
_INTERNED = frozenset({"Practitioner", "Organization", "Location", "Device"})
_TIMED = frozenset({"dateTime", "instant", "date"})
_REPEATED = frozenset({"@components"})  # conversions that give nothing where the field does not repeat
_JOINING = frozenset({"@joined", "@observation_value", "@components", "@document_text"})
# (run, raw text, place, level, element, slots) -> True if something of the message was written; constants tell nothing
Plan = Callable[[Run, str, At, int, Element, Slots], bool]
MOST_COMPONENTS = 40
SHORT, MOST_TEXTS = 32, 256  # characters of a text, and texts, for which it is kept what plans do with them
# lists that several fields fill (PID-13 and PID-14, PID-5 and PID-9): of each member it is told which field gave it
FIELDWISE = frozenset({"address", "identifier", "name", "participant", "telecom"})
_EXPRESSION = re.compile(r'"([^"]*)"|([A-Z][A-Z0-9]{1,2})[-.](\d+)(?:\.(\d+))?|\+|\s+')


@dataclass(slots=True, eq=False)
class Field:
    """The plans of one field or component; `drop`: slots that a further repetition starts anew; `elements`: what a null empties;

    `lists`: those of FIELDWISE that it fills, of which a null empties its own members only;
    `joins`: a conversion that reads all repetitions at the first; `takes_all`: one that reads all of the data type (`^...`);
    `alone`: the plans where the field does not repeat; `settled`: raw text -> those of them that do something, where the text alone says so.
    """

    number: int
    plans: list[Plan] = field(default_factory=list)
    once: list[Plan] = field(default_factory=list)
    alone: list[Plan] = field(default_factory=list)
    settled: dict[str, list[Plan]] | None = None
    drop: tuple[str, ...] = ()
    elements: frozenset[str] = frozenset()
    lists: tuple[str, ...] = ()
    joins: bool = False
    takes_all: bool = False


@dataclass(slots=True, eq=False)
class Map:
    """A compiled map: `fields` in order and `by_number`, `constants` that no field bears, `conditional` if any row has a condition, `gaps`: numbers without a row."""

    name: str
    fields: list[Field]
    by_number: dict[int, Field]
    constants: list[Plan]
    conditional: bool
    gaps: tuple[int, ...]


def compiled(tables: Tables, name: str) -> Map:
    """The map of a name ('pid[patient]'), compiled on first use. Raises KeyError where there is none."""
    found: Map | None = tables.compiled.get(name)
    if found is None:
        found = tables.compiled[name] = _compile(tables, name, tables.maps[name])
    return found


def _compile(tables: Tables, name: str, rows: list[Row]) -> Map:
    silent = {row.field for row in rows if row.path == ELSEWHERE}
    rows = [row for row in rows if row.path != ELSEWHERE]
    numbers = sorted({row.field for row in rows if row.field})
    fields = []
    for number in numbers:
        own = [row for row in rows if row.field == number]
        others = {key for row in rows if row.field != number for key in slots_of(row.path)}
        drop = _renewed(own, others)
        joins = any(row.convert in _JOINING for row in own)
        takes_all = any(row.convert.startswith("^") for row in own)
        lists = tuple(sorted({step.name for row in own if (step := steps(row.path)[0]).slot and step.name in FIELDWISE}))
        elements = frozenset(_element(row) for row in own) - set(lists)
        made = Field(number, drop=drop, elements=elements, lists=lists, joins=joins, takes_all=takes_all)
        if len(own) > 1 and all(purity.settles(row, name.partition("[")[0].upper()) for row in own):
            made.settled = {}
        for row in own:
            plan = _plan(tables, row)
            made.plans.append(plan)
            if row.convert not in _REPEATED:
                made.alone.append(plan)
            if row.path.startswith("$this") or any(key in drop for key in slots_of(row.path)) or row.path.endswith("$value"):
                made.once.append(plan)
        fields.append(made)
    constants = [_plan(tables, row) if row.when else _default(tables, row) for row in rows if not row.field]
    conditional = any(row.when or row.value.startswith("=") or row.convert[:1] in ("@", "^") for row in rows)
    return Map(
        name,
        fields,
        {made.number: made for made in fields},
        constants,
        conditional,
        tuple(number for number in range(1, MOST_COMPONENTS) if number not in numbers and number not in silent),
    )


def _renewed(rows: list[Row], others: set[str]) -> tuple[str, ...]:
    """Slots of a field that no other field writes to, from the outermost such on each path inwards; or the member a row is itself."""
    found: set[str] = set()
    for row in rows:
        keys = slots_of(row.path)
        own = next((place for place, key in enumerate(keys) if key not in others), None)
        if own is None and keys and keys[-1] == row.path:
            own = len(keys) - 1
        if own and keys[own].endswith("}") and keys[own - 1].endswith("}"):
            own = None  # a part of a complex extension that other fields fill as well: it stands once
        if own is not None:
            found.update(keys[own:])
            found.update(step.key for step in steps(row.path) if step.rtype and step.key.startswith(keys[own]))
    return tuple(found)


def _element(row: Row) -> str:
    """What a null in the field of a row empties: an element, or the extension of one url."""
    step = steps(row.path)[0]
    return f"{step.name}@{step.url}" if step.url and step.name == "extension" else step.name.lstrip("_")


def _default(tables: Tables, row: Row) -> Plan:
    """A row without field and condition: what stands there already stays."""
    plan = _plan(tables, row)
    name = steps(row.path)[0].name
    single = "[" not in row.path and "." not in row.path

    def default(run: Run, raw: str, place: At, level: int, root: Element, slots: Slots) -> bool:
        return False if single and name in root else plan(run, raw, place, level, root, slots)

    return default


def _plan(tables: Tables, row: Row) -> Plan:
    write = writer(row.path)
    convert = _convert(tables, row)
    tells = not row.value and not row.convert.startswith("@label:")
    name = plain(row.path)
    if name and not row.when:

        def simple(run: Run, raw: str, place: At, level: int, root: Element, slots: Slots) -> bool:
            value = convert(run, raw, place, level)
            if value is None:
                return False
            if type(value) is dict and name in root:
                write(run, root, slots, value)
            else:
                root[name] = value
            return tells

        return simple
    if not row.when:

        def always(run: Run, raw: str, place: At, level: int, root: Element, slots: Slots) -> bool:
            value = convert(run, raw, place, level)
            if value is None:
                return False
            write(run, root, slots, value)
            return tells

        return always
    holds = compile_condition(row.when)

    def guarded(run: Run, raw: str, place: At, level: int, root: Element, slots: Slots) -> bool:
        if not holds(place):
            return False
        value = convert(run, raw, place, level)
        if value is None:
            return False
        write(run, root, slots, value)
        return tells

    return guarded


def _convert(tables: Tables, row: Row) -> Convert:
    if row.value and row.convert not in ("", *LEAVES):
        raise ValueError(f"{row.file}: field {row.field}: a constant needs no conversion {row.convert}")
    if row.value:
        return _constant(row)
    codes: Codes | None = (row.codes, tables.codes[row.codes.casefold()]) if row.codes else None
    if row.convert.startswith("^"):
        inner = _named(tables, row, row.convert[1:], codes)
        return lambda run, raw, place, level: inner(run, place.whole, place, place.level)
    return _named(tables, row, row.convert, codes)


def _named(tables: Tables, row: Row, name: str, codes: Codes | None) -> Convert:
    if name.startswith("@label:"):
        return _labelled(name.removeprefix("@label:"))
    if name.startswith("@"):
        make = FUNCTIONS.get(name[1:])
        if make is None:
            raise ValueError(f"{row.file}: field {row.field}: no function {name}")
        made = make(codes)
        if name in purity.PURE:
            return recall.by_settings(made)
        return recall.by_message(made) if name in purity.SENDERLY else made
    if "[" in name:
        found = datatype(tables, name.casefold())
        if steps(row.path)[-1].rtype in _INTERNED:
            return _cached(found, name, follows=purity.follows(tables, name.casefold()))
        return found
    if name in _TIMED:
        return _timed(LEAVES[name], name)
    leaf = LEAVES.get(name or "string")
    if leaf is None:
        raise ValueError(f"{row.file}: field {row.field}: no conversion {name}")
    if codes is not None:
        return FUNCTIONS["code"](codes)
    if leaf is string:
        return string
    return lambda run, raw, place, level: leaf(run, raw)


def _timed(leaf: Leaf, name: str) -> Convert:
    """A time, kept for the message: the segments of a report repeat the same few."""

    def timed(run: Run, raw: str, place: At, level: int) -> Any:
        key = (name, raw)
        found = run.cache.get(key)
        if found is None:
            found = leaf(run, raw)
            if found is not None and not run.unsaid:
                run.cache[key] = found
        return found

    return timed


def _labelled(label: str) -> Convert:
    """@label:X[1]: a reference to the resource that has the label here."""

    def refer(run: Run, raw: str, place: At, level: int) -> Element | None:
        draft = place.scope.find(label)
        return run.refer(draft) if draft is not None else None

    return refer


def _cached(convert: Convert, name: str, *, follows: bool) -> Convert:
    """The same raw text gives the same element, once per message: what path.py makes one resource of. `follows`: its content is known from message to message."""
    number = id(convert)

    def cached(run: Run, raw: str, place: At, level: int) -> Any:
        key = (name, raw)
        found = run.cache.get(key)
        if found is None:
            if follows:
                found = recall.element(run, number, lambda: convert(run, raw, place, level), raw, level)
            else:
                found = convert(run, raw, place, level), run.unsaid
            run.cache[key] = found
        value, run.unsaid = found
        return value

    return cached


def _constant(row: Row) -> Convert:
    if row.value.startswith("="):
        return _expression(row.value[1:], row)
    if row.convert == "boolean":
        value: Any = row.value == "true"
    elif row.convert in ("integer", "positiveInt", "unsignedInt"):
        value = int(row.value)
    elif row.value[0] in "{[":
        packed = marshal.dumps(json.loads(row.value))  # a fresh copy each time, quicker than reading JSON
        return lambda run, raw, place, level: marshal.loads(packed)  # noqa: S302 - our own bytes, made on the line above
    else:
        value = row.value
    return lambda run, raw, place, level: value


def _expression(text: str, row: Row) -> Convert:
    parts: list[tuple[str, str, int, int]] = []
    at = 0
    while at < len(text):
        match = _EXPRESSION.match(text, at)
        if match is None:
            raise ValueError(f"{row.file}: field {row.field}: expression not understood: {text}")
        at = match.end()
        if match[1] is not None:
            parts.append((match[1], "", 0, 0))
        elif match[2]:
            parts.append(("", match[2], int(match[3]), int(match[4] or 0)))

    def join(run: Run, raw: str, place: At, level: int) -> str | None:
        return "".join(place.value(name, number, sub) if name else literal for literal, name, number, sub in parts).strip() or None

    return join


def datatype(tables: Tables, name: str) -> Convert:
    """The conversion of a data type map: raw text -> element, or the primitive that its `$value` row gives; None if nothing came of it."""
    holder: list[Map] = []

    def convert(run: Run, raw: str, place: At, level: int) -> Any:
        if not holder:
            holder.append(compiled(tables, name))
        return apply_parts(run, holder[0], raw, place, level)

    return convert


def apply_parts(run: Run, table: Map, raw: str, place: At, level: int) -> Any:
    """A data type map on raw text split at the component or subcomponent mark of `level`."""
    mark = run.marks[level] if level < 3 else ""
    parts = raw.split(mark) if mark and mark in raw else [raw]
    if table.conditional:
        place = place.inner(raw, parts, level)
    root: Element = {}
    slots: Slots = {}
    count = len(parts)
    written = unsaid = taken = rest = False
    for item in table.fields:
        number = item.number
        if number > count:
            break
        part = parts[number - 1]
        if part and part != NULL:
            whole = False
            for plan in item.plans:
                if plan(run, part, place, level + 1, root, slots):
                    written = True
                    whole = whole or not run.unsaid
                run.unsaid = False
            if item.takes_all:
                taken, rest = taken or whole, rest or not whole
            else:
                unsaid = unsaid or not whole
    for number in table.gaps:
        if number > count:
            break
        if parts[number - 1]:
            rest = rest or content(parts[number - 1], run.message.delimiters)
    run.unsaid = unsaid or (rest and not taken)
    if not written:
        return None
    for plan in table.constants:
        plan(run, raw, place, level, root, slots)
    return root.get("$value", root) if "$value" in root else root


def apply_segment(run: Run, table: Map, segment: Segment, draft: Draft, place: At) -> int:
    """A segment map on a segment: writes into the draft; returns how many values its fields gave."""
    root = draft.res
    slots: Slots = {}
    by_number, landed = table.by_number, run.landed
    written = 0
    run.segment = segment
    mark = segment.delimiters.repetition
    mark = mark if mark in segment.line else ""
    run.repetition = 1
    for number, raw in segment.present:
        item = by_number.get(number)
        if item is None:
            continue
        if not raw[0].isalnum():
            if raw == NULL:
                _empty(item, segment, draft, landed)
                continue
            if not content(raw, segment.delimiters):
                continue
        run.field = number
        before = [len(root.get(name, ())) for name in item.lists] if item.lists else None
        if mark and mark in raw:
            here = _repeated(run, item, segment, place, root, slots)
            run.repetition = 1
        else:
            place.raw = raw
            here, whole = 0, False
            for plan in item.alone if item.settled is None else _settled(run, item.settled, item.alone, raw, place):
                run.unsaid = False
                if plan(run, raw, place, 0, root, slots):
                    here += 1
                    whole = whole or not run.unsaid
            if here and not whole:
                run.leftover.setdefault(number, []).append(raw)
        if here:
            landed.add(number)
            written += here
        if before is not None:
            for name, count_before in zip(item.lists, before, strict=True):
                draft.origins += [(name, member, f"{segment.name}.{number}") for member in root.get(name, ())[count_before:]]
    run.field = run.repetition = 0
    place.raw = ""
    if written or len(root) > 1:
        for plan in table.constants:
            plan(run, "", place, 0, root, slots)
    return written


def _settled(run: Run, known: dict[str, list[Plan]], plans: list[Plan], raw: str, place: At) -> list[Plan]:
    """The plans of a field that do something with this text. Asked once per text: coded fields have many rows, of which one or two hold."""
    if run.memo is None:
        return plans
    found = known.get(raw)
    if found is not None:
        return found
    if len(raw) > SHORT or "\\" in raw or len(known) >= MOST_TEXTS:
        return plans
    problems, unmapped = len(run.problems), len(run.unmapped)
    found = []
    for plan in plans:
        root: Element = {}
        before = len(run.problems) + len(run.unmapped)
        plan(run, raw, place, 0, root, {})
        if root or len(run.problems) + len(run.unmapped) > before:
            found.append(plan)
    del run.problems[problems:], run.unmapped[unmapped:]
    known[raw] = found
    return found


def _empty(item: Field, segment: Segment, draft: Draft, landed: set[int]) -> None:
    """A field of `""`: the elements that it fills are emptied; of a list that others fill too, its own members."""
    draft.nulls.update(item.elements)
    draft.nulls.update(f"{name}@{segment.name}.{item.number}" for name in item.lists)
    landed.add(item.number)


def _told(run: Run, item: Field, plans: list[Plan], raw: str, place: At, root: Element, slots: Slots) -> int:
    """Run the plans of a field on one repetition; what none of them took whole is kept as it was sent, by convert.py."""
    here, whole = 0, False
    for plan in plans:
        run.unsaid = False
        if plan(run, raw, place, 0, root, slots):
            here += 1
            whole = whole or not run.unsaid
    if here and not whole and not item.joins:
        run.leftover.setdefault(item.number, []).append(raw)
    return here


def _repeated(run: Run, item: Field, segment: Segment, place: At, root: Element, slots: Slots) -> int:
    written = 0
    done = False
    for count, part in enumerate(segment.repetitions(item.number)):
        if not content(part, segment.delimiters):
            continue
        run.repetition = count + 1
        place.raw = part
        if done:
            for key in item.drop:
                slots.pop(key, None)
        here = _told(run, item, item.once if done else item.plans, part, place, root, slots)
        if not here and not item.joins:
            run.leftover.setdefault(item.number, []).append(part)
        written += here
        done = True
    return written
