"""The terminology shelf in the database, so that every server of a cluster has what one of them loaded: GridFS bucket `terminology`, document `shelf`.

A name (index folder or resource file) means one content for ever, so files are only added and, once nothing in force names them, removed.
{_id: 'current', systems, resources, stamp} is what is in force; it is replaced only by who read it last. https://www.mongodb.com/docs/manual/core/gridfs/
"""

import asyncio
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gridfs.asynchronous import AsyncGridFSBucket
from gridfs.errors import FileExists, NoFile
from pymongo.errors import DuplicateKeyError

from conformance.outcome import conflict, refuse
from fhir_server.store.mongo.client import Database
from fhir_server.store.mongo.errors import surfaced
from terminology import shelf
from terminology.drafting import MARK, NEW, digest

BUCKET, CURRENT = "terminology", "shelf"
CHUNK = 1024 * 1024
TRIES = 50
Names = Mapping[str, Sequence[str]]
Progress = Callable[[str, float], None]


def silent(name: str, share: float) -> None:
    """Nobody watches."""


def files_of(name: str, folder: Path) -> list[str]:
    """The files behind a name, as paths below the shelf's folder: those of an index folder, or a resource file with its list."""
    if MARK in name:
        return [f"{name}/{path.name}" for path in sorted((folder / name).iterdir())]
    return [name, str(Path(name).with_suffix(".json"))]


async def current(database: Database) -> dict[str, list[str]] | None:
    """What is in force in the cluster, None if nothing was ever published."""
    with surfaced():
        row = await database[CURRENT].find_one({"_id": "current"})
    return None if row is None else {"systems": list(row["systems"]), "resources": list(row["resources"])}


async def awaited(database: Database, folder: Path) -> list[str]:
    """The names in force in the cluster that a server's folder has not brought into force yet. Raises Refusal."""
    here = shelf.contents(folder)
    return [name for kind, names in (await current(database) or {}).items() for name in names if name not in here[kind]]


async def publish(database: Database, folder: Path, systems: Sequence[str], resources: Sequence[str], progress: Progress = silent) -> None:
    """Stores files of the shelf and brings their names into force for the cluster; then removes what no longer is. Raises Refusal."""
    paths = [path for name in (*systems, *resources) for path in files_of(name, folder)]
    for number, path in enumerate(paths):
        progress("to the database", number / len(paths))
        await _upload(database, folder, path)
    await _switch(database, systems, resources)
    await _sweep(database)


async def _upload(database: Database, folder: Path, path: str) -> None:
    bucket = AsyncGridFSBucket(database, BUCKET, chunk_size_bytes=CHUNK)
    with surfaced():
        if await database[f"{BUCKET}.files"].find_one({"_id": path}, {"_id": 1}) is None:
            try:
                with (folder / path).open("rb") as file:
                    await bucket.upload_from_stream_with_id(path, path, file)
            except FileExists:
                return  # another server published the same content at the same moment


async def _switch(database: Database, systems: Sequence[str], resources: Sequence[str]) -> None:
    for _ in range(TRIES):
        with surfaced():
            row = await database[CURRENT].find_one({"_id": "current"}) or {"systems": [], "resources": [], "stamp": None}
            wanted = {"_id": "current", **shelf.merged(row, systems, resources), "stamp": uuid.uuid4().hex}
            try:
                done = await database[CURRENT].replace_one({"_id": "current", "stamp": row["stamp"]}, wanted, upsert=row["stamp"] is None)
            except DuplicateKeyError:
                continue
            if done.matched_count or done.upserted_id:
                return
    raise conflict("too many loads at once change what is in force")


async def withdraw(database: Database, name: str) -> None:
    """Takes a name (with or without its digest) out of force for the cluster."""
    for _ in range(TRIES):
        with surfaced():
            row = await database[CURRENT].find_one({"_id": "current"})
            if row is None:
                return
            kept = {kind: [each for each in row[kind] if name not in (each, shelf.base(each))] for kind in ("systems", "resources")}
            wanted = {"_id": "current", **kept, "stamp": uuid.uuid4().hex}
            if (await database[CURRENT].replace_one({"_id": "current", "stamp": row["stamp"]}, wanted)).matched_count:
                await _sweep(database)
                return
    raise conflict("too many loads at once change what is in force")


async def _sweep(database: Database) -> None:
    """Removes files of indexes that another index of the same code system version has replaced."""
    now = await current(database) or {"systems": [], "resources": []}
    bases = {shelf.base(name) for name in now["systems"]}
    bucket = AsyncGridFSBucket(database, BUCKET)
    with surfaced():
        rows = await database[f"{BUCKET}.files"].find({"_id": {"$regex": MARK}}, {"_id": 1}).to_list()
        for row in rows:
            name = str(row["_id"]).partition("/")[0]
            if name not in now["systems"] and shelf.base(name) in bases:
                await bucket.delete(row["_id"])


async def fetch(database: Database, folder: Path, progress: Progress = silent) -> list[str]:
    """Brings a server's shelf to what is in force in the cluster; the names that had to be fetched. Raises Refusal, OSError.

    A server that holds a shelf from before there was one in the database publishes it.
    """
    wanted = await current(database)
    if wanted is None:
        here = shelf.contents(folder)
        systems = [name for name in here["systems"] if MARK in name]
        if systems or here["resources"]:
            await publish(database, folder, systems, here["resources"], progress)
        return []
    missing = _missing(folder, wanted)
    for number, name in enumerate(missing):
        progress(f"fetching {name}", number / len(missing))
        await _download(database, folder, name)
    shelf.replace(folder, wanted)
    return missing


def _missing(folder: Path, wanted: Names) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    return [name for names in wanted.values() for name in names if not (folder / name).exists()]


async def _download(database: Database, folder: Path, name: str) -> None:
    """One name, into a place of its own and then under its name. Raises Refusal if the database has no longer all of it."""
    work = folder / f"{name}.{uuid.uuid4().hex[:8]}{NEW}"
    bucket = AsyncGridFSBucket(database, BUCKET)
    try:
        with surfaced():
            wanted = {"_id": {"$gte": f"{name}/", "$lt": f"{name}0"}} if MARK in name else {"_id": {"$in": files_of(name, folder)}}
            rows = await database[f"{BUCKET}.files"].find(wanted, {"_id": 1}).to_list()
            work.mkdir()
            for row in rows:
                with (work / Path(row["_id"]).name).open("wb") as file:
                    await bucket.download_to_stream(row["_id"], file)
    except NoFile as gone:
        raise conflict("what was to be fetched has been replaced meanwhile") from gone
    else:
        await asyncio.to_thread(_place, work, folder, name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _place(work: Path, folder: Path, name: str) -> None:
    """Moves what was fetched under its name, if it is whole."""
    if MARK not in name:
        for path in reversed([folder / each for each in files_of(name, folder)]):  # the list first: a resource file is never there without it
            if not (work / path.name).exists():
                raise refuse("exception", f"the shelf in the database lacks {path.name}: load it again")
            (work / path.name).replace(path)
        return
    if digest(work) != name.partition(MARK)[2]:
        raise refuse("exception", f"the shelf in the database lacks a part of {name}: load it again")
    if not (folder / name).exists():
        work.rename(folder / name)
