"""Description filters of SNOMED CT constraints: which concepts have a description of this text, language, type or dialect.

https://confluence.ihtsdotools.org/display/DOCECL/6.8+Description+Filters. Everything but the text is judged for all descriptions at once; the text by the
words of the index first.
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from terminology.concepts import folded_words
from terminology.drafting import folded
from terminology.ecl import BadConstraint, Compound, Filter, Node, Sub
from terminology.index import Array, IndexedSystem
from terminology.reach import Mask, mask, spend
from terminology.sets import Members

MOST_TEXTS = 500_000
TEXT_COST = 100  # a comparison of texts costs what looking at so many rows does
TEXT_DEFINITION = "900000000000550004"
TYPES = {"syn": "900000000000013009", "fsn": "900000000000003001", "def": "definition"}
Evaluate = Callable[[Node], Members]


def describe(system: IndexedSystem, base: Members, criteria: Sequence[Filter], concepts: Evaluate) -> Members:
    """The concepts of `base` that have a description which meets all criteria. concepts: node -> the concepts that it means.

    Raises BadConstraint: a dialect that does not exist, inactive descriptions, a text that too many descriptions would have to be compared with.
    """
    fine = mask(system, base)[_owners(system)]
    spend(len(fine))
    if not any(each.name in ("type", "typeid") for each in criteria):
        fine &= ~np.isin(system.arrays["term_use"], sorted(system.explaining))  # text definitions are looked at where their type is asked for
    for each in sorted(criteria, key=lambda one: one.name == "term"):
        hit = _worded(system, each, fine) if each.name == "term" else _TESTS[each.name](system, each, concepts)
        fine &= hit if each.operator == "=" else ~hit
    return np.unique(_owners(system)[np.flatnonzero(fine)])


def _worded(system: IndexedSystem, criterion: Filter, among: Mask) -> Mask:
    """The descriptions whose text is one of those of the criterion; only those `among` count."""
    made = np.zeros(len(among), np.bool_)
    for how, text in criterion.values:
        near = _candidates(system, how, text)
        rows = np.flatnonzero(among if near is None else among & mask(system, near)[_owners(system)])
        if len(rows) > MOST_TEXTS:
            raise BadConstraint(f"the text filter would have to be compared with {len(rows)} descriptions")
        spend(len(rows) * TEXT_COST)
        test = term_test(how, text)
        made[[row for row in rows.tolist() if test(system.term(row))]] = True
    return made


def _candidates(system: IndexedSystem, how: str, text: str) -> Members | None:
    """The concepts that may have such a text, by the words of the index; None if the index does not tell."""
    if how == "match":
        return system.search(text)
    if how == "exact":
        return system.search(text) if folded_words(text) else None
    pieces = [piece for part in text.split("*") for piece in re.findall(r"[^\W_]+", folded(part))]
    longest = max(pieces, key=len, default="")
    return system.holding(longest) if len(longest) > 1 else None


def _owners(system: IndexedSystem) -> Array:
    """The concept of each description."""
    found: Array | None = system.memo.get("owners")
    if found is None:
        found = np.repeat(np.arange(system.size, dtype=np.int32), np.diff(system.arrays["term_at"]))
        system.memo.put("owners", found, [found])
    return found


def _chosen(column: str, fine: list[bool]) -> Callable[[IndexedSystem], Mask]:
    """The descriptions whose number in a column is one of the fine ones."""
    return lambda system: np.array(fine or [False], np.bool_)[system.arrays[column]]


def _language(system: IndexedSystem, criterion: Filter, concepts: Evaluate) -> Mask:
    texts = {text.lower() for _, text in criterion.values}
    return _chosen("term_language", [each.split("-")[0].lower() in texts for each in system.languages])(system)


def _type(system: IndexedSystem, criterion: Filter, concepts: Evaluate) -> Mask:
    codes = {TYPES.get(text.lower(), text) for _, text in criterion.values}
    if criterion.inner is not None:
        codes |= {system.code(int(n)) for n in concepts(criterion.inner)} | set(named(criterion.inner))
    codes |= {"definition"} if TEXT_DEFINITION in codes else set()
    return _chosen("term_use", [(use or {}).get("code") in codes for use in system.uses])(system)


def named(node: Node) -> Iterator[str]:
    """The concepts that are named one by one: those of the metadata may not be loaded."""
    if isinstance(node, Sub) and not node.operator and node.focus.code:
        yield node.focus.code
    elif isinstance(node, Sub) and node.focus.inner is not None and not node.operator:
        yield from named(node.focus.inner)
    elif isinstance(node, Compound) and node.operator == "OR":
        for each in node.parts:
            yield from named(each)


def _dialect(system: IndexedSystem, criterion: Filter, concepts: Evaluate) -> Mask:
    """Preferred or accepted by one of the language reference sets."""
    wanted = [(how, aliases().get(name, name)) for how, name in criterion.values]
    if criterion.inner is not None:
        wanted = [("", system.code(int(n))) for n in concepts(criterion.inner)]
    unknown = next((name for _, name in wanted if not name.isdecimal()), "")
    if unknown:
        raise BadConstraint(f"there is no dialect {unknown}")
    fine = [
        any((how != "accept" and refset in preferred) or (how != "prefer" and refset in accepted) for how, refset in wanted)
        for preferred, accepted in system.dialects
    ]
    return _chosen("term_dialect", fine)(system)


def _current(system: IndexedSystem, criterion: Filter, concepts: Evaluate) -> Mask:
    """Only active descriptions are loaded. Raises BadConstraint where others are asked for."""
    if (criterion.operator == "=") == (False in {truth(text.lower()) for _, text in criterion.values}):
        raise BadConstraint("inactive descriptions are not kept")
    return np.full(len(system.arrays["term_use"]), criterion.operator == "=")


_TESTS: Mapping[str, Callable[[IndexedSystem, Filter, Evaluate], Mask]] = {
    "language": _language,
    "type": _type,
    "typeid": _type,
    "dialect": _dialect,
    "dialectid": _dialect,
    "active": _current,
}


@cache
def aliases() -> Mapping[str, str]:
    """Dialect alias -> language reference set (https://confluence.ihtsdotools.org/display/DOCECL/Appendix+C+-+Dialect+Aliases)."""
    with (Path(__file__).parent / "dialects.csv").open(encoding="utf-8", newline="") as lines:
        return {row["alias"]: row["refset"] for row in csv.DictReader(lines)}


def term_test(how: str, text: str) -> Callable[[str], bool]:
    """match: every word begins a word, in any order; wild: * stands for anything; exact: the same text."""
    if how == "exact":
        return lambda value: value == text
    if how == "wild":
        pattern = re.compile(".*".join(re.escape(folded(part)) for part in text.split("*")), re.DOTALL)
        return lambda value: pattern.fullmatch(folded(value)) is not None
    words = re.findall(r"[^\W_]+", folded(text))
    return lambda value: all(any(part.startswith(word) for part in re.findall(r"[^\W_]+", folded(value))) for word in words)


def truth(text: str) -> bool:
    """The value of `active`. Raises BadConstraint."""
    if text not in ("1", "true", "0", "false"):
        raise BadConstraint("'active' is 1, true, 0 or false")
    return text in ("1", "true")
