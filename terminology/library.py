"""Which code systems, value sets, concept maps and supplements are known: layers of resources, the request's own on top.

https://hl7.org/fhir/R4/terminology-service.html#validation. A Library is immutable; `with_resources` puts a layer (tx-resource) on top.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from terminology.concepts import Json, Meta, System, open_system, read_meta
from terminology.dated import since
from terminology.kept import Kept
from terminology.trouble import Stop, stop
from terminology.versions import choose, is_pattern, key

KINDS = ("CodeSystem", "ValueSet", "ConceptMap")
MAX_KEPT = 8192


def split(canonical: str) -> tuple[str, str]:
    """'url|version' -> (url, version)."""
    url, _, version = canonical.partition("|")
    return url, version.partition("#")[0]


@dataclass(frozen=True, slots=True)
class Supplement:
    """A CodeSystem with content = supplement: concept rows by code, to be laid over the system it supplements."""

    meta: Meta
    rows: Mapping[str, Json]
    res: Json


Table = Mapping[str, tuple[Json, ...]]


@dataclass(frozen=True)
class Library:
    """Everything the service knows, newest layer first.

    systems: url -> opened systems; resources: kind -> url -> resources as loaded; base: the layer below, asked when this one has nothing;
    definitions: (kind, url) -> a resource from elsewhere (R4's own), read on first use; memo: what was compiled against this library.
    """

    systems: Mapping[str, tuple[System, ...]] = field(default_factory=dict)
    resources: Mapping[str, Table] = field(default_factory=dict)
    base: "Library | None" = None
    definitions: Callable[[str, str], Sequence[Json]] | None = None
    memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    selections: Kept = field(default_factory=lambda: Kept(MAX_KEPT), compare=False, repr=False)  # value sets that were evaluated
    listed: Mapping[str, Sequence[str]] = field(default_factory=dict)  # kind -> urls that `definitions` has, for listing
    published: Sequence[str] = ()  # code systems that `definitions` has as well, R4's own
    until: datetime | None = None  # only what was in force before this time is chosen, unless its version is named

    def as_of(self, until: datetime) -> "Library":
        """This library as it was before a time: of code systems and value sets the newest version of then. What has no date is not known to have been there."""
        return Library(base=self, until=until)  # not kept: anyone can ask for any time

    def _then(self, date: str, version: str) -> bool:
        """True if a version was in force at the time of this library."""
        if self.until is None:
            return True
        start = since(date, version)
        return start is not None and start < self.until

    def _not_then(self, url: str) -> Stop:
        day = (self.until - timedelta(microseconds=1)).date() if self.until is not None else ""
        return stop("not-in-force", url=url, date=day, status=422)

    def versions(self, url: str) -> list[str]:
        """The known versions of a code system, oldest first (supplements left out)."""
        found: list[str] | None = self.memo.get(("versions", url))
        if found is None:
            below = self.base.versions(url) if self.base is not None else []
            if self.until is not None:
                known = ((version, self._exact(url, version)) for version in below)
                below = [version for version, system in known if system is not None and self._then(system.meta.date, version)]
            found = sorted({*(system.meta.version for system in self._systems(url)), *below}, key=key)
            if found:
                self.keep(("versions", url), found)
        return found

    def system(self, url: str, version: str = "") -> System | None:
        """The version of a code system that `version` means ('': the newest; `1.0.x`), None if there is none. Raises Stop (`as_of`)."""
        found: System | None = self.memo.get(("one", url, version))
        if found is None:
            if self.until is not None and self.base is not None and ((version and not is_pattern(version)) or not self.versions(url)):
                found = self.base.system(url, version)
                if found is not None and (not version or is_pattern(version)):
                    raise self._not_then(url)
                return found
            chosen = choose(version, self.versions(url))
            found = None if chosen is None else self._exact(url, chosen)
            if found is not None:  # what is unknown is not kept: anyone can ask for any url
                self.keep(("one", url, version), found)
        return found

    def keep(self, key: Any, value: Any) -> None:
        """Remembers what was made; all is forgotten before it grows beyond MAX_KEPT."""
        if len(self.memo) >= MAX_KEPT:
            self.memo.clear()
        self.memo[key] = value

    def _exact(self, url: str, version: str) -> System | None:
        for system in self._systems(url):
            if system.meta.version == version:
                return system
        return self.base._exact(url, version) if self.base is not None else None

    def _systems(self, url: str) -> tuple[System, ...]:
        found = self.memo.get(("systems", url))
        if found is None:
            rows = self.rows("CodeSystem", url)
            found = (*self.systems.get(url, ()), *(open_system(res) for res in rows if has_concepts(res)))
            if found or rows:
                self.keep(("systems", url), found)
        return tuple(found)

    def rows(self, kind: str, url: str) -> tuple[Json, ...]:
        """The resources of this layer alone with this url."""
        here = self.resources.get(kind, {}).get(url)
        if here is not None:
            return here
        return tuple(self.definitions(kind, url)) if self.definitions is not None else ()

    def value_set(self, url: str, version: str = "") -> Json | None:
        """The ValueSet that 'url', 'version' means, None if there is none. Raises Stop (`as_of`)."""
        known = self.value_set_versions(url)
        if self.until is not None and known and version not in known:
            known = {each: res for each, res in known.items() if self._then(str(res.get("date", "")), each)}
            if not known:
                raise self._not_then(url)
        chosen = choose(version, known)
        return None if chosen is None else known[chosen]

    def value_set_versions(self, url: str) -> dict[str, Json]:
        """version -> ValueSet."""
        below = self.base.value_set_versions(url) if self.base is not None else {}
        return below | {res.get("version", ""): res for res in self.rows("ValueSet", url)}

    def supplements(self, url: str) -> list[Supplement]:
        """The supplements whose own url is `url`."""
        below = self.base.supplements(url) if self.base is not None else []
        return below + [open_supplement(res) for res in self.rows("CodeSystem", url) if res.get("content") == "supplement"]

    def supplement(self, canonical: str) -> Supplement | None:
        """The supplement that 'url|version' means."""
        url, version = split(canonical)
        known = {each.meta.version: each for each in self.supplements(url)}
        chosen = choose(version, known)
        return None if chosen is None else known[chosen]

    def concept_maps(self) -> list[Json]:
        """All concept maps, those of the top layer first."""
        here = [res for rows in self.resources.get("ConceptMap", {}).values() for res in rows]
        return here + (self.base.concept_maps() if self.base is not None else [])

    def concept_map(self, url: str, version: str = "") -> Json | None:
        """The ConceptMap that 'url', 'version' means."""
        known = {res.get("version", ""): res for res in self.rows("ConceptMap", url)}
        chosen = choose(version, known)
        if chosen is not None:
            return known[chosen]
        return self.base.concept_map(url, version) if self.base is not None else None

    def urls(self, kind: str) -> set[str]:
        """The canonical urls of all loaded resources of a kind (R4's own are not listed)."""
        here = {*self.resources.get(kind, {}), *self.listed.get(kind, ()), *(self.systems if kind == "CodeSystem" else ())}
        return here | (self.base.urls(kind) if self.base is not None else set())

    def published_versions(self) -> dict[str, list[str]]:
        """Code systems of the standard itself that have content, with their versions, newest first."""
        found = self.base.published_versions() if self.base is not None else {}
        for url in self.published:
            rows = [res for res in self.rows("CodeSystem", url) if has_concepts(res)]
            if rows:
                found[url] = sorted({str(res["version"]) for res in rows if res.get("version")}, key=key, reverse=True)
        return found

    def with_resources(self, resources: Iterable[Json]) -> "Library":
        """This library with one more layer on top."""
        tables = tabulate(resources)
        return Library(resources=tables, base=self) if tables else self


def has_concepts(res: Json) -> bool:
    """True for a code system that defines concepts: no supplement, and not only a name (`not-present`: the content is loaded elsewhere, or not at all)."""
    return res.get("content") != "supplement" and (res.get("content") != "not-present" or bool(res.get("concept")))


def tabulate(resources: Iterable[Json]) -> dict[str, dict[str, tuple[Json, ...]]]:
    """kind -> url -> resources; what has no url is left out. The last of one version wins; concept maps of one canonical are all searched."""
    tables: dict[str, dict[str, tuple[Json, ...]]] = {}
    for res in resources:
        kind, url = res.get("resourceType", ""), res.get("url", "")
        if kind in KINDS and url:
            rows = tables.setdefault(kind, {})
            named = (kind, res.get("version", ""))
            others = [each for each in rows.get(url, ()) if each != res and (kind == "ConceptMap" or (kind, each.get("version", "")) != named)]
            rows[url] = (*others, res)
    return tables


def open_supplement(res: Json) -> Supplement:
    """The Supplement of a CodeSystem resource."""
    rows: dict[str, Json] = {}
    waiting = list(res.get("concept", ()))
    while waiting:
        row = waiting.pop()
        if "code" in row:
            rows[row["code"]] = row
        waiting.extend(row.get("concept", ()))
    return Supplement(read_meta(res), rows, res)
