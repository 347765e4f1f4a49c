"""SNOMED CT in Release Format 2: one or several snapshot folders or archives (an edition, or the International release with extensions) -> one index.

https://confluence.ihtsdotools.org/display/DOCRELFMT/5+Component+Release+Files+Specification. Concepts, descriptions, text definitions, inferred
relationships, concrete values, and every reference set: language and association ones with their meaning, the others as membership.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from terminology.concepts import Meta
from terminology.drafting import Columns, Progress, silent, write_index
from terminology.implicit import SNOMED
from terminology.index import DEFINED, INACTIVE
from terminology.load.files import BadRelease, Source, header, open_sources
from terminology.load.files import table as lines_of_table

IS_A = "116680003"
STATED = "900000000000010007"
SUFFICIENT = "900000000000073002"
FSN, SYNONYM = "900000000000003001", "900000000000013009"
PREFERRED = "900000000000548007"
CORE = "900000000000207008"
DIALECTS: Mapping[str, str] = {
    "900000000000509007": "en-US",
    "900000000000508004": "en-GB",
    "450828004": "es",
    "46011000052107": "sv",
    "61000202103": "nb",
}
ASSOCIATIONS: Mapping[str, str] = {
    "900000000000526001": "replacedBy",
    "900000000000527005": "sameAs",
    "900000000000523009": "possiblyEquivalentTo",
    "900000000000524003": "movedTo",
    "900000000000530003": "alternative",
    "900000000000528000": "wasA",
}
USES = {
    FSN: {"system": SNOMED, "code": FSN, "display": "Fully specified name"},
    SYNONYM: {"system": SNOMED, "code": SYNONYM, "display": "Synonym"},
    "definition": {"system": SNOMED, "code": "definition"},
}
OTHER_KINDS = re.compile(
    r"(Full|Delta)(-[A-Za-z-]+)?_"
)  # a release has every file as Snapshot, Full and perhaps Delta; the Snapshot is what holds now
CONCRETE_VALUE = re.compile(r'#[+-]?\d+(\.\d+)?|".*"|#?(true|false)', re.DOTALL | re.IGNORECASE)
MAX_GROUP = 2**16 - 1
COMMON = ("id", "effectiveTime", "active", "moduleId")
CONCEPT = (*COMMON, "definitionStatusId")
DESCRIPTION = (*COMMON, "conceptId", "languageCode", "typeId", "term", "caseSignificanceId")
RELATIONSHIP = (*COMMON, "sourceId", "destinationId", "relationshipGroup", "typeId", "characteristicTypeId", "modifierId")
CONCRETE = (*COMMON, "sourceId", "value", "relationshipGroup", "typeId", "characteristicTypeId", "modifierId")
TOLD = ("effectiveTime", "moduleId")  # of each row of a reference set, before the values that only some have
REFSET = (*COMMON, "refsetId", "referencedComponentId")


@dataclass(slots=True)
class Release:
    """What is read before the columns can be filled: which language reference sets prefer or accept each description, and the module of the edition.

    favour: description -> place in `dialects` of the sets that prefer and that accept it (few different ones); places: the same the other way.
    """

    favour: dict[str, int] = field(default_factory=dict)
    dialects: list[tuple[list[str], list[str]]] = field(default_factory=lambda: [([], [])])
    places: dict[tuple[int, str, bool], int] = field(default_factory=dict)
    languages: dict[str, int] = field(default_factory=dict)  # language refset -> how many rows
    modules: dict[str, set[str]] = field(default_factory=dict)
    newest: str = ""

    def favoured(self, description: str, refset: str, *, preferred: bool) -> None:
        """One more language reference set prefers or accepts a description."""
        before = self.favour.get(description, 0)
        place = self.places.get((before, refset, preferred))
        if place is None:
            prefer, accept = self.dialects[before]
            wanted = (sorted({*prefer, refset}), accept) if preferred else (prefer, sorted({*accept, refset}))
            if wanted not in self.dialects:
                self.dialects.append(wanted)
            place = self.places[before, refset, preferred] = self.dialects.index(wanted)
        self.favour[description] = place


def load_snomed(paths: Sequence[Path], folder: Path, progress: Progress = silent, *, module: str = "") -> Path:
    """Reads the release at `paths` into an index below `folder` and returns that. Raises BadRelease, naming file and line, or OSError."""
    with open_sources(paths) as sources:
        named = [each for each in sources if OTHER_KINDS.search(each.name) is None]
        columns, release = Columns(), Release()
        progress("language reference sets", 0.0)
        _languages(named, release)
        progress("concepts", 0.1)
        _concepts(named, columns, release)
        progress("descriptions", 0.15)
        _descriptions(named, columns, release)
        progress("relationships", 0.3)
        _relationships(named, columns)
        progress("reference sets", 0.45)
        _refsets(named, columns, release)
    if not columns.concepts:
        raise BadRelease("no sct2_Concept_Snapshot file was found")
    edition = module or _edition(release)
    version = f"http://snomed.info/sct/{edition}/version/{release.newest}"
    meta = Meta(url=SNOMED, version=version, name="SNOMED_CT", title="SNOMED CT", language="en", hierarchy="is-a", value_set=f"{SNOMED}?fhir_vs")
    target = folder / f"snomed-{edition}-{release.newest}"
    return write_index(target, meta, columns, {"kind": "snomed", "is_a": IS_A}, lambda step, share: progress(step, 0.5 + share / 2))


def _files(sources: Iterable[Source], *parts: str) -> Iterator[Source]:
    return (each for each in sources if all(part.lower() in each.name.lower() for part in parts) and each.name.endswith(".txt"))


def table(source: Source, columns: Sequence[str]) -> Iterator[list[str]]:
    """The rows of an RF2 file. Raises BadRelease for one that is neither active nor inactive."""
    for row in lines_of_table(source, columns):
        if row[2] != "1" and row[2] != "0":
            raise BadRelease(f"{source.name}: row {row[0]} is neither active (1) nor inactive (0)")
        yield row


def _group(source: Source, row: Sequence[str]) -> int:
    if not row[6].isdecimal() or int(row[6]) > MAX_GROUP:
        raise BadRelease(f"{source.name}: row {row[0]} has a relationshipGroup that is no number from 0 to {MAX_GROUP}")
    return int(row[6])


def _languages(sources: Sequence[Source], release: Release) -> None:
    for source in _files(sources, "refset_language"):
        for row in table(source, (*REFSET, "acceptabilityId")):
            if row[2] == "1":
                release.favoured(row[5], row[4], preferred=row[6] == PREFERRED)
                if row[6] == PREFERRED:
                    release.languages[row[4]] = release.languages.get(row[4], 0) + 1
    for source in _files(sources, "refset_moduledependency"):
        for row in table(source, REFSET):
            if row[2] == "1":
                release.modules.setdefault(row[3], set()).add(row[5])


def _edition(release: Release) -> str:
    """The module that depends on others and on which none depends; the core module if none is said."""
    below = {each for needed in release.modules.values() for each in needed}
    tops = [module for module in release.modules if module not in below]
    return max(tops, key=lambda module: len(release.modules[module]), default=CORE)


def _concepts(sources: Sequence[Source], columns: Columns, release: Release) -> None:
    module, time = columns.prop("moduleId", "valueCode"), columns.prop("effectiveTime")
    stamped: dict[str, str] = {}
    for source in _files(sources, "sct2_concept_"):
        for row in table(source, CONCEPT):
            code = row[0]
            if not code.isdecimal():
                raise BadRelease(f"{source.name}: '{code[:20]}' is no concept identifier")
            if row[1] <= stamped.get(code, ""):
                continue  # the same component in two packages: the newer row counts
            known = code in stamped
            stamped[code] = row[1]
            columns.concepts[code] = (0 if row[2] == "1" else INACTIVE) | (DEFINED if row[4] == SUFFICIENT else 0)
            if not known:
                columns.values += ((code, module, row[3]), (code, time, row[1]))
    release.newest = max((release.newest, *stamped.values()))


def _descriptions(sources: Sequence[Source], columns: Columns, release: Release) -> None:
    """Each concept's terms, the one to display first."""
    dialects = sorted(release.languages, key=lambda each: (each not in DIALECTS, -release.languages[each], each))
    ranks = {refset: rank for rank, refset in enumerate(dialects)}
    best: dict[str, tuple[int, int]] = {}
    uses = {name: columns.use(use) for name, use in USES.items()}
    columns.dialects = release.dialects
    for source in (*_files(sources, "sct2_description_"), *_files(sources, "sct2_textdefinition_")):
        definition = "textdefinition" in source.name.lower()
        for row in table(source, DESCRIPTION):
            if row[2] != "1":
                continue
            dialect = release.favour.get(row[0], 0)
            favoured = release.dialects[dialect][0]
            rank = _rank(row[6], definition, favoured, ranks)
            place = len(columns.term_text)
            columns.term(
                row[4],
                row[7],
                columns.language(_language(row[5], favoured)),
                uses["definition" if definition else row[6]] if definition or row[6] in uses else 0,
                dialect,
            )
            if rank < best.get(row[4], (9_999, 0))[0]:
                best[row[4]] = (rank, place)
    _first(columns, {place: code for code, (_, place) in best.items()})


def _rank(kind: str, definition: bool, favoured: Sequence[str], ranks: Mapping[str, int]) -> int:
    """Preferred synonym of the main language first, then of another, then any synonym, then the fully specified name."""
    if definition:
        return 9_000
    if kind == FSN:
        return 5_000
    return min((ranks[each] for each in favoured), default=1_000)


def _language(code: str, favoured: Sequence[str]) -> str:
    """The dialect, where only one prefers the term; the language otherwise."""
    dialects = {DIALECTS[each] for each in favoured if each in DIALECTS}
    return dialects.pop() if len(dialects) == 1 and next(iter(dialects)).startswith(code) else code


def _first(columns: Columns, chosen: Mapping[int, str]) -> None:
    """Moves each concept's chosen term to the front of its terms (the index keeps their order)."""
    order = [*chosen, *(n for n in range(len(columns.term_text)) if n not in chosen)]
    columns.term_concept = [columns.term_concept[n] for n in order]
    columns.term_text = [columns.term_text[n] for n in order]
    for name in ("term_language", "term_use", "term_dialect"):
        column = getattr(columns, name)
        setattr(columns, name, type(column)("H", (column[n] for n in order)))


def _relationships(sources: Sequence[Source], columns: Columns) -> None:
    for source in _files(sources, "sct2_relationship_"):
        for row in table(source, RELATIONSHIP):
            if row[2] != "1" or row[8] == STATED:
                continue
            if row[7] == IS_A:
                columns.edges.append((row[4], row[5]))
            else:
                columns.relations.append((row[4], row[7], row[5], _group(source, row)))
    for source in _files(sources, "sct2_relationshipconcretevalues_"):
        for row in table(source, CONCRETE):
            if row[2] == "1":
                if CONCRETE_VALUE.fullmatch(row[5]) is None:
                    raise BadRelease(f'{source.name}: row {row[0]} has a value that is neither #number nor "text"')
                columns.relations.append((row[4], row[7], row[5], _group(source, row)))


def _refsets(sources: Sequence[Source], columns: Columns, release: Release) -> None:
    """Membership of every reference set and the values of its rows about concepts; associations also as properties of the inactive concept."""
    props = {refset: columns.prop(name, "valueCode") for refset, name in ASSOCIATIONS.items()}
    for source in _files(sources, "der2_", "refset_"):
        name = source.name.lower()
        if "refset_language" in name or "moduledependency" in name or "refsetdescriptor" in name:
            continue
        extra = header(source)[len(REFSET) :]
        for row in table(source, REFSET):
            if row[2] != "1":
                continue
            columns.sets.setdefault(row[4], []).append(row[5])
            if row[5] in columns.concepts and columns.fields.setdefault(row[4], [*TOLD, *extra])[len(TOLD) :] == extra:
                columns.rows.append((row[4], row[5], (row[1], row[3], *row[6:])))
            prop = props.get(row[4])
            if prop is not None and len(row) > 6:
                columns.values.append((row[5], prop, row[6]))
