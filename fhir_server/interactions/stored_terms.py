"""Terminology that was stored over REST beside what was loaded: the terms of one request, with the resources that it names and its caller may read.

https://hl7.org/fhir/R4/terminology-service.html. For the operations, and for searches by value set and hierarchy.
"""

from dataclasses import replace
from typing import Any

from fhir_server.context import Context, Request, Resource
from fhir_server.query.clauses import And, Ids, Nothing
from fhir_server.search import parse
from fhir_server.search.escape import split as pieces
from fhir_server.search.escape import unescape
from fhir_server.search.filter import terms_named
from fhir_server.security.visible import visible
from terminology.library import KINDS, split
from terminology.service import Terms

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

CODINGS = frozenset({"coding", "codingA", "codingB", "context"})  # parameters of a query with a url inside


def loaded(terms: Terms, request: Request) -> bool:
    """True if it is clear from the query alone that everything the call names is loaded, so that nothing has to be looked for among what was stored."""
    if request.res is not None or len(request.path) > 2:
        return False
    return all(terms.knows(split(value)[0]) if name in NAMING else name not in CODINGS for name, value in request.query)


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
    {
        "coding",
        "compose",
        "include",
        "exclude",
        "contained",
        "extension",
        "group",
        "parameter",
        "resource",
        "unmapped",
        "valueCoding",
        "valueCodeableConcept",
    }
)

ASKING = frozenset({"in", "not-in", "above", "below"})  # modifiers that ask the terminology service (https://hl7.org/fhir/R4/search.html#modifiers)


async def for_search(ctx: Context, request: Request) -> Context:
    """The context for a search: with the stored value sets and code systems that its `:in`, `:not-in`, `:above`, `:below` and `_filter` name."""
    if ctx.terms is None:
        return ctx
    asked = [value for name, value in request.query if name.rpartition(":")[2] in ASKING and ":" in name]
    urls = {unescape(pieces(part, "|")[0]) for value in asked for part in pieces(value, ",")}
    urls |= {url for name, value in request.query if name == "_filter" for url in terms_named(value)}
    if all(ctx.terms.knows(url) for url in urls):
        return ctx
    rows = [{"name": "url", "valueUri": url} for url in sorted(urls)]
    terms = await with_stored(ctx, {"parameter": rows}, None)
    for url in sorted(urls)[:MAX_STORED]:
        named = await _at(ctx, url)
        if named is not None:
            terms = (await with_stored(replace(ctx, terms=terms), {}, named)).with_resources([{**named, "url": url}])
    return replace(ctx, terms=terms)


async def _at(ctx: Context, reference: str) -> Resource | None:
    """The ValueSet that a literal reference ('ValueSet/1', or absolute to this server) points at, as far as the caller may read it."""
    kind, _, rid = reference.removeprefix(f"{ctx.base}/").partition("/")
    right = visible(ctx, kind, "r") if kind == "ValueSet" else Nothing()
    if isinstance(right, Nothing):
        return None
    rows = await ctx.store.find(kind, And((Ids((rid,)), right)), limit=1)
    return rows[0].res if rows else None
