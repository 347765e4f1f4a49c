"""Canonical references in chains, `_has` and includes: a definition is found by its url, and by its version where the reference names one.

A reference that names none means every version that is stored. Definitions keep url and version in one key, `!c=http://x/y|2` (`!c=http://x/y|`
without version), beside those of their parameters; the references are stored as `types/reference.py` says.

https://hl7.org/fhir/R4/references.html#canonical, https://hl7.org/fhir/R4/search.html#include
"""

from collections.abc import Callable, Iterable
from typing import Any

from conformance.spec import Spec
from fhir_server.context import Context
from fhir_server.query.clauses import NOTHING, Clause, Keys, Prefix, both, either
from fhir_server.search.schema import Field, elements_of, schema
from fhir_server.search.types import reference
from fhir_server.store import Stored

Wanted = dict[str, dict[str, None]]  # type -> canonicals, as they stand in references
DEFINED = "!c="
FOLLOWED = frozenset({"canonical", "uri"})


def defines(spec: Spec, rtype: str) -> bool:
    """Resources of the type may have a canonical url and a version."""
    url, version = (spec.children(rtype).get(name) for name in ("url", "version"))
    return url is not None and url.types == ("uri",) and version is not None and version.types == ("string",)


def key_of(res: dict[str, Any]) -> str:
    """The key of a definition's url and version; '' if it has no url."""
    url, version = res.get("url"), res.get("version")
    return f"{DEFINED}{url}|{version if isinstance(version, str) else ''}" if isinstance(url, str) else ""


def follows(spec: Spec, asked: Field, target: str) -> bool:
    """The parameter may name resources of the type by their canonical url."""
    if not defines(spec, target):
        return False
    kinds = elements_of(spec, asked.param)
    return not kinds or bool(FOLLOWED & kinds)


def naming(asked: Field, found: Iterable[str]) -> Clause:
    """References that mean one of these ('url|version', 'url|')."""
    texts = dict.fromkeys(text for each in found for text in (each, each.partition("|")[0] + "|"))
    return Keys(tuple(f"{name}={text}" for name in asked.names for text in texts)) if texts else NOTHING


def named(found: Iterable[str]) -> Clause:
    """Definitions that one of these references ('url|version', 'url|' for any version) means."""
    whole = tuple(dict.fromkeys(found))
    versions = tuple(f"{DEFINED}{text}" for text in whole if not text.endswith("|"))
    return either(Keys(versions) if versions else NOTHING, *(Prefix(f"{DEFINED}{text}") for text in whole if text.endswith("|")))


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
