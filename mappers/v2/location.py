"""PL and NDL places -> a chain of Locations, each part of the next larger: bed, room, point of care, floor, building, facility.

A place is named by its own part and identified by the whole way to it (room 12 of two wards are two).
https://hl7.org/fhir/R4/location.html
"""

from typing import Any

from mappers.v2 import authority, recall
from mappers.v2.message import NULL
from mappers.v2.place import At
from mappers.v2.run import Draft, Element, Run

_TYPES = "http://terminology.hl7.org/CodeSystem/location-physical-type"
# from large to small: component of PL, physical type, its display
_LEVELS = ((4, "si", "Site"), (7, "bu", "Building"), (8, "lvl", "Level"), (1, "wa", "Ward"), (2, "ro", "Room"), (3, "bd", "Bed"))


def location(run: Run, raw: str, place: At, level: int) -> Element | None:
    """@location: content of the innermost Location of a PL; the larger ones become entries of their own."""
    key = ("PL", raw)
    found: tuple[Element | None, bool] | None = run.cache.get(key)
    if found is None:
        places, unsaid = recall.element(run, "PL", lambda: _read(run, raw, level), raw, level)
        found = run.cache[key] = _chain(run, places), unsaid
    run.unsaid = found[1]
    return found[0]


def _read(run: Run, raw: str, level: int) -> list[tuple[str, Element]]:
    """The places of a PL, from large to small: the way to each, what it is ('partOf' is to be filled); notes what they leave out."""
    mark = run.marks[level] if level < 3 else ""
    parts = (raw.split(mark) if mark else [raw]) + [""] * 12
    run.unsaid = _unsaid(run, parts)
    return _places(run, [("" if part == NULL else part) for part in parts], level)


def _unsaid(run: Run, parts: list[str]) -> bool:
    """True if the chain cannot show all of the PL: a status without a code, an authority beside that of the identifier."""
    marks = run.marks[1] or "\x00"
    status = run.text(parts[4]).casefold()
    names = [part for part in parts[9].split(marks)[1:3] if part]
    if any(marks in part and part.split(marks, 1)[1].strip(marks) for place, part in enumerate(parts[:8]) if place != 3):
        return True
    return bool(
        any(parts[11:])
        or (status and not run.tables.codes["bedstatus"].get(status, {}).get("code"))
        or len(names) > 1
        or (parts[10] and (names or not parts[9]))
    )


def _chain(run: Run, places: list[tuple[str, Element]]) -> Element | None:
    """All but the innermost become entries; each is part of the one before."""
    outer: Draft | None = None
    made: Element | None = None
    way = ""
    for here, place in places:
        if made is not None:
            outer = _kept(run, made, way)
        way, made = here, place
        if outer is not None:
            made["partOf"] = run.refer(outer)
    return made


def _places(run: Run, parts: list[str], level: int) -> list[tuple[str, Element]]:
    found: list[tuple[str, Element]] = []
    way: list[str] = []
    facility = authority.system(run, *authority.parts(run, parts[3], level + 1)) if parts[3] else ""
    for number, kind, display in _LEVELS:
        raw = parts[number - 1]
        name = authority.parts(run, raw, level + 1) if raw else ("", "", "")
        text = name[0] or name[1]
        if not text:
            continue
        way.append(text)
        made = _one(run, text, way, kind, display, facility)
        if found:
            made["partOf"] = {}
        found.append(("/".join(way), made))
    if not found:
        return [("", {"name": run.text(parts[8])})] if run.text(parts[8]) else []
    _details(run, found[-1][1], parts, level)
    return found


def _one(run: Run, text: str, way: list[str], kind: str, display: str, facility: str) -> Element:
    system = facility or (f"urn:id:{run.source.name}:location" if run.source.name.isidentifier() else "urn:id:location")
    return {
        "identifier": [{"system": system, "value": "/".join(way)}],
        "status": "active",
        "name": text,
        "mode": "instance",
        "physicalType": {"coding": [{"system": _TYPES, "code": kind, "display": display}]},
    }


def _kept(run: Run, made: Element, way: str) -> Draft:
    key = ("PL.part", way)
    found: Draft | None = run.cache.get(key)
    if found is None:
        found = run.cache[key] = run.keep(run.draft("Location", made))
        found.shared = True
    return found


def _details(run: Run, made: Element, parts: list[str], level: int) -> None:
    description = run.text(parts[8])
    if description:
        made["description"] = description
    if parts[4]:
        row = run.tables.codes["bedstatus"].get(run.text(parts[4]).casefold())
        if row and row["code"]:
            made["operationalStatus"] = {"system": "http://terminology.hl7.org/CodeSystem/v2-0116", "code": row["code"]}
    if parts[5]:
        made["type"] = [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0305", "code": run.text(parts[5])}]}]
    comprehensive = [run.text(part) for part in parts[9].split(run.marks[1] or "\x00")] if parts[9] else []
    if comprehensive and comprehensive[0]:
        more: Element = {"value": comprehensive[0]}
        system = authority.system(run, *[*comprehensive[1:4], "", "", ""][:3]) or (
            authority.system(run, *authority.parts(run, parts[10], level + 1)) if parts[10] else ""
        )
        made["identifier"].append({"system": system, **more} if system else more)


def of_ndl(run: Run, raw: str, place: At, level: int) -> Element | None:
    """@place_of_ndl: NDL.4-11 rearranged as a PL: point of care, room, bed, facility, status, type, building, floor."""
    mark = run.marks[level] if level < 3 else ""
    parts = (raw.split(mark) if mark else [raw]) + [""] * 12
    order: list[Any] = [parts[3], parts[4], parts[5], parts[6], parts[7], parts[8], parts[9], parts[10]]
    return location(run, mark.join(order), place, level) if any(order) and mark else None
