"""batch: entries that stand for themselves. https://hl7.org/fhir/R4/http.html#transaction

Processed by kind (DELETE, POST, PUT and PATCH, reads), several of a kind at once; each answers or is refused on its own. An entry that
refers to a resource another entry creates is refused: what that becomes is not known to it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from conformance.outcome import Refusal, bad_request, refuse
from fhir_server.context import Context, Reply, Request, Resource
from fhir_server.interactions import entries as bundles
from fhir_server.interactions import perform
from fhir_server.interactions.entries import PHASES, Entry
from fhir_server.interactions.references import references
from fhir_server.interactions.transaction import step_of

AT_ONCE = 8
Route = Callable[[Context, Request], Awaitable[Reply]]
log = logging.getLogger("fhir.batch")


async def batch(ctx: Context, rows: Sequence[Resource], route: Route) -> list[Resource]:
    """The response entries, in the order of the requests."""
    answers: list[Resource] = [{}] * len(rows)
    parsed: list[Entry] = []
    for place, row in enumerate(rows):
        try:
            parsed.append(bundles.parse(ctx, place, row))
        except Refusal as refusal:
            answers[place] = bundles.of_refusal(refusal)
    created = {entry.full_url: entry.place for entry in parsed if entry.full_url and entry.request.method == "POST"}
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(entry: Entry) -> None:
        async with gate:
            answers[entry.place] = await _answered(ctx, entry, created, route)

    for phase in sorted({PHASES[entry.request.method] for entry in parsed}):
        await asyncio.gather(*(one(entry) for entry in parsed if PHASES[entry.request.method] == phase))
    return answers


async def _answered(ctx: Context, entry: Entry, created: dict[str, int], route: Route) -> Resource:
    try:
        _independent(entry, created)
        return await _answer(ctx, entry, route)
    except Refusal as refusal:
        return bundles.of_refusal(refusal)
    except Exception:  # the border of a bundle entry: a defect is logged by place, and the other entries go on
        log.exception("batch entry failed", extra={"fields": {"request_id": ctx.request_id, "place": entry.place}})
        return bundles.of_refusal(refuse("exception", "the server failed to answer this entry"))


async def _answer(ctx: Context, entry: Entry, route: Route) -> Resource:
    if not entry.writes:
        return bundles.of_reply(ctx, entry.request, await route(ctx, entry.request))
    step = await step_of(ctx, entry)
    if step.method == "POST" and step.criteria is None:
        return bundles.of_done(ctx, await perform.create(ctx, step))
    (done,), _ = await perform.perform(ctx, [step])
    return bundles.of_done(ctx, done)


def _independent(entry: Entry, created: dict[str, int]) -> None:
    for text in references(entry.request.res or {}) if created else ():
        other = created.get(text.partition("#")[0], entry.place)
        if other != entry.place:
            raise bad_request(
                f"entries of a batch are independent, but this one refers to entry {other}: send a transaction", f"Bundle.entry[{entry.place}]"
            )
