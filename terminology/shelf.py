"""What `terminology load` left in the data folder: indexes and FHIR resources, switched in atomically while others read.

Layout: FOLDER/current.json lists what is in force: {"systems": [folder names], "resources": [file names]}. A load writes beside what others still
read and replaces current.json in one step at the end; `stamp` tells whether it has changed.
"""

import fcntl
import mmap
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from terminology.concepts import Json, System
from terminology.index import open_index

CURRENT = "current.json"
Definitions = Callable[[str, str], Sequence[Json]]


def contents(folder: Path) -> dict[str, list[str]]:
    """The names in force: {'systems': [...], 'resources': [...]}."""
    path = folder / CURRENT
    found: dict[str, list[str]] = msgspec.json.decode(path.read_bytes()) if path.exists() else {}
    return {"systems": found.get("systems", []), "resources": found.get("resources", [])}


def stamp(folder: Path | None) -> int:
    """Changes whenever current.json does; 0 if there is none."""
    path = folder / CURRENT if folder is not None else None
    return path.stat().st_mtime_ns if path is not None and path.exists() else 0


@contextmanager
def _locked(folder: Path) -> Any:
    with (folder / "load.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def put(folder: Path, systems: Sequence[str], resources: Sequence[str]) -> None:
    """Brings names into force, the last ones loaded counting first."""
    with _locked(folder):
        now = contents(folder)
        merged = {
            "systems": [*(each for each in now["systems"] if each not in systems), *systems],
            "resources": [*(each for each in now["resources"] if each not in resources), *resources],
        }
        work = folder / f"{CURRENT}.new"
        work.write_bytes(msgspec.json.encode(merged))
        work.replace(folder / CURRENT)


def drop(folder: Path, name: str) -> None:
    """Takes a name out of force; its files stay until nobody reads them."""
    with _locked(folder):
        now = {kind: [each for each in names if each != name] for kind, names in contents(folder).items()}
        work = folder / f"{CURRENT}.new"
        work.write_bytes(msgspec.json.encode(now))
        work.replace(folder / CURRENT)


def read_systems(folder: Path) -> Mapping[str, tuple[System, ...]]:
    """The indexed code systems by url."""
    open_index.cache_clear()
    systems: dict[str, tuple[System, ...]] = {}
    for name in contents(folder)["systems"]:
        system = open_index(folder / name)
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
