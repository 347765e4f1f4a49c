"""Clauses and facts about stored keys, for those who must not know how keys are spelt: feed, referential integrity, access."""

import re
from collections.abc import Iterable
from functools import lru_cache

from conformance.spec import Spec
from fhir_server.query.clauses import (
    NOTHING,
    And,
    Clause,
    Dated,
    Everything,
    HasPatient,
    Ids,
    Index,
    Keys,
    Not,
    Nothing,
    Or,
    Patient,
    Prefix,
    Range,
    Updated,
    either,
)
from fhir_server.search.extract import DATE, MEMBER, PATIENT
from fhir_server.search.schema import schema
from fhir_server.search.types import reference, token

NAME = re.compile(r"([A-Za-z0-9_-]+)[=~:]")
OTHER = "_ref"  # 'k' entries of references that stand in no reference parameter


def token_clause(spec: Spec, rtype: str, code: str, system: str | None, value: str) -> Clause:
    """The token parameter `code` has this value; system None: in any system, '': in none. KeyError if the type has no such parameter."""
    return token.codes_clause(schema(spec, rtype).fields[code], [(system, value)])


def refers(spec: Spec, rtype: str, targets: Iterable[tuple[str, str]]) -> Clause:
    """Resources of type `rtype` that refer to one of these (type, id), by whatever element."""
    wanted = tuple(f"{kind}/{rid}" for kind, rid in targets)
    kinds = {ref.partition("/")[0] for ref in wanted}
    parts: list[Clause] = [Keys(tuple(f"{OTHER}={ref}" for ref in wanted))] if wanted else []
    for field in schema(spec, rtype).fields.values():
        if field.type == "reference" and kinds & set(reference.allowed(spec, field)):
            parts.append(reference.to(field, wanted))
    return either(*parts)


def referenced(index: Index) -> set[str]:
    """Every relative reference that an index document knows ('Patient/1')."""
    found = {key.partition("=")[2] for key in index.get("k", ()) if "/" in key and "=" in key}
    if "p" in index:
        found.add(index["p"])
    return found


def compartment(spec: Spec, name: str, rid: str, rtype: str) -> Clause:
    """Membership in a compartment. https://hl7.org/fhir/R4/compartmentdefinition.html. KeyError if R4 has no such compartment."""
    codes = spec.compartments[name].get(rtype, ())
    ref = f"{name}/{rid}"
    own: Clause = Ids((rid,)) if rtype == name else NOTHING
    shape = schema(spec, rtype)
    fields = [shape.fields[code] for code in codes if code in shape.fields]
    if name == "Patient":
        kept = any(field.patient for field in fields)
        members = Keys((MEMBER + ref,)) if any(not field.patient for field in fields) or not kept else NOTHING
        return either(own, Patient((ref,)) if kept else NOTHING, members if fields else NOTHING)
    return either(own, *(reference.to(field, (ref,)) for field in fields))


def named(clause: Clause) -> frozenset[str] | None:
    """The stored names that a clause asks for, as `extract.narrowed` takes them; None if it needs the whole index document."""
    names: set[str] = set()
    waiting: list[Clause] = [clause]
    while waiting:
        one = waiting.pop()
        if isinstance(one, And | Or):
            waiting += one.parts
        elif isinstance(one, Not):
            waiting.append(one.part)
        elif isinstance(one, Patient | HasPatient):
            names.add(PATIENT)
        elif isinstance(one, Dated):
            names.add(DATE)
        elif not isinstance(one, Everything | Nothing | Ids | Updated):
            found = _names_of(one)
            if not found or "" in found or OTHER in found:
                return None
            names |= found
    return frozenset(names)


@lru_cache(4096)
def _names_of(clause: Clause) -> frozenset[str]:
    """The names before the mark in keys; '' for what has none."""
    if isinstance(clause, Keys):
        return frozenset(MEMBER if value.startswith(MEMBER) else _head(value) for value in clause.values)
    if isinstance(clause, Prefix):
        return frozenset({_head(clause.text)})
    if isinstance(clause, Range):
        return frozenset({clause.key.partition("+")[0]})
    return frozenset({""})


def _head(text: str) -> str:
    found = NAME.match(text)
    return found.group(1) if found else ""
