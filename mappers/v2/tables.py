"""The tables: folders of CSV files -> checked rows. A later folder overrides an earlier one: field by field, code by code, segment by segment.

A folder has `messages/ORU.csv`, `segments/OBX_Observation.csv`, `datatypes/CX_Identifier.csv`, `codes/AdministrativeSex.csv` and the
single files `structures.csv systems.csv defaults.csv authorities.csv`. README.md says what the columns mean.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mappers.v2.condition import Condition, compile_condition
from mappers.v2.functions import FUNCTIONS
from mappers.v2.grammar import Grammar
from mappers.v2.path import steps
from mappers.v2.values import LEAVES

FOLDER = Path(__file__).parent / "tables"
LAYER = FOLDER / "layer"
ELSEWHERE = "!"  # the path of a component that another row of its field says
_FILE = re.compile(r"([A-Z][A-Z0-9]{1,2})_(.+)$")


@dataclass(frozen=True, slots=True)
class Row:
    """A mapping row: field or component number (0: none), condition, path, conversion, code map, constant; `file` for messages."""

    field: int
    when: str
    path: str
    convert: str
    codes: str
    value: str
    file: str


@dataclass(frozen=True, slots=True)
class Ref:
    """`left`.path = reference to `right`: labels, steps (name, is list), `alone`: only where `right` is the only one of its place."""

    left: str
    path: str
    steps: tuple[tuple[str, bool], ...]
    right: str
    alone: bool


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A row of a message table: in `group`, segment `name` makes or extends the resource `target` ('Patient[1]') by `map`.

    `holds` is the condition compiled, None if it has none; `source` the segment whose fields the map reads, '' for `name` itself:
    `ORC[MedicationAdministration]` at an RXA reads the ORC that goes with it.
    """

    group: str
    name: str
    holds: Condition | None
    target: str
    map: str
    refs: tuple[Ref, ...]
    source: str = ""


@dataclass(frozen=True, slots=True)
class Default:
    """What an element gets that R4 requires and nothing gave: if none of `names` stands at `path`, the first gets `value` (JSON).

    `known`: the names, and those of their extensions.
    """

    path: tuple[str, ...]
    names: tuple[str, ...]
    value: str
    known: frozenset[str]


@dataclass(slots=True, eq=False)
class Structure:
    """A message structure: its rows by (group, segment) and its grammar; `homes`: label -> group path where it lives."""

    name: str
    rows: dict[tuple[str, str], list[MessageRow]]
    grammar: Grammar
    homes: dict[str, str]


@dataclass(slots=True, eq=False)
class Tables:
    """Everything a conversion needs to know. `ignored`: segment -> fields that carry no fact (0: its name). `deleted`: segment -> the field and its codes by which it says what is no longer so. `compiled` caches closures by map name (mapping.py), `memos` values by sender (run.py)."""

    maps: dict[str, list[Row]] = field(default_factory=dict)
    codes: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    structures: dict[str, Structure] = field(default_factory=dict)
    triggers: dict[str, str] = field(default_factory=dict)
    systems: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, list[Default]] = field(default_factory=dict)
    authorities: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, set[int]] = field(default_factory=dict)
    deleted: dict[str, tuple[int, frozenset[str]]] = field(default_factory=dict)
    listed: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    compiled: dict[str, Any] = field(default_factory=dict)
    memos: dict[tuple[int, Any, Any], Any] = field(default_factory=dict)

    def structure_for(self, code: str, trigger: str) -> Structure | None:
        """The structure of an event: by 'ADT^A01', else by 'ADT' for events that HL7 (table 0003) or a site (Z..) has."""
        name = self.triggers.get(f"{code}^{trigger}")
        if name is None and (trigger.casefold() in self.codes["eventtype"] or trigger[:1] in ("", "Z")):
            name = self.triggers.get(code)
        return self.structures.get(name) if name else None


def load_tables(folder: Path | None = None, *, extra: Iterable[Path] = ()) -> Tables:
    """The built-in tables, overridden by those of `folder` and of `extra`, in that order. Cached. Raises ValueError naming file and row."""
    return _load((FOLDER, LAYER, *([folder] if folder else []), *extra))


@cache
def _load(folders: tuple[Path, ...]) -> Tables:
    tables = Tables()
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"no folder of tables: {folder}")
        _maps(tables, folder)
        _codes(tables, folder)
        _singles(tables, folder)
    _check(tables)
    return tables


def rows_of(path: Path, *columns: str) -> Iterator[dict[str, str]]:
    """Rows of a CSV file, cells stripped, missing ones ''. Raises ValueError where one of the columns is not there."""
    with path.open(encoding="utf-8-sig", newline="") as lines:
        read = csv.DictReader(lines)
        absent = [name for name in columns if name not in (read.fieldnames or ())]
        if absent:
            raise ValueError(f"{path.name}: the first line does not name the columns {', '.join(absent)}")
        for row in read:
            yield {name: (value or "").strip() for name, value in row.items() if name}


def _maps(tables: Tables, folder: Path) -> None:
    for path in sorted([*folder.glob("segments/*.csv"), *folder.glob("datatypes/*.csv")]):
        match = _FILE.match(path.stem)
        if match is None:
            raise ValueError(f"{path.name}: a file of rows is named SEGMENT_Resource.csv or TYPE_Element.csv")
        name = f"{match[1]}[{match[2]}]".casefold()
        new = [_row(row, path.name) for row in rows_of(path, "field", "when", "path", "as", "codes", "value")]
        replaced = {row.field for row in new}
        kept = [row for row in tables.maps.get(name, []) if row.field not in replaced]
        tables.maps[name] = sorted([*kept, *(row for row in new if row.path != "-")], key=lambda row: row.field or 999)


def _row(row: dict[str, str], file: str) -> Row:
    number = row["field"]
    if number and not number.isdecimal():
        raise ValueError(f"{file}: {number!r} is no field number")
    return Row(int(number or 0), row["when"], row["path"], row["as"], row["codes"], row["value"], file)


def _codes(tables: Tables, folder: Path) -> None:
    for path in sorted(folder.glob("codes/*.csv")):
        rows = tables.codes.setdefault(path.stem.casefold(), {})
        for row in rows_of(path, "from", "table", "code", "display", "system"):
            if row["code"] == "-":
                rows.pop(row["from"].casefold(), None)
            else:
                rows[row["from"].casefold()] = row


def _singles(tables: Tables, folder: Path) -> None:
    for name, into in (("structures", tables.triggers), ("systems", tables.systems), ("authorities", tables.authorities)):
        path = folder / f"{name}.csv"
        if path.exists():
            for row in rows_of(path):
                into[row["name"].upper()] = row["value"]
    path = folder / "ignored.csv"
    if path.exists():
        for row in rows_of(path):
            tables.ignored.setdefault(row["segment"], {0}).add(int(row["field"]))
    path = folder / "deleted.csv"
    if path.exists():
        tables.deleted.update({row["segment"]: (int(row["field"]), frozenset(row["codes"].split())) for row in rows_of(path)})
    path = folder / "defaults.csv"
    if path.exists():
        for row in rows_of(path):
            rows = tables.defaults.setdefault(row["type"], [])
            nested, _, names = row["element"].rpartition(".")
            wanted = tuple(names.split("|"))
            known = frozenset([*wanted, *(f"_{name}" for name in wanted)])
            made = Default(tuple(nested.split(".")) if nested else (), wanted, row["value"], known)
            json.loads(made.value)
            rows[:] = [old for old in rows if (old.path, old.names) != (made.path, made.names)]
            rows.append(made)
    for path in sorted(folder.glob("messages/*.csv")):
        name = path.stem.upper()
        tables.listed[name] = _merged(tables.listed.get(name, []), list(rows_of(path, "group", "segment", "when", "target", "map", "refs")))
        tables.structures[name] = _structure(path, tables.listed[name])


def _merged(old: list[dict[str, str]], new: list[dict[str, str]]) -> list[dict[str, str]]:
    """Rows of a message table, where a later folder gives all rows of a segment in a group anew, or adds one at the end of its group."""
    given: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in new:
        given.setdefault(_place(row), []).append(row)
    found: list[dict[str, str]] = []
    for row in old:
        found += given.pop(_place(row), []) if _place(row) in given else [row] if _place(row) not in {_place(one) for one in new} else []
    for (group, _), rows in given.items():
        last = max((at for at, row in enumerate(found, 1) if row["group"] == group), default=len(found))
        found[last:last] = rows
    return found


def _place(row: dict[str, str]) -> tuple[str, str]:
    return row["group"], row["segment"].lstrip("*")


def _structure(path: Path, rows_in_order: list[dict[str, str]]) -> Structure:
    listed = [(row["group"], row["segment"], row) for row in rows_in_order]
    rows: dict[tuple[str, str], list[MessageRow]] = {}
    homes: dict[str, str] = {}
    for group, segment, row in listed:
        name = segment.lstrip("*+")
        made = rows.setdefault((group, name), [])
        if row["target"]:
            holds = _condition(row["when"], f"{path.name}: {segment}") if row["when"] else None
            read = row["map"].partition("[")[0]
            source = read if read != name else ""
            made.append(MessageRow(group, name, holds, row["target"], row["map"].casefold(), _refs(row["refs"], path), source))
            label = row["target"]
            homes[label] = _common(homes[label], group) if label in homes else group
    return Structure(path.stem.upper(), rows, Grammar((group, segment) for group, segment, _ in listed), homes)


def _condition(text: str, where: str) -> Condition:
    try:
        return compile_condition(text)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _refs(text: str, path: Path) -> tuple[Ref, ...]:
    found = []
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        match = re.match(r"([A-Z]\w*\[\w+\])\.(\S+)=([A-Z]\w*\[\w+\])$", part)
        if match is None:
            raise ValueError(f"{path.name}: a reference is written Label[1].path=Label[1], not {part!r}")
        steps = tuple((name.removesuffix("[]"), name.endswith("[]")) for name in match[2].rstrip("?").split("."))
        found.append(Ref(match[1], match[2], steps, match[3], match[2].endswith("?")))
    return tuple(found)


def _common(one: str, other: str) -> str:
    """The innermost group that holds both."""
    left, right = one.split("."), other.split(".")
    shared = [a for a, b in zip(left, right, strict=False) if a == b and left[: left.index(a) + 1] == right[: left.index(a) + 1]]
    return ".".join(shared)


def _known(tables: Tables, row: Row) -> None:
    """The path parses, the conversion exists."""
    if row.path == ELSEWHERE:
        return
    try:
        steps(row.path)
    except ValueError as error:
        raise ValueError(f"{row.file}: field {row.field}: {error}") from error
    name = row.convert.lstrip("^")
    if name.startswith("@label:") or not name or name in LEAVES:
        return
    if name.startswith("@"):
        if name[1:] not in FUNCTIONS:
            raise ValueError(f"{row.file}: field {row.field}: no function {name}")
    elif name.casefold() not in tables.maps:
        raise ValueError(f"{row.file}: field {row.field}: no map {name}")


def _check(tables: Tables) -> None:
    """Every condition parses, every conversion, code map and structure that a row names exists."""
    for rows in tables.maps.values():
        for row in rows:
            _condition(row.when, f"{row.file}: field {row.field}")
            if row.codes and row.codes.casefold() not in tables.codes:
                raise ValueError(f"{row.file}: field {row.field}: no code map {row.codes}")
            _known(tables, row)
    for name in tables.triggers.values():
        if name.upper() not in tables.structures:
            raise ValueError(f"structures.csv: no structure {name}")
    for structure in tables.structures.values():
        for listed in structure.rows.values():
            for made in listed:
                if made.map and made.map not in tables.maps:
                    raise ValueError(f"{structure.name}.csv: no map {made.map}")
                unknown = {label for ref in made.refs for label in (ref.left, ref.right)} - structure.homes.keys()
                if unknown and structure.name != "ANY":
                    raise ValueError(f"{structure.name}.csv: {made.name}: no row makes {', '.join(sorted(unknown))}")
