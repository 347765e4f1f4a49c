"""HL7's v2-to-FHIR maps (CSV of the guide, CC0) -> our base tables: `python -m mappers.v2.build GUIDE_FOLDER R4_EXAMPLES_TGZ`.

The only writer of `tables/segments` and `tables/codes`. Target paths are checked against the R4 StructureDefinitions and written in
the grammar of path.py; a row that says nothing computable is printed with its reason and left to `tables/layer`, where our own
rows stand. Data type maps and message structures are ours (tables/layer, DECISIONS.md says why).
"""

import csv
import json
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mappers.v2.condition import compile_condition
from mappers.v2.guide import CODE_FILES, CONDITIONS, CONVERSIONS, FIELD_URLS, PATHS, ROW_PATHS, SKIPPED, URLS
from mappers.v2.values import LEAVES

TABLES = Path(__file__).parent / "tables"
_STEP = re.compile(r"([A-Za-z$][\w$]*)(?:\[\d*-?(\w*)\])?")
_PRIMITIVE = re.compile(r"[a-z]")


class Elements:
    """R4 element definitions: path -> (types, is list)."""

    def __init__(self, archive: Path) -> None:
        self.rows: dict[str, tuple[list[str], bool, str]] = {}
        with tarfile.open(archive) as package:
            for member in package:
                if re.search(r"/StructureDefinition-[A-Za-z0-9]+\.json$", member.name):
                    stream = package.extractfile(member)
                    self._add(json.load(stream) if stream else {})

    def _add(self, definition: dict[str, Any]) -> None:
        if definition.get("derivation") == "constraint" or definition.get("kind") not in ("resource", "complex-type"):
            return
        for element in definition["snapshot"]["element"]:
            types = [kind["code"].rpartition("/")[2].replace("System.String", "string") for kind in element.get("type", [])]
            self.rows[element["path"]] = (types, element["max"] not in ("0", "1"), element.get("contentReference", "").lstrip("#"))

    def child(self, owner: str, name: str) -> tuple[str, list[str], bool] | None:
        """(path, types, list) of an element of a type or backbone path, choices resolved."""
        found = self.rows.get(f"{owner}.{name}")
        if found:
            return f"{owner}.{name}", found[0], found[1]
        for path, (types, many, _) in self.rows.items():
            if path.startswith(f"{owner}.") and path.endswith("[x]") and path.count(".") == owner.count(".") + 1:
                stem = path[len(owner) + 1 : -3]
                chosen = [kind for kind in types if name == stem + kind[0].upper() + kind[1:]]
                if chosen:
                    return f"{owner}.{name}", chosen, many
        return None


class Unusable(ValueError):
    """A row of the guide that says nothing computable; the text says why."""


def parse(text: str) -> Iterator[tuple[str, str, str]]:
    """(name, index, type of a new resource) of a guide path such as `performer[1](PractitionerRole.practitioner(Practitioner))`."""
    rest = text.replace(" ", "").replace("[1](", "[1](").strip(".")
    while rest:
        match = _STEP.match(rest)
        if match is None:
            raise Unusable(f"path not understood at {rest!r}")
        index = re.search(r"\[(\d+)", match.group(0))
        rest = rest[match.end() :]
        rtype = ""
        if rest.startswith("("):
            kind = re.match(r"\((?:\[1\])?([A-Z]\w*)(?:\[\d\])?", rest)
            if kind is None:
                raise Unusable(f"path not understood at {rest!r}")
            rtype = kind[1]
            rest = rest[kind.end() :]
        yield match[1], index[1] if index else "", rtype
        rest = re.sub(r"^[).]+", "", rest)


class Target:
    """A guide path resolved against R4: our path, the R4 type of its leaf."""

    def __init__(self, elements: Elements, rtype: str, text: str, urls: dict[str, str], field: str = "") -> None:
        self.path = ""
        self.kind = rtype
        owner = rtype
        pieces: list[str] = []
        key = ""
        for name, index, made in parse(text):
            key = f"{key}.{name}[{index}]"
            if name == "extension":
                self._extension(pieces, urls.get(f"{field}{key}") or urls.get(key, ""), key)
                owner = self.kind = "Extension"
                continue
            found = elements.child(owner, name)
            if found is None:
                raise Unusable(f"R4 has no {owner}.{name}")
            owner, types, many = found
            self.kind = types[0] if types else "?"
            pieces.append(name + (f"[{index or 1}]" if many else ""))
            if made:
                pieces[-1] += f"({made})"
                owner = self.kind = made
            elif self.kind not in ("BackboneElement", "Element", "?"):
                owner = self.kind
            elif elements.rows.get(owner, ([], False, ""))[2]:
                owner = elements.rows[owner][2]
        self.path = ".".join(pieces)

    def _extension(self, pieces: list[str], url: str, key: str) -> None:
        if not url:
            raise Unusable(f"no url for {key}")
        if pieces and _PRIMITIVE.match(self.kind) and self.kind != "?":
            pieces[-1] = "_" + pieces[-1]
        pieces.append(f"extension{{{url}}}")


def build(guide: Path, archive: Path) -> list[str]:
    """Write the base tables; returns what was left out, one line each."""
    elements = Elements(archive)
    left: list[str] = []
    for path in sorted(guide.glob("codesystems/*.csv")):
        _codes(path)
    for path in sorted(guide.glob("segments/*.csv")):
        match = re.search(r"R4_ (\w+)\[([\w-]+)\]", path.name)
        if match and f"{match[1]}[{match[2]}]" not in SKIPPED:
            _segment(elements, path, match[1], match[2], left)
    return left


def cells_of(path: Path) -> Iterator[list[str]]:
    """Rows of a sheet of the guide, 20 cells and more each."""
    with path.open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.reader(lines))
    for row in rows[2:]:
        yield [cell.strip() for cell in row] + [""] * 20


def _segment(elements: Elements, path: Path, segment: str, target: str, left: list[str]) -> None:
    rtype = target.split("-")[0]
    rows = list(cells_of(path))
    urls = urls_of(rows)
    out = []
    for row in rows:
        if not row[9]:
            continue
        try:
            out.append(_row(elements, rtype, f"{segment}[{target}]", row, urls))
        except (Unusable, ValueError) as error:
            left.append(f"{segment}[{target}] {row[1]} -> {row[9]}: {error}")
    made = [row for row in out if row is not None]
    if made:
        _write(TABLES / "segments" / f"{segment}_{target}.csv", ["field", "when", "path", "as", "codes", "value"], made)


def urls_of(rows: list[list[str]]) -> dict[str, str]:
    """Key of an extension in the guide's own numbering -> its url, with the field before it too: several fields share a number."""
    urls = {}
    for row in rows:
        text, value = fixed_path(row[9]), row[16].strip("\" '") or FIELD_URLS.get(row[1], "")
        if is_url(text) and value:
            value = value.replace("v\\5.0", "5.0")
            key = "".join(f".{name}[{index}]" for name, index, _ in parse(text.rpartition(".")[0]))
            urls[key] = urls[row[1] + key] = URLS.get(value, value)
    return urls


def is_url(text: str) -> bool:
    """True for the path of an extension's url: no element of its own."""
    return re.search(r"extension(\[\d+\])?\.ur[li]\)*$", text) is not None


def fixed_path(text: str, name: str = "") -> str:
    """The guide's path in R4's spelling; `name` is the map it stands in."""
    text = ROW_PATHS.get((name, text), text)
    text = re.sub(r"\s+", "", text)
    for wrong, right in PATHS:
        text = text.replace(wrong, right)
    return text


def _row(elements: Elements, rtype: str, name: str, row: list[str], urls: dict[str, str]) -> list[str] | None:
    text, value = fixed_path(row[9], name), row[16].strip()
    segment = name.partition("[")[0]
    if is_url(text):
        return None
    text, _, assigned = text.partition("=")
    value = value or assigned
    when = CONDITIONS.get(row[6], row[6])
    compile_condition(when)
    if text == "$this":
        raise Unusable("writes to the element itself")
    target = Target(elements, rtype, text, urls, row[1])
    number = re.search(r"[-.](\d+)", row[1])
    constant = _constant(value)
    own = f"{segment}-{number[1]}" if number else ""
    bare = "" if own and re.search(rf"{own}\b (IS )?NOT VALUED", when) else (number[1] if number else "")
    if constant:
        return [bare, when, target.path, "boolean" if target.kind == "boolean" else "", "", constant]
    if not number:
        raise Unusable("no field and no constant")
    convert = _conversion(row, target)
    return [number[1], when, target.path + _referred(target, convert), convert, code_map(row[15]), ""]


def _referred(target: Target, convert: str) -> str:
    """`(Practitioner)` where the guide names a map to a resource but leaves the new resource out of the path."""
    made = "Location" if convert == "@location" else (re.search(r"\[([A-Z]\w+)", convert) or ["", ""])[1]
    return f"({made})" if target.kind == "Reference" and made and not target.path.endswith(")") else ""


def _constant(value: str) -> str:
    if not value:
        return ""
    if value.startswith(("/", "#")):
        raise Unusable(f"a note, not a value: {value[:40]}")
    if "+" in value and not re.match(r'"|[A-Z][A-Z0-9]{1,2}[-.]\d', value):
        raise Unusable(f"a formula over FHIR elements: {value[:40]}")
    if "+" in value:
        return "=" + value.replace('" "OBX', '"+" "+OBX')
    return value.strip("\"' ")


def code_map(text: str) -> str:
    """File of a vocabulary, '' where the guide has no rows for it."""
    name = CODE_FILES[text] if text in CODE_FILES else _file(text)
    return name if (TABLES / "codes" / f"{name}.csv").exists() else ""


def _file(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]", "_", text.replace(".", "-")).strip("_").replace("__", "_")


def _conversion(row: list[str], target: Target) -> str:
    named = re.sub(r"\s+", "", row[14])
    found = CONVERSIONS.get(named.casefold())
    if found is None and named:
        raise Unusable(f"no conversion for {named}")
    if found and found != "leaf":
        return "code" if found == "@code" and not code_map(row[15]) else found
    if target.kind in LEAVES:
        return "@code" if code_map(row[15]) else target.kind
    by_kind = CONVERSIONS.get(f"*[{target.kind}]".casefold())
    if by_kind is None:
        raise Unusable(f"no conversion for a {target.kind}")
    return by_kind


def _codes(path: Path) -> None:
    match = re.search(r"Concept Map_ (.+?) - Sheet1", path.name)
    name = _file(match[1] if match else path.stem)
    wide = sum(len(row[10]) > 0 for row in cells_of(path))
    rows = []
    for row in cells_of(path):
        code, display, system = (row[6], row[7] if row[7] else row[8], row[9]) if not row[10] and not wide else (row[6], row[7] or row[8], row[9])
        if system and not system.startswith(("http", "urn:")):
            system = next((cell for cell in row[6:11] if cell.startswith("http")), "")
        if row[0] and not row[3]:
            rows.append([row[0], _table(row[2]), code if code.casefold() not in ("n/a", "na", "-") else "", display, system])
    if rows:
        _write(TABLES / "codes" / f"{name}.csv", ["from", "table", "code", "display", "system"], rows)


def _table(text: str) -> str:
    match = re.search(r"(\d{4})$", text)
    return f"HL7{match[1]}" if match else text


def _write(path: Path, header: list[str], rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def main() -> int:
    """Build from the folders named on the command line."""
    left = build(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.write("\n".join(left) + f"\n{len(left)} rows left to the layer\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
