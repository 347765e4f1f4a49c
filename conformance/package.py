"""FHIR packages: a .tgz or a folder -> the definitions in it. https://hl7.org/fhir/R4/packages.html

A package is read whole, once, without unpacking to disk and without `.index.json`. What it may not be: an archive with links, absolute or climbing
names, more than MAX_FILES files or MAX_BYTES of content, or a package for another FHIR version. Dependencies are looked for in a local folder only.
"""

import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, Self

import msgspec

from conformance.codec import encode
from conformance.outcome import Issue, Refusal, refuse

MAX_FILES = 50_000
MAX_BYTES = 1024 * 1024 * 1024
MAX_FILE = 64 * 1024 * 1024
MAX_HEADER = 64 * 1024
HEADERS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_NAME = re.compile(r"@?[A-Za-z0-9][A-Za-z0-9._\-+@/]{0,213}")
BUILT_IN = ("hl7.fhir.r4.core", "hl7.fhir.r4.examples", "hl7.fhir.r4.expansions")  # what `r4/` already holds
KINDS = frozenset(
    [
        "CapabilityStatement",
        "CodeSystem",
        "CompartmentDefinition",
        "ConceptMap",
        "ImplementationGuide",
        "NamingSystem",
        "OperationDefinition",
        "SearchParameter",
        "StructureDefinition",
        "ValueSet",
        "Questionnaire",
        "Library",
        "ActivityDefinition",
        "PlanDefinition",
        "StructureMap",
    ]
)


@dataclass(frozen=True, slots=True)
class Definition:
    """One conformance resource of a package: its type, canonical url, version and JSON (without narrative)."""

    rtype: str
    url: str
    version: str
    raw: bytes


@dataclass(frozen=True)
class Package:
    """An opened package. name, version: of package.json; dependencies: package name -> version asked for."""

    name: str
    version: str
    title: str
    canonical: str
    dependencies: Mapping[str, str]
    index: Mapping[str, tuple[Definition, ...]] = field(repr=False)

    def urls(self, rtype: str) -> tuple[str, ...]:
        """Canonical urls of the definitions of one kind."""
        return tuple(url for url, rows in self.index.items() if any(row.rtype == rtype for row in rows))

    def definition(self, url: str, version: str = "", rtype: str = "") -> dict[str, Any] | None:
        """The definition with this canonical url, and version and type where given; None if the package has none."""
        rows = self.index.get(url, ())
        raw = next((row.raw for row in rows if version in ("", row.version) and rtype in ("", row.rtype)), None)
        return None if raw is None else decode_definition(raw)


def decode_definition(raw: bytes | msgspec.Raw) -> dict[str, Any]:
    """A definition's JSON as a dict, decimals exact (fixed and pattern values are compared with data)."""
    value: dict[str, Any] = _DECODER.decode(raw)
    return value


_DECODER = msgspec.json.Decoder(float_hook=Decimal)


def open_package(path: Path) -> Package:
    """The package at `path`. Raises Refusal (400 malformed, 413 too large, 422 another FHIR version)."""
    manifest: dict[str, Any] = {}
    found: dict[str, list[Definition]] = {}
    for name, data in package_files(path):
        if name == "package.json":
            if manifest:
                raise refuse("structure", f"package {path.name} holds package.json twice")
            manifest = _checked(_object(data, name), path.name)
        elif name.endswith(".json") and "/" not in name and not name.startswith("."):
            _file(_object(data, name), found)
    if not manifest:
        raise refuse("structure", f"package {path.name} has no package.json")
    _check_version(manifest)
    return Package(
        name=str(manifest["name"]),
        version=str(manifest["version"]),
        title=str(manifest.get("title", manifest["name"])),
        canonical=str(manifest.get("canonical", "")),
        dependencies=manifest.get("dependencies", {}),
        index={url: tuple(rows) for url, rows in found.items()},
    )


def _checked(manifest: dict[str, Any], package: str) -> dict[str, Any]:
    """The manifest, if what is read of it has the shape that https://hl7.org/fhir/R4/packages.html gives it. Raises Refusal 400."""
    named = all(isinstance(manifest.get(key), str) and _NAME.fullmatch(manifest[key]) for key in ("name", "version"))
    dependencies = manifest.get("dependencies", {})
    lists = [manifest.get(key) for key in ("fhirVersions", "fhir-version-list")]
    shaped = isinstance(dependencies, dict) and all(isinstance(each, str) for each in dependencies.values())
    if not named or not shaped or not all(each is None or (isinstance(each, list) and all(isinstance(one, str) for one in each)) for each in lists):
        text = "needs name and version, of letters, digits and . _ - + @ /; dependencies and fhirVersions hold strings"
        raise refuse("structure", f"package.json of {package} is malformed: it {text}")
    return manifest


def _file(res: dict[str, Any], found: dict[str, list[Definition]]) -> None:
    rtype, url = res.get("resourceType", ""), res.get("url", "")
    if isinstance(rtype, str) and rtype in KINDS and isinstance(url, str) and url:
        res.pop("text", None)
        found.setdefault(url, []).append(Definition(rtype, url, str(res.get("version", "")), encode(res)))


def _check_version(manifest: Mapping[str, Any]) -> None:
    versions = manifest.get("fhirVersions") or manifest.get("fhir-version-list") or ["4.0.1"]
    if not any(str(each).startswith("4.0") for each in versions):
        name = f"{manifest['name']}#{manifest['version']}"
        raise refuse("not-supported", f"package {name} is for FHIR {', '.join(map(str, versions))}; this server is FHIR 4.0.1", status=422)


def _object(data: bytes, name: str) -> dict[str, Any]:
    try:
        value = _DECODER.decode(data.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise refuse("structure", f"package file {name} is not JSON: {error}") from error
    except RecursionError as error:
        raise refuse("too-long", f"package file {name} is nested too deeply") from error
    if not isinstance(value, dict):
        raise refuse("structure", f"package file {name} is not a JSON object")
    return value


def package_files(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name below `package/`, content) of every regular file. Raises Refusal on a hostile or broken archive."""
    if path.is_dir():
        yield from _folder_files(path)
    elif path.is_file():
        yield from _archive_files(path)
    else:
        raise refuse("not-found", f"there is no package at {path.name}")


def _folder_files(path: Path) -> Iterator[tuple[str, bytes]]:
    root = path / "package" if (path / "package" / "package.json").is_file() else path
    budget = _Budget(path.name)
    for file in sorted(root.rglob("*")):
        if file.is_symlink():
            raise refuse("structure", f"package {path.name} holds a link: {file.relative_to(root)}")
        if file.is_file():
            budget.take(file.stat().st_size)
            yield file.relative_to(root).as_posix(), file.read_bytes()


def _archive_files(path: Path) -> Iterator[tuple[str, bytes]]:
    budget = _Budget(path.name)
    try:
        with tarfile.open(path, "r|gz", tarinfo=_Member) as archive:
            for member in archive:
                name = _safe_name(member, path.name)
                if member.isfile():
                    budget.take(member.size)
                    stream = archive.extractfile(member)
                    yield name, stream.read() if stream else b""
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise refuse("structure", f"package {path.name} is not a gzip'd tar archive: {type(error).__name__}") from error


def _safe_name(member: tarfile.TarInfo, package: str) -> str:
    name = PurePosixPath(member.name.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or (name.parts and ":" in name.parts[0]):
        raise refuse("structure", f"package {package} holds a file outside its folder")
    if not (member.isfile() or member.isdir()):
        raise refuse("structure", f"package {package} holds a link or device")
    return str(PurePosixPath(*name.parts[1:])) if name.parts[:1] == ("package",) else str(PurePosixPath("other", *name.parts))


class _Member(tarfile.TarInfo):
    """A member of an archive whose extended headers (long names, pax) are small: tarfile reads them whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """As TarInfo.frombuf. Raises Refusal 413."""
        found = super().frombuf(buf, encoding, errors)
        if found.type in HEADERS and found.size > MAX_HEADER:
            raise refuse("too-long", f"a package holds a file whose name or headers are longer than {MAX_HEADER} bytes")
        return found


class _Budget:
    """Counts files and bytes of one package; over the limits it refuses with 413."""

    def __init__(self, package: str) -> None:
        self.package, self.files, self.bytes = package, 0, 0

    def take(self, size: int) -> None:
        """Account for one file before it is read."""
        self.files += 1
        self.bytes += size
        if self.files > MAX_FILES or self.bytes > MAX_BYTES or size > MAX_FILE:
            raise refuse("too-long", f"package {self.package} is larger than {MAX_FILES} files, {MAX_BYTES} bytes, or {MAX_FILE} bytes a file")


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key of a semantic version; numbers by value, a pre-release ('6.1.0-ballot') before its release."""
    number, _, pre = version.partition("-")
    parts = [(1, int(each), "") if each.isdigit() else (0, 0, each) for each in number.split(".")]
    return (*parts, (2, 0, "") if not pre else (0, 0, pre))


@dataclass(frozen=True, slots=True)
class Plan:
    """What to install, dependencies first, and what is amiss (errors forbid it, warnings do not)."""

    packages: tuple[Package, ...]
    issues: tuple[Issue, ...]
    sources: tuple[Path, ...] = ()  # where each package was found


def plan(path: Path, folder: Path | None = None, installed: Iterable[Package] = ()) -> Plan:
    """The package at `path` and its dependencies, found in `folder` (.tgz files and package folders) or already installed.

    A cycle is an error; a missing dependency and two versions of one package are warnings, for definitions may still be enough.
    """
    known = {(each.name, each.version): each for each in installed}
    shelf = dict(_shelf(folder)) if folder else {}
    order: list[Package] = []
    sources: list[Path] = []
    issues: list[Issue] = []
    _visit(path, (), _Walk(known, shelf, order, sources, issues))
    return Plan(tuple(order), (*issues, *_conflicts([*known.values(), *order])), tuple(sources))


@dataclass(frozen=True, slots=True)
class _Walk:
    known: Mapping[tuple[str, str], Package]
    shelf: Mapping[str, list[tuple[str, Path]]]
    order: list[Package]
    sources: list[Path]
    issues: list[Issue]


def _visit(path: Path, trail: tuple[str, ...], walk: _Walk) -> None:
    package = open_package(path)
    for name, asked in package.dependencies.items():
        if name in BUILT_IN:
            continue
        if name in (*trail, package.name):
            walk.issues.append(
                Issue("error", "processing", f"packages depend on each other in a circle: {' -> '.join((*trail, package.name, name))}")
            )
        elif not any(each.name == name and matches(each.version, asked) for each in (*walk.known.values(), *walk.order)):
            found = [row for row in walk.shelf.get(name, ()) if matches(row[0], asked)]
            if found:
                _visit(max(found, key=lambda row: version_key(row[0]))[1], (*trail, package.name), walk)
            else:
                walk.issues.append(
                    Issue("warning", "not-found", f"{package.name}#{package.version} depends on {name}#{asked}, which is not installed")
                )
    if package not in walk.order:
        walk.order.append(package)
        walk.sources.append(path)


def matches(version: str, asked: str) -> bool:
    """True if a version is what a dependency asks for ('1.2.3', '1.2.x', 'latest', 'current')."""
    if asked in ("latest", "current", "*", ""):
        return True
    return version == asked or (asked.endswith(".x") and version.startswith(asked[:-1]))


def _conflicts(packages: Iterable[Package]) -> Iterator[Issue]:
    seen: dict[str, set[str]] = {}
    for each in packages:
        seen.setdefault(each.name, set()).add(each.version)
    for name, versions in sorted(seen.items()):
        if len(versions) > 1:
            listed = ", ".join(sorted(versions, key=version_key))
            yield Issue("warning", "conflict", f"{name} is there in several versions ({listed}): a canonical without version means the newest")


def _shelf(folder: Path) -> Iterator[tuple[str, list[tuple[str, Path]]]]:
    """Package name -> [(version, path)] of what lies in a local folder; what is not a package is passed over."""
    rows: dict[str, list[tuple[str, Path]]] = {}
    for path in sorted(folder.iterdir()):
        try:
            manifest = _manifest(path)
        except Refusal:  # a file that is no package may lie there; the one asked for by path is still judged in full
            continue
        if manifest:
            rows.setdefault(str(manifest.get("name")), []).append((str(manifest.get("version")), path))
    yield from rows.items()


def _manifest(path: Path) -> dict[str, Any]:
    if not path.is_dir() and path.suffix not in (".tgz", ".gz"):
        return {}
    if path.is_dir():
        file = next((each for each in (path / "package.json", path / "package" / "package.json") if each.is_file()), None)
        return _object(file.read_bytes(), "package.json") if file else {}
    return next((_object(data, name) for name, data in package_files(path) if name == "package.json"), {})
