"""transaction: all entries or none. https://hl7.org/fhir/R4/http.html#transaction, #trules

Processed in the order DELETE, POST, PUT and PATCH, then reads, which see what the writes made; answered in the order sent. Reads of
earlier versions (vread, history) see what was committed before.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from conformance.outcome import Refusal, method_not_allowed, not_supported, refuse
from fhir_server.context import Context, Reply, Request, Resource
from fhir_server.interactions import create, delete, patch, perform, update
from fhir_server.interactions import entries as bundles
from fhir_server.interactions.entries import PHASES, Entry
from fhir_server.interactions.inside import Inside
from fhir_server.interactions.steps import Step, placed
from fhir_server.store import Tx

StepOf = Callable[[Context, Request, int, str], Awaitable[Step]]
Route = Callable[[Context, Request], Awaitable[Reply]]
STEPS: Mapping[tuple[str, int], StepOf] = {
    ("POST", 1): create.step,
    ("PUT", 1): update.step,
    ("PUT", 2): update.step,
    ("PATCH", 1): patch.step,
    ("PATCH", 2): patch.step,
    ("DELETE", 1): delete.step,
    ("DELETE", 2): delete.step,
}


async def step_of(ctx: Context, entry: Entry) -> Step:
    """The write that an entry asks for. Raises Refusal that names the entry: 404 for an unknown type, 405, and what the interaction says."""
    request = entry.request
    with placed(entry.place):
        if request.path and request.path[0] not in ctx.spec.types:
            raise refuse("not-found", "the url names no resource type of R4")
        make = STEPS.get((request.method, len(request.path)))
        if make is None:
            raise method_not_allowed("GET, HEAD")
        return await make(ctx, request, entry.place, entry.full_url)


async def transaction(ctx: Context, rows: Sequence[Resource], route: Route) -> list[Resource]:
    """The response entries, in the order of the requests. Raises the Refusal of whatever failed: then nothing was done."""
    parsed = [bundles.parse(ctx, place, row) for place, row in enumerate(rows)]
    bundles.distinct_urls(parsed)
    ordered = sorted(parsed, key=lambda entry: PHASES[entry.request.method])  # those of a phase stay as they were sent
    writes, reads = list[Entry](), list[Entry]()
    for entry in ordered:
        (writes if entry.writes else reads).append(entry)
    for entry in reads:
        _check_operation(ctx, entry)
    steps = await _steps(ctx, writes)

    async def look(tx: Tx) -> list[Resource]:
        inside = replace(ctx, store=Inside(tx, ctx.store))
        return [await _read(inside, entry, route) for entry in reads]

    done, seen = await perform.perform(ctx, steps, look if reads else None)
    answers: list[Resource] = [{}] * len(rows)
    for entry, one in zip(writes, done, strict=True):
        answers[entry.place] = bundles.of_done(ctx, one)
    for entry, answer in zip(reads, seen or (), strict=True):
        answers[entry.place] = answer
    return answers


async def _steps(ctx: Context, entries: Sequence[Entry]) -> list[Step]:
    """All steps; one refusal with the issues of every entry that has none."""
    steps: list[Step] = []
    refusals: list[Refusal] = []
    for entry in entries:
        try:
            steps.append(await step_of(ctx, entry))
        except Refusal as refusal:
            refusals.append(refusal)
    if refusals:
        raise perform.joined(refusals)
    return steps


def _check_operation(ctx: Context, entry: Entry) -> None:
    """400 for an operation that writes: it could not be undone with the rest."""
    name = entry.request.path[-1] if entry.request.path else ""
    if name.startswith("$") and any(row.changes for row in ctx.operations.get(name[1:], ())):
        with placed(entry.place):
            raise not_supported(f"{name} changes data and cannot be part of a transaction")


async def _read(ctx: Context, entry: Entry, route: Route) -> Resource:
    with placed(entry.place):
        return bundles.of_reply(ctx, entry.request, await route(ctx, entry.request))
