"""Mutated frames over a real socket (see `fuzz`)."""

import pytest

from tests.mllp.fuzz import fuzz


@pytest.mark.parametrize("seed", range(4))
async def test_mutated_frames_are_answered_or_closed_for_a_counted_reason(seed: int) -> None:
    await fuzz(seed, 250)


@pytest.mark.fuzz
async def test_two_hundred_thousand_mutated_frames() -> None:
    await fuzz(2026, 200_000)
