"""Strings: names, addresses, texts. https://hl7.org/fhir/R4/search.html#string

Stored in `k`: 'family~smith\\x01Smith': folded text, a stop, the text itself. So a start (`Prefix`), `:exact` (one key) and `:contains` (a scan
of the parameter's keys) need one key per value. A family name of several parts is found by each ("Carreno Quinones" by "quinones"): each later part has a key
'family~quinones\\x02\\x01' of its own, which neither `:exact` nor a sort reads.
"""

import hashlib
import re
from typing import Any

from fhir_server.query.clauses import Clause, Contains, Keys, Prefix, either
from fhir_server.search.asked import Asked, Emit, Out
from fhir_server.search.escape import unescape
from fhir_server.search.fold import fold, phonetic
from fhir_server.search.schema import Field

STOP, PART = "\x01", "\x02"
BETWEEN = re.compile(r"[\s\u2010-\u2015-]+")  # parts of a family name
MOST_PARTS = 10
LONG, MOST_FOLDED = 120, 8000
PARTS = ("text", "family", "given", "prefix", "suffix", "line", "city", "district", "state", "postalCode", "country", "name", "display", "value")


def form(text: str) -> str:
    """What stands behind 'name~'; of a long text its digest for `:exact`, and the first MOST_FOLDED characters folded."""
    if len(text) <= LONG:
        return f"{fold(text)}{STOP}{text}"
    return f"{fold(text)[:MOST_FOLDED]}{STOP}{STOP}{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()}"


def strings(value: Any) -> list[str]:
    """The strings of a value: itself, or the parts of a HumanName, an Address or the like."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, dict):
        return [str(value)]
    found: list[str] = []
    for part in PARTS:
        inner = value.get(part)
        if isinstance(inner, str):
            found.append(inner)
        elif isinstance(inner, list):
            found += [each for each in inner if isinstance(each, str)]
    return found


def later_parts(family: str) -> list[str]:
    """What stands behind 'name~' for the parts of a family name but the first, each with what follows it (https://hl7.org/fhir/R4/search.html#string)."""
    pieces = BETWEEN.split(family[:LONG])
    folded = [fold(" ".join(pieces[at:])) for at in range(1, min(len(pieces), MOST_PARTS))]
    return [f"{text}{PART}{STOP}" for text in folded if text]


def emitter(name: str, field: Field) -> Emit:
    """Writes the keys of the values of a parameter."""
    head, sounded = f"{name}~", field.code == "phonetic"
    families = field.param.expression.endswith(".family")

    def emit(values: list[Any], out: Out) -> None:
        for value in values:
            for text in strings(value):
                out.k[head + (phonetic(text) if sounded else form(text))] = None
            family = value if families else value.get("family") if type(value) is dict else None
            if type(family) is str and not sounded and BETWEEN.search(family):
                for part in later_parts(family):
                    out.k[head + part] = None

    return emit


def clause(asked: Asked, text: str) -> Clause:
    """What one value means: starts with (default), :exact or :contains; for `phonetic` sounds like."""
    wanted = unescape(text)
    if not wanted:
        raise asked.wrong("the value is empty")
    return either(*(_one(asked, name, wanted) for name in asked.field.names))


def _one(asked: Asked, name: str, wanted: str) -> Clause:
    if asked.field.code == "phonetic":
        return Keys((f"{name}~{phonetic(wanted)}",))
    if asked.modifier == "exact":
        return Keys((f"{name}~{form(wanted)}",))
    folded = fold(wanted)
    if not folded:
        raise asked.wrong("the value has no letter or digit")
    if asked.modifier == "contains":
        return Contains(f"{name}~", folded, STOP)
    return Prefix(f"{name}~{folded}")
