"""A store filled with resources and a Context to search it with, for tests and benchmarks."""

from collections.abc import Iterable
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

from conformance.spec import load_spec
from fhir_server.context import Context, Grant, Right
from fhir_server.query.clauses import EVERYTHING, Clause
from fhir_server.search import run
from fhir_server.search.extract import extractor
from fhir_server.settings import Settings
from fhir_server.store import Change, Store

BASE = "http://test/fhir"
NOW = datetime(2024, 6, 1, 12, 0, tzinfo=UTC)


def context(store: Any, *, lenient: bool = False, admin: bool = True, terms: Any = None, subject: str = "tester", **settings: Any) -> Context:
    """A caller who may do everything."""
    return Context(
        request_id="t",
        grant=Grant(subject, "client", (Right("*", frozenset("cruds")),), admin=admin),
        store=store,
        spec=load_spec(),
        terms=terms,
        settings=Settings(**({"secret": "s" * 32} | settings)),
        base=BASE,
        source="test",
        now=NOW,
        prefer=MappingProxyType({"handling": "lenient"} if lenient else {}),
    )


def everything(rtype: str) -> Clause:
    """A visibility that hides nothing."""
    return EVERYTHING


async def fill(store: Store, resources: Iterable[dict[str, Any]]) -> None:
    """Store resources with their ids, as one transaction for each hundred."""
    extract = extractor(load_spec(), None, BASE)
    changes = [Change(res["resourceType"], res["id"], res, extract(res), None, "PUT") for res in resources]
    for start in range(0, len(changes), 100):
        part = changes[start : start + 100]

        async def body(tx: Any, part: list[Change] = part) -> Any:
            return await tx.put(part)

        await store.transact(body)


async def ask(ctx: Context, query: str, visible: Any = everything, compartment: tuple[str, str] | None = None) -> dict[str, Any]:
    """The Bundle for 'Patient?name=x' (or '?_id=x' for all types)."""
    path, _, text = query.partition("?")
    pairs = parse_qsl(text, keep_blank_values=True)
    return await run.search(ctx, path or None, pairs, visible=visible, path=path, compartment=compartment)


def found(bundle: dict[str, Any], mode: str = "match") -> list[str]:
    """'Type/id' of the entries of one mode, in order."""
    return [f"{one['resource']['resourceType']}/{one['resource'].get('id', '')}" for one in bundle.get("entry", ()) if one["search"]["mode"] == mode]


def link(bundle: dict[str, Any], relation: str) -> str:
    """The query of a link, '' if it has none."""
    urls = [one["url"] for one in bundle["link"] if one["relation"] == relation]
    return urls[0].removeprefix(BASE).removeprefix("/") if urls else ""


async def pages(ctx: Context, query: str, **more: Any) -> list[list[str]]:
    """All pages from the first to the last."""
    out = []
    while query:
        bundle = await ask(ctx, query, **more)
        out.append(found(bundle))
        query = link(bundle, "next")
    return out
