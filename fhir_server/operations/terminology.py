"""The terminology operations over HTTP: CodeSystem $lookup $validate-code $subsumes $find-matches, ValueSet $expand $validate-code, ConceptMap $translate.

https://hl7.org/fhir/R4/terminology-service.html. What an operation means stands in `terminology.operations`; here its arguments are gathered (query,
Parameters, the instance) and the code systems, value sets and maps that were stored over REST are put beside those that were loaded.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from conformance.outcome import Refusal, bad_request
from conformance.validate import checker
from fhir_server.context import Context, Reply, Request, Resource
from fhir_server.interactions.access import current
from fhir_server.interactions.indexing import MISSHAPEN
from fhir_server.interactions.operation import Operation
from fhir_server.interactions.steps import checked_id
from fhir_server.interactions.stored_terms import loaded, with_stored
from fhir_server.operations.valueset_context import resolved
from terminology.expand import DEFAULT_LIMIT
from terminology.library import KINDS
from terminology.operations import call
from terminology.parameters import from_query, to_pairs
from terminology.plain import PLAIN
from terminology.service import Terms

BASE = "http://hl7.org/fhir/OperationDefinition/"
OURS = "urn:fhir-exchange:OperationDefinition:"  # what R4 does not publish: `conformance/extra/operations.json`
REPEATED = frozenset({"CodeSystem/$lookup", "CodeSystem/$validate-code", "CodeSystem/$subsumes", "ValueSet/$validate-code"})
Key = tuple[str, tuple[tuple[str, str], ...], str]
LONGEST = 500  # characters of a question that is remembered


def handler(rtype: str, name: str) -> Callable[[Context, Request], Awaitable[Reply]]:
    """The handler of one operation on every level."""

    operation = f"{rtype}/${name}"
    plain = PLAIN.get(operation)
    repeated = operation in REPEATED

    async def run(ctx: Context, request: Request) -> Reply:
        terms = ctx.terms
        terms.refresh()
        accept = request.headers.get("accept-language", "")
        plainly = len(request.path) == 2
        key = (operation, request.query, accept) if repeated and plainly and request.res is None else None
        kept = terms.answers.get(key) if key is not None else None
        if kept is not None:
            return Reply(200, kept)
        if plain is not None and plainly:
            pairs = request.query if request.res is None else to_pairs(request.res, request.query, codings=name == "lookup")
            found = plain(terms.library, pairs, accept) if pairs is not None else None
            if found is not None:
                return _remembered(terms, key, found)
        return await general(ctx, request, key, accept)

    async def general(ctx: Context, request: Request, key: Key | None, accept: str) -> Reply:
        """Whatever is asked, with the resources that were stored."""
        target = await _target(ctx, request)
        parameters = parameters_of(request)
        if rtype == "ValueSet" and target is None:
            parameters = resolved(ctx.spec, parameters)
        whole = loaded(ctx.terms, request)
        try:
            terms = ctx.terms if whole else await with_stored(ctx, parameters, target)
            status, res = call(terms, operation, parameters, now=ctx.now, accept=accept, limit=_limit(request.headers), target=target)
        except MISSHAPEN as error:
            raise misshapen(ctx, parameters, error) from error
        return _remembered(ctx.terms, key if whole and status == 200 else None, res, status)

    return run


def _remembered(terms: Terms, key: Key | None, res: Resource, status: int = 200) -> Reply:
    """The reply; what was answered from what is loaded alone, the same for every caller, is kept under the key."""
    if key is not None and sum(len(value) for _, value in key[1]) <= LONGEST:
        terms.remember(key, res)
    return Reply(status, res)


def misshapen(ctx: Context, parameters: Resource, error: Exception) -> Exception:
    """What to raise where an operation met a shape it does not know: 400 with what R4 says of the parameters, the error itself if they are sound."""
    errors = [issue for issue in checker(ctx.spec, "Parameters", warnings=False)(parameters) if issue.severity in ("error", "fatal")]
    return Refusal(400, tuple(errors)) if errors else error


async def _target(ctx: Context, request: Request) -> Resource | None:
    if len(request.path) < 3:
        return None
    return (await current(ctx, request.path[0], checked_id(request.path[1]))).res


def parameters_of(request: Request) -> Resource:
    """The Parameters of the call: the body's, those of the query behind them; a bare ValueSet or such as body is the parameter of its name."""
    query = from_query(request.query)
    res = request.res
    if res is None:
        return query
    rows: Any = res.get("parameter", [])
    if res.get("resourceType") in KINDS:
        name = str(res["resourceType"])
        rows = [{"name": name[0].lower() + name[1:], "resource": res}]
    elif res.get("resourceType") != "Parameters" or not isinstance(rows, list) or not all(isinstance(each, dict) for each in rows):
        raise bad_request("the body of a terminology operation is a Parameters resource", "Parameters")
    return {"resourceType": "Parameters", "parameter": [*rows, *query["parameter"]]}


def _limit(headers: Mapping[str, str]) -> int:
    """How many codes an expansion may have: the server's limit, or less where the client says so (X-Too-Costly-Threshold)."""
    text = headers.get("x-too-costly-threshold", "")
    return min(int(text), DEFAULT_LIMIT) if text.isdigit() else DEFAULT_LIMIT


def _row(rtype: str, name: str, definition: str, levels: Iterable[str], base: str = BASE) -> Operation:
    return Operation(name, base + definition, frozenset(levels), frozenset({rtype}), False, handler(rtype, name))


ROWS = (
    _row("CodeSystem", "lookup", "CodeSystem-lookup", ("type",)),
    _row("CodeSystem", "validate-code", "CodeSystem-validate-code", ("type", "instance")),
    _row("CodeSystem", "subsumes", "CodeSystem-subsumes", ("type", "instance")),
    _row("CodeSystem", "find-matches", "CodeSystem-find-matches", ("type", "instance")),
    _row("ValueSet", "expand", "ValueSet-expand", ("type", "instance")),
    _row("ValueSet", "validate-code", "ValueSet-validate-code", ("type", "instance")),
    _row("ValueSet", "batch-validate-code", "ValueSet-batch-validate-code", ("type",), OURS),
    _row("ConceptMap", "translate", "ConceptMap-translate", ("type", "instance")),
)
