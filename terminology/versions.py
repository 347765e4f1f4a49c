"""Versions of code systems and value sets: which is newer, and which a pattern such as `1.0.x` or `1.*` means.

https://hl7.org/fhir/R4/references.html#canonical; wildcards as the terminology ecosystem uses them (`x` or `*` in place of a part).
"""

import re
from collections.abc import Iterable

_PART = re.compile(r"\d+|[^\d.\-_/+]+")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
WILD = ("x", "X", "*")
_EDITION = re.compile(
    r"http://snomed\.info/x?sct/\d+"
)  # an edition of SNOMED CT, whatever its version (https://hl7.org/fhir/R4/snomedct.html#versions)


def key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts versions: numbers by value, words before numbers (`1.0.0-rc1` before `1.0.0`), dates by their parts, none first.

    Dates stand before numbers: HL7's own code systems went from `2018-08-12` to `2.0.0` (https://terminology.hl7.org/codesystems-v3.html).
    """
    era = (0 if not version or _DATE.fullmatch(version) else 1, 0, "")
    body, _, label = version.partition("-") if not version[:5].rstrip("-").isdigit() else (version.replace("-", "."), "", "")
    parts = [(1, int(p), "") if p.isdigit() else (0, 0, p) for p in _PART.findall(body)]
    return (era, *parts, (0, 0, label)) if label else (era, *parts, (1, 0, ""))


def latest(versions: Iterable[str]) -> str:
    """The newest of some versions ('' if there are none)."""
    return max(versions, key=key, default="")


def is_pattern(version: str) -> bool:
    """True for `1.x`, `1.0.*`, `*`, and for an edition of SNOMED CT."""
    return any(part in WILD for part in version.split(".")) or _EDITION.fullmatch(version) is not None


def matches(pattern: str, version: str) -> bool:
    """True if `version` is what `pattern` means: the same text, or the same parts with a wildcard (the last one swallows the rest)."""
    if pattern == version or (_EDITION.fullmatch(pattern) is not None and version.startswith(f"{pattern}/version/")):
        return True
    wanted, given = pattern.split("."), version.split(".")
    for place, part in enumerate(wanted):
        if part in WILD:
            if place == len(wanted) - 1:
                return len(given) > place
            if place >= len(given):
                return False
        elif place >= len(given) or part != given[place]:
            return False
    return is_pattern(pattern) and len(wanted) == len(given)


def choose(wanted: str, known: Iterable[str]) -> str | None:
    """The version that `wanted` means among those known: itself, the newest match of a pattern, the newest of all for ''; None if there is none."""
    candidates = list(known)
    if not wanted:
        return latest(candidates) if candidates else None
    if wanted in candidates:
        return wanted
    fitting = [version for version in candidates if matches(wanted, version)] if is_pattern(wanted) else []
    return latest(fitting) if fitting else None
