"""FHIR CodeSystems, ValueSets and ConceptMaps, alone, in Bundles, in folders or in packages (.tgz) -> resources on the shelf; large systems -> indexes.

https://hl7.org/fhir/R4/terminology-module.html; packages: https://confluence.hl7.org/display/FHIR/NPM+Package+Specification
"""

import hashlib
import tarfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from conformance.codec import decode
from conformance.outcome import Refusal
from conformance.spec import load_spec
from conformance.xml import from_xml
from terminology.concepts import Json, as_text, open_system, property_value
from terminology.drafting import NEW, Columns, Progress, silent, write_index
from terminology.index import ABSTRACT, INACTIVE
from terminology.library import KINDS
from terminology.load.files import BadRelease

LARGE = 5_000
MAX_FILE = 200 * 2**20
PROSE = ("text", "meta")


def load_fhir(paths: Sequence[Path], folder: Path, progress: Progress = silent) -> tuple[list[Path], Path | None]:
    """(indexes of large code systems, file of the other resources) written below `folder`. Raises BadRelease, naming the file, or OSError."""
    indexes: list[Path] = []
    kept: list[Json] = []
    for number, res in enumerate(terminology_of(paths)):
        if number % 100 == 0:
            progress(f"{number} resources", min(0.9, number / 4000))
        res = {name: value for name, value in res.items() if name not in PROSE}
        if res["resourceType"] == "CodeSystem" and count(res.get("concept", ())) > LARGE and res.get("content") != "supplement":
            indexes.append(index_system(res, folder))
        else:
            kept.append(res)
    if not indexes and not kept:
        raise BadRelease("no CodeSystem, ValueSet or ConceptMap was found")
    return indexes, write_resources(kept, folder) if kept else None


def write_resources(resources: Sequence[Json], folder: Path) -> Path:
    """One file: a line per resource, and beside it a list of (kind, url, version, offset, length). Named by its content."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [msgspec.json.encode(res) for res in resources]
    at, rows = 0, []
    for res, line in zip(resources, lines, strict=True):
        rows.append((res["resourceType"], res.get("url", ""), res.get("version", ""), at, len(line)))
        at += len(line) + 1
    data = b"\n".join(lines) + b"\n"
    path = folder / f"fhir-{hashlib.sha256(data).hexdigest()[:16]}.ndjson"
    if not path.exists():  # else it was loaded before, and may be being read
        work = folder / f"{path.stem}.{uuid.uuid4().hex[:8]}{NEW}"
        for content, target in ((msgspec.json.encode(rows), path.with_suffix(".json")), (data, path)):
            work.write_bytes(content)
            work.replace(target)
    return path


def count(concepts: Iterable[Json]) -> int:
    """How many concepts there are at all levels."""
    return sum(1 + count(each.get("concept", ())) for each in concepts)


def terminology_of(paths: Sequence[Path]) -> Iterator[Json]:
    """The terminology resources in files, folders and packages; entries of Bundles too."""
    for path in paths:
        for name, data in _files(path):
            try:
                res = from_xml(data, load_spec()) if name.endswith(".xml") else decode(data)
            except Refusal as bad:
                raise BadRelease(f"{name}: {bad.issues[0].text}") from bad
            for each in _resources(name, res):
                if each.get("resourceType") in KINDS and each.get("url"):
                    _check(name, each)
                    yield each


def _resources(name: str, res: Json) -> list[Json]:
    """The resource, or those of a Bundle."""
    entries = res.get("entry", []) if res.get("resourceType") == "Bundle" else [{"resource": res}]
    if not isinstance(entries, list) or not all(isinstance(each, dict) and isinstance(each.get("resource", {}), dict) for each in entries):
        raise BadRelease(f"{name}: Bundle.entry is not a list of entries")
    return [each.get("resource", {}) for each in entries]


def _check(name: str, res: Json) -> None:
    """Raises BadRelease where the shape is not that of the resource, so far as it would be met only later, by who asks for it."""
    if not isinstance(res["url"], str) or not isinstance(res.get("version", ""), str):
        raise BadRelease(f"{name}: url and version are texts")
    waiting: list[tuple[str, object]] = [("concept", res.get("concept", []))] if res["resourceType"] == "CodeSystem" else []
    while waiting:
        place, rows = waiting.pop()
        if not isinstance(rows, list):
            raise BadRelease(f"{name}: {place} is not a list")
        for number, row in enumerate(rows):
            at = f"{place}[{number}]"
            if not isinstance(row, dict) or not isinstance(row.get("code"), str):
                raise BadRelease(f"{name}: {at} has no code")
            if not all(isinstance(each, dict) for part in ("designation", "property") for each in row.get(part, ())):
                raise BadRelease(f"{name}: {at} has a designation or property that is no object")
            waiting.append((f"{at}.concept", row.get("concept", [])))


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for each in sorted(each for each in path.rglob("*") if each.suffix in (".json", ".xml")):
            if each.name.startswith(KINDS) or each.parent == path:
                yield each.name, each.read_bytes()
    elif path.name.endswith((".tgz", ".tar.gz")):
        yield from _package(path)
    elif path.is_file():
        yield path.name, path.read_bytes()
    else:
        raise BadRelease(f"{path} does not exist")


def _package(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = Path(member.name).name
                if member.isfile() and name.endswith(".json") and name.startswith(KINDS) and "/other/" not in member.name:
                    if member.size > MAX_FILE:
                        raise BadRelease(f"{name}: larger than {MAX_FILE} bytes")
                    file = archive.extractfile(member)
                    if file is not None:
                        yield name, file.read()
    except (tarfile.TarError, EOFError, OSError) as bad:
        raise BadRelease(f"{path.name} is not a readable package") from bad


def index_system(res: Json, folder: Path) -> Path:
    """The index of a large CodeSystem."""
    system = open_system(res)
    columns = Columns()
    language = columns.language(system.meta.language)
    for n in range(system.size):
        code = system.code(n)
        columns.concepts[code] = (INACTIVE if system.inactive(n) else 0) | (ABSTRACT if system.abstract(n) else 0)
        for one in system.names(n):
            columns.term(code, one.value, columns.language(one.language) if one.language else language, columns.use(one.use))
        if system.definition(n):
            columns.term(code, system.definition(n), language, columns.use({"code": "definition"}))
        columns.edges += ((code, system.code(int(parent))) for parent in system.parents(n))
        for prop in system.properties(n):
            kind = next((each for each in prop if each.startswith("value")), "valueString")
            kept = kind if kind in ("valueCode", "valueBoolean", "valueInteger") else "valueString"
            columns.values.append((code, columns.prop(prop.get("code", ""), kept), as_text(property_value(prop))))
    name = hashlib.sha256(system.meta.canonical.encode()).hexdigest()[:16]
    return write_index(folder / f"codesystem-{name}", system.meta, columns, {"kind": "fhir"})
