"""RxNorm: the RRF files of a release -> one index. https://www.nlm.nih.gov/research/umls/rxnorm/docs/techdoc.html, https://hl7.org/fhir/R4/rxnorm.html

RXNCONSO is needed; RXNREL, RXNSAT, RXNSTY, RXNSAB, RXNATOMARCHIVE and RXNCUI are read where they are there. `isa` makes the hierarchy.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from terminology.concepts import Meta
from terminology.drafting import Columns, Progress, silent, write_index
from terminology.index import INACTIVE
from terminology.load.files import BadRelease, Source, find, lines_of, open_sources

URL = "http://www.nlm.nih.gov/research/umls/rxnorm"
WIDTHS = {"RXNCONSO.RRF": 18, "RXNREL.RRF": 16, "RXNSAT.RRF": 13, "RXNSTY.RRF": 6, "RXNSAB.RRF": 25, "RXNATOMARCHIVE.RRF": 16, "RXNCUI.RRF": 5}
# which atom names the concept: the first term type of this list that RxNorm itself gives it
DISPLAY = (
    "SBD",
    "SCD",
    "SBDG",
    "SCDG",
    "BPCK",
    "GPCK",
    "SBDF",
    "SCDF",
    "SBDC",
    "SCDC",
    "PIN",
    "MIN",
    "IN",
    "BN",
    "DF",
    "DFG",
    "PSN",
    "SY",
    "TMSY",
    "ET",
)


def load_rxnorm(paths: Sequence[Path], folder: Path, progress: Progress = silent, *, version: str = "") -> Path:
    """Reads a release into an index below `folder` and returns that. Raises BadRelease, naming file and line, or OSError."""
    columns = Columns()
    with open_sources(paths) as sources:
        if find(sources, "RXNCONSO.RRF") is None:
            raise BadRelease("no RXNCONSO.RRF was found")
        progress("names", 0.0)
        _names(sources, columns)
        if not columns.concepts:
            raise BadRelease("RXNCONSO.RRF names no concept of RxNorm")
        progress("relationships", 0.2)
        _relations(sources, columns)
        progress("attributes", 0.35)
        _attributes(sources, columns)
        version = version or _version(sources, paths)
    meta = Meta(url=URL, version=version, name="RxNorm", title="RxNorm", language="en", hierarchy="is-a", date=released(version))
    return write_index(
        folder / f"rxnorm-{version or 'unknown'}", meta, columns, {"kind": "rxnorm"}, lambda step, share: progress(step, 0.5 + share / 2)
    )


def released(version: str) -> str:
    """The date in a version: 20AA_240304F (as RXNSAB writes it) or 03042024 (as the release is named); '' for another form."""
    coded, named = re.fullmatch(r".*_(\d\d)(\d\d)(\d\d)F?", version), re.fullmatch(r"(\d\d)(\d\d)(\d{4})", version)
    if coded is not None:
        return "20{}-{}-{}".format(*coded.groups())
    return "{2}-{0}-{1}".format(*named.groups()) if named is not None else ""


def rows(sources: Sequence[Source], name: str) -> Iterator[list[str]]:
    """The rows of an RRF file, nothing if it is absent. Raises BadRelease for a row of another width."""
    source = find(sources, name)
    if source is None:
        return
    width = WIDTHS[name]
    for number, line in lines_of(source):
        row = line.rstrip("\r\n").split("|")
        if row == [""]:
            continue
        if len(row) < width:
            raise BadRelease(f"{name} line {number}: {len(row)} fields instead of {width}")
        yield row


def _version(sources: Sequence[Source], paths: Sequence[Path]) -> str:
    named = next((row[6] for row in rows(sources, "RXNSAB.RRF") if row[3] == "RXNORM"), "")
    match = re.search(r"(\d{8})", " ".join(str(path) for path in paths))
    return named or (match.group(1) if match is not None else "")


def _names(sources: Sequence[Source], columns: Columns) -> None:
    kinds, owners = columns.prop("TTY"), columns.prop("SAB")
    found: dict[str, list[tuple[int, str, str]]] = {}
    live: set[str] = set()
    seen: set[tuple[str, int, str]] = set()
    for row in rows(sources, "RXNCONSO.RRF"):
        code, sab, tty, text, suppressed = row[0], row[11], row[12], row[14], row[16] in ("O", "Y", "E")
        if sab == "RXNORM":
            rank = DISPLAY.index(tty) if tty in DISPLAY else len(DISPLAY)
            found.setdefault(code, []).append((rank + (100 if suppressed else 0), text, tty))
            if not suppressed:
                live.add(code)
            seen.add((code, kinds, tty))
        seen.add((code, owners, sab))
    for code, names in found.items():
        columns.concepts[code] = 0 if code in live else INACTIVE
        for _, text, tty in sorted(names):
            columns.term(code, text, columns.language("en"), columns.use({"system": URL, "code": tty}))
    columns.values += sorted(seen)
    _retired(sources, columns)


def _retired(sources: Sequence[Source], columns: Columns) -> None:
    """Concepts that RxNorm took away: names and successors from the archive of atoms, further successors from the history of concepts (RXNCUI)."""
    successor = columns.prop("replacedBy", "valueCode")
    told: set[tuple[str, str]] = set()
    for row in rows(sources, "RXNATOMARCHIVE.RRF"):
        text, code, sab, merged = row[2], row[12], row[13], row[15]
        if sab != "RXNORM" or not code or columns.concepts.get(code, INACTIVE) != INACTIVE:
            continue
        if code not in columns.concepts:
            columns.concepts[code] = INACTIVE
            columns.term(code, text, columns.language("en"))
        if merged and merged != code:
            told.add((code, merged))
    for row in rows(sources, "RXNCUI.RRF"):
        code, merged = row[0], row[4]
        if code and merged and code != merged and columns.concepts.get(code) == INACTIVE:
            told.add((code, merged))
    columns.values += ((code, successor, merged) for code, merged in sorted(told))


def _relations(sources: Sequence[Source], columns: Columns) -> None:
    """RXCUI2 RELA RXCUI1 (the second is what the relation is said of)."""
    for row in rows(sources, "RXNREL.RRF"):
        first, second, rela = row[0], row[4], row[7]
        if row[10] != "RXNORM" or not first or not second or not rela:
            continue
        if rela == "isa":
            columns.edges.append((second, first))
        elif rela != "inverse_isa":
            columns.values.append((second, columns.prop(rela, "valueCode"), first))


def _attributes(sources: Sequence[Source], columns: Columns) -> None:
    for row in rows(sources, "RXNSAT.RRF"):
        if row[9] == "RXNORM" and row[8] and row[10] and row[11] in ("N", ""):
            columns.values.append((row[0], columns.prop(row[8]), row[10]))
    semantic = columns.prop("STY")
    for row in rows(sources, "RXNSTY.RRF"):
        columns.values.append((row[0], semantic, row[3]))
