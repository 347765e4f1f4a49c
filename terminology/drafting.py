"""Writes the index folder of a code system version from columns of codes: the only writer of what `index.py` maps.

Built offline, in a folder of its own beside the shelf, and renamed into place when it is whole; nothing that is being read is touched.
"""

import hashlib
import re
import shutil
import unicodedata
import uuid
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from terminology.concepts import Json, Meta
from terminology.sets import ranges

Progress = Callable[[str, float], None]
Array = npt.NDArray[Any]
WORD = re.compile(r"[^\W_]+")
MAX_WORD = 32
NEW = ".new"  # at the end of what is not whole yet
MARK = "~"  # between the name of a code system version and the digest of its index


def silent(step: str, share: float) -> None:
    """The progress of a load that nobody watches."""


@dataclass(slots=True)
class Columns:
    """What a loader collects. Concepts first; every other row names its concept by code (rows with unknown codes are left out).

    concepts: code -> flags; terms: (code, text, language, use number), the display of each concept first; edges: (child, parent);
    values: (code, property number, text); relations: (source, attribute, target or '#1.5' or '"text"', group); sets: refset code -> member codes.
    """

    concepts: dict[str, int] = field(default_factory=dict)
    term_concept: list[str] = field(default_factory=list)
    term_text: list[str] = field(default_factory=list)
    term_language: "array[int]" = field(default_factory=lambda: array("H"))
    term_use: "array[int]" = field(default_factory=lambda: array("H"))
    term_dialect: "array[int]" = field(default_factory=lambda: array("H"))
    edges: list[tuple[str, str]] = field(default_factory=list)
    values: list[tuple[str, int, str]] = field(default_factory=list)
    relations: list[tuple[str, str, str, int]] = field(default_factory=list)
    sets: dict[str, list[str]] = field(default_factory=dict)
    fields: dict[str, list[str]] = field(default_factory=dict)  # refset code -> names of the values of its rows
    rows: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)  # (refset, member, values)
    languages: list[str] = field(default_factory=lambda: [""])
    uses: list[Json | None] = field(default_factory=lambda: [None])
    props: list[tuple[str, str]] = field(default_factory=list)
    dialects: list[tuple[list[str], list[str]]] = field(default_factory=lambda: [([], [])])  # (language sets that prefer, that accept a term)

    def language(self, name: str) -> int:
        """The number of a language."""
        if name not in self.languages:
            self.languages.append(name)
        return self.languages.index(name)

    def use(self, use: Json | None) -> int:
        """The number of a use."""
        if use not in self.uses:
            self.uses.append(use)
        return self.uses.index(use)

    def prop(self, code: str, kind: str = "valueString") -> int:
        """The number of a property."""
        if (code, kind) not in self.props:
            self.props.append((code, kind))
        return self.props.index((code, kind))

    def term(self, code: str, text: str, language: int = 0, use: int = 0, dialect: int = 0) -> None:
        """One more name of a concept. dialect: a place in `dialects`."""
        self.term_concept.append(code)
        self.term_text.append(text)
        self.term_language.append(language)
        self.term_use.append(use)
        self.term_dialect.append(dialect)


def write_index(target: Path, meta: Meta, columns: Columns, facts: Json | None = None, progress: Progress = silent) -> Path:
    """Writes the folder `target~digest` and returns it: other content is another folder. Raises OSError; a half-written one is never left under that name."""
    work = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}{NEW}")  # of its own: the same release may be loaded twice at once
    work.mkdir(parents=True)
    try:
        return _finished(work, target, meta, columns, facts, progress)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _finished(work: Path, target: Path, meta: Meta, columns: Columns, facts: Json | None, progress: Progress) -> Path:
    """Fills the folder `work` and renames it."""
    progress("concepts", 0.0)
    codes = np.array(sorted(code.encode() for code in columns.concepts), dtype=bytes)
    number = {code.decode(): n for n, code in enumerate(codes.tolist())}
    flags = np.fromiter((columns.concepts[code] for code in number), np.uint8, len(number))
    save(work, codes=codes if len(codes) else np.zeros(0, "S1"), flags=flags)
    progress("terms", 0.1)
    _write_terms(work, columns, number)
    progress("hierarchy", 0.5)
    _write_hierarchy(work, columns, number)
    progress("properties", 0.8)
    _write_values(work, columns, number)
    _write_sets(work, columns, number)
    head = {
        "meta": _plain(meta),
        "languages": columns.languages,
        "uses": columns.uses,
        "props": columns.props,
        "dialects": columns.dialects,
        "fields": columns.fields,
        "facts": facts or {},
    }
    (work / "meta.json").write_bytes(msgspec.json.encode(head))
    whole = target.with_name(f"{target.name}{MARK}{digest(work)}")
    try:
        work.rename(whole)
    except OSError:
        if not whole.exists():  # else the same release was loaded before
            raise
    progress("done", 1.0)
    return whole


def digest(folder: Path) -> str:
    """A short name for the content of an index folder."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            total.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def _plain(meta: Meta) -> Json:
    return {each.name: dict(value) if isinstance(value := getattr(meta, each.name), Mapping) else value for each in fields(meta)}


def save(folder: Path, **arrays: Array) -> None:
    """One .npy file per array."""
    for name, data in arrays.items():
        np.save(folder / f"{name}.npy", data, allow_pickle=False)


def numbers_of(codes: Sequence[str], number: dict[str, int]) -> Array:
    """The numbers of codes, -1 for unknown ones."""
    return np.fromiter((number.get(code, -1) for code in codes), np.int32, len(codes))


def offsets(owners: Array, size: int) -> Array:
    """Where the rows of each owner begin in an array sorted by owner; one more entry at the end."""
    return np.concatenate(([0], np.cumsum(np.bincount(owners, minlength=size)))).astype(np.uint32)


def _write_terms(folder: Path, columns: Columns, number: dict[str, int]) -> None:
    owners = numbers_of(columns.term_concept, number)
    order = np.argsort(owners, kind="stable")
    order = order[owners[order] >= 0]
    texts = [columns.term_text[n].encode() for n in order.tolist()]
    lengths = np.fromiter(map(len, texts), np.uint32, len(texts))
    ends = np.concatenate(([0], np.cumsum(lengths, dtype=np.uint64))).astype(np.uint32)
    with (folder / "terms.bin").open("wb") as out:
        out.writelines(texts)
    kinds = (columns.term_language, columns.term_use, columns.term_dialect)
    language, use, dialect = (np.frombuffer(column, np.uint16)[order] if len(order) else np.zeros(0, np.uint16) for column in kinds)
    save(folder, term_at=offsets(owners[order], len(number)), text_at=ends, term_language=language, term_use=use, term_dialect=dialect)
    _write_words(folder, columns, owners, order)


def folded(text: str) -> str:
    """Lower case without accents, for search."""
    if text.isascii():
        return text.lower()
    return "".join(char for char in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(char))


def _write_words(folder: Path, columns: Columns, owners: Array, order: Array) -> None:
    known: dict[str, int] = {}
    word_ids, counts = array("i"), array("i")
    find = WORD.findall
    for n in order.tolist():
        text = columns.term_text[n]
        words = find(text.lower()) if text.isascii() else {*find(text.casefold()), *find(folded(text))}
        counts.append(len(words))
        for word in words:
            word_ids.append(known.setdefault(word, len(known)))
    spelled = sorted((word.encode()[:MAX_WORD], n) for word, n in known.items())
    rank = np.zeros(len(known), np.int64)
    vocabulary: list[bytes] = []
    for word, n in spelled:
        if not vocabulary or vocabulary[-1] != word:
            vocabulary.append(word)
        rank[n] = len(vocabulary) - 1
    size = np.int64(max(int(owners.max(initial=0)) + 1, 1))
    times: Array = np.array(counts, np.int64)
    holders = np.repeat(owners[order].astype(np.int64), times)
    pairs = np.unique(rank[np.frombuffer(word_ids, np.int32)] * size + holders) if len(word_ids) else np.zeros(0, np.int64)
    save(
        folder,
        word=np.array(vocabulary, dtype=bytes) if vocabulary else np.zeros(0, "S1"),
        word_at=offsets((pairs // size).astype(np.int64), len(vocabulary)),
        word_concept=(pairs % size).astype(np.int32),
    )


def grouped(owners: Array, data: Array, size: int) -> tuple[Array, Array]:
    """(offsets, data) sorted by owner and value, without duplicates."""
    if not len(owners):
        return np.zeros(size + 1, np.uint32), np.zeros(0, np.int32)
    pairs = np.unique(owners.astype(np.int64) * size + data)
    return offsets(pairs // size, size), (pairs % size).astype(np.int32)


def _write_hierarchy(folder: Path, columns: Columns, number: dict[str, int]) -> None:
    size = len(number)
    low = numbers_of([child for child, _ in columns.edges], number)
    high = numbers_of([parent for _, parent in columns.edges], number)
    fine = (low >= 0) & (high >= 0) & (low != high)
    up_at, up = grouped(low[fine], high[fine], size)
    down_at, down = grouped(high[fine], low[fine], size)
    above_at, above = closure(up_at, up, down_at, down, size)
    many: Any = np.diff(above_at.astype(np.int64))
    below_at, below = grouped(above, np.repeat(np.arange(size, dtype=np.int64), many), size)
    save(folder, up_at=up_at, up=up, down_at=down_at, down=down, above_at=above_at, above=above, below_at=below_at, below=below)


def closure(up_at: Array, up: Array, down_at: Array, down: Array, size: int) -> tuple[Array, Array]:
    """(offsets, all ancestors) of every concept, level by level from the top; what hangs in a cycle is walked one by one."""
    start, length = np.zeros(size, np.int64), np.zeros(size, np.int64)
    left = np.diff(up_at.astype(np.int64))
    pool: list[Array] = [np.zeros(0, np.int32)]
    filled = 0
    frontier = np.flatnonzero(left == 0)
    done = np.zeros(size, np.bool_)
    while len(frontier):
        done[frontier] = True
        children, parents = _edges_of(frontier, up_at, up)
        if len(children):
            whole = np.concatenate(pool)
            pool = [whole]
            owners = np.repeat(children, length[parents])
            pairs = np.unique(np.concatenate([owners * size + whole[ranges(start[parents], length[parents])], children * size + parents]))
            found, counts = np.unique(pairs // size, return_counts=True)
            start[found], length[found] = filled + np.concatenate(([0], np.cumsum(counts)[:-1])), counts
            pool.append((pairs % size).astype(np.int32))
            filled += len(pairs)
        _, below = _edges_of(frontier, down_at, down)
        left -= np.bincount(below, minlength=size)
        frontier = np.unique(below[left[below] == 0])
    for n in np.flatnonzero(~done).tolist():
        pool.append(_reach(n, up_at, up))
        start[n], length[n] = filled, len(pool[-1])
        filled += len(pool[-1])
    whole = np.concatenate(pool)
    return np.concatenate(([0], np.cumsum(length))).astype(np.uint32), whole[ranges(start, length)].astype(np.int32)


def _edges_of(owners: Array, ends: Array, data: Array) -> tuple[Array, Array]:
    """(owner, value) of every row of some owners."""
    first = ends[owners].astype(np.int64)
    many = ends[owners + 1].astype(np.int64) - first
    return np.repeat(owners.astype(np.int64), many), data[ranges(first, many)].astype(np.int64)


def _reach(n: int, ends: Array, up: Array) -> Array:
    seen: set[int] = set()
    waiting = up[ends[n] : ends[n + 1]].tolist()
    while waiting:
        each = waiting.pop()
        if each not in seen:
            seen.add(each)
            waiting += up[ends[each] : ends[each + 1]].tolist()
    return np.array(sorted(seen - {n}), np.int32)


def _write_values(folder: Path, columns: Columns, number: dict[str, int]) -> None:
    concrete = {target for _, _, target, _ in columns.relations if target[:1] in ("#", '"')}
    told = {text for _, _, values in columns.rows for text in values}
    texts = sorted({text.encode() for _, _, text in columns.values} | {text.encode() for text in (*concrete, *told)})
    at = {text.decode(): n for n, text in enumerate(texts)}
    ends = np.concatenate(([0], np.cumsum(np.fromiter(map(len, texts), np.uint64, len(texts))))).astype(np.uint32)
    (folder / "values.bin").write_bytes(b"".join(texts))
    owners = numbers_of([code for code, _, _ in columns.values], number)
    order = np.argsort(owners, kind="stable")
    order = order[owners[order] >= 0]
    prop = np.fromiter((p for _, p, _ in columns.values), np.uint16, len(columns.values))[order]
    value = np.fromiter((at[text] for _, _, text in columns.values), np.uint32, len(columns.values))[order]
    save(folder, value_at=offsets(owners[order], len(number)), value_prop=prop, value_id=value, value_text_at=ends)
    _write_relations(folder, columns, number, at)
    _write_rows(folder, columns, number, at)


def _write_relations(folder: Path, columns: Columns, number: dict[str, int], values: dict[str, int]) -> None:
    rows = columns.relations
    source = numbers_of([row[0] for row in rows], number)
    attribute = numbers_of([row[1] for row in rows], number)
    target = np.fromiter((-1 - values[r[2]] if r[2][:1] in ("#", '"') else number.get(r[2], -(2**31)) for r in rows), np.int64, len(rows))
    group = np.fromiter((row[3] for row in rows), np.uint16, len(rows))
    fine = (source >= 0) & (attribute >= 0) & (target > -(2**31))
    order = np.lexsort((group[fine], source[fine]))
    columns_of = {"rel_source": source, "rel_attribute": attribute, "rel_target": target.astype(np.int32), "rel_group": group}
    save(folder, **{name: data[fine][order] for name, data in columns_of.items()})


def _write_rows(folder: Path, columns: Columns, number: dict[str, int], values: dict[str, int]) -> None:
    """The rows of reference sets with their values, sorted by set."""
    owner, member = numbers_of([row[0] for row in columns.rows], number), numbers_of([row[1] for row in columns.rows], number)
    order = np.argsort(owner, kind="stable")
    order = order[(owner[order] >= 0) & (member[order] >= 0)]
    told = [columns.rows[n][2] for n in order.tolist()]
    ends = np.concatenate(([0], np.cumsum(np.fromiter(map(len, told), np.int64, len(told))))).astype(np.uint32)
    flat = np.fromiter((values[text] for row in told for text in row), np.uint32, int(ends[-1]))
    save(folder, row_set=owner[order].astype(np.int32), row_concept=member[order].astype(np.int32), row_at=ends, row_value=flat)


def _write_sets(folder: Path, columns: Columns, number: dict[str, int]) -> None:
    known = sorted((number[code], rows) for code, rows in columns.sets.items() if code in number)
    lists = [np.unique(numbers[numbers >= 0]) for _, rows in known for numbers in (numbers_of(rows, number),)]
    ends = np.concatenate(([0], np.cumsum([len(each) for each in lists]))).astype(np.uint32)
    whole = np.concatenate(lists) if lists else np.zeros(0, np.int32)
    save(folder, set_code=np.array([n for n, _ in known], np.int32), set_at=ends, set_member=whole.astype(np.int32))
