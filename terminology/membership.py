"""Members of reference sets by what their rows say, and what a field of these rows names: `^ 447562003 {{ M mapTarget = "J45" }}`, `^ [targetComponentId] ...`.

https://confluence.ihtsdotools.org/display/DOCECL/6.10+Member+Filters. Only active rows about concepts are loaded.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal

import numpy as np

from terminology.described import Evaluate, named, term_test, truth
from terminology.ecl import BadConstraint, Filter
from terminology.index import Array, IndexedSystem
from terminology.reach import spend
from terminology.sets import NOTHING, Members, shared

TEXT_COST = 100
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
COMPONENT = "referencedcomponentid"
Test = Callable[[str], bool]


def members_by_row(system: IndexedSystem, refsets: Members, criteria: Sequence[Filter], field: str, concepts: Evaluate) -> Members:
    """The concepts of the rows of some reference sets that meet all criteria; with a field, the concepts that stand there. Raises BadConstraint."""
    tests = [(each.name, _test(system, each, concepts)) for each in criteria if each.name != "active"]
    for each in criteria:
        if each.name == "active" and (each.operator == "=") == (False in {truth(text.lower()) for _, text in each.values}):
            raise BadConstraint("inactive members are not kept")
    found = [NOTHING]
    for rows, names in _rows(system, refsets):
        fine = rows
        for name, test in tests:
            fine = fine[_meets(system, fine, names, name, test)]
        if not field or field == COMPONENT:
            found.append(system.arrays["row_concept"][fine])
        elif field in names:
            found.append(_named_in(system, _values(system, fine, names.index(field))))
    return np.unique(np.concatenate(found)).astype(np.int32)


def _rows(system: IndexedSystem, refsets: Members) -> Iterator[tuple[Array, list[str]]]:
    """(rows, names of their fields in lower case) of each reference set."""
    owners = system.arrays["row_set"]
    for refset in shared(refsets, np.unique(owners).astype(np.int32)):
        low, high = (int(np.searchsorted(owners, refset, side=side)) for side in ("left", "right"))
        spend(high - low)
        yield np.arange(low, high), [each.lower() for each in system.fields.get(system.code(int(refset)), ())]


def _values(system: IndexedSystem, rows: Array, place: int) -> Array:
    """The value numbers of a field."""
    found: Array = system.arrays["row_value"][system.arrays["row_at"][rows].astype(np.int64) + place]
    return found


def _meets(system: IndexedSystem, rows: Array, names: list[str], name: str, test: Test) -> Array:
    """Which rows meet a test; none where the reference set has no such field. Each value that there is is looked at once."""
    if name == COMPONENT:
        ids, places = np.unique(system.arrays["row_concept"][rows], return_inverse=True)
        texts = (system.code(int(each)) for each in ids)
    elif name in names:
        ids, places = np.unique(_values(system, rows, names.index(name)), return_inverse=True)
        texts = (system.value_text(int(each)) for each in ids)
    else:
        return np.zeros(len(rows), np.bool_)
    spend(len(ids) * TEXT_COST)
    fine = np.array([test(text) for text in texts], np.bool_)
    return fine[places] if len(ids) else np.zeros(0, np.bool_)


def _named_in(system: IndexedSystem, values: Array) -> Members:
    """The concepts that stand in a field."""
    texts = (system.value_text(int(each)) for each in np.unique(values))
    return np.unique(np.array([n for text in texts if (n := system.find(text)) is not None], np.int32))


def _test(system: IndexedSystem, criterion: Filter, concepts: Evaluate) -> Test:
    """What a criterion asks of a value."""
    wanted = criterion.operator == "="
    if criterion.inner is not None:
        codes = {system.code(int(n)) for n in concepts(criterion.inner)} | set(named(criterion.inner))
        return lambda text: (text in codes) == wanted
    kinds = {how for how, _ in criterion.values}
    if kinds == {"#"} or criterion.name.endswith("time"):
        return _compared(criterion)
    if criterion.operator not in ("=", "!="):
        raise BadConstraint(f"'{criterion.operator}' compares numbers and times")
    tests = [term_test(how, text) for how, text in criterion.values]
    return lambda text: any(test(text) for test in tests) == wanted


def _compared(criterion: Filter) -> Test:
    texts = [text for _, text in criterion.values]
    if not all(NUMBER.fullmatch(text) for text in texts):
        raise BadConstraint("a number or a time as YYYYMMDD is expected")
    numbers = [Decimal(text) for text in texts]
    compare = COMPARE[criterion.operator]
    quantifier = all if criterion.operator == "!=" else any
    return lambda text: NUMBER.fullmatch(text) is not None and quantifier(compare(Decimal(text), each) for each in numbers)


COMPARE: dict[str, Callable[[Decimal, Decimal], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
