"""The terminology operations over HTTP: CodeSystem $lookup $validate-code $subsumes $find-matches, ValueSet $expand $validate-code, ConceptMap $translate.

https://hl7.org/fhir/R4/terminology-service.html. What an operation means stands in `terminology.operations`; here its arguments are gathered (query,
Parameters, the instance) and the code systems, value sets and maps that were stored over REST are put beside those that were loaded.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from conformance.outcome import bad_request
from fhir_server.context import Context, Reply, Request, Resource
from fhir_server.interactions.access import current
from fhir_server.interactions.operation import Operation
from fhir_server.interactions.steps import checked_id
from fhir_server.query.clauses import And, Nothing
from fhir_server.search import parse
from fhir_server.security.visible import visible
from terminology.expand import DEFAULT_LIMIT
from terminology.library import KINDS, split
from terminology.operations import call
from terminology.parameters import from_query
from terminology.service import Terms

BASE = "http://hl7.org/fhir/OperationDefinition/"
MAX_ROUNDS, MAX_STORED = 6, 200
NAMING = (
    "url",
    "system",
    "valueSet",
    "codeSystem",
    "conceptMap",
    "useSupplement",
    "source",
    "target",
    "targetsystem",
    "sourceSystem",
    "targetSystem",
)


def handler(rtype: str, name: str) -> Callable[[Context, Request], Awaitable[Reply]]:
    """The handler of one operation on every level."""

    async def run(ctx: Context, request: Request) -> Reply:
        target = await _target(ctx, request)
        parameters = parameters_of(request)
        terms = await with_stored(ctx, parameters, target)
        status, res = call(
            terms,
            f"{rtype}/${name}",
            parameters,
            now=ctx.now,
            accept=request.headers.get("accept-language", ""),
            limit=_limit(request.headers),
            target=target,
        )
        return Reply(status, res)

    return run


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


async def with_stored(ctx: Context, parameters: Resource, target: Resource | None) -> Terms:
    """The terms of this process, with the stored resources that the call and their own definitions name by canonical url."""
    terms: Terms = ctx.terms
    terms.refresh()
    found: list[Resource] = []
    asked: set[str] = set()
    waiting = _named(parameters) | (canonicals(target) if target is not None else set())
    for _ in range(MAX_ROUNDS):
        unknown = [url for url in sorted(waiting - asked) if not terms.knows(url)]
        asked |= waiting
        if not unknown or len(found) >= MAX_STORED:
            break
        fresh = [res for url in unknown for res in await _stored(ctx, url)]
        found += fresh
        waiting = {url for res in fresh for url in canonicals(res)}
    if target is not None:
        found.append(target)
    return terms.with_resources(found) if found else terms


async def _stored(ctx: Context, url: str) -> list[Resource]:
    """The stored CodeSystems, ValueSets and ConceptMaps with a url, as far as the caller may read them."""
    found: list[Resource] = []
    for rtype in KINDS:
        right = visible(ctx, rtype, "r")
        if not isinstance(right, Nothing):
            clause = And((parse.criteria(ctx, rtype, [("url", url)]), right))
            found += [each.res for each in await ctx.store.find(rtype, clause, limit=20) if each.res is not None]
    return found


def _named(parameters: Resource) -> set[str]:
    """The canonical urls that the parameters name."""
    found: set[str] = set()
    for row in parameters.get("parameter", ()):
        value = row.get("resource") or next((value for name, value in row.items() if name.startswith("value")), None)
        if isinstance(value, str) and row.get("name") in NAMING:
            found.add(split(value)[0])
        elif isinstance(value, dict):
            found |= canonicals(value)
    return found


def canonicals(value: Any) -> set[str]:
    """Every system, url and imported value set inside a Coding, CodeableConcept, Parameters, ValueSet or ConceptMap."""
    found: set[str] = set()
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list):
            waiting += each
        elif isinstance(each, dict):
            found |= {split(each[name])[0] for name in ("system", "url", "supplements", "source", "target") if isinstance(each.get(name), str)}
            imports = each.get("valueSet", ())
            found |= {split(one)[0] for one in imports if isinstance(one, str)} if isinstance(imports, list) else set()
            waiting += [inner for name, inner in each.items() if name in WITHIN]
    return {url for url in found if ":" in url}


WITHIN = frozenset(
    {"coding", "compose", "include", "exclude", "contained", "extension", "group", "parameter", "resource", "valueCoding", "valueCodeableConcept"}
)


def _row(rtype: str, name: str, definition: str, levels: Iterable[str]) -> Operation:
    return Operation(name, BASE + definition, frozenset(levels), frozenset({rtype}), False, handler(rtype, name))


ROWS = (
    _row("CodeSystem", "lookup", "CodeSystem-lookup", ("type",)),
    _row("CodeSystem", "validate-code", "CodeSystem-validate-code", ("type", "instance")),
    _row("CodeSystem", "subsumes", "CodeSystem-subsumes", ("type", "instance")),
    _row("CodeSystem", "find-matches", "CodeSystem-find-matches", ("type", "instance")),
    _row("ValueSet", "expand", "ValueSet-expand", ("type", "instance")),
    _row("ValueSet", "validate-code", "ValueSet-validate-code", ("type", "instance")),
    _row("ValueSet", "batch-validate-code", "ValueSet-batch-validate-code", ("type",)),
    _row("ConceptMap", "translate", "ConceptMap-translate", ("type", "instance")),
)
