"""FHIR packages of a running exchange: installed and removed over the admin API or by the command, live in every worker without a restart.

The database says what is installed, the shelf (`conformance/shelf.py`) holds copies for this host, the Spec what this process uses. A worker looks at its
shelf several times a second and at the database every EVERY seconds; what changed is opened beside the requests and taken up in one step between two of
them. https://hl7.org/fhir/R4/packages.html
"""

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conformance.outcome import Issue, Refusal, conflict, refuse
from conformance.package import Package, open_package
from conformance.shelf import depends, file_of, install, installed, names, place
from conformance.spec import Spec
from fhir_server.beside import beside
from fhir_server.search import custom
from fhir_server.store.mongo import packages as table
from fhir_server.store.mongo.store import MongoStore
from terminology.service import Terms

log = logging.getLogger("fhir.packages")
LOOK, EVERY = 0.25, 2.0  # seconds between looks at the shelf, and at the database
Stamp = tuple[tuple[str, int], ...]


@dataclass(slots=True)
class Packages:
    """One process's part. opened: file on the shelf -> (its time, the package; None if it cannot be read); seen: the shelf as it was taken up."""

    spec: Spec
    terms: Terms | None
    store: MongoStore
    shelf: Path
    opened: dict[Path, tuple[int, Package | None]] = field(default_factory=dict)
    seen: Stamp = ()
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


def begun(spec: Spec, terms: Terms | None, store: MongoStore, shelf: Path) -> Packages:
    """The part of a process that loaded what lies on the shelf now."""
    made = Packages(spec, terms, store, shelf)
    by_file = {file_of(each): each for each in spec.packages}
    for path in installed(shelf):
        if path.name in by_file:
            made.opened[path] = (path.stat().st_mtime_ns, by_file[path.name])
    made.seen = _stamp(shelf)
    return made


@contextlib.asynccontextmanager
async def running(part: Packages) -> AsyncIterator[None]:
    """What each worker holds while it serves: what the database names is there before the first request, later changes come by themselves."""
    await agree(part)
    async with beside("packages", lambda: _watch(part)):
        yield


async def _watch(part: Packages) -> None:
    rounds = 0
    while True:
        await asyncio.sleep(LOOK)
        rounds += 1
        try:
            if rounds * LOOK >= EVERY:
                rounds = 0
                await agree(part)
            elif _stamp(part.shelf) != part.seen:
                async with part.turn:
                    await take_up(part)
        except (Refusal, OSError) as error:  # the database is away, or the disk is full: it is tried again
            log.warning("packages wait: %s", type(error).__name__)


async def agree(part: Packages) -> None:
    """Shelf and database told of each other's packages; then what is on the shelf taken up."""
    async with part.turn:
        await _open(part)
        rows = await table.rows(part.store)
        here = {names([package])[0]: path for path, (_, package) in part.opened.items() if package is not None}
        for name, path in here.items():
            row = rows.get(name)
            if row is None or (row["removed"] and _written(path) > row["removed"]):  # by the command, on this host
                await table.put(part.store, name, await asyncio.to_thread(path.read_bytes), datetime.now(UTC))
            elif row["removed"]:
                path.unlink(missing_ok=True)
        for name, row in rows.items():
            if name not in here and not row["removed"]:
                await asyncio.to_thread(place, part.shelf, name, await table.read(part.store, row))
        if _stamp(part.shelf) != part.seen:
            await take_up(part)


async def take_up(part: Packages) -> None:
    """Make the Spec and the terminology of this process what lies on the shelf."""
    await _open(part)
    seen = _stamp(part.shelf)
    fresh = Spec(part.spec.tables)
    for _, package in part.opened.values():
        if package is not None:
            fresh = fresh.with_package(package)
    customs = custom.all_of(part.spec)
    part.spec.adopt(fresh.packages)
    custom.install(part.spec, customs + custom.unready(part.spec, customs))
    if part.terms is not None:
        part.terms.renew(part.spec)
    part.seen = seen
    log.info("packages taken up", extra={"fields": {"packages": ", ".join(names(fresh.packages))}})


async def _open(part: Packages) -> None:
    """Open what is new on the shelf, beside the event loop; forget what is gone. A file that is no package is named in the log, once."""
    paths = installed(part.shelf)
    for gone in part.opened.keys() - set(paths):
        del part.opened[gone]
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # removed by another process meanwhile
            at = path.stat().st_mtime_ns
            if part.opened.get(path, (0, None))[0] != at:
                part.opened[path] = (at, await asyncio.to_thread(_readable, path))


def _readable(path: Path) -> Package | None:
    try:
        return open_package(path)
    except Refusal as refusal:
        log.error("a file on the shelf is no package: %s", path.name, extra={"fields": {"reason": str(refusal)}})
        return None


def _stamp(shelf: Path) -> Stamp:
    found = []
    for path in installed(shelf):
        with contextlib.suppress(FileNotFoundError):
            found.append((path.name, path.stat().st_mtime_ns))
    return tuple(found)


def _written(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


async def desk(part: Packages, method: str, path: tuple[str, ...], query: Mapping[str, str], body: bytes, who: str) -> Any:
    """The admin API: GET lists, POST installs the archive in the body, DELETE name/version removes. The caller has checked that `who` is an administrator.

    Raises Refusal 400, 413, 422 (archive, other FHIR version, circle), 404, 409 (others depend on it).
    """
    row = tuple(part_ for part_ in path if part_)
    if method == "GET" and not row:
        return [_shown(each) for each in part.spec.packages]
    if method == "POST" and not row:
        return await _install(part, body, who)
    if method == "DELETE" and len(row) == 2:
        return await _remove(part, f"{row[0]}#{row[1]}", who)
    if method == "DELETE" and len(row) == 3 and row[0].startswith("@"):
        return await _remove(part, f"{row[0]}/{row[1]}#{row[2]}", who)
    raise refuse("not-found", "the packages desk knows GET and POST /admin/packages, DELETE /admin/packages/NAME/VERSION", status=404)


def _shown(package: Package) -> dict[str, Any]:
    counted: dict[str, int] = {}
    for rows in package.index.values():
        for each in rows:
            counted[each.rtype] = counted.get(each.rtype, 0) + 1
    return {
        "name": package.name,
        "version": package.version,
        "title": package.title,
        "canonical": package.canonical,
        "dependencies": dict(package.dependencies),
        "definitions": dict(sorted(counted.items())),
    }


async def _install(part: Packages, body: bytes, who: str) -> dict[str, Any]:
    if not body:
        raise refuse("required", "the body is the package: a gzip'd tar archive (.tgz)")
    async with part.turn:
        with tempfile.TemporaryDirectory(prefix="package-") as folder:
            path = Path(folder) / "upload.tgz"
            await asyncio.to_thread(path.write_bytes, body)
            made = await asyncio.to_thread(install, path, part.shelf)
        for package in made.packages:
            path = part.shelf / file_of(package)
            await table.put(part.store, names([package])[0], await asyncio.to_thread(path.read_bytes), datetime.now(UTC))
        await take_up(part)
    log.info("packages installed", extra={"fields": {"packages": ", ".join(names(made.packages)), "by": who}})
    return {"installed": names(made.packages), "issues": [_told(issue) for issue in made.issues]}


def _told(issue: Issue) -> dict[str, str]:
    return {"severity": issue.severity, "code": issue.code, "text": issue.text}


async def _remove(part: Packages, name: str, who: str) -> dict[str, Any]:
    async with part.turn:
        found = next((each for each in part.spec.packages if names([each]) == [name]), None)
        if found is None:
            raise refuse("not-found", "no such package is installed", status=404)
        needed = names(each for each in part.spec.packages if depends(each, found, part.spec.packages))
        if needed:
            raise conflict("other packages depend on it: " + ", ".join(needed))
        await table.remove(part.store, name, datetime.now(UTC))
        (part.shelf / file_of(found)).unlink(missing_ok=True)
        await take_up(part)
    log.info("package removed", extra={"fields": {"package": name, "by": who}})
    return {"removed": [name]}
