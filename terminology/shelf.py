"""What `terminology load` left in the data folder: indexes and FHIR resources, switched in atomically while others read.

Layout: FOLDER/NAME~DIGEST is an index, FOLDER/current.json lists what is in force: {"systems": [folder names], "resources": [file names]}. A load writes beside what others still
read and replaces current.json in one step at the end; `stamp` tells whether it has changed.
"""

import fcntl
import mmap
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from terminology.concepts import Json, System
from terminology.drafting import MARK, NEW
from terminology.index import open_index

CURRENT = "current.json"
LEFT_SECONDS = 3600  # so long an index may stand there before it is in force, or a load may take
Definitions = Callable[[str, str], Sequence[Json]]


def contents(folder: Path) -> dict[str, list[str]]:
    """The names in force: {'systems': [...], 'resources': [...]}."""
    path = folder / CURRENT
    found: dict[str, list[str]] = msgspec.json.decode(path.read_bytes()) if path.exists() else {}
    return {"systems": found.get("systems", []), "resources": found.get("resources", [])}


def stamp(folder: Path | None) -> int:
    """Changes whenever current.json does; 0 if there is none."""
    path = folder / CURRENT if folder is not None else None
    if path is None or not path.exists():
        return 0
    now = path.stat()
    return hash((now.st_mtime_ns, now.st_ino)) | 1  # two switches may fall into one tick of the clock


@contextmanager
def locked(folder: Path) -> Any:
    """Holds the shelf against other writers."""
    with (folder / "load.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def merged(now: Mapping[str, Sequence[str]], systems: Sequence[str], resources: Sequence[str]) -> dict[str, list[str]]:
    """What is in force with these names as the last ones loaded; another index of the same code system version gives way."""
    replaced = {base(each) for each in systems}
    return {
        "systems": [*(each for each in now["systems"] if base(each) not in replaced), *systems],
        "resources": [*(each for each in now["resources"] if each not in resources), *resources],
    }


def base(name: str) -> str:
    """The code system version that an index folder is for: 'loinc-2.78' of 'loinc-2.78~1a2b'."""
    return name.partition(MARK)[0]


def put(folder: Path, systems: Sequence[str], resources: Sequence[str]) -> None:
    """Brings names into force, the last ones loaded counting first."""
    with locked(folder):
        _write(folder, merged(contents(folder), systems, resources))


def replace(folder: Path, wanted: Mapping[str, Sequence[str]]) -> None:
    """Brings exactly these names into force; their files are there."""
    with locked(folder):
        if contents(folder) != wanted:
            _write(folder, wanted)


def drop(folder: Path, name: str) -> None:
    """Takes a name (with or without the digest of its index) out of force."""
    with locked(folder):
        _write(folder, {kind: [each for each in names if name not in (each, base(each))] for kind, names in contents(folder).items()})


def _write(folder: Path, wanted: Mapping[str, Sequence[str]]) -> None:
    """Switches, and removes old indexes that were out of force before (what was in force until now may still be opened by others) and what killed loads left."""
    now = contents(folder)
    work = folder / f"{CURRENT}.new"
    work.write_bytes(msgspec.json.encode(wanted))
    work.replace(folder / CURRENT)
    kept = {*now["systems"], *wanted["systems"]}
    for path in folder.iterdir():
        left = path.name.endswith(NEW) or (MARK in path.name and path.name not in kept)
        if left and _age(path) > LEFT_SECONDS:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _age(path: Path) -> float:
    """Seconds since it was changed; 0 where another load has given it its name meanwhile."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0


def read_systems(folder: Path) -> Mapping[str, tuple[System, ...]]:
    """The indexed code systems by url."""
    systems: dict[str, tuple[System, ...]] = {}
    for name in contents(folder)["systems"]:
        system = open_index(folder / name)  # kept by name: a name means one content
        systems[system.meta.url] = (*systems.get(system.meta.url, ()), system)
    return systems


def read_resources(folder: Path) -> tuple[Definitions, dict[str, list[str]]]:
    """((kind, url) -> resources, read on first use; kind -> urls) of the resource files in force."""
    rows: dict[tuple[str, str], dict[str, tuple[mmap.mmap, int, int]]] = {}
    for name in contents(folder)["resources"]:
        path = folder / name
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        for kind, url, version, at, length in msgspec.json.decode(path.with_suffix(".json").read_bytes()):
            rows.setdefault((kind, url), {})[version] = (data, at, length)
    kept: dict[tuple[str, str], list[Json]] = {}

    def definitions(kind: str, url: str) -> Sequence[Json]:
        key = (kind, url)
        if key not in rows:
            return ()
        if key not in kept:
            kept[key] = [msgspec.json.decode(data[at : at + length]) for data, at, length in rows[key].values()]
        return kept[key]

    urls: dict[str, list[str]] = {}
    for kind, url in rows:
        urls.setdefault(kind, []).append(url)
    return definitions, urls
