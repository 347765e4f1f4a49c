"""Regular expressions that come from outside: compiled by RE2, which runs in linear time, so that no pattern can stall the server.

ValueSet.compose.include.filter with op `regex` (https://hl7.org/fhir/R4/valueset-filter-operator.html): the pattern must match the whole value.
"""

from collections.abc import Callable
from functools import lru_cache

import re2

MAX_LENGTH = 1000


class BadPattern(ValueError):
    """A pattern that RE2 does not take (back references, look-around, too large)."""


@lru_cache(maxsize=256)
def whole(pattern: str) -> Callable[[str], bool]:
    """A test for values that the pattern matches from start to end. Raises BadPattern."""
    if len(pattern) > MAX_LENGTH:
        raise BadPattern(f"a pattern has at most {MAX_LENGTH} characters")
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)  # type: ignore[no-untyped-call]
    except re2.error as bad:
        raise BadPattern(f"the pattern cannot be used: {bad}") from bad
    return lambda text: compiled.fullmatch(text) is not None
