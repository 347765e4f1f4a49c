"""A large code system version on disk: arrays and blobs that every worker maps into memory and none ever changes.

`drafting.py` writes the folder, `open_index` maps it. Concepts are numbered in the order of their codes (bytes); tables that belong to a concept are
one offsets array and one data array. Layout of the folder: `meta.json`, and one `.npy` or `.bin` per name of ARRAYS and BLOBS.
"""

import mmap
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from terminology.concepts import BadFilter, Json, Meta, contains, folded_words, members, select_concepts
from terminology.kept import Kept
from terminology.language import Designation
from terminology.patterns import whole
from terminology.sets import NOTHING, Members, ranges, shared, united, without

ARRAYS = (
    "codes",  # S<n>: the codes, sorted
    "flags",  # uint8: INACTIVE, ABSTRACT, DEFINED
    "term_at",  # uint32, size + 1: first term of each concept
    "text_at",  # uint32: where each term's text begins in `terms`, one more at the end
    "term_language",  # uint16: into meta languages
    "term_use",  # uint16: into meta uses
    "term_dialect",  # uint16: into meta dialects
    "up_at",
    "up",  # direct parents
    "down_at",
    "down",  # direct children
    "above_at",
    "above",  # all ancestors, sorted
    "below_at",
    "below",  # all descendants, sorted
    "value_at",  # uint32, size + 1: first property row of each concept
    "value_prop",  # uint16: into meta props
    "value_id",  # uint32: into `value_text_at`
    "value_text_at",  # uint32: where each distinct value begins in `values` (values sorted)
    "word",  # S<n>: the words of all terms, sorted
    "word_at",  # uint32
    "word_concept",  # int32: concepts with that word, sorted
    "rel_source",
    "rel_attribute",
    "rel_target",  # int32: a concept, or -1 - row of `value_text_at` for a concrete value
    "rel_group",  # uint16; rows sorted by source, group
    "set_code",  # int32: the reference sets, sorted
    "set_at",
    "set_member",  # int32: members of each, sorted
    "row_set",  # int32: the reference set of each of their rows, sorted
    "row_concept",  # int32: its member
    "row_at",  # uint32: where its values begin, in the order of meta fields, one more at the end
    "row_value",  # uint32: into `value_text_at`
)
LATER = {"term_dialect": "term_use", "row_set": "", "row_concept": "", "row_at": "", "row_value": ""}  # what older indexes lack; how long it is then
BLOBS = ("terms", "values")
INACTIVE, ABSTRACT, DEFINED = 1, 2, 4
DEFINED_PROPERTY = "sufficientlyDefined"  # https://hl7.org/fhir/R4/snomedct.html#properties
SMALL = 16_384
MAX_KEPT = 256
MAX_PLACES = 16_384
Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class IndexedSystem:
    """The System of an index folder."""

    meta: Meta
    folder: Path
    arrays: Mapping[str, Array]
    views: Mapping[str, memoryview]  # the arrays of numbers again: one number is read in a third of numpy's time
    blobs: Mapping[str, mmap.mmap | bytes]
    languages: Sequence[str]
    uses: Sequence[Json | None]
    props: Sequence[tuple[str, str]]  # (code, value name)
    facts: Mapping[str, Any]
    dialects: Sequence[tuple[Sequence[str], Sequence[str]]] = (((), ()),)  # (language reference sets that prefer a term, that accept it)
    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)  # reference set -> the names of the values of its rows
    memo: Kept = field(default_factory=lambda: Kept(MAX_KEPT), repr=False)
    places: dict[str, int] = field(default_factory=dict, compare=False, repr=False)  # codes looked up lately

    @property
    def size(self) -> int:
        """How many concepts there are."""
        return len(self.arrays["codes"])

    def find(self, code: str) -> int | None:
        """The number of a code, None if it is unknown."""
        place = self.places.get(code)
        if place is not None:
            return place
        codes = self.arrays["codes"]
        spelled = (code,) if self.meta.case_sensitive else (code, code.upper(), code.lower())
        for each in spelled:
            wanted = each.encode()
            if len(wanted) > codes.itemsize:
                continue  # longer than any code; numpy would widen the whole array to compare
            at = int(codes.searchsorted(wanted))
            if at < len(codes) and codes[at] == wanted:
                if len(self.places) >= MAX_PLACES:
                    self.places.clear()
                self.places[code] = at
                return at
        return None

    def code(self, n: int) -> str:
        """The code."""
        found: bytes = self.arrays["codes"].item(n)
        return found.decode()

    def _text(self, at: str, blob: str, n: int) -> str:
        ends = self.views[at]
        return self.blobs[blob][ends[n] : ends[n + 1]].decode()

    def display(self, n: int) -> str:
        """The display: the concept's first term, unless that is its definition."""
        ends = self.views["term_at"]
        first = ends[n]
        shown = first < ends[n + 1] and self.views["term_use"][first] not in self.explaining
        return self._text("text_at", "terms", first) if shown else ""

    @cached_property
    def explaining(self) -> frozenset[int]:
        """The uses whose terms are definitions, not names."""
        return frozenset(number for number, use in enumerate(self.uses) if use is not None and use.get("code") == "definition")

    def names(self, n: int) -> Sequence[Designation]:
        """The display and every other term; definitions left out."""
        first, end = self.views["term_at"][n], self.views["term_at"][n + 1]
        use_of, language_of = self.views["term_use"], self.views["term_language"]
        found = []
        for term in range(first, end):
            if use_of[term] not in self.explaining:
                use, language = self.uses[use_of[term]], self.languages[language_of[term]]
                found.append(Designation(self._text("text_at", "terms", term), language, use, display=term == first))
        return found

    def term(self, number: int) -> str:
        """A term by its number."""
        return self._text("text_at", "terms", number)

    def definition(self, n: int) -> str:
        """The definition, '' if there is none."""
        for term in range(self.views["term_at"][n], self.views["term_at"][n + 1]):
            if self.views["term_use"][term] in self.explaining:
                return self._text("text_at", "terms", term)
        return ""

    def properties(self, n: int) -> Sequence[Json]:
        """The property rows of a concept, then its relationships as properties."""
        rows: list[Json] = [{"code": DEFINED_PROPERTY, "valueBoolean": bool(self.views["flags"][n] & DEFINED)}] if self.told else []
        return [*rows, *self.stated(n), *({"code": self.code(a), **self.related(t)} for a, t, _ in self.relations(n))]

    def stated(self, n: int) -> Sequence[Json]:
        """The property rows alone."""
        rows: list[Json] = []
        prop_of, value_of = self.views["value_prop"], self.views["value_id"]
        for row in range(self.views["value_at"][n], self.views["value_at"][n + 1]):
            code, kind = self.props[prop_of[row]]
            text = self._text("value_text_at", "values", value_of[row])
            rows.append({"code": code, kind: typed(kind, text)})
        return rows

    @cached_property
    def told(self) -> bool:
        """True for SNOMED CT: whether a concept is sufficiently defined is a property of it."""
        return self.facts.get("kind") == "snomed"

    def related(self, target: int) -> Json:
        """The value of a relationship: a concept, or a concrete value."""
        if target >= 0:
            return {"valueCode": self.code(target)}
        text = self._text("value_text_at", "values", -1 - target)
        return {"valueString": text.removeprefix("#").strip('"')}

    def value_text(self, number: int) -> str:
        """A property value or concrete value by its number."""
        return self._text("value_text_at", "values", number)

    def relations(self, n: int) -> list[tuple[int, int, int]]:
        """(attribute, target, group) of a concept."""
        source = self.views["rel_source"]
        low = bisect_left(source, n)
        high = bisect_right(source, n, low)
        columns = (self.views[name][low:high] for name in ("rel_attribute", "rel_target", "rel_group"))
        return list(zip(*columns, strict=True))

    def extensions(self, n: int) -> Sequence[Json]:
        """None are kept."""
        return ()

    def inactive(self, n: int) -> bool:
        """True if the concept is inactive."""
        return bool(self.views["flags"][n] & INACTIVE)

    def abstract(self, n: int) -> bool:
        """True if the concept is not for data."""
        return bool(self.views["flags"][n] & ABSTRACT)

    def status(self, n: int) -> str:
        """The STATUS property where there is one, else inactive or ''."""
        number = self.facts["prop_numbers"].get("status")
        if number is not None:
            said = next((each for each in self.properties(n) if each["code"] == "status"), None)
            return str(said.get("valueCode", said.get("valueString", ""))) if said is not None else ""
        return "inactive" if self.inactive(n) else ""

    def _slice(self, at: str, data: str, n: int) -> Members:
        ends = self.views[at]
        return self.arrays[data][ends[n] : ends[n + 1]]

    def rows(self, data: str, n: int) -> Members:
        """The rows up, down, above or below of a concept."""
        return self._slice(f"{data}_at", data, n)

    def parents(self, n: int) -> Members:
        """Direct parents."""
        return self._slice("up_at", "up", n)

    def children(self, n: int) -> Members:
        """Direct children."""
        return self._slice("down_at", "down", n)

    def ancestors(self, n: int) -> Members:
        """All above."""
        return self._slice("above_at", "above", n)

    def descendants(self, n: int) -> Members:
        """All below."""
        return self._slice("below_at", "below", n)

    def everything(self) -> Members:
        """All concepts."""
        return self._kept("all", lambda: np.arange(self.size, dtype=np.int32))

    def inactives(self) -> Members:
        """All inactive concepts."""
        return self._kept("inactive", lambda: np.flatnonzero(self.arrays["flags"] & INACTIVE).astype(np.int32))

    def abstracts(self) -> Members:
        """All abstract concepts."""
        return self._kept("abstract", lambda: np.flatnonzero(self.arrays["flags"] & ABSTRACT).astype(np.int32))

    def _kept(self, name: Any, make: Any) -> Members:
        found: Members | None = self.memo.get(name)
        if found is None:
            found = make()
            self.memo.put(name, found, [found])
        return found

    def members_of(self, n: int) -> Members:
        """The members of a reference set."""
        sets = self.arrays["set_code"]
        at = int(sets.searchsorted(np.int32(n)))
        return self._slice("set_at", "set_member", at) if at < len(sets) and int(sets[at]) == n else NOTHING

    def listed(self, n: int) -> list[int]:
        """The members of a reference set or answer list in the order of its rows."""
        owners = self.arrays["row_set"]
        low, high = int(owners.searchsorted(np.int32(n))), int(owners.searchsorted(np.int32(n), side="right"))
        found: list[int] = self.arrays["row_concept"][low:high].tolist()
        return found

    def search(self, text: str) -> Members:
        """The concepts that have, for each word, a word beginning with it; and the one with this code."""
        result: Members | None = None
        for word in folded_words(text):
            found = self._word(word)
            result = found if result is None else shared(result, found)
            if not len(result):
                break
        coded = self.find(text.strip())
        own = NOTHING if coded is None else np.array([coded], np.int32)
        return own if result is None else united(result, own) if coded is not None else result

    def _word(self, prefix: str) -> Members:
        words, ends = self.arrays["word"], self.arrays["word_at"]
        start = prefix.encode("utf-8")[: words.itemsize]
        low = int(words.searchsorted(start))
        high = int(words.searchsorted(start + b"\xff") if len(start) < words.itemsize else words.searchsorted(start, side="right"))
        if low >= high:
            return NOTHING
        postings = self.arrays["word_concept"][int(ends[low]) : int(ends[high])]
        if high - low == 1:
            return postings
        hit = np.zeros(self.size, bool)
        hit[postings] = True
        return np.flatnonzero(hit).astype(np.int32)

    def holding(self, piece: str) -> Members:
        """The concepts that may have a word with this piece of lower-case text in it; words are kept up to a length only."""
        words, ends = self.arrays["word"], self.arrays["word_at"]
        cut = np.char.str_len(words) >= words.itemsize - 3  # perhaps longer than what is kept of it
        hits = np.flatnonzero((np.char.find(words, piece.encode()) >= 0) | cut)
        made = np.zeros(self.size, bool)
        made[self.arrays["word_concept"][ranges(ends[hits].astype(np.int64), np.diff(ends)[hits].astype(np.int64))]] = True
        return np.flatnonzero(made).astype(np.int32)

    def select(self, prop: str, op: str, value: str) -> Members:
        """The concepts that a filter selects."""
        if prop in ("concept", "code"):
            return self._select_concepts(op, value)
        if prop in ("parent", "child"):
            return self._select_edges(prop, op, value)
        if prop == "inactive":
            wanted = self.inactives()
            return wanted if value == "true" else without(self.everything(), wanted)
        if prop == DEFINED_PROPERTY and self.told and op == "=":
            wanted = self._kept("defined", lambda: np.flatnonzero(self.arrays["flags"] & DEFINED).astype(np.int32))
            return wanted if value == "true" else without(self.everything(), wanted)
        number = self.facts["prop_numbers"].get(prop)
        if number is not None:
            return self._kept(("filter", prop, op, value), lambda: self._select_values(number, op, value))
        attribute = self.find(prop)
        if attribute is not None and op == "=":
            target = self.find(value)
            if target is None:
                return NOTHING
            hit = (self.arrays["rel_attribute"] == attribute) & (self.arrays["rel_target"] == target)
            return members(self.arrays["rel_source"][hit])
        raise BadFilter(f"the code system has no property {prop}")

    def _select_concepts(self, op: str, value: str) -> Members:
        if op == "in" and "," not in value:
            n = self.find(value)
            found = self.members_of(n) if n is not None else NOTHING
            if len(found) or n is None:
                return found
        return select_concepts(self, op, value)

    def _select_edges(self, prop: str, op: str, value: str) -> Members:
        if op == "exists":
            ends = self.arrays["up_at" if prop == "parent" else "down_at"]
            has = np.diff(ends.astype(np.int64)) > 0
            return np.flatnonzero(has if value == "true" else ~has).astype(np.int32)
        if op not in ("=", "in"):
            raise BadFilter(f"the property {prop} has no operator {op}")
        found = [self.find(code.strip()) for code in (value.split(",") if op == "in" else [value])]
        other = self.children if prop == "parent" else self.parents
        return members(int(n) for end in found if end is not None for n in other(end))

    def _select_values(self, number: int, op: str, value: str) -> Members:
        rows = np.flatnonzero(self.arrays["value_prop"] == number)
        if op == "exists":
            hit = rows
        elif op in ("=", "in", "not-in"):
            listed = [self._value(part) for part in (value.split(",") if op != "=" else [value])]
            hit = rows[np.isin(self.arrays["value_id"][rows], [each for each in listed if each is not None])]
        elif op == "regex":
            test = whole(value)
            known = {int(v): test(self._text("value_text_at", "values", int(v))) for v in np.unique(self.arrays["value_id"][rows])}
            hit = rows[[known[int(v)] for v in self.arrays["value_id"][rows]]] if len(rows) else rows
        else:
            raise BadFilter(f"the operator {op} does not apply to a property")
        found = members(np.searchsorted(self.arrays["value_at"], hit, side="right") - 1)
        negated = op == "not-in" or (op == "exists" and value != "true")
        return without(self.everything(), found) if negated else found

    def _value(self, text: str) -> int | None:
        """The number of a property value: a binary search over the sorted values."""
        ends, blob, wanted = self.arrays["value_text_at"], self.blobs["values"], text.strip().encode()
        low, high = 0, len(ends) - 1
        while low < high:
            middle = (low + high) // 2
            if blob[int(ends[middle]) : int(ends[middle + 1])] < wanted:
                low = middle + 1
            else:
                high = middle
        found = low < len(ends) - 1 and blob[int(ends[low]) : int(ends[low + 1])] == wanted
        return low if found else None

    def has(self, numbers: Members, n: int) -> bool:
        """True if a sorted array holds `n`."""
        return contains(numbers, n)


def typed(kind: str, text: str) -> Any:
    """The value of a property row as JSON has it."""
    if kind == "valueBoolean":
        return text == "true"
    return int(text) if kind == "valueInteger" else text


@lru_cache(maxsize=64)
def open_index(folder: Path) -> IndexedSystem:
    """Maps an index folder. Raises FileNotFoundError if it is not whole."""
    head = msgspec.json.decode((folder / "meta.json").read_bytes())
    arrays = {name: _array(folder / f"{name}.npy") for name in ARRAYS if name not in LATER or (folder / f"{name}.npy").exists()}
    for name, like in LATER.items():
        arrays.setdefault(name, np.zeros(len(arrays[like]) if like else 0, np.uint16))
    views = {name: memoryview(data) for name, data in arrays.items() if data.dtype.kind != "S"}  # type: ignore[arg-type]
    blobs = {name: _map(folder / f"{name}.bin") for name in BLOBS}
    props = [(code, kind) for code, kind in head["props"]]
    facts = head["facts"] | {"prop_numbers": {code: number for number, (code, _) in enumerate(props)}}
    dialects = [(preferred, accepted) for preferred, accepted in head.get("dialects", [([], [])])]
    return IndexedSystem(
        Meta(**head["meta"]), folder, arrays, views, blobs, head["languages"], head["uses"], props, facts, dialects, head.get("fields", {})
    )


def _array(path: Path) -> Array:
    """A mapped array; one that is only a page or so is read (an empty one cannot be mapped)."""
    mode: Any = "r" if path.stat().st_size > SMALL else None
    return np.asarray(np.load(path, mmap_mode=mode, allow_pickle=False))


def _map(path: Path) -> mmap.mmap | bytes:
    """The file as bytes that are read where they are (an empty one cannot be mapped)."""
    if not path.stat().st_size:
        return b""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
