"""`near`, and the words that `_text` and `_content` (`fulltext.py`) look for. https://hl7.org/fhir/R4/location.html#positional, https://hl7.org/fhir/R4/search.html#text

A position is stored as `g` (longitude, latitude). Words are stored in `t`: 'n~word' of the narrative, 'c~word' of all other human text.
"""

import re
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

from conformance.spec import Spec
from fhir_server.query.clauses import Clause, Near
from fhir_server.search.asked import Asked, Out
from fhir_server.search.escape import split, unescape
from fhir_server.search.fold import KEPT, words
from terminology.units import canonical

Prose = Sequence[Sequence[str]]
DEFAULT_KM = 50.0
TAG = re.compile(r"<[^>]*>")
ENTITY = re.compile(r"&#?\w+;")
DECIMAL = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{1,30})?")
MOST_WORDS = 5000  # of one resource: a Bundle of definitions would not fit into a transaction
MOST_TEXT = 100_000  # characters of one text that are looked through: an embedded document of 20 MB is not prose
NO_TEXT = {"reference", "id", "code", "status", "version", "versionId"}  # names that hold text in few types and codes in most


def position(value: Any) -> list[float] | None:
    """[longitude, latitude] of Location.position; None if it is not one on Earth."""
    if not isinstance(value, dict) or "longitude" not in value or "latitude" not in value:
        return None
    longitude, latitude = float(value["longitude"]), float(value["latitude"])
    return [longitude, latitude] if abs(longitude) <= 180 and abs(latitude) <= 90 else None


@lru_cache(64)
def _kilometres(unit: str) -> float | None:
    """How many kilometres a unit of length in UCUM has; None for other units."""
    found = canonical(Decimal(1), unit) if len(unit) <= 20 else None
    return float(found[0]) / 1000 if found is not None and found[1] == "m" else None


def near(asked: Asked, text: str) -> Clause:
    """'latitude|longitude|distance|units'; 50 km if no distance is given."""
    pieces = [unescape(piece) for piece in split(text, "|")]
    numbers = [piece for piece in pieces[:3] if piece or len(pieces) < 3]
    unit = _kilometres(pieces[3] if len(pieces) > 3 and pieces[3] else "km")
    if not (2 <= len(numbers) <= len(pieces) <= 4 and all(DECIMAL.fullmatch(one) for one in numbers)) or not all(pieces[:2]) or unit is None:
        raise asked.wrong("the value must be latitude|longitude|distance|units with units of length in UCUM")
    latitude, longitude = float(pieces[0]), float(pieces[1])
    distance = float(pieces[2]) if len(numbers) == 3 else DEFAULT_KM / unit
    if not (abs(longitude) <= 180 and abs(latitude) <= 90 and 0 <= distance <= 50_000_000):
        raise asked.wrong("latitude, longitude or distance is out of range")
    return Near(longitude, latitude, distance * unit)


def text_names(spec: Spec) -> frozenset[str]:
    """JSON names of elements whose type is string or markdown somewhere in R4: what `_content` reads."""
    memo: frozenset[str] | None = spec.memo.get("search.text_names")
    if memo is None:
        names = {"valueString", "valueMarkdown"}
        for owner in (*spec.types, *spec.datatypes):
            names |= _text_names(spec, owner)
        memo = spec.memo["search.text_names"] = frozenset(names - NO_TEXT)
    return memo


def _text_names(spec: Spec, owner: str) -> set[str]:
    found: set[str] = set()
    for name, element in spec.children(owner).items():
        if {"string", "markdown"} & set(element.types):
            found.add(name)
        elif element.content and element.content.startswith(owner + "."):
            found |= _text_names(spec, element.content)
    return found


def emit_words(res: dict[str, Any], names: frozenset[str], out: Out, prose: Prose | None = None) -> None:
    """Writes the words of the narrative and of all other text, contained resources' too. prose: `prose_of(res, names)`, if known already."""
    t, narrative = out.t, res.get("text")
    div = narrative.get("div") if isinstance(narrative, dict) else None
    if isinstance(div, str):
        for word in words(ENTITY.sub(" ", TAG.sub(" ", div)))[:MOST_WORDS]:
            t["n~" + word] = None
    for texts in prose_of(res, names) if prose is None else prose:
        for text in texts:
            if len(t) > MOST_WORDS:
                return
            keys = _content_kept(text) if len(text) <= KEPT else _content(text[:MOST_TEXT])
            t.update({key: None for key in keys if "n" + key[1:] not in t} if isinstance(div, str) else keys)


def _content(text: str) -> dict[str, None]:
    """The 'c~word' of a text."""
    return {"c~" + word: None for word in words(text)}


_content_kept = lru_cache(8192)(_content)


def prose_of(res: dict[str, Any], names: frozenset[str]) -> Prose:
    """The texts of string and markdown elements, wherever they stand, element by element: the resource's own first, then those of its last element."""
    found: list[list[str]] = []
    waiting: list[Any] = [{name: inner for name, inner in res.items() if name != "meta"}]
    while waiting:
        texts: list[str] = []
        for name, inner in waiting.pop().items():
            kind = type(inner)
            if kind is str:
                if name in names:
                    texts.append(inner)
            elif kind is dict:
                waiting.append(inner)
            elif kind is list:
                for each in inner:
                    if type(each) is dict:
                        waiting.append(each)
                    elif type(each) is str and name in names:
                        texts.append(each)
        if texts:
            found.append(texts)
    return found
