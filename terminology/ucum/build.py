"""The only writer of `units.csv`: the official ucum-essence.xml -> one row per prefix and unit atom (facts, no prose).

`python -m terminology.ucum.build PATH/ucum-essence.xml`. The development dependency ucumvert carries that file (UCUM 2.2).
https://ucum.org/ucum. UCUM is copyright of Regenstrief Institute and the UCUM Organization; see SOURCE.md.
"""

import csv
import hashlib
import sys
from pathlib import Path

from lxml import etree

NAMESPACE = "{http://unitsofmeasure.org/ucum-essence}"
COLUMNS = ("kind", "code", "upper", "name", "property", "metric", "arbitrary", "function", "value", "unit")


def rows(root: etree._Element) -> list[tuple[str, ...]]:
    """One row per prefix, base unit and unit, in the order of the source; flags are 'y' or ''."""
    found: list[tuple[str, ...]] = []
    for node in root:
        kind = str(node.tag).removeprefix(NAMESPACE) if isinstance(node.tag, str) else ""
        if kind in ("prefix", "base-unit", "unit"):
            found.append(_row(kind, node))
    return found


def _row(kind: str, node: etree._Element) -> tuple[str, ...]:
    value = node.find(f"{NAMESPACE}value")
    function = value.find(f"{NAMESPACE}function") if value is not None else None
    source = function if function is not None else value
    metric = "y" if kind == "base-unit" or node.get("isMetric") == "yes" else ""
    return (
        kind,
        node.get("Code") or "",
        node.get("CODE") or "",
        node.findtext(f"{NAMESPACE}name") or "",
        node.findtext(f"{NAMESPACE}property") or "",
        metric,
        "y" if node.get("isArbitrary") == "yes" else "",
        (function.get("name") or "") if function is not None else "",
        (source.get("value") or "") if source is not None else "",
        (source.get("Unit") or "") if source is not None else "",
    )


def main(path: str) -> None:
    """Write units.csv and SOURCE.md beside this file."""
    data = Path(path).read_bytes()
    root = etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True))
    here = Path(__file__).parent
    with (here / "units.csv").open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows(root))
    source = (
        f"# Source\n\nucum-essence.xml, UCUM {root.get('version')} of {root.get('revision-date')}, sha256 {hashlib.sha256(data).hexdigest()}.\n\n"
    )
    (here / "SOURCE.md").write_text(source + NOTICE, encoding="utf-8")


NOTICE = """`units.csv` holds the codes, names and definitions of the unit atoms and prefixes, unchanged in meaning.
UCUM, Copyright (c) 1999 onwards Regenstrief Institute, Inc. and The UCUM Organization, Indianapolis, IN. All rights reserved.
Used under the UCUM Copyright Notice and License, version 1.0 (https://ucum.org/license), which allows free use in software of any kind.
"""

if __name__ == "__main__":
    main(sys.argv[1])
