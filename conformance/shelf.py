"""The shelf: a folder where installed packages lie as NAME-VERSION.tgz, several versions side by side. https://hl7.org/fhir/R4/packages.html"""

import io
import os
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from conformance.outcome import Issue, Refusal, failed
from conformance.package import Package, Plan, open_package, package_files, plan


def installed(shelf: Path) -> list[Path]:
    """The packages on the shelf, in the order of their names; [] if there is no shelf yet."""
    return sorted(shelf.glob("*.tgz")) if shelf.is_dir() else []


def install(path: Path, shelf: Path, folder: Path | None = None) -> Plan:
    """Put a package (.tgz or folder) and its dependencies from `folder` on the shelf; what lies there stays.

    Gives what was installed, dependencies first, and warnings. Raises Refusal for a bad archive, another FHIR version, or a circle of dependencies.
    Each file appears whole or not at all. A running server takes it up when it starts again.
    """
    made = plan(path, folder, [open_package(each) for each in installed(shelf)])
    if failed(made.issues):
        raise Refusal(422, tuple(issue for issue in made.issues if issue.severity == "error"))
    shelf.mkdir(parents=True, exist_ok=True)
    for package, source in zip(made.packages, made.sources, strict=True):
        _keep(package, source, shelf)
    return made


def _keep(package: Package, source: Path, shelf: Path) -> None:
    handle, name = tempfile.mkstemp(dir=shelf, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(source.read_bytes() if source.is_file() else packed(source))
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(shelf / f"{safe(package.name)}-{safe(package.version)}.tgz")
    except BaseException:
        Path(name).unlink(missing_ok=True)
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
