"""What `terminology load` left in the data folder: code system indexes and FHIR resources, each load one folder, switched in atomically.

Layout: FOLDER/current.json lists what is in force: {"systems": [folder names], "resources": [file names]}; each name is made by a content hash, so
a load writes beside what others still read, and replaces current.json in one step at the end.
"""

import gzip
from collections.abc import Mapping
from pathlib import Path

import msgspec

from terminology.concepts import Json, System
from terminology.index import open_index
from terminology.library import tabulate

CURRENT = "current.json"
Tables = Mapping[str, Mapping[str, tuple[Json, ...]]]


def contents(folder: Path) -> dict[str, list[str]]:
    """The names in force: {'systems': [...], 'resources': [...]}."""
    path = folder / CURRENT
    found: dict[str, list[str]] = msgspec.json.decode(path.read_bytes()) if path.exists() else {}
    return {"systems": found.get("systems", []), "resources": found.get("resources", [])}


def read_shelf(folder: Path) -> tuple[Mapping[str, tuple[System, ...]], Tables]:
    """(code systems by url, resources by kind and url) of a data folder."""
    now = contents(folder)
    resources: list[Json] = []
    for name in now["resources"]:
        resources += msgspec.json.decode(gzip.decompress((folder / name).read_bytes()))
    systems: dict[str, tuple[System, ...]] = {}
    for name in now["systems"]:
        system = open_index(folder / name)
        systems[system.meta.url] = (*systems.get(system.meta.url, ()), system)
    return systems, tabulate(resources)
