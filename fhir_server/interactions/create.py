"""create, plain and conditional. https://hl7.org/fhir/R4/http.html#create, #ccreate"""

from fhir_server.context import Context, Reply, Request
from fhir_server.interactions import answer, conditional, perform
from fhir_server.interactions.steps import ALONE, Step, body_of, new_id, no_query
from fhir_server.security.visible import required


async def step(ctx: Context, request: Request, place: int = ALONE, full_url: str = "") -> Step:
    """The create that POST [type] asks for. Raises 400, 403."""
    (rtype,) = request.path
    no_query(request)
    required(ctx, rtype, "c")
    res = body_of(request, rtype)
    text = request.headers.get("if-none-exist")
    if text is None:
        return Step("POST", rtype, new_id(), res, place=place, full_url=full_url)
    return Step("POST", rtype, "", res, criteria=await conditional.from_text(ctx, rtype, text), place=place, full_url=full_url)


async def create(ctx: Context, request: Request) -> Reply:
    """201 with Location; with If-None-Exist 200 and the Location of the one match, 412 for several."""
    wanted = await step(ctx, request)
    if wanted.criteria is None:
        done = await perform.create(ctx, wanted)
        return answer.written(ctx, done)
    match = conditional.only(await conditional.find(ctx.store, wanted.criteria))  # the common replay, without a transaction
    if match is not None:
        return answer.written(ctx, perform.Done(200, match, perform.FOUND))
    (done,), _ = await perform.perform(ctx, [wanted])
    return answer.written(ctx, done)
