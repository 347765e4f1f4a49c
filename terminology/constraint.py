"""SNOMED CT expression constraints evaluated against an index: trees of `ecl.py` -> sorted arrays of concepts.

https://confluence.ihtsdotools.org/display/DOCECL/6+Examples. The substrate is the active concepts; an explicit `active = 0` filter looks at the others.
A group (braces) is a relationship group above 0.
"""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from terminology.concepts import members
from terminology.described import describe, truth
from terminology.ecl import MANY, Attribute, BadConstraint, Compound, Dotted, Filter, Focus, Group, Joined, Node, Refined, Refinement, Sub, parse
from terminology.index import DEFINED, INACTIVE, IndexedSystem
from terminology.membership import COMPARE, members_by_row
from terminology.reach import Mask, TooCostly, around, limited, mask, meeting, spend
from terminology.sets import NOTHING, Members, shared, united, without

Array = npt.NDArray[Any]
HISTORY: Mapping[str, tuple[str, ...]] = {
    "MIN": ("sameAs",),
    "MOD": ("sameAs", "replacedBy", "wasA", "possiblyEquivalentTo"),
    "MAX": ("sameAs", "replacedBy", "wasA", "possiblyEquivalentTo", "alternative", "movedTo"),
}
SUFFICIENT, NECESSARY = "900000000000073002", "900000000000074008"


def select(system: IndexedSystem, text: str) -> Members:
    """The concepts that an expression constraint means. Raises BadConstraint. Results are kept."""
    key = ("ecl", text)
    found: Members | None = system.memo.get(key)
    if found is None:
        tree = parse(text)
        try:
            with limited():
                found = evaluate(system, tree)
        except TooCostly as bad:
            raise BadConstraint(str(bad)) from bad
        system.memo.put(key, found, [found])
    return found


def evaluate(system: IndexedSystem, node: Node) -> Members:
    """The concepts of a tree. Raises BadConstraint, TooCostly."""
    spend(system.size // 4)  # no node costs nothing
    if isinstance(node, Sub):
        return _sub(system, node)
    if isinstance(node, Compound):
        return _compound(system, node)
    if isinstance(node, Dotted):
        return _dotted(system, node)
    return _refined(system, node)


def active(system: IndexedSystem) -> Members:
    """All active concepts."""
    found: Members | None = system.memo.get("active")
    if found is None:
        found = np.flatnonzero((system.arrays["flags"] & INACTIVE) == 0).astype(np.int32)
        system.memo.put("active", found, [found])
    return found


def _sub(system: IndexedSystem, node: Sub) -> Members:
    whole = any(each.name == "active" and each.kind == "C" for group in node.filters for each in group)
    base = _focus(system, node.focus, whole)
    if node.member:
        told = [each for group in node.filters for each in group if each.kind == "M"]
        plain = not told and node.field in ("", "referencedcomponentid")
        base = _all_members(system, base) if plain else members_by_row(system, base, told, node.field, lambda inner: evaluate(system, inner))
    found = OPERATORS[node.operator](system, base)
    for group in node.filters:
        found = _filtered(system, found, group)
    return _with_history(system, found, node.history) if node.history else found


def _all_members(system: IndexedSystem, base: Members) -> Members:
    chosen = [system.members_of(int(n)) for n in shared(base, system.arrays["set_code"])]
    return members(np.concatenate(chosen)) if chosen else NOTHING


def _focus(system: IndexedSystem, focus: Focus, whole: bool) -> Members:
    if focus.inner is not None:
        return evaluate(system, focus.inner)
    if not focus.code:
        return system.everything() if whole else active(system)
    n = system.find(focus.code)
    return members([n]) if n is not None else NOTHING


def _reach(data: str, *, with_self: bool) -> Callable[[IndexedSystem, Members], Members]:
    """What stands in the rows `data` (up, down, above, below) of a set of concepts."""

    def run(system: IndexedSystem, base: Members) -> Members:
        if len(base) == 1:
            found: Members = system.rows(data, int(base[0]))
            return united(found, base) if with_self else found
        made = around(system, data, base)
        if with_self:
            made[base] = True
        return np.flatnonzero(made).astype(np.int32)

    return run


OPERATORS: Mapping[str, Callable[[IndexedSystem, Members], Members]] = {
    "": lambda system, base: base,
    "<": _reach("below", with_self=False),
    "<<": _reach("below", with_self=True),
    ">": _reach("above", with_self=False),
    ">>": _reach("above", with_self=True),
    "<!": _reach("down", with_self=False),
    "<<!": _reach("down", with_self=True),
    ">!": _reach("up", with_self=False),
    ">>!": _reach("up", with_self=True),
    "!!>": lambda system, base: base[~meeting(system, "above", base)],
    "!!<": lambda system, base: base[~meeting(system, "below", base)],
}


def _compound(system: IndexedSystem, node: Compound) -> Members:
    parts = [evaluate(system, each) for each in node.parts]
    result = parts[0]
    for each in parts[1:]:
        if node.operator == "AND":
            result = shared(result, each)
        elif node.operator == "OR":
            result = united(result, each)
        else:
            result = without(result, each)
    return result


def _dotted(system: IndexedSystem, node: Dotted) -> Members:
    found = evaluate(system, node.focus)
    for each in node.attributes:
        rows = _rows(system, each)
        source, target = system.arrays["rel_source"][rows], system.arrays["rel_target"][rows]
        found = members(target[mask(system, found)[source] & (target >= 0)])
    return found


def _rows(system: IndexedSystem, name: Node) -> Array:
    """The relationship rows with an attribute."""
    spend(len(system.arrays["rel_source"]))
    if isinstance(name, Sub) and not name.operator and not name.member and name.focus.inner is None and not name.focus.code and not name.filters:
        return np.arange(len(system.arrays["rel_source"]))
    wanted = evaluate(system, name)
    order, ends, kinds = _by_attribute(system)
    places = np.searchsorted(kinds, wanted)
    known = [int(at) for at, n in zip(places, wanted, strict=True) if at < len(kinds) and kinds[at] == n]
    return np.concatenate([order[int(ends[at]) : int(ends[at + 1])] for at in known]) if known else np.zeros(0, np.int64)


def _by_attribute(system: IndexedSystem) -> tuple[Array, Array, Array]:
    """(rows sorted by attribute, where each attribute begins, the attributes)."""
    found: tuple[Array, Array, Array] | None = system.memo.get("by attribute")
    if found is None:
        order = np.argsort(system.arrays["rel_attribute"], kind="stable")
        kinds, starts = np.unique(system.arrays["rel_attribute"][order], return_index=True)
        found = (order, np.append(starts, len(order)), kinds)
        system.memo.put("by attribute", found, [order, order])  # 8 bytes a row
    return found


def _refined(system: IndexedSystem, node: Refined) -> Members:
    base = evaluate(system, node.focus)
    return base[_concepts(system, node.refinement)[base]]


def _concepts(system: IndexedSystem, node: Refinement) -> Mask:
    """The concepts that meet a refinement."""
    if isinstance(node, Joined):
        parts = [_concepts(system, each) for each in node.parts]
        joined: Mask = np.logical_and.reduce(parts) if node.operator == "AND" else np.logical_or.reduce(parts)
        return joined
    if isinstance(node, Group):
        keys = _groups(system, node.inner)
        return _counted(np.bincount((keys >> 16).astype(np.int64), minlength=system.size), node.low, node.high)
    rows = _matching(system, node)
    if not node.reverse:
        return _counted(np.bincount(system.arrays["rel_source"][rows], minlength=system.size), node.low, node.high)
    pairs = np.unique(system.arrays["rel_target"][rows].astype(np.int64) * system.size + system.arrays["rel_source"][rows])
    return _counted(np.bincount(pairs // system.size, minlength=system.size), node.low, node.high)


def _counted(counts: Array, low: int, high: int) -> Mask:
    fine: Mask = counts >= low
    return fine if high == MANY else fine & (counts <= high)


def _matching(system: IndexedSystem, node: Attribute) -> Array:
    """The relationship rows that match one attribute constraint; reversed: the value is looked for at the source."""
    rows = _rows(system, node.name)
    targets = system.arrays["rel_target"][rows]
    if node.reverse:
        sources = _value_mask(system, node)[system.arrays["rel_source"][rows]]
        return rows[(sources if node.comparison == "=" else ~sources) & (targets >= 0)]
    if node.value is None:
        return rows[_literal(system, node, targets)]
    concrete = targets < 0
    hit = _value_mask(system, node)[np.where(concrete, 0, targets)]
    return rows[(hit if node.comparison == "=" else ~hit) & ~concrete]


def _value_mask(system: IndexedSystem, node: Attribute) -> Mask:
    if node.value is None:
        return np.zeros(system.size, np.bool_)
    value = node.value
    if isinstance(value, Sub) and not value.operator and not value.member and value.focus == Focus() and not value.filters:
        return np.ones(system.size, np.bool_)
    return mask(system, evaluate(system, value))


def _literal(system: IndexedSystem, node: Attribute, targets: Array) -> Mask:
    """Concrete values: numbers compare by value, texts and booleans are equal or not."""
    sign, text = node.literal
    known = {int(t): system.value_text(-1 - int(t)) for t in np.unique(targets[targets < 0])}
    fine = {t: _holds(sign, text, node.comparison, value) for t, value in known.items()}
    return np.array([fine.get(int(t), False) for t in targets], np.bool_)


def _holds(sign: str, wanted: str, comparison: str, value: str) -> bool:
    if sign == "#":
        return value[:1] == "#" and COMPARE[comparison](Decimal(value[1:]), Decimal(wanted))
    same = value.strip('"').removeprefix("#").lower() == wanted.lower() if sign == "b" else value == f'"{wanted}"'
    return same if comparison == "=" else not same


def _groups(system: IndexedSystem, node: Refinement) -> Array:
    """The (concept, group) pairs, as concept << 16 | group, that meet what stands inside braces."""
    if isinstance(node, Joined):
        parts = [_groups(system, each) for each in node.parts]
        result = parts[0]
        for each in parts[1:]:
            result = np.intersect1d(result, each, assume_unique=True) if node.operator == "AND" else np.union1d(result, each)
        return result
    if isinstance(node, Group):
        return _groups(system, node.inner)
    rows = _matching(system, node)
    keys = _keys(system, rows)
    found, counts = np.unique(keys, return_counts=True)
    if node.low > 0:
        return found[_counted(counts, node.low, node.high)]
    every = np.unique(_keys(system, np.arange(len(system.arrays["rel_source"]))))
    too_many = found[counts > node.high]
    return np.setdiff1d(every, too_many, assume_unique=True)


def _keys(system: IndexedSystem, rows: Array) -> Array:
    group = system.arrays["rel_group"][rows].astype(np.int64)
    keys = (system.arrays["rel_source"][rows].astype(np.int64) << 16) | group
    return keys[group > 0]


def _with_history(system: IndexedSystem, found: Members, profile: str) -> Members:
    """Adds the inactive concepts whose associations lead into the set."""
    kinds, sources, targets = _associations(system)
    wanted = [number for name in HISTORY[profile] if (number := system.facts["prop_numbers"].get(name)) is not None]
    spend(len(kinds))
    return united(found, np.unique(sources[np.isin(kinds, wanted) & mask(system, found)[targets]]))


def _associations(system: IndexedSystem) -> tuple[Array, Array, Array]:
    """(property number, concept, the concept it was replaced by or the like) of every historical association."""
    kept: tuple[Array, Array, Array] | None = system.memo.get("associations")
    if kept is None:
        numbers = [number for name in HISTORY["MAX"] if (number := system.facts["prop_numbers"].get(name)) is not None]
        rows = np.flatnonzero(np.isin(system.arrays["value_prop"], numbers))
        ids, places = np.unique(system.arrays["value_id"][rows], return_inverse=True)
        known = np.array([-1 if (n := system.find(system.value_text(int(each)))) is None else n for each in ids] or [-1], np.int32)
        targets = known[places] if len(rows) else np.zeros(0, np.int32)
        sources = (np.searchsorted(system.arrays["value_at"], rows, side="right") - 1).astype(np.int32)
        fine = targets >= 0
        kept = (system.arrays["value_prop"][rows][fine], sources[fine], targets[fine])
        system.memo.put("associations", kept, kept)
    return kept


def _filtered(system: IndexedSystem, base: Members, criteria: tuple[Filter, ...]) -> Members:
    """The concepts that meet all criteria of one {{ }}; description criteria are met by one and the same description."""
    result = base
    for each in criteria:
        if each.kind == "C":
            result = result[_concept_test(system, each)[result]]
    told = [each for each in criteria if each.kind == "D"]
    return describe(system, result, told, lambda node: evaluate(system, node)) if told else result


def _concept_test(system: IndexedSystem, criterion: Filter) -> Mask:
    flags = system.arrays["flags"]
    texts = [text.lower() for _, text in criterion.values]
    if criterion.inner is not None:
        texts = [system.code(int(n)) for n in evaluate(system, criterion.inner)]
    if criterion.name == "effectivetime":
        return _stamped(system, criterion)
    if criterion.name == "active":
        wanted = {truth(text) for text in texts}
        hit: Mask = np.where((flags & INACTIVE) == 0, True in wanted, False in wanted)
    elif criterion.name == "moduleid":
        hit = mask(system, members(np.concatenate([NOTHING, *(system.select("moduleId", "=", code) for code in texts)])))
    else:
        defined, primitive = bool({"defined", SUFFICIENT} & set(texts)), bool({"primitive", NECESSARY} & set(texts))
        hit = np.where((flags & DEFINED) != 0, defined, primitive)
    return hit if criterion.operator == "=" else ~hit


def _stamped(system: IndexedSystem, criterion: Filter) -> Mask:
    """effectiveTime compares as a number; each date that there is is looked at once."""
    wanted = [text for _, text in criterion.values]
    if not all(re.fullmatch(r"\d{8}", text) for text in wanted):
        raise BadConstraint("an effectiveTime is written YYYYMMDD")
    test, made = COMPARE[criterion.operator], np.zeros(system.size, np.bool_)
    number = system.facts["prop_numbers"].get("effectiveTime")
    rows = np.flatnonzero(system.arrays["value_prop"] == number) if number is not None else np.zeros(0, np.int64)
    ids = system.arrays["value_id"][rows]
    negated = criterion.operator == "!="
    fine = [
        each for each in np.unique(ids) if (all if negated else any)(test(_number(system.value_text(int(each))), Decimal(text)) for text in wanted)
    ]
    made[np.searchsorted(system.arrays["value_at"], rows[np.isin(ids, fine)], side="right") - 1] = True
    return made


def _number(text: str) -> Decimal:
    return Decimal(text) if text.isdecimal() else Decimal(0)
