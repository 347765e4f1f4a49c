"""Check digits and lexical forms: what a code's own characters tell before any table is asked.

SNOMED CT: partition and Verhoeff digit, https://confluence.ihtsdotools.org/display/DOCRELFMT/6+SNOMED+CT+Identifiers; LOINC: Mod 10 (Luhn), with the prefix
letters of parts, answers, answer lists and groups, https://loinc.org/kb/users-guide/
"""

import re

_SCTID = re.compile(r"[1-9][0-9]{5,17}")
_LOINC = re.compile(r"((?:LP|LA|LL|LG)?[0-9]{1,8})-([0-9])")


def _dihedral() -> tuple[tuple[int, ...], ...]:
    """The multiplication table of the dihedral group D5."""

    def times(a: int, b: int) -> int:
        if a < 5:
            return (a + b) % 5 if b < 5 else (a + b - 5) % 5 + 5
        return (a - b) % 5 + 5 if b < 5 else (a - b) % 5

    return tuple(tuple(times(a, b) for b in range(10)) for a in range(10))


_TIMES = _dihedral()
_FIRST = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def _permutations() -> tuple[tuple[int, ...], ...]:
    rows = [tuple(range(10)), _FIRST]
    while len(rows) < 8:
        rows.append(tuple(_FIRST[n] for n in rows[-1]))
    return tuple(rows)


_PERMUTE = _permutations()
_INVERSE = tuple(_TIMES[n].index(0) for n in range(10))


def verhoeff(digits: str) -> int:
    """The check digit to append to `digits`."""
    state = 0
    for place, digit in enumerate(reversed(digits), start=1):
        state = _TIMES[state][_PERMUTE[place % 8][int(digit)]]
    return _INVERSE[state]


def mod10(text: str) -> int:
    """LOINC's check digit for the part before the hyphen: Luhn, in which a letter counts as its character code less that of '0' (L is 28)."""
    total = 0
    for place, char in enumerate(reversed(text)):
        value = ord(char) - 48
        total += sum(map(int, str(value * 2))) if place % 2 == 0 else value
    return -total % 10


def sctid(text: str) -> str:
    """'' if `text` is a well-formed SNOMED CT concept identifier, else what is wrong with it."""
    if not _SCTID.fullmatch(text):
        return "an SCTID is 6 to 18 digits and begins with 1 to 9"
    if verhoeff(text[:-1]) != int(text[-1]):
        return "the check digit of the SCTID is wrong"
    if text[-3:-1] not in ("00", "10"):
        return "the partition of the SCTID is not that of a concept"
    return "an SCTID of an extension has at least 11 digits" if text[-3:-1] == "10" and len(text) < 11 else ""


def loinc(text: str) -> str:
    """'' if `text` is a well-formed LOINC code (or part, answer, list, group), else what is wrong with it."""
    match = _LOINC.fullmatch(text)
    if match is None:
        return "a LOINC code is digits, a hyphen and a check digit"
    return "" if mod10(match.group(1)) == int(match.group(2)) else "the check digit of the LOINC code is wrong"
