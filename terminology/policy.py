"""What to do about a code that is found wanting: off, warn or reject, per code system and source, as data; and whose codes are translated.

The built-in rows stand in policy.csv; a site puts its own in front. An empty cell leaves the matter to the next less specific row. A feed of HL7 v2 messages
is at most flagged: a lost result is worse than an unknown code.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

ACTIONS = ("off", "warn", "reject")
FINDINGS = ("unknown-system", "unknown-code", "malformed", "inactive", "wrong-display", "not-in-required", "not-in-extensible")
TRANSLATE = ("off", "on")
COLUMNS = (*FINDINGS, "translate")
MAX_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the actions for codes of `system` from `source` ('*': any); `translate` is on or off."""

    system: str
    source: str
    actions: Mapping[str, str]

    def applies(self, system: str, source: str) -> bool:
        """True if the row is about this system and source."""
        return self.system in ("*", system) and self.source in ("*", source)


def read_rows(lines: Iterable[str]) -> tuple[Row, ...]:
    """The rows of a policy table. Raises ValueError, naming the line, for a column or an action that does not exist."""
    reader = csv.DictReader(lines)
    strange = sorted(set(reader.fieldnames or ()) - {"system", "source", *COLUMNS})
    if strange:
        raise ValueError(f"line 1: there is no column '{strange[0]}'; there are system, source, {', '.join(COLUMNS)}")
    rows = []
    for number, row in enumerate(reader, start=2):
        actions = {name: said for name in COLUMNS if (said := (row.get(name) or "").strip())}
        for name, said in actions.items():
            if said not in (TRANSLATE if name == "translate" else ACTIONS):
                raise ValueError(f"line {number}: an action is off, warn or reject (translate: on or off), not {said}")
        rows.append(Row(row.get("system") or "*", row.get("source") or "*", actions))
    return tuple(rows)


@dataclass(frozen=True)
class Policy:
    """Rows; the most specific one that says something counts: exact system and source, then system, then source, then the rest; the first of several."""

    rows: Sequence[Row]
    memo: dict[tuple[str, str, str], str] = field(default_factory=dict, compare=False, repr=False)

    def action(self, finding: str, system: str, source: str, *, flag_only: bool = False) -> str:
        """off, warn or reject; flag_only (HL7 v2 feeds) turns reject into warn."""
        action = self._said(finding, system, source) or "warn"
        return "warn" if flag_only and action == "reject" else action

    def translates(self, system: str, source: str) -> bool:
        """True if codes of this system from this source are to be translated."""
        return self._said("translate", system, source) == "on"

    @cached_property
    def translating(self) -> bool:
        """True if any row translates."""
        return any(row.actions.get("translate") == "on" for row in self.rows)

    def _said(self, name: str, system: str, source: str) -> str:
        key = (name, system, source)
        said = self.memo.get(key)
        if said is None:
            fitting = [row for row in self.rows if name in row.actions and row.applies(system, source)]
            best = min(fitting, key=lambda row: (row.system == "*", row.source == "*"), default=None)
            said = best.actions[name] if best is not None else ""
            if len(self.memo) >= MAX_KEPT:
                self.memo.clear()
            self.memo[key] = said
        return said


@lru_cache(maxsize=8)
def open_policy(path: Path | None = None) -> Policy:
    """The built-in policy, behind the rows of a site's own table. Raises ValueError if that is malformed."""
    with (Path(__file__).parent / "policy.csv").open(encoding="utf-8", newline="") as lines:
        builtin = read_rows(lines)
    if path is None:
        return Policy(builtin)
    with path.open(encoding="utf-8", newline="") as lines:
        return Policy((*read_rows(lines), *builtin))
