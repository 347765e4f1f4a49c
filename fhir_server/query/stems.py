"""Stems: what many index documents have in common, stored once; each document names it by one key instead of repeating it.

An AuditEvent of this exchange has some thirty keys and ten words, two thirds of which say what kind of event it is and are the same in millions of
others; every one is an entry in an index, and the entries are most of what an event costs. An index document may therefore be made with
`f: (Stem, ...)` beside the keys of its own. The store writes a stem down once (store/mongo/stems.py) and keeps its name among the keys.

Clauses know nothing of this. `grafted` asks the same of documents with stems: "has this key" becomes "has this key, or a stem that has it", leaf by
leaf, so that it holds under any `and`, `or` and `not`, and an index answers it as before. A stem never holds the key of a reference to a resource.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fhir_server.query.clauses import And, Clause, Contains, Index, Keys, Not, Or, Prefix, Text, both, either, negated
from fhir_server.query.match import matches

STEM = "&"  # what a name starts with, and no key of a search parameter
NAME_BYTES = 9
HELD = "f"  # the member of an index document that holds its stems


@dataclass(frozen=True, slots=True, eq=False)
class Stem:
    """Keys and texts in common. family: of which there are so many at most (store/mongo/stems.py)."""

    family: str
    keys: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def name(self) -> str:
        """The key that stands for it: made of the content, so that it means the same in every database."""
        content = "\0".join((*self.keys, "", *self.texts))
        return STEM + base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()[:NAME_BYTES]).decode()

    @property
    def index(self) -> Index:
        """Its part of an index document."""
        return {"k": list(self.keys), "t": list(self.texts)}


def grafted(clause: Clause, stems: Mapping[str, Index]) -> Clause:
    """The clause as it is asked where index documents may have these stems (name -> part)."""
    if isinstance(clause, And):
        return both(*(grafted(part, stems) for part in clause.parts))
    if isinstance(clause, Or):
        return either(*(grafted(part, stems) for part in clause.parts))
    if isinstance(clause, Not):
        return negated(grafted(clause.part, stems))
    if isinstance(clause, Keys | Prefix | Contains | Text):
        return either(clause, Keys(tuple(name for name, part in stems.items() if matches(clause, part))))
    return clause


def spelt(index: Index, parts: Iterable[Index]) -> Index:
    """An index document with these parts written out among its own keys and texts, and without names of stems."""
    whole = {name: value for name, value in index.items() if name != HELD}
    for name in ("k", "t"):
        values = dict.fromkeys(key for one in (index, *parts) for key in one.get(name, ()) if name == "t" or not key.startswith(STEM))
        if values:
            whole[name] = list(values)
        else:
            whole.pop(name, None)
    return whole


def names(index: Index) -> list[str]:
    """The names of stems in a stored index document."""
    return [key for key in index.get("k", ()) if key.startswith(STEM)]
