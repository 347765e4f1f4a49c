"""Canonical references in includes: a definition is found by its url, and by its version where the reference names one.

https://hl7.org/fhir/R4/references.html#canonical, https://hl7.org/fhir/R4/search.html#include
"""

from collections.abc import Callable, Iterable
from typing import Any

from conformance.spec import Spec
from fhir_server.context import Context
from fhir_server.query.clauses import Clause, Keys, both
from fhir_server.search.schema import Field, schema
from fhir_server.search.types import reference
from fhir_server.store import Stored

Wanted = dict[str, dict[str, None]]  # type -> canonicals, as they stand in references


def kinds(spec: Spec, asked: Field, target: str) -> tuple[str, ...]:
    """The types whose url a reference parameter may name; target: '' for any."""
    return tuple(one for one in reference.allowed(spec, asked) if target in ("", one) and "url" in schema(spec, one).fields)


def collect(spec: Spec, asked: Field, target: str, values: Iterable[Any], wanted: Wanted) -> None:
    """Adds the canonicals among the values of a reference parameter."""
    texts = [value for value in values if isinstance(value, str) and ":" in value]
    for kind in kinds(spec, asked, target) if texts else ():
        wanted.setdefault(kind, {}).update(dict.fromkeys(texts))


async def defined(ctx: Context, kind: str, canonicals: Iterable[str], visible: Clause, limit: int) -> list[Stored]:
    """The stored and published definitions of one type that these canonicals name."""
    wanted = frozenset(canonicals)
    names = schema(ctx.spec, kind).fields["url"].names
    urls = dict.fromkeys(text.partition("|")[0] for text in wanted)
    clause = Keys(tuple(f"{name}={url}" for name in names for url in urls))
    rows = await ctx.store.find(kind, both(clause, visible), limit=limit)
    return [row for row in rows if wanted & set(canonicals_of(row))]


def canonicals_of(row: Stored) -> tuple[str, ...]:
    """What a reference to this definition may be: its url, alone and with its version; () for other resources."""
    url, version = (row.res or {}).get("url"), (row.res or {}).get("version")
    if not isinstance(url, str):
        return ()
    return (url, f"{url}|{version}") if isinstance(version, str) else (url,)


def of_another_version(values: Callable[[Field], list[Any]], pointed: Iterable[tuple[Field, tuple[str, ...]]]) -> bool:
    """The resource names the urls asked for, but only with other versions."""
    near = [
        value in refs
        for asked, refs in pointed
        for value in values(asked)
        if isinstance(value, str) and "|" in value and value.partition("|")[0] in refs
    ]
    return bool(near) and not any(near)
