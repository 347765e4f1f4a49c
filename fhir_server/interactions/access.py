"""What a caller may see of a stored version, and the refusals for the rest: one place for read, vread, history and writes.

A resource outside the caller's clause is answered like one that never existed (404, or nothing to delete): no existence oracle.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from conformance.outcome import gone, not_found
from conformance.spec import Spec
from fhir_server.context import Context, Resource
from fhir_server.interactions.indexing import indexed
from fhir_server.query.clauses import Clause, Everything
from fhir_server.query.match import matches
from fhir_server.search.extract import narrowed
from fhir_server.search.keys import named
from fhir_server.security.visible import required
from fhir_server.store import Stored

QUIET, TICK = 0.005, 0.001  # seconds
MOST_TESTS = 1000  # that one caller keeps compiled
Test = Callable[[Resource, str, datetime | None], bool]


def within(ctx: Context, clause: Clause, stored: Stored) -> bool:
    """True if the content of this version matches the clause; a tombstone has none and matches only Everything."""
    if isinstance(clause, Everything):
        return True
    return stored.res is not None and _test(ctx, stored.rtype, clause)(stored.res, stored.rid, stored.at)


def _test(ctx: Context, rtype: str, clause: Clause) -> Test:
    """(resource, id, stamp) -> does it match; kept with the caller's admission, which holds the clause, so that its identity is its name."""
    admission = ctx.admission
    if admission is None:
        return _compiled(ctx.spec, ctx.base, rtype, clause)
    key = (rtype, id(clause))
    found: tuple[Clause, Test] | None = admission.tests.get(key)
    if found is None or found[0] is not clause:
        if len(admission.tests) >= MOST_TESTS:
            admission.tests.clear()
        found = admission.tests[key] = clause, _compiled(ctx.spec, ctx.base, rtype, clause)
    return found[1]


def _compiled(spec: Spec, base: str, rtype: str, clause: Clause) -> Test:
    """What the clause asks for is extracted from the resource, and no more where that can be told."""
    names = named(clause)
    extract = partial(indexed, spec, base) if names is None else narrowed(spec, rtype, names, base)
    return lambda res, rid, at: matches(clause, extract(res), rid=rid, at=at)


def sees(ctx: Context, action: str, stored: Stored) -> bool:
    """True if the caller may do `action` on this version. Raises 403 without any such right on the type."""
    return within(ctx, required(ctx, stored.rtype, action), stored)


async def last_content(ctx: Context, stored: Stored) -> Stored:
    """The version itself, or what a tombstone deleted (the tombstone if that is not kept)."""
    if stored.res is not None:
        return stored
    return await ctx.store.version(stored.rtype, stored.rid, stored.vid - 1) or stored


async def covered(ctx: Context, clause: Clause, stored: Stored) -> bool:
    """True if the clause covers the resource as it is, or as it was before it was deleted."""
    return isinstance(clause, Everything) or within(ctx, clause, await last_content(ctx, stored))


async def known(ctx: Context, rtype: str, rid: str, action: str = "r") -> Stored:
    """The current version or tombstone, if the caller may know of it. Raises 403, 404."""
    clause = required(ctx, rtype, action)
    stored = await ctx.store.get(rtype, rid)
    if stored is None or not await covered(ctx, clause, stored):
        await quiet(ctx, clause)
        raise not_found(rtype, rid)
    return stored


async def quiet(ctx: Context, clause: Clause) -> None:
    """Before it is said that nothing is there, to a caller who may not know of all: wait until the request's age is a multiple of QUIET.

    What is hidden is found sooner than what is missing, and what was deleted later: the answer shall not tell by its time.
    """
    if not isinstance(clause, Everything):
        clock = asyncio.get_running_loop().time
        age = (datetime.now(UTC) - ctx.now).total_seconds()
        until = clock() + QUIET - age % QUIET
        await asyncio.sleep(max(until - clock() - TICK, 0))
        # a timer wakes at whole milliseconds only, which would tell the difference again
        while clock() < until:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def current(ctx: Context, rtype: str, rid: str) -> Stored:
    """The current version, for a read. Raises 403, 404, 410."""
    stored = await known(ctx, rtype, rid)
    if stored.res is None:
        raise gone(rtype, rid)
    return stored
