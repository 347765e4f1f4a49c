"""Values kept from message to message of one sender: the same codes, units, doctors, places and authorities come again and again.

Only what follows from the text is kept (purity.py), by the sender's settings, or by the message's clock and authorities too. A conversion that
notes a problem, or has an escape in its text, is done each time; codes that no map knows are listed each time. How much is kept: run.py.
"""

import marshal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mappers.v2.path import clone
from mappers.v2.place import At
from mappers.v2.run import Run, Unmapped

Convert = Callable[[Run, str, At, int], Any]
MOST_TEXT = 500  # characters of a text that is kept


def by_settings(convert: Convert) -> Convert:
    """A pure conversion to a code or a coded element, whose values are kept by the sender's settings."""
    number = id(convert)

    def remembered(run: Run, raw: str, place: At, level: int) -> Any:
        memo = run.memo
        if memo is None or "\\" in raw:
            return convert(run, raw, place, level)
        key = (number, raw, level)
        known = memo.get(key)
        if known is None:
            known = _first(run, lambda: convert(run, raw, place, level))
            if len(raw) <= MOST_TEXT and known[3]:
                memo[key] = known
        elif known[2]:
            run.unmapped += [replace(code, location=run.at()) for code in known[2]]
        value, unsaid, _, _ = known
        if unsaid:
            run.unsaid = True
        return clone(value) if type(value) is dict else value

    return remembered


def _first(run: Run, make: Callable[[], Any]) -> tuple[Any, bool, list[Unmapped], bool]:
    """A value, whether it leaves out a part of its text, the codes that no map knew, and whether that is all there is to say of it."""
    problems, unmapped, before = len(run.problems), len(run.unmapped), run.unsaid
    run.unsaid = False
    value = make()
    unsaid, run.unsaid = run.unsaid, before
    return value, unsaid, run.unmapped[unmapped:], len(run.problems) == problems


def by_message(convert: Convert) -> Convert:
    """A conversion to a text that follows from the text, the sender, and the message's clock and authorities."""
    number = id(convert)

    def remembered(run: Run, raw: str, place: At, level: int) -> Any:
        value, run.unsaid = element(run, number, lambda: convert(run, raw, place, level), raw, level)
        return value

    return remembered


def element(run: Run, which: int | str, make: Callable[[], Any], raw: str, level: int) -> tuple[Any, bool]:
    """An element (a new copy) or a text that follows from text, sender, clock and authorities, and whether it leaves out a part of the text.

    `which` tells the conversions apart; `make` is it, called where the element is not known. It makes no resource.
    """
    known = run.known
    key = (which, raw, level)
    if known is None or "\\" in raw or len(raw) > MOST_TEXT:
        return make(), run.unsaid
    found = known.get(key)
    if found is not None:
        packed, unsaid = found
        return marshal.loads(packed) if type(packed) is bytes else packed, unsaid  # noqa: S302 - our own bytes, made below
    findings = _findings(run)
    made = make()
    if _findings(run) == findings:
        known[key] = made if type(made) is str else marshal.dumps(made), run.unsaid
    return made, run.unsaid


def _findings(run: Run) -> int:
    return len(run.unmapped) + len(run.problems)
