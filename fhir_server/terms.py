"""The terminology of this exchange: what is loaded, the site's policy, and the HL7 v2 tables and code maps as CodeSystems and ConceptMaps.

The CSV files of the mapper (built in, the site's, a sender's) are the one source of truth: what converts a message is what `$translate` answers.
https://hl7.org/fhir/R4/conceptmap.html, https://terminology.hl7.org/codesystems-v2.html
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from conformance.spec import Spec
from fhir_server.settings import Settings
from mappers.v2.tables import Tables, load_tables
from terminology.service import Terms, open_terms

Json = dict[str, Any]
MAP_URL = "urn:fhir-exchange:ConceptMap:v2-"
TABLE_URL = "http://terminology.hl7.org/CodeSystem/v2-"


def terms_of(settings: Settings, spec: Spec, senders: Mapping[str, str] | None = None) -> Terms:
    """The terms of a data folder. senders: name of a source -> folder of its own mapping tables. Raises ValueError for a malformed policy or table."""
    site = Path(settings.v2_tables) if settings.v2_tables else None
    policy = Path(settings.terminology_policy) if settings.terminology_policy else None
    tables = load_tables(site)
    resources = [*concept_maps(tables), *code_systems(tables, spec)]
    return open_terms(settings.shelf, spec=spec, policy=policy, resources=resources, aside=_of_senders(site, senders or {}))


def _of_senders(site: Path | None, senders: Mapping[str, str]) -> Callable[[str, str], Sequence[Json]]:
    """(kind, url) -> the code map of one sender: known by its url alone, because it means something for that sender only."""

    @cache
    def maps(sender: str) -> Mapping[str, Json]:
        folder = Path(senders[sender])
        own = {path.stem.casefold() for path in folder.glob("codes/*.csv")}
        return {each["url"]: each for each in concept_maps(load_tables(site, extra=(folder,)), sender=sender, only=own)}

    def definitions(kind: str, url: str) -> Sequence[Json]:
        if kind != "ConceptMap" or not url.startswith(MAP_URL):
            return ()
        sender = url.removeprefix(MAP_URL).partition(":")[2]
        found = maps(sender).get(url) if sender in senders else None
        return (found,) if found is not None else ()

    return definitions


def concept_maps(tables: Tables, *, sender: str = "", only: Iterable[str] | None = None) -> Iterator[Json]:
    """A ConceptMap for each code map: `urn:fhir-exchange:ConceptMap:v2-administrativesex`, with `:sender` behind it for a sender's own."""
    wanted = None if only is None else set(only)
    for name, rows in sorted(tables.codes.items()):
        if wanted is None or name in wanted:
            url = MAP_URL + name + (f":{sender}" if sender else "")
            groups = [_group(source, target, inside) for (source, target), inside in _by_systems(rows.values()).items()]
            yield {"resourceType": "ConceptMap", "url": url, "name": f"v2 {name}", "status": "active", "group": groups}


def _by_systems(rows: Iterable[Mapping[str, str]]) -> dict[tuple[str, str], list[Mapping[str, str]]]:
    found: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for row in rows:
        found.setdefault((system_of(row.get("table", "")), row.get("system", "") if row.get("code") else ""), []).append(row)
    return found


def system_of(table: str) -> str:
    """The code system of an HL7 table: 'HL70001' -> '.../v2-0001'; '' for none."""
    return TABLE_URL + table[-4:] if table else ""


def _group(source: str, target: str, rows: Sequence[Mapping[str, str]]) -> Json:
    head = {name: value for name, value in (("source", source), ("target", target)) if value}
    return {**head, "element": [_element(row, same=source == target) for row in rows]}


def _element(row: Mapping[str, str], *, same: bool) -> Json:
    """A row without a code says that the map leaves that code out."""
    if not row.get("code"):
        return {"code": row["from"], "target": [{"equivalence": "unmatched"}]}
    target = {"code": row["code"], "equivalence": "equal" if same and row["code"] == row["from"] else "equivalent"}
    return {"code": row["from"], "target": [target | ({"display": row["display"]} if row.get("display") else {})]}


def code_systems(tables: Tables, spec: Spec) -> Iterator[Json]:
    """The HL7 tables that R4 publishes no CodeSystem for, as far as the maps know them."""
    published = frozenset(spec.urls("CodeSystem"))
    known: dict[str, dict[str, str]] = {}
    for rows in tables.codes.values():
        for row in rows.values():
            url = system_of(row.get("table", ""))
            if url and url not in published:
                own = row.get("system") == url and row.get("code") == row["from"]
                known.setdefault(url, {}).setdefault(row["from"], row["display"] if own else "")
    for url, codes in sorted(known.items()):
        concepts = [{"code": code, **({"display": display} if display else {})} for code, display in codes.items()]
        yield {"resourceType": "CodeSystem", "url": url, "status": "active", "content": "fragment", "concept": concepts}
