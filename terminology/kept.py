"""What was worked out and may be asked again, within bounds: value sets and constraints come from outside, and a set may hold every concept there is."""

from collections.abc import Iterable, Sized
from dataclasses import dataclass, field
from typing import Any

HEAVIEST = 16_000_000  # concept numbers in one process and keeper: 64 MB
OVERHEAD = 64


@dataclass(slots=True)
class Kept:
    """Rows by key; all are forgotten before there are more than `most` of them, or they hold more than `heaviest` concepts."""

    most: int
    heaviest: int = HEAVIEST
    rows: dict[Any, Any] = field(default_factory=dict)
    weight: int = 0

    def get(self, key: Any) -> Any:
        """What was kept, None if nothing was."""
        return self.rows.get(key)

    def put(self, key: Any, value: Any, sets: Iterable[Sized] = ()) -> None:
        """Keeps a value that holds these sets."""
        weight = OVERHEAD + sum(map(len, sets))
        if len(self.rows) >= self.most or self.weight + weight > self.heaviest:
            self.rows.clear()
            self.weight = 0
        self.rows[key] = value
        self.weight += weight
