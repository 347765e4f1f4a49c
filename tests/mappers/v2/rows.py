"""The rows of HL7's v2-to-FHIR segment maps, and whether a value lands where each of them says.

The guide's target is read by build.py into our path grammar, checked against R4; a message is made that satisfies the row's condition and
gives its field a value of its type (row_messages.py). The element chain of the path must then be there in a resource of the map's type and
hold what was sent: its constant, or a leaf of the field as sent, as date, number or by a code map.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mappers.v2 import build, convert, message, path, tables
from mappers.v2.guide import CONDITIONS, CONSTANTS, TITLES
from mappers.v2.message import Message
from tests.mappers.v2 import leaves
from tests.mappers.v2.row_messages import GuideRow, messages


@dataclass(frozen=True, slots=True)
class Guide:
    """`rows` whose target R4 has; `not_r4`: (map, field, path, why) of those it has not or that say nothing computable."""

    rows: tuple[GuideRow, ...]
    not_r4: tuple[tuple[str, str, str, str], ...]


@dataclass(frozen=True, slots=True)
class Landing:
    """Where a row landed: `bundle`, and `logical`: by Reference.identifier, since only the number of the other resource is known."""

    bundle: dict[str, Any]
    logical: bool


def guide_rows(folder: Path, archive: Path) -> Guide:
    """All rows of the guide's segment maps that have a target."""
    elements = build.Elements(archive)
    found: list[GuideRow] = []
    out: list[tuple[str, str, str, str]] = []
    for file in sorted(folder.glob("segments/*.csv")):
        match = re.search(r"R4_ (\w+)\[([\w-]+)\]", file.name)
        if match is None:
            continue
        name = f"{match[1]}[{match[2]}]"
        cells = list(build.cells_of(file))
        urls = build.urls_of(cells)
        for row in cells:
            row[1] = TITLES.get(f"{row[1]} {row[2]}", row[1])
            if not row[9] or build.is_url(build.fixed_path(row[9], name)):
                continue
            try:
                found.append(_row(elements, name, row, urls))
            except ValueError as error:
                out.append((name, row[1], row[9], str(error)))
    return Guide(tuple(found), tuple(out))


def _row(elements: build.Elements, name: str, row: list[str], urls: dict[str, str]) -> GuideRow:
    text, _, assigned = build.fixed_path(row[9], name).partition("=")
    rtype = name.partition("[")[2].rstrip("]").split("-")[0]
    if text == "$this":
        raise ValueError("the row names a data type map, whose own rows say where")
    value = (row[16].strip() or assigned).strip("\"' ")
    if value.startswith(("/", "#")):
        raise ValueError("the value is a note to the implementer")
    target = build.Target(elements, rtype, text, urls, row[1])
    path.steps(target.path)
    if target.path.endswith("coding[1].system") and re.search(r"/(ValueSet|StructureDefinition)/", value):
        raise ValueError("Coding.system names a code system, not a value set or extension")
    if (value.startswith("http") and target.kind not in ("uri", "url", "canonical")) or target.kind[:1].isupper():
        value = ""  # a link to what the element may hold
    field = re.match(r"([A-Z][A-Z0-9]{2})[-.](\d+)", row[1])
    when = CONDITIONS.get(row[6], row[6])
    computed = "+" in value or " - " in value
    return GuideRow(
        name,
        int(field[2]) if field else 0,
        row[3],
        when,
        target.path,
        rtype,
        build.code_map(row[15]),
        segment=field[1] if field else name.partition("[")[0],
        value="" if computed else CONSTANTS.get(value, value),
        computed=computed,
        kind=target.kind,
    )


def lands(row: GuideRow, known: tables.Tables) -> Landing | None:
    """The first generated message whose bundle has, at the row's element, what the row says; None if none has."""
    steps = path.steps(row.target)
    for text in messages(row, known):
        parsed = message.parse(text.encode())
        bundle = convert.convert(parsed, known).bundle
        by_url = {entry["fullUrl"]: entry["resource"] for entry in bundle.get("entry", [])}
        for res in [bundle] if row.rtype == "Bundle" else by_url.values():
            if res["resourceType"] == row.rtype:
                for node, logical in _nodes(res, steps, {**by_url, **_contained(res)}):
                    if _says(node, row, parsed):
                        return Landing(bundle, logical)
    return None


def _contained(res: dict[str, Any]) -> dict[str, Any]:
    return {f"#{inner['id']}": inner for inner in res.get("contained", [])}


def _nodes(node: Any, steps: tuple[path.Step, ...], by_url: dict[str, Any]) -> Iterator[tuple[Any, bool]]:
    """The nodes at the end of a path, through references to other resources of the bundle."""
    if not steps:
        if node not in ({}, [], None):
            yield node, False
        return
    step, rest = steps[0], steps[1:]
    found = node.get(step.name) if isinstance(node, dict) else None
    for member in found if isinstance(found, list) else [] if found is None else [found]:
        if step.url and (not isinstance(member, dict) or member.get("url") != step.url):
            continue
        if step.name == "reference" and member in by_url:
            yield by_url[member], False
        elif not step.rtype:
            yield from _nodes(member, rest, by_url)
        elif isinstance(member, dict):
            yield from _referred(member, step.rtype, rest, by_url)


def _referred(reference: dict[str, Any], rtype: str, rest: tuple[path.Step, ...], by_url: dict[str, Any]) -> Iterator[tuple[Any, bool]]:
    other = by_url.get(reference.get("reference", ""))
    if other is not None and other["resourceType"] == rtype:
        yield from _nodes(other, rest, by_url)
    elif other is None and "identifier" in reference and (not rest or [step.name for step in rest] == ["identifier"]):
        yield reference["identifier"], True


def _says(node: Any, row: GuideRow, parsed: Message) -> bool:
    """True if the node holds the row's constant, or something that the row's field of the message says."""
    if row.value:
        return str(node).casefold() == row.value.casefold() or (node is True and row.value == "true")
    if row.computed or not row.field:
        return True
    sent = [text for segment in parsed.segments if segment.name == row.segment for text in leaves.texts(segment, row.field)]
    if not sent:  # the condition wants the field empty
        return True
    if isinstance(node, bool):
        return sent[0].upper() == ("Y" if node else "N")
    if isinstance(node, dict) and "reference" in node:
        return True
    says = leaves.Found({"node": node})
    return any(says.has(text) for text in sent)


def deviations() -> list[dict[str, str]]:
    """map, field ('*': all), target ('': all of the field; else the start of our path), why (wrong, condition, contradiction, stateful), reason."""
    return list(tables.rows_of(Path(__file__).parent / "guide_deviations.csv"))


def argued(row: GuideRow, listed: list[dict[str, str]]) -> dict[str, str] | None:
    """The deviation that holds for a row."""
    for one in listed:
        if one["map"] == row.map and one["field"] in ("*", str(row.field)) and row.target.startswith(one["target"]):
            return one
    return None
