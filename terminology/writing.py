"""The answer of $lookup written as JSON in one pass over the index, without a dict in between: for code systems on disk, with nothing but a code asked.

It equals what `lookup.lookup` and the codec make of the same concept, byte for byte (tests/terminology/test_writing.py). Pieces that many concepts share
(names, languages, uses, modules, dates) are made once per index.
"""

import re
from bisect import bisect_left
from dataclasses import dataclass, field
from functools import lru_cache

from conformance import codec
from terminology.concepts import Json
from terminology.index import ABSTRACT, DEFINED, DEFINED_PROPERTY, INACTIVE, IndexedSystem, typed
from terminology.lookup import OWN

_ESCAPED = re.compile(rb'[\x00-\x1f"\\]').search  # what JSON does not take as it is; everything above 0x1f stands for itself
_PROPERTY = b',{"name":"property","part":[{"name":"code","valueCode":"%b"},{"name":"value","%b":'
_PARENT, _CHILD = _PROPERTY % (b"parent", b"valueCode") + b'"', _PROPERTY % (b"child", b"valueCode") + b'"'
_SHOWN, _CLOSED = b'"},{"name":"description","valueString":"', b'"}]}'
_END = b"}]}"
_STATE = {
    flags: b',{"name":"property","part":[{"name":"code","valueCode":"inactive"},{"name":"value","valueBoolean":%b}]}' % flags
    for flags in (b"true", b"false")
}
_DEFINED = {flag: _PROPERTY % (DEFINED_PROPERTY.encode(), b"valueBoolean") + flag + b"}]}" for flag in (b"true", b"false")}
_CODE, _STRING = b'valueCode":"', b'valueString":'
MAX_PIECES = 16_384
MAX_PIECE = 400  # bytes of a property row that is kept


def inner(text: bytes) -> bytes:
    """UTF-8 text as it stands between the quotes of a JSON string."""
    return text if _ESCAPED(text) is None else codec.encode(text.decode())[1:-1]


@dataclass(frozen=True, eq=False, slots=True)
class Writer:
    """Writes the parameters of one index. head: up to the code; heads: of designations by (use, language), b'' for a definition; pieces: whole property rows."""

    system: IndexedSystem
    head: bytes
    heads: dict[int, bytes] = field(default_factory=dict)
    pieces: dict[int, bytes] = field(default_factory=dict)

    def rows(self, n: int, display: str | None) -> bytes:
        """Parameters.parameter of the concept, as JSON. display: the name to show, None for the concept's own."""
        system = self.system
        views = system.views
        ends, use_of, language_of = views["text_at"], views["term_use"], views["term_language"]
        first, end = views["term_at"][n], views["term_at"][n + 1]
        terms, heads = system.blobs["terms"], self.heads
        code = shown = inner(system.arrays["codes"].item(n))
        definition: bytes | None = None
        names: list[bytes] = []
        start = ends[first]
        for term in range(first, end):
            stop = ends[term + 1]
            text = terms[start:stop]
            start = stop
            if _ESCAPED(text) is not None:
                text = inner(text)
            key = use_of[term] << 16 | language_of[term]
            head = heads.get(key)
            if head is None:
                head = self._head(key)
            if head:
                names += (head, text, _CLOSED)
                if term == first:
                    shown = text
            elif definition is None:
                definition = text
        if display is not None:
            shown = inner(display.encode())
        flags = views["flags"][n]
        made = [
            self.head,
            code,
            b'"},{"name":"display","valueString":"',
            shown,
            b'"},{"name":"abstract","valueBoolean":',
            b"true}" if flags & ABSTRACT else b"false}",
        ]
        if definition:
            made += (b',{"name":"definition","valueString":"', definition, b'"}')
        made += names
        made.append(_STATE[b"true" if flags & INACTIVE else b"false"])
        self._linked(made, _PARENT, "up_at", "up", n)
        self._linked(made, _CHILD, "down_at", "down", n)
        if system.told:
            made.append(_DEFINED[b"true" if flags & DEFINED else b"false"])
        self._values(made, n)
        self._related(made, n)
        made.append(b"]")
        return b"".join(made)

    def _head(self, key: int) -> bytes:
        """A designation up to its text, b'' for a definition."""
        use, language = self.system.uses[key >> 16], self.system.languages[key & 0xFFFF]
        head = b""
        if key >> 16 not in self.system.explaining:
            parts: list[Json] = [{"name": "language", "valueCode": language}] if language else []
            parts += [{"name": "use", "valueCoding": use}] if use else []
            head = b',{"name":"designation","part":[' + b"".join(codec.encode(part) + b"," for part in parts) + b'{"name":"value","valueString":"'
        self.heads[key] = head
        return head

    def _display(self, n: int) -> bytes:
        views = self.system.views
        first, end = views["term_at"][n], views["term_at"][n + 1]
        if first == end or views["term_use"][first] in self.system.explaining:
            return b""
        ends = views["text_at"]
        text = self.system.blobs["terms"][ends[first] : ends[first + 1]]
        return text if _ESCAPED(text) is None else inner(text)

    def _concept(self, made: list[bytes], head: bytes, n: int) -> None:
        """A property whose value is another concept: its code and display."""
        shown = self._display(n)
        made += (head, inner(self.system.arrays["codes"].item(n)))
        if shown:
            made += (_SHOWN, shown)
        made.append(_CLOSED)

    def _linked(self, made: list[bytes], head: bytes, at: str, data: str, n: int) -> None:
        ends, other = self.system.views[at], self.system.views[data]
        for row in range(ends[n], ends[n + 1]):
            self._concept(made, head, other[row])

    def _values(self, made: list[bytes], n: int) -> None:
        views = self.system.views
        prop_of, value_of = views["value_prop"], views["value_id"]
        for row in range(views["value_at"][n], views["value_at"][n + 1]):
            key = value_of[row] << 16 | prop_of[row]
            piece = self.pieces.get(key)
            if piece is None:
                piece = self._value(prop_of[row], value_of[row])
                if len(piece) <= MAX_PIECE:
                    if len(self.pieces) >= MAX_PIECES:
                        self.pieces.clear()
                    self.pieces[key] = piece
            made.append(piece)

    def _value(self, prop: int, value: int) -> bytes:
        """A property row, b'' for one that the concept itself tells."""
        code, kind = self.system.props[prop]
        if code in OWN:
            return b""
        head = _PROPERTY % (inner(code.encode()), kind.encode())
        text = self.system.value_text(value)
        found = typed(kind, text)
        other = self.system.find(text) if kind == "valueCode" else None
        made = [head, codec.encode(found)]
        if other is not None and (shown := self._display(other)):
            made += (_SHOWN[1:], shown, b'"')
        return b"".join((*made, _END))

    def _related(self, made: list[bytes], n: int) -> None:
        """The relationships of the concept."""
        system = self.system
        source = system.views["rel_source"]
        row, end = bisect_left(source, n), len(source)
        if row == end or source[row] != n:
            return
        attribute_of, target_of = system.views["rel_attribute"], system.views["rel_target"]
        while row < end and source[row] == n:
            attribute, target = attribute_of[row], target_of[row]
            row += 1
            head = self.pieces.get(-1 - attribute)
            if head is None:
                head = self.pieces[-1 - attribute] = self._attribute(attribute)
            if head and target >= 0:
                self._concept(made, head, target)
            elif head:
                made += (head.removesuffix(_CODE), _STRING, codec.encode(system.related(target)["valueString"]), _END)

    def _attribute(self, n: int) -> bytes:
        """A relationship up to the code of its target, b'' for one that the concept itself tells."""
        code = self.system.arrays["codes"].item(n)
        return b"" if code.decode() in OWN else _PROPERTY % (inner(code), b"valueCode") + b'"'


@lru_cache(maxsize=64)
def writer(system: IndexedSystem) -> Writer:
    """The Writer of an index."""
    meta = system.meta
    rows: list[Json] = [{"name": "name", "valueString": meta.name or meta.title or meta.url}]
    if meta.version:
        rows.append({"name": "version", "valueString": meta.version})
    rows.append({"name": "system", "valueUri": meta.url})
    return Writer(system, codec.encode(rows)[:-1] + b',{"name":"code","valueCode":"')
