"""$closure: a client's closure table, kept in the database by client and name. https://hl7.org/fhir/R4/conceptmap-operation-closure.html

With a name alone the table is (re-)initialised, with concepts it grows and answers what is new, with a version it answers what came since.
"""

from conformance.outcome import conflict, not_supported
from fhir_server.context import Context, Reply, Request, Resource
from fhir_server.interactions.operation import Operation
from fhir_server.interactions.stored_terms import with_stored
from fhir_server.operations.terminology import BASE, parameters_of
from fhir_server.search.shelved import unshelved
from fhir_server.store.mongo import closures
from fhir_server.store.mongo.store import MongoStore
from terminology.closure import Table, entries, grown, named, since
from terminology.parameters import Arguments, read
from terminology.service import Terms
from terminology.trouble import Stop, stop

MAX_TABLES = 1000
TRIES = 20


async def closure(ctx: Context, request: Request) -> Reply:
    """The handler. Refusals are those of R4: 400 for a bad name, 404 if the table was not initialised, 422 if it must be initialised again."""
    store = unshelved(ctx.store)
    if not isinstance(store, MongoStore):
        raise not_supported("this store keeps no closure tables")
    parameters = parameters_of(request)
    try:
        return Reply(200, await _answer(ctx, store, parameters))
    except Stop as stopped:
        return Reply(stopped.status, stopped.outcome())


async def _answer(ctx: Context, store: MongoStore, parameters: Resource) -> Resource:
    arguments = read(parameters)
    name = named(arguments.need("name"))
    if "concept" in arguments.rows and "version" in arguments.rows:
        raise stop("bad-parameter", name="version", reason="it goes with a name alone, not with concepts", status=400)
    if "version" in arguments.rows:
        table, _ = await _kept(ctx, store, name)
        return entries((await _terms(ctx, table, parameters)).library, table, since(arguments.text("version"), table), ctx.now)
    return await _grow(ctx, store, name, arguments, parameters) if "concept" in arguments.rows else await _begin(ctx, store, name)


async def _begin(ctx: Context, store: MongoStore, name: str) -> Resource:
    client = ctx.grant.client
    if await closures.count(store.database, client, MAX_TABLES) >= MAX_TABLES and await closures.read(store.database, client, name) is None:
        raise stop("closure-many", limit=MAX_TABLES, status=422)
    table = Table(name)
    if not await closures.write(store.database, client, name, _fields(table), None):
        raise conflict("another call initialises this closure table")
    return entries(ctx.terms.library, table, 0, ctx.now)


async def _grow(ctx: Context, store: MongoStore, name: str, arguments: Arguments, parameters: Resource) -> Resource:
    """Adds the concepts; where another call was quicker, on top of what that one wrote."""
    codings = arguments.structures("concept")
    for _ in range(TRIES):
        table, stamp = await _kept(ctx, store, name)
        library = (await _terms(ctx, table, parameters)).library
        larger = grown(library, table, codings)
        if await closures.write(store.database, ctx.grant.client, name, _fields(larger), stamp):
            return entries(library, larger, table.version, ctx.now)
    raise conflict("too many calls change this closure table at once")


async def _kept(ctx: Context, store: MongoStore, name: str) -> tuple[Table, str]:
    row = await closures.read(store.database, ctx.grant.client, name)
    if row is None:
        raise stop("closure-unknown", name=name, status=404)
    codes = {(system, code): added for system, code, added in row["codes"]}
    return Table(name, row["version"], dict(row["systems"]), codes), row["stamp"]


def _fields(table: Table) -> closures.Row:
    codes = [[system, code, added] for (system, code), added in table.codes.items()]
    return {"version": table.version, "systems": [[url, version] for url, version in table.systems.items()], "codes": codes}


async def _terms(ctx: Context, table: Table, parameters: Resource) -> Terms:
    """The terms with the stored code systems that the table and the call name."""
    rows = [*parameters["parameter"], *({"name": "system", "valueUri": url} for url in table.systems)]
    return await with_stored(ctx, {"resourceType": "Parameters", "parameter": rows}, None)


ROWS = (Operation("closure", BASE + "ConceptMap-closure", frozenset({"system", "type"}), frozenset({"ConceptMap"}), True, closure),)
