"""The shelf: a folder where installed packages lie as NAME-VERSION.tgz, several versions side by side. https://hl7.org/fhir/R4/packages.html"""

import io
import os
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from conformance.outcome import Issue, Refusal, failed
from conformance.package import Package, Plan, matches, open_package, package_files, plan


def installed(shelf: Path) -> list[Path]:
    """The packages on the shelf, in the order of their names; [] if there is no shelf yet."""
    return sorted(shelf.glob("*.tgz")) if shelf.is_dir() else []


def install(path: Path, shelf: Path, folder: Path | None = None) -> Plan:
    """Put a package (.tgz or folder) and its dependencies from `folder` on the shelf; what lies there stays.

    Gives what was installed, dependencies first, and warnings. Raises Refusal for a bad archive, another FHIR version, or a circle of dependencies.
    Each file appears whole or not at all. A running server sees it and takes it up.
    """
    made = plan(path, folder, [open_package(each) for each in installed(shelf)])
    if failed(made.issues):
        raise Refusal(422, tuple(issue for issue in made.issues if issue.severity == "error"))
    shelf.mkdir(parents=True, exist_ok=True)
    for package, source in zip(made.packages, made.sources, strict=True):
        place(shelf, names([package])[0], source.read_bytes() if source.is_file() else packed(source))
    return made


def file_of(package: Package) -> str:
    """The name of a package's file on the shelf."""
    return _file_name(package.name, package.version)


def _file_name(name: str, version: str) -> str:
    return f"{safe(name.replace('/', '+'))}-{safe(version)}.tgz"


def place(shelf: Path, name: str, data: bytes) -> None:
    """Put the archive of 'name#version' on the shelf: there whole, or not at all."""
    shelf.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=shelf, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        title, _, version = name.partition("#")
        Path(part).replace(shelf / _file_name(title, version))
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def safe(text: str) -> str:
    """A package's name or version as part of a file name. Raises Refusal if it could name another folder."""
    if not text or not all(each.isalnum() or each in "._-@+" for each in text) or text.startswith("."):
        raise Refusal(400, (Issue("error", "structure", "a package's name and version are made of letters, digits and . _ - + @"),))
    return text


def packed(folder: Path) -> bytes:
    """A package folder as a .tgz."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in package_files(folder):
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def names(packages: Iterable[Package]) -> list[str]:
    """'name#version' of each."""
    return [f"{each.name}#{each.version}" for each in packages]


def depends(package: Package, on: Package, among: Iterable[Package]) -> bool:
    """True if a package asks for another and none but that one can serve."""
    asked = package.dependencies.get(on.name)
    if asked is None or not matches(on.version, asked):
        return False
    return not any(each.name == on.name and each.version != on.version and matches(each.version, asked) for each in among)
