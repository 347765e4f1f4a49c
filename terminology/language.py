"""Languages asked for and designations given: BCP 47 ranges, and the display that answers them.

https://hl7.org/fhir/R4/languages.html; https://www.rfc-editor.org/rfc/rfc4647 (basic filtering); Accept-Language weights, RFC 9110 12.5.4.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

_RANGE = re.compile(r"\*|[A-Za-z]{1,8}(?:-(?:[A-Za-z0-9]{1,8}|\*))*")
MAX_RANGES = 32


class BadLanguage(ValueError):
    """A displayLanguage that is no list of language ranges."""


@dataclass(frozen=True, slots=True)
class Languages:
    """The languages a client takes, best first. text: as sent ('' for no wish); ranges: lower case; any: another language will do if none of these is there (not with `*;q=0`)."""

    text: str = ""
    ranges: tuple[str, ...] = ()
    any: bool = True

    def __bool__(self) -> bool:
        return bool(self.ranges)


@lru_cache(maxsize=512)
def languages(text: str) -> Languages:
    """Reads `de-CH, de;q=0.8, *;q=0`. Raises BadLanguage."""
    if not text.strip():
        return Languages()
    weighted: list[tuple[float, int, str]] = []
    barred = False
    for place, part in enumerate(text.split(",")[:MAX_RANGES]):
        tag, _, parameter = part.strip().partition(";")
        if not _RANGE.fullmatch(tag.strip()):
            raise BadLanguage(text)
        weighted.append((-_weight(parameter), place, tag.strip().lower()))
        barred = barred or (tag.strip() == "*" and not _weight(parameter))
    ordered = [tag for weight, _, tag in sorted(weighted) if weight < 0]
    return Languages(text, tuple(tag for tag in ordered if tag != "*"), not barred)


def _weight(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return min(max(float(value), 0.0), 1.0)
    except ValueError:
        return 0.0


def fits(wanted: str, tag: str) -> bool:
    """True if a designation in `tag` answers the range `wanted`: `de-CH` answers `de`; `de` also answers `de-CH` less well (see `best`)."""
    tag = tag.lower()
    return tag == wanted or tag.startswith(wanted + "-")


class Designation(NamedTuple):
    """One name of a concept. use: a Coding or None; source: canonical of the supplement it came from; extension: as loaded; display: it is the display itself."""

    value: str
    language: str = ""
    use: dict[str, Any] | None = None
    source: str = ""
    extension: Sequence[dict[str, Any]] = ()
    display: bool = False

    def fhir(self) -> dict[str, Any]:
        """As a CodeSystem.concept.designation."""
        made: dict[str, Any] = {"extension": list(self.extension)} if self.extension else {}
        if self.language:
            made["language"] = self.language
        if self.use:
            made["use"] = self.use
        return made | {"value": self.value}


PREFERRED = ("preferredForLanguage", "900000000000003001", "900000000000013009", "display")


def best(wanted: Languages, names: Sequence[Designation]) -> Designation | None:
    """The name to show: the display itself if it answers the first range or nothing is asked, else the best designation; None if none answers.

    A name of a whole language answers a regional wish (`de` for `de-CH`) when no regional one does.
    """
    display = next((one for one in names if one.display), None)
    if not wanted:
        return display
    for tag in wanted.ranges:
        for test in (tag, tag.split("-")[0]):
            found = _answer(test, names)
            if found is not None:
                return found
    return display if wanted.any else None


def _answer(tag: str, names: Sequence[Designation]) -> Designation | None:
    fitting = [one for one in names if one.language and fits(tag, one.language)]
    exact = [one for one in fitting if one.language.lower() == tag] or fitting
    return min(exact, key=_rank, default=None)


def _rank(one: Designation) -> int:
    if one.display:
        return 0
    if one.use is None or one.use.get("code") in PREFERRED:
        return 1
    return 2


def answering(wanted: Languages, names: Iterable[Designation]) -> list[Designation]:
    """The names in any of the languages asked for (all, if nothing is asked)."""
    if not wanted:
        return list(names)
    return [one for one in names if one.language and any(fits(tag, one.language) for tag in wanted.ranges)]
