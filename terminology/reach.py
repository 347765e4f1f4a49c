"""What lies above and below whole sets of concepts, and the price of asking: for constraints over an index, computed on its arrays without a loop.

A constraint comes from outside and is worked out in one go, so what it may look at is limited: `spend` counts the rows and stops at `MOST`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import numpy.typing as npt

from terminology.index import Array, IndexedSystem
from terminology.sets import Members, ranges

MOST = 400_000_000  # rows that one constraint may look at: about 4 s
AT_ONCE = 4_000_000
Mask = npt.NDArray[np.bool_]
_left: ContextVar[list[int] | None] = ContextVar("left", default=None)


class TooCostly(ValueError):
    """A constraint that would look at too many rows."""


@contextmanager
def limited() -> Iterator[None]:
    """Within it, all that is spent counts together."""
    if _left.get() is not None:
        yield
        return
    token = _left.set([MOST])
    try:
        yield
    finally:
        _left.reset(token)


def spend(rows: int) -> None:
    """Counts rows that are looked at. Raises TooCostly."""
    left = _left.get()
    if left is not None:
        left[0] -= rows
        if left[0] < 0:
            raise TooCostly("the constraint would have to look at too many concepts")


def mask(system: IndexedSystem, numbers: Members) -> Mask:
    """A bool per concept."""
    made = np.zeros(system.size, np.bool_)
    made[numbers] = True
    return made


def around(system: IndexedSystem, data: str, base: Members) -> Mask:
    """The concepts in the rows `data` (up, down, above, below) of those in `base`."""
    made = np.zeros(system.size, np.bool_)
    for _, _, rows in _slices(system, data, base):
        made[rows] = True
    return made


def meeting(system: IndexedSystem, data: str, base: Members) -> Mask:
    """For each of `base`, whether another one of `base` is in its rows `data`."""
    inside, made = mask(system, base), np.zeros(len(base), np.bool_)
    for start, many, rows in _slices(system, data, base):
        counts = np.concatenate(([0], np.cumsum(inside[rows])))
        ends = np.cumsum(many)
        made[start : start + len(many)] = counts[ends] > counts[ends - many]
    return made


def _slices(system: IndexedSystem, data: str, base: Members) -> Iterator[tuple[int, Array, Array]]:
    """(place in base, how many rows each concept has, the rows of these) in pieces of a size that fits into memory."""
    ends, values = system.arrays[f"{data}_at"], system.arrays[data]
    first = ends[base].astype(np.int64)
    many = ends[base + 1].astype(np.int64) - first
    total = np.cumsum(many)
    spend(len(base) + int(total[-1]) if len(base) else 0)
    start = 0
    while start < len(base):
        done = int(total[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(total, done + AT_ONCE, side="right")))
        yield start, many[start:end], values[ranges(first[start:end], many[start:end])]
        start = end
