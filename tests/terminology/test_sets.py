"""Set algebra on sorted arrays against Python's own sets."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from terminology.sets import Members, shared, united, without

NUMBERS = st.one_of(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 2000), max_size=3), st.just(set(range(0, 1500, 2))))


def made(numbers: set[int]) -> Members:
    return np.array(sorted(numbers), np.int32)


@given(NUMBERS, NUMBERS)
def test_the_algebra_is_that_of_sets(left: set[int], right: set[int]) -> None:
    a, b = made(left), made(right)
    for found, wanted in ((shared(a, b), left & right), (united(a, b), left | right), (without(a, b), left - right)):
        assert found.tolist() == sorted(wanted)
        assert found.dtype == np.int32
