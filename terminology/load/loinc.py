"""LOINC: a release folder or archive -> one index. https://loinc.org/kb/users-guide/, https://hl7.org/fhir/R4/loinc.html

Loinc.csv is needed; parts, links, hierarchy, answer lists, groups, replacements and linguistic variants are read where they are there.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from terminology.concepts import Meta
from terminology.drafting import Columns, Progress, silent, write_index
from terminology.implicit import LOINC
from terminology.index import ABSTRACT, INACTIVE
from terminology.load.files import BadRelease, Source, find, open_sources, records

AXES = ("COMPONENT", "PROPERTY", "TIME_ASPCT", "SYSTEM", "SCALE_TYP", "METHOD_TYP")
FACTS = ("STATUS", *AXES, "CLASS", "CLASSTYPE", "ORDER_OBS", "EXAMPLE_UCUM_UNITS", "VersionLastChanged")
INACTIVE_STATUS = frozenset({"DEPRECATED", "INACTIVE"})
USES = {name: {"system": LOINC, "code": name} for name in ("SHORTNAME", "CONSUMER_NAME", "DisplayName", "LONG_COMMON_NAME")}


def load_loinc(paths: Sequence[Path], folder: Path, progress: Progress = silent, *, version: str = "") -> Path:
    """Reads a release into an index below `folder` and returns that. Raises BadRelease, naming file and column, or OSError."""
    with open_sources(paths) as sources:
        main = find(sources, "Loinc.csv")
        if main is None:
            raise BadRelease("no Loinc.csv was found")
        columns = Columns()
        version = version or _version([*(str(path) for path in paths), *(each.path for each in sources)])
        progress("terms", 0.0)
        _terms(main, columns)
        for step, (share, read) in enumerate(((0.2, _parts), (0.25, _hierarchy), (0.3, _answers), (0.35, _groups), (0.4, _variants))):
            progress(("parts", "hierarchy", "answers", "groups", "languages")[step], share)
            read(sources, columns)
    if not columns.concepts:
        raise BadRelease("Loinc.csv holds no term")
    meta = Meta(
        url=LOINC, version=version, name="LOINC", title="LOINC", language="en-US", hierarchy="is-a", case_sensitive=False, value_set=f"{LOINC}/vs"
    )
    return write_index(
        folder / f"loinc-{version or 'unknown'}", meta, columns, {"kind": "loinc"}, lambda step, share: progress(step, 0.45 + share * 0.55)
    )


def _version(names: Sequence[str]) -> str:
    found = (re.search(r"[Ll]oinc[_-]?v?(\d+\.\d+)", name) for name in names)
    return next((match.group(1) for match in found if match is not None), "")


def _terms(main: Source, columns: Columns) -> None:
    props = {name: columns.prop(name) for name in FACTS}
    uses = {name: columns.use(use) for name, use in USES.items()}
    language = columns.language("en-US")
    for row in records(main, ("LOINC_NUM", "COMPONENT", "STATUS", "LONG_COMMON_NAME")):
        code = row["LOINC_NUM"]
        columns.concepts[code] = INACTIVE if row["STATUS"] in INACTIVE_STATUS else 0
        columns.term(code, row["LONG_COMMON_NAME"] or row["COMPONENT"], language)
        for name in ("SHORTNAME", "CONSUMER_NAME", "DisplayName"):
            if row.get(name):
                columns.term(code, row[name], language, uses[name])
        columns.values += ((code, props[name], row[name]) for name in FACTS if row.get(name))


def _each(sources: Sequence[Source], name: str, needed: Sequence[str]) -> Iterator[dict[str, str]]:
    source = find(sources, name)
    if source is not None:
        yield from records(source, needed)


def _parts(sources: Sequence[Source], columns: Columns) -> None:
    kind, language = columns.prop("PartTypeName"), columns.language("en-US")
    for row in _each(sources, "Part.csv", ("PartNumber", "PartTypeName", "PartName")):
        columns.concepts.setdefault(row["PartNumber"], ABSTRACT | (INACTIVE if row.get("Status") in INACTIVE_STATUS else 0))
        columns.term(row["PartNumber"], row.get("PartDisplayName") or row["PartName"], language)
        columns.values.append((row["PartNumber"], kind, row["PartTypeName"]))
    for row in _each(sources, "LoincPartLink_Primary.csv", ("LoincNumber", "PartNumber", "PartTypeName")):
        columns.values.append((row["LoincNumber"], columns.prop(f"{row['PartTypeName']}-part", "valueCode"), row["PartNumber"]))


def _hierarchy(sources: Sequence[Source], columns: Columns) -> None:
    for name in ("ComponentHierarchyBySystem.csv", "MultiAxialHierarchy.csv"):
        for row in _each(sources, name, ("IMMEDIATE_PARENT", "CODE", "CODE_TEXT")):
            code = row["CODE"]
            if code not in columns.concepts:
                columns.concepts[code] = ABSTRACT
                columns.term(code, row["CODE_TEXT"], columns.language("en-US"))
            if row["IMMEDIATE_PARENT"]:
                columns.edges.append((code, row["IMMEDIATE_PARENT"]))
    moved = columns.prop("replacedBy", "valueCode")
    for row in _each(sources, "MapTo.csv", ("LOINC", "MAP_TO")):
        columns.values.append((row["LOINC"], moved, row["MAP_TO"]))


def _answers(sources: Sequence[Source], columns: Columns) -> None:
    listed, linked, language = columns.prop("LIST", "valueCode"), columns.prop("answer-list", "valueCode"), columns.language("en-US")
    order: list[tuple[str, int, str]] = []
    for row in _each(sources, "AnswerList.csv", ("AnswerListId", "AnswerListName", "AnswerStringId", "DisplayText")):
        if row["AnswerListId"] not in columns.concepts:
            columns.concepts[row["AnswerListId"]] = ABSTRACT
            columns.term(row["AnswerListId"], row["AnswerListName"], language)
        answer = row["AnswerStringId"]
        if not answer:
            continue
        if answer not in columns.concepts:
            columns.concepts[answer] = 0
            columns.term(answer, row["DisplayText"], language)
        columns.values.append((answer, listed, row["AnswerListId"]))
        order.append((row["AnswerListId"], _place(row.get("SequenceNumber", "")), answer))
    for answer_list, place, answer in sorted(order, key=lambda each: each[:2]):
        columns.fields[answer_list] = ["SequenceNumber"]
        columns.rows.append((answer_list, answer, (str(place),)))
    for row in _each(sources, "LoincAnswerListLink.csv", ("LoincNumber", "AnswerListId")):
        columns.values.append((row["LoincNumber"], linked, row["AnswerListId"]))


def _place(text: str) -> int:
    """The place of an answer in its list; those without one stand first."""
    return int(text) if text.isdecimal() else 0


def _groups(sources: Sequence[Source], columns: Columns) -> None:
    member, language = columns.prop("GROUP", "valueCode"), columns.language("en-US")
    for name, code, text in (("ParentGroup.csv", "ParentGroupId", "ParentGroup"), ("Group.csv", "GroupId", "Group")):
        for row in _each(sources, name, (code, text)):
            columns.concepts.setdefault(row[code], ABSTRACT)
            columns.term(row[code], row[text], language)
            if name == "Group.csv" and row.get("ParentGroupId"):
                columns.edges.append((row[code], row["ParentGroupId"]))
    for row in _each(sources, "GroupLoincTerms.csv", ("GroupId", "LoincNumber")):
        columns.values.append((row["LoincNumber"], member, row["GroupId"]))


def _variants(sources: Sequence[Source], columns: Columns) -> None:
    use = columns.use(USES["LONG_COMMON_NAME"])
    for row in _each(sources, "LinguisticVariants.csv", ("ID", "ISO_LANGUAGE", "ISO_COUNTRY")):
        name = f"{row['ISO_LANGUAGE']}{row['ISO_COUNTRY']}{row['ID']}LinguisticVariant.csv"
        language = columns.language(f"{row['ISO_LANGUAGE']}-{row['ISO_COUNTRY']}")
        for term in _each(sources, name, ("LOINC_NUM", "LONG_COMMON_NAME")):
            text = (
                term["LONG_COMMON_NAME"]
                or term.get("LinguisticVariantDisplayName", "")
                or ":".join(filter(None, (term.get(axis, "") for axis in AXES)))
            )
            if text:
                columns.term(term["LOINC_NUM"], text, language, use)
