"""What to do about a code that is found wanting: off, warn or reject, per code system and source, as data.

The built-in rows stand in policy.csv; a site puts its own in front. A feed of HL7 v2 messages is at most flagged: a lost result is worse than an
unknown code.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ACTIONS = ("off", "warn", "reject")
FINDINGS = ("unknown-system", "unknown-code", "malformed", "inactive", "wrong-display", "not-in-required", "not-in-extensible")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the actions for codes of `system` from `source` ('*': any)."""

    system: str
    source: str
    actions: Mapping[str, str]

    def applies(self, system: str, source: str) -> bool:
        """True if the row is about this system and source."""
        return self.system in ("*", system) and self.source in ("*", source)


def read_rows(lines: Iterable[str]) -> tuple[Row, ...]:
    """The rows of a policy table. Raises ValueError, naming the line, for an action that does not exist."""
    rows = []
    for number, row in enumerate(csv.DictReader(lines), start=2):
        actions = {finding: row.get(finding) or "warn" for finding in FINDINGS}
        bad = sorted(set(actions.values()) - set(ACTIONS))
        if bad:
            raise ValueError(f"line {number}: an action is off, warn or reject, not {bad[0]}")
        rows.append(Row(row.get("system") or "*", row.get("source") or "*", actions))
    return tuple(rows)


@dataclass(frozen=True)
class Policy:
    """Rows, most specific first: exact system and source, then system, then source, then the rest."""

    rows: Sequence[Row]

    def action(self, finding: str, system: str, source: str, *, flag_only: bool = False) -> str:
        """off, warn or reject; flag_only (HL7 v2 feeds) turns reject into warn."""
        fitting = [row for row in self.rows if row.applies(system, source)]
        best = min(fitting, key=lambda row: (row.system == "*", row.source == "*"), default=None)
        action = best.actions[finding] if best is not None else "warn"
        return "warn" if flag_only and action == "reject" else action


@lru_cache(maxsize=8)
def open_policy(path: Path | None = None) -> Policy:
    """The built-in policy, behind the rows of a site's own table. Raises ValueError if that is malformed."""
    with (Path(__file__).parent / "policy.csv").open(encoding="utf-8", newline="") as lines:
        builtin = read_rows(lines)
    if path is None:
        return Policy(builtin)
    with path.open(encoding="utf-8", newline="") as lines:
        return Policy((*read_rows(lines), *builtin))
