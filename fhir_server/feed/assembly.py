"""The feed joined to the rest of the house: mapping tables, terminology, and the one door to disk. `main` calls `open_feed` once per worker."""

import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial

from conformance.outcome import Refusal
from fhir_server.context import Context
from fhir_server.feed.answers import FieldOf
from fhir_server.feed.aside import LARGE_NUMBER, aside
from fhir_server.feed.intake import Feed
from fhir_server.feed.meeting import Invalid, Means, Write
from fhir_server.interactions import commit
from fhir_server.interactions.profiles import renew
from fhir_server.operations.convert_v2 import convert_from, tables_of
from fhir_server.query.clauses import either
from fhir_server.search.aliases import attach, renewed
from fhir_server.search.keys import refers, token_clause
from fhir_server.security.register import settled
from fhir_server.sources import Registry, Source
from fhir_server.store import Stored, Tx
from fhir_server.store.inbox import Inbox
from mappers.v2.convert import Conversion, unsupported
from mappers.v2.message import Message
from mappers.v2.problem import Problem
from mappers.v2.tables import Tables

MATCHES = 20  # more than one match is a conflict already


def open_feed(ctx: Context, inbox: Inbox, registry: Registry) -> Feed:
    """The feed of one tenant in this process. `ctx` acts for all sources; each message gets its own copy with its source's name."""
    mean = lru_cache(1000)(lambda source: _means(ctx, inbox, source))
    attach(ctx.store, inbox.aliases)
    settle = 2 * ctx.settings.transaction_seconds + 5  # a draft may wait for one transaction and be written by the next
    return Feed(
        ctx.store, inbox, registry, _converter(ctx), mean, unsupported=_unsupported(ctx), settled=partial(settled, ctx), settle_seconds=settle
    )


def _unsupported(ctx: Context) -> Callable[[Message, Source], Problem | None]:
    return lambda message, source: unsupported(message, tables_of(ctx.settings, source))


def _converter(ctx: Context) -> Callable[[Message, Source], Conversion]:
    return partial(convert_from, ctx.settings, ctx.terms)


def _field_of(tables: Tables) -> FieldOf:
    """(segment, type, element) -> the field whose row of the segment's map fills the element."""

    def field_of(segment: str, rtype: str, element: str) -> int:
        for name in (f"{segment}_{rtype}", segment):
            for row in tables.maps.get(name, ()):
                if row.field and element and re.match(rf"{re.escape(element)}(?![a-z])", row.path):
                    return row.field
        return 0

    return field_of


def _means(ctx: Context, inbox: Inbox, source: Source) -> Means:
    own = replace(ctx, source=source.name, request_id=uuid.uuid4().hex)

    async def write(tx: Tx, writes: Sequence[Write]) -> list[Stored]:
        await renewed(own.store)
        if own.settings.profiles:  # some may be stored
            await renew(own)
        drafts = await aside(len(writes) > LARGE_NUMBER, lambda: [_draft(own, one) for one in writes])
        return await commit.write(own, tx, drafts)

    async def lookup(tx: Tx, rtype: str, tokens: Sequence[str]) -> list[str]:
        pairs = [token.rpartition("|") for token in tokens]
        clause = either(*(token_clause(own.spec, rtype, "identifier", system, value) for system, _, value in pairs))
        return [one.rid for one in await tx.find(rtype, clause, limit=MATCHES, only_ids=True)]

    async def referrers(tx: Tx | None, ref: str, limit: int) -> list[Stored]:
        kind, _, rid = ref.partition("/")
        found: list[Stored] = []
        for rtype in sorted(await own.store.types()):
            if len(found) < limit:
                found += await (tx or own.store).find(rtype, refers(own.spec, rtype, [(kind, rid)]), limit=limit - len(found))
        return found

    def choice(rtype: str, name: str) -> str:
        known = own.spec.properties(rtype).get(name)
        return f"{known[0].name}[x]" if known is not None and known[0].choice else name

    return Means(inbox, write, lookup, referrers, choice, _field_of(tables_of(own.settings, source)))


def _draft(ctx: Context, one: Write) -> commit.Draft:
    """A draft of a mapped resource; a refusal says which resource it is about."""
    try:
        return commit.draft(ctx, one.res, str(one.res["id"]), "PUT" if one.prior else "POST", one.prior, feed=True, as_is=one.as_is)
    except Refusal as refusal:
        raise Invalid(refusal.status, refusal.issues, refusal.headers, f"{one.res['resourceType']}/{one.res['id']}") from refusal
