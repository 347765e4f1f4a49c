"""Coded values (CWE CNE CE CF IS ID ST) -> code, Coding, CodeableConcept, by code maps and by table 0396.

A mapped code comes first and the one that was sent stays beside it; a code that the map does not have keeps its coding and text
and is listed in `Run.unmapped`. https://hl7.org/fhir/R4/datatypes.html#CodeableConcept
"""

import re
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from mappers.v2.place import At
from mappers.v2.run import Element, Run, Unmapped
from mappers.v2.values import code as plain_code

Codes = tuple[str, dict[str, dict[str, str]]]
_TABLE = re.compile(r"(?:HL7|V2-|HL7-)?-?(\d{4})$", re.IGNORECASE)
_OID = re.compile(r"(?:urn:oid:)?([0-2](?:\.(?:0|[1-9]\d*))+)$")
_V2 = "http://terminology.hl7.org/CodeSystem/v2-"
# components that name a coding system by name or OID: they show in the system's URI
_NAMES = frozenset({3, 6, 12, 14, 17, 20})
# (code, display, system, version, OID) components of the three codings of a CWE
_CODINGS = ((1, 2, 3, 7, 14), (4, 5, 6, 8, 17), (10, 11, 12, 13, 20))


def system_of(run: Run, name: str) -> str:
    """The URI of a coding system named in CWE.3, by the source, table 0396, HL7 table number or OID; local names get `urn:id:`."""
    text = name.strip()
    if not text:
        return ""
    upper = text.upper()
    known = run.source.systems.get(upper) or run.tables.systems.get(upper)
    if known:
        return str(known)
    oid = _OID.match(text)
    if oid and oid[1] in run.tables.systems:
        return str(run.tables.systems[oid[1]])
    table = _TABLE.match(text)
    if table:
        return _V2 + table[1]
    if oid:
        return f"urn:oid:{oid[1]}"
    if text.lower().startswith(("http://", "https://", "urn:")):
        return quote(text, safe=":/?#[]@!$&'()*+,;=%-._~")
    owner = f"{_plain(run.source.name)}:" if upper in ("L", "LOCAL") and run.source.name else ""
    return f"urn:id:{owner}{_plain(text)}"


@lru_cache(maxsize=1024)
def _plain(name: str) -> str:
    return quote(name, safe=".-_")


def split(run: Run, raw: str, level: int) -> list[str]:
    """Decoded components, 22 of them."""
    mark = run.marks[level] if level < 3 else ""
    parts = raw.split(mark) if mark and mark in raw else [raw]
    found = [run.text(part) for part in parts]
    return found + [""] * (22 - len(found))


def check_said(run: Run, parts: list[str], value: Any, names: frozenset[int] = frozenset()) -> None:
    """Note it where a part of a composite does not show in what was made of it; `names` are components that turned into URIs."""
    said: set[str] = set()
    gather(value, said)
    for number, part in enumerate(parts, 1):
        if part and number not in names and part not in said and " ".join(part.split()) not in said:
            run.unsaid = True
            return


def gather(node: Any, into: set[str]) -> None:
    """All texts of an element."""
    if isinstance(node, dict):
        for value in node.values():
            gather(value, into)
    elif isinstance(node, list):
        for value in node:
            gather(value, into)
    else:
        into.add(str(node))


def sent(run: Run, parts: list[str]) -> list[Element]:
    """The codings as they were sent."""
    found = []
    for code_at, text_at, system_at, version_at, oid_at in _CODINGS:
        value, text = parts[code_at - 1], parts[text_at - 1]
        if not value:
            continue
        made: Element = {}
        system = system_of(run, parts[system_at - 1] or parts[oid_at - 1])
        if system:
            made["system"] = system
            if parts[version_at - 1]:
                made["version"] = parts[version_at - 1]
        made["code"] = " ".join(value.split())
        if text:
            made["display"] = text
        found.append(made)
    return found


def concept(codes: Codes | None) -> Any:
    """@concept: CodeableConcept of one repetition."""

    def convert(run: Run, raw: str, place: At, level: int) -> Element | None:
        parts = split(run, raw, level)
        codings = sent(run, parts)
        text = parts[8] or ("" if codings else parts[1] or parts[4])
        if codes is not None and codings:
            codings = _mapped(run, codes, codings, text)
        if not text and codings and not any("display" in coding for coding in codings) and "system" not in codings[-1]:
            text = codings[0]["code"]
        if run.translate is not None:
            codings = [*codings, *_translated(run, codings)]
        made: Element = {"coding": codings} if codings else {}
        if text:
            made["text"] = text
        check_said(run, parts, made, _NAMES)
        return made or None

    return convert


def bound(codes: Codes | None) -> Any:
    """@bound: CodeableConcept with the mapped code first, for elements of a required binding; None where the map has no code."""

    def convert(run: Run, raw: str, place: At, level: int) -> Element | None:
        parts = split(run, raw, level)
        codings = sent(run, parts)
        if not codings or codes is None:
            return None
        row = codes[1].get(codings[0]["code"].casefold()) or codes[1].get(codings[0].get("display", "").casefold())
        if row is None:
            _note(run, codes[0], codings[0], parts[8])
        if row is None or not row["code"]:
            return None
        made: Element = {"coding": [_target(row), *codings]}
        check_said(run, parts, made, _NAMES)
        return made

    return convert


def concepts(codes: Codes | None) -> Any:
    """@concepts: the CodeableConcept in a list, for elements that repeat and stand in no slot."""
    one = concept(codes)

    def convert(run: Run, raw: str, place: At, level: int) -> list[Element] | None:
        made = one(run, raw, place, level)
        return [made] if made else None

    return convert


def _translated(run: Run, codings: list[Element]) -> list[Element]:
    seen = {(coding.get("system"), coding["code"]) for coding in codings}
    found = []
    for coding in codings:
        for new in run.translate(coding.get("system", ""), coding["code"]) if run.translate else ():
            if (new.get("system"), new.get("code")) not in seen:
                seen.add((new.get("system"), new.get("code")))
                found.append(new)
    return found


def _mapped(run: Run, codes: Codes, codings: list[Element], text: str) -> list[Element]:
    """The mapped coding first, then what was sent; the system of a table code that named none is the table."""
    name, rows = codes
    first = codings[0]
    row = rows.get(first["code"].casefold())
    if row is None and "display" not in first and text:
        row = rows.get(text.casefold())
    if row is None:
        table = next((row["table"] for row in rows.values() if row["table"]), "")
        if "system" not in first and table:
            codings[0] = {"system": system_of(run, table), **first}
        _note(run, name, first, text)
        return codings
    if "system" not in first and row["table"]:
        codings[0] = first = {"system": system_of(run, row["table"]), **first}
    target = _target(row)
    if not target:
        return codings
    same = target.get("system") == first.get("system") and target["code"] == first["code"]
    return (
        [{**target, **({"display": first["display"]} if "display" in first else {})}, *codings[1:]]
        if same
        else [target, *(item for item in codings if (item.get("system"), item["code"]) != (target.get("system"), target["code"]))]
    )


def _target(row: dict[str, str]) -> Element:
    if not row["code"]:
        return {}
    made: Element = {"system": row["system"]} if row["system"] else {}
    made["code"] = row["code"]
    if row["display"]:
        made["display"] = row["display"]
    return made


def _note(run: Run, name: str, coding: Element, text: str) -> None:
    run.unmapped.append(Unmapped(name, coding.get("system", ""), coding["code"], coding.get("display", text), run.at()))


def coding(codes: Codes | None) -> Any:
    """@coding: one Coding, the mapped one if the map has it."""

    def convert(run: Run, raw: str, place: At, level: int) -> Element | None:
        parts = split(run, raw, level)
        codings = sent(run, parts)
        if not codings:
            return {"display": parts[1] or parts[8]} if parts[1] or parts[8] else None
        found: Element = _mapped(run, codes, codings[:1], parts[8])[0] if codes is not None else codings[0]
        check_said(run, parts, found, frozenset({3, 14}))
        return found

    return convert


def code(codes: Codes | None) -> Any:
    """@code: the mapped code; None, and listed as unmapped, where the map has none."""

    def convert(run: Run, raw: str, place: At, level: int) -> str | None:
        value = plain_code(run, raw)
        if value is None or codes is None:
            return value
        row = codes[1].get(value.casefold())
        if row is None:
            _note(run, codes[0], {"code": value}, "")
            return None
        return row["code"] or None

    return convert


def code_or_sent(codes: Codes | None) -> Any:
    """@code_or_sent: the mapped code, else the one that was sent (for elements without a required binding)."""
    mapped = code(codes)

    def convert(run: Run, raw: str, place: At, level: int) -> str | None:
        found: str | None = mapped(run, raw, place, level) or plain_code(run, raw)
        return found

    return convert


def alternate(codes: Codes | None) -> Any:
    """@alternate: CodeableConcept of a code that its map could not turn into a FHIR code; None where the map could."""

    def convert(run: Run, raw: str, place: At, level: int) -> Element | None:
        parts = split(run, raw, level)
        codings = sent(run, parts)
        if not codings or (codes is not None and codes[1].get(codings[0]["code"].casefold(), {}).get("code")):
            return None
        if "system" not in codings[0] and codes is not None:
            table = next((row["table"] for row in codes[1].values() if row["table"]), "")
            if table:
                codings[0] = {"system": system_of(run, table), **codings[0]}
        check_said(run, parts, codings, _NAMES)
        return {"coding": codings}

    return convert


def untranslated(codes: Codes | None) -> Any:
    """@untranslated: Coding of a code that its map has no FHIR code for; None where it has one."""
    other = alternate(codes)

    def convert(run: Run, raw: str, place: At, level: int) -> Element | None:
        found = other(run, raw, place, level)
        return found["coding"][0] if found else None

    return convert


def table_code(codes: Codes | None) -> Any:
    """@table_code: like @concept for ID and IS fields: the system is the code map's table."""
    return concept(codes)


def event(run: Run, raw: str, place: At, level: int) -> Element:
    """@event: MSG -> MessageHeader.eventCoding."""
    parts = split(run, raw, level)
    trigger = parts[1] or run.message.trigger or "unknown"
    return {"system": "http://terminology.hl7.org/CodeSystem/v2-0003", "code": trigger, "display": "^".join(part for part in parts[:3] if part)}
