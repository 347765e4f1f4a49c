"""Merged resources: which one stands for which, kept in each process, honoured by searches and access before references are rewritten.

The feed merges resources (`feed/merge.py`) and gives the store's aliases as a function; without one there are none. What a process knows is never
older than FRESH_SECONDS where it is asked for by `renewed`; who merges waits as long before it says so (`settled`): then all processes know.
A search for either of two merged patients finds what refers to either, until the job has rewritten the last reference.

https://hl7.org/fhir/R4/patient.html#merging, https://hl7.org/fhir/R4/patient-definitions.html#Patient.link
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from weakref import WeakKeyDictionary

from fhir_server.context import Context
from fhir_server.query.clauses import And, Clause, Contained, Keys, Not, Or, Patient, both, either, negated
from fhir_server.search.shelved import unshelved
from fhir_server.store import Store

FRESH_SECONDS = 0.1
NONE: Mapping[str, tuple[str, ...]] = MappingProxyType({})
Read = Callable[[int], Awaitable[list[tuple[int, str, str]]]]  # generation -> what changed since: (generation, retired, survivor or '' after an undo)


@dataclass(slots=True, eq=False)
class Aliases:
    """read: asks the store; survivors: 'Patient/2' -> 'Patient/1'; groups: each of them -> all that are one now; generation: of the newest known."""

    read: Read
    survivors: dict[str, str] = field(default_factory=dict)
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: NONE)
    generation: int = 0
    at: float = -1e9
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


_KNOWN: WeakKeyDictionary[Store, Aliases] = WeakKeyDictionary()


def attach(store: Store, read: Read) -> None:
    """From now on `read` tells of the merges in this store."""
    _KNOWN[unshelved(store)] = Aliases(read)


async def renewed(store: Store) -> Aliases | None:
    """What is known of this store's merges, not older than FRESH_SECONDS; None if nobody merges here. Raises Refusal 503 if the store cannot say."""
    known = _KNOWN.get(unshelved(store))
    if known is None or time.monotonic() - known.at < FRESH_SECONDS:
        return known
    async with known.turn:
        started = time.monotonic()
        if started - known.at >= FRESH_SECONDS:
            changes = await known.read(known.generation)
            if changes:
                _learn(known, changes)
            known.at = started
    return known


async def settled(store: Store) -> None:
    """Returns when a merge that was just committed is known to every process."""
    known = _KNOWN.get(unshelved(store))
    if known is not None:
        known.at = -1e9
        await asyncio.sleep(FRESH_SECONDS)


def _learn(known: Aliases, changes: list[tuple[int, str, str]]) -> None:
    for generation, retired, survivor in changes:
        known.generation = max(known.generation, generation)
        if survivor:
            known.survivors[retired] = survivor
        else:
            known.survivors.pop(retired, None)
    members: dict[str, list[str]] = {}
    for retired in known.survivors:
        last = survivor_of(known, retired)
        members.setdefault(last, [last]).append(retired)
    known.groups = {ref: tuple(group) for group in members.values() for ref in group}


def survivor_of(known: Aliases, ref: str) -> str:
    """Who stands for a resource: itself if it was never merged. Chains are short, since each merge points older ones at its survivor."""
    seen = {ref}
    while (following := known.survivors.get(ref, "")) and following not in seen:
        seen.add(following)
        ref = following
    return ref


def young(store: Store) -> bool:
    """True if `renewed` would answer what is known, without asking."""
    known = _KNOWN.get(unshelved(store))
    return known is None or time.monotonic() - known.at < FRESH_SECONDS


def known_of(store: Store) -> Aliases | None:
    """What was known when it was last asked for; None if nothing was ever merged here."""
    known = _KNOWN.get(unshelved(store))
    return known if known is not None and known.survivors else None


def generation(store: Store) -> int:
    """A number that changes with what is known: for what is kept compiled."""
    known = _KNOWN.get(unshelved(store))
    return known.generation if known is not None else 0


def same(store: Store, ref: str) -> tuple[str, ...]:
    """All references that mean what this one means."""
    known = known_of(store)
    return known.groups.get(ref, (ref,)) if known else (ref,)


def merged(ctx: Context, rtype: str, clause: Clause) -> Clause:
    """The clause with every reference to one of several merged resources standing for all of them.

    References between resources of one type are left alone: a Patient's links tell who was merged into whom.
    """
    known = known_of(ctx.store)
    return clause if known is None else _widened(clause, known.groups, f"{rtype}/")


def _widened(clause: Clause, groups: Mapping[str, tuple[str, ...]], own: str) -> Clause:
    if isinstance(clause, Patient):
        found = tuple(dict.fromkeys(one for ref in clause.values for one in groups.get(ref, (ref,))))
        return clause if own == "Patient/" or len(found) == len(clause.values) else Patient(found)
    if isinstance(clause, Keys):
        keys = tuple(dict.fromkeys(one for key in clause.values for one in _same_keys(key, groups, own)))
        return clause if len(keys) == len(clause.values) else Keys(keys)
    if isinstance(clause, And):
        return both(*(_widened(part, groups, own) for part in clause.parts))
    if isinstance(clause, Or):
        return either(*(_widened(part, groups, own) for part in clause.parts))
    if isinstance(clause, Not):
        return negated(_widened(clause.part, groups, own))
    return Contained(clause.rtype, _widened(clause.part, groups, f"{clause.rtype}/")) if isinstance(clause, Contained) else clause


def _same_keys(key: str, groups: Mapping[str, tuple[str, ...]], own: str) -> tuple[str, ...]:
    """'encounter=Encounter/2' -> that, and the same of the one it was merged with; '@Patient/2' likewise."""
    head, mark, ref = key.partition("=") if not key.startswith("@") else ("", "@", key[1:])
    if ref.startswith(own) or ref not in groups:
        return (key,)
    return (key, *(f"{head}{mark}{one}" for one in groups[ref] if one != ref))
