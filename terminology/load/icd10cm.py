"""ICD-10-CM: the order file and the tabular XML of a release -> one index. https://www.cdc.gov/nchs/icd/icd-10-cm/files.html

The order file holds every code with its 7th characters; the tabular list gives chapters, sections, the hierarchy and inclusion terms. Either alone will do.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from lxml import etree

from terminology.concepts import Meta
from terminology.drafting import Columns, Progress, silent, write_index
from terminology.index import ABSTRACT
from terminology.load.files import BadRelease, Source, lines_of, open_sources

URL = "http://hl7.org/fhir/sid/icd-10-cm"
_ORDER = re.compile(r"^\d{5} (\S{3,7})\s+([01]) (.{60}) (.*)$")


def load_icd10cm(paths: Sequence[Path], folder: Path, progress: Progress = silent, *, version: str = "") -> Path:
    """Reads a release into an index below `folder` and returns that. Raises BadRelease, naming file and line, or OSError."""
    columns = Columns()
    with open_sources(paths) as sources:
        orders = [each for each in sources if re.search(r"icd10cm[_-]order.*\.txt$", each.name, re.IGNORECASE) and "addenda" not in each.name.lower()]
        tabulars = [each for each in sources if re.search(r"tabular.*\.xml$", each.name, re.IGNORECASE)]
        if not orders and not tabulars:
            raise BadRelease("neither an icd10cm_order file nor a tabular XML was found")
        years = [match.group() for each in (*orders, *tabulars) if (match := re.search(r"20\d\d", each.name)) is not None]
        progress("tabular list", 0.0)
        for source in tabulars:
            _tabular(source, columns)
        progress("order file", 0.3)
        for source in orders:
            _order(source, columns)
    if not columns.concepts:
        raise BadRelease("the release holds no code")
    _prefixes(columns)
    version = version or max(years, default="")
    meta = Meta(
        url=URL, version=version, name="ICD10CM", title="ICD-10-CM", language="en-US", hierarchy="is-a", case_sensitive=False, date=in_force(version)
    )
    return write_index(
        folder / f"icd10cm-{version or 'unknown'}", meta, columns, {"kind": "icd10cm"}, lambda step, share: progress(step, 0.5 + share / 2)
    )


def in_force(version: str) -> str:
    """The first day of a fiscal year's codes: 1 October of the year before; '' for a version of another form."""
    return f"{int(version) - 1}-10-01" if re.fullmatch(r"20\d\d", version) else ""


def dotted(code: str) -> str:
    """A00.0 for A000."""
    return code if len(code) <= 3 or "." in code else f"{code[:3]}.{code[3:]}"


def _order(source: Source, columns: Columns) -> None:
    billable = columns.prop("billable", "valueBoolean")
    short = columns.use({"system": URL, "code": "short"})
    language = columns.language("en-US")
    for number, line in lines_of(source):
        if not line.strip():
            continue
        match = _ORDER.match(line.rstrip("\r\n"))
        if match is None:
            raise BadRelease(f"{source.name} line {number}: not a line of the order file (number, code, 0 or 1, short and long description)")
        code, flag, brief, long = dotted(match.group(1)), match.group(2), match.group(3).strip(), match.group(4).strip()
        if code not in columns.concepts:
            columns.concepts[code] = 0
            columns.term(code, long or brief, language)
        columns.term(code, brief, language, short)
        columns.values.append((code, billable, "true" if flag == "1" else "false"))


def _tabular(source: Source, columns: Columns) -> None:
    try:
        root = etree.fromstring(source.data(), etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False))
    except etree.XMLSyntaxError as bad:
        raise BadRelease(f"{source.name}: {bad}") from bad
    language = columns.language("en-US")
    for chapter in root.iter("chapter"):
        name = f"Chapter {(chapter.findtext('name') or '').strip()}"
        columns.concepts[name] = ABSTRACT
        columns.term(name, (chapter.findtext("desc") or name).strip(), language)
        for section in chapter.findall("section"):
            block = section.get("id") or ""
            columns.concepts[block] = ABSTRACT
            columns.term(block, (section.findtext("desc") or block).strip(), language)
            columns.edges.append((block, name))
            for diagnosis in section.findall("diag"):
                _diagnosis(diagnosis, block, columns)


def _diagnosis(node: etree._Element, parent: str, columns: Columns) -> None:
    code, language = (node.findtext("name") or "").strip(), columns.language("en-US")
    if not code:
        return
    if code not in columns.concepts:
        columns.concepts[code] = 0
        columns.term(code, (node.findtext("desc") or code).strip(), language)
    if code != parent:
        columns.edges.append((code, parent))
    inclusion = columns.use({"system": URL, "code": "inclusionTerm"})
    for note in node.findall("inclusionTerm/note"):
        columns.term(code, (note.text or "").strip(), language, inclusion)
    for child in node.findall("diag"):
        _diagnosis(child, code, columns)


def _prefixes(columns: Columns) -> None:
    """A code of the order file that the tabular list does not place stands below its longest known prefix (placeholders X left out)."""
    placed = {child for child, _ in columns.edges}
    for code in columns.concepts:
        if code in placed or " " in code or "-" in code:
            continue
        short = code.replace(".", "")
        above = next((dotted(short[:size]) for size in range(len(short) - 1, 2, -1) if dotted(short[:size]) in columns.concepts), None)
        if above is not None:
            columns.edges.append((code, above))
