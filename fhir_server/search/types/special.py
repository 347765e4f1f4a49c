"""`near`, and the texts behind `_text` and `_content`. https://hl7.org/fhir/R4/location.html#positional, https://hl7.org/fhir/R4/search.html#text

A position is stored as `g` (longitude, latitude). Words are stored in `t`: 'n~word' of the narrative, 'c~word' of all other human text.
"""

import re
from typing import Any

from conformance.spec import Spec
from fhir_server.query.clauses import Clause, Near, Text, both, either, negated
from fhir_server.search.asked import Asked, Out
from fhir_server.search.escape import split, unescape
from fhir_server.search.fold import words

KILOMETRES = {"km": 1.0, "m": 0.001, "[mi_i]": 1.609344, "[mi_us]": 1.609347218694, "[ft_i]": 0.0003048, "[nmi_i]": 1.852, "": 1.0}
DEFAULT_KM = 50.0
TAG = re.compile(r"<[^>]*>")
ENTITY = re.compile(r"&#?\w+;")
MAX_TERMS = 50
MOST_WORDS = 5000  # of one resource: a Bundle of definitions would not fit into a transaction
MOST_TEXT = 100_000  # characters of one text that are looked through: an embedded document of 20 MB is not prose
NO_TEXT = {"reference", "id", "code", "status", "version", "versionId"}  # names that hold text in few types and codes in most


def position(value: Any) -> list[float] | None:
    """[longitude, latitude] of Location.position; None if it is not one on Earth."""
    if not isinstance(value, dict) or "longitude" not in value or "latitude" not in value:
        return None
    longitude, latitude = float(value["longitude"]), float(value["latitude"])
    return [longitude, latitude] if abs(longitude) <= 180 and abs(latitude) <= 90 else None


def near(asked: Asked, text: str) -> Clause:
    """'latitude|longitude|distance|units'; 50 km if no distance is given."""
    pieces = [unescape(piece) for piece in split(text, "|")]
    try:
        latitude, longitude = float(pieces[0]), float(pieces[1])
        distance = float(pieces[2]) if len(pieces) > 2 and pieces[2] else DEFAULT_KM
        unit = KILOMETRES[pieces[3] if len(pieces) > 3 and len(pieces) < 5 else ""]
    except (ValueError, IndexError, KeyError) as error:
        raise asked.wrong("the value must be latitude|longitude|distance|units with units of length in UCUM") from error
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


def emit_words(res: dict[str, Any], names: frozenset[str], out: Out) -> None:
    """Writes the words of the narrative and of all other text, contained resources' too."""
    t, narrative = out.t, res.get("text")
    if isinstance(narrative, dict) and isinstance(narrative.get("div"), str):
        for word in words(ENTITY.sub(" ", TAG.sub(" ", narrative["div"])))[:MOST_WORDS]:
            t["n~" + word] = None
    for text in _texts(res, names):
        if len(t) > MOST_WORDS:
            return
        for word in words(text[:MOST_TEXT]):
            if "n~" + word not in t:
                t["c~" + word] = None


def _texts(res: dict[str, Any], names: frozenset[str]) -> list[str]:
    """The texts of string and markdown elements, wherever they stand."""
    found: list[str] = []
    waiting: list[Any] = [{name: inner for name, inner in res.items() if name != "meta"}]
    while waiting:
        for name, inner in waiting.pop().items():
            kind = type(inner)
            if kind is str:
                if name in names:
                    found.append(inner)
            elif kind is dict:
                waiting.append(inner)
            elif kind is list:
                for each in inner:
                    if type(each) is dict:
                        waiting.append(each)
                    elif type(each) is str and name in names:
                        found.append(each)
    return found


def text_search(asked: Asked, text: str) -> Clause:
    """`_text` (narrative) and `_content` (everything): words joined by AND (default), OR, NOT or '-', a word with '*' as its start."""
    terms = unescape(text).replace('"', " ").split()
    if not terms or len(terms) > MAX_TERMS:
        raise asked.wrong(f"the value must have 1 to {MAX_TERMS} words")
    heads = ("n~",) if asked.field.code == "_text" else ("n~", "c~")
    groups: list[list[Clause]] = [[]]
    negate = False
    for term in terms:
        if term == "OR":
            groups.append([])
        elif term == "NOT":
            negate = True
        elif term != "AND":
            made = _term(asked, heads, term.removeprefix("-") or term)
            groups[-1].append(negated(made) if negate or (term.startswith("-") and len(term) > 1) else made)
            negate = False
    if not all(groups):
        raise asked.wrong("a word is missing beside OR")
    return either(*(both(*group) for group in groups))


def _term(asked: Asked, heads: tuple[str, ...], term: str) -> Clause:
    found = words(term)
    if not found:
        raise asked.wrong("a word has no letter or digit")
    last = len(found) - 1
    return both(*(either(*(Text(head + word, whole=not (term.endswith("*") and at == last)) for head in heads)) for at, word in enumerate(found)))
