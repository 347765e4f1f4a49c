"""Bulk load of NDJSON and Bundle files: validated, indexed, in several processes, resumable, errors listed by line.

    report = load([Path("a.ndjson")], Target(uri, "fhir", settings, base), state=Path("data/load.state"), progress=show)

A resource keeps its id; one that is stored already with the same content is skipped, with other content it becomes a new version. A block of
lines is one transaction, so a load that is stopped and started again (same `state`) repeats at most the blocks under way, without effect.
A load that has the database for itself (`Target.alone`) makes the indexes of new collections, and of those it more than doubles, at its end, in one go;
so does the next who opens the store if it did not come so far (store/mongo/indexes.py).
No resource's content appears in errors or logs.
"""

import asyncio
import gc
import json
import multiprocessing
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from multiprocessing.queues import Queue
from pathlib import Path

from conformance.codec import decode
from conformance.outcome import Refusal, bad_request
from conformance.shelf import installed
from conformance.spec import load_spec
from fhir_server.context import Context, Grant, Resource, Right
from fhir_server.interactions.audited import records
from fhir_server.interactions.commit import Draft, draft, onto
from fhir_server.interactions.profiles import renew
from fhir_server.jobs.reindex import Reindexer, refresh
from fhir_server.query.indexes import BULK
from fhir_server.security.register import settled
from fhir_server.settings import Settings
from fhir_server.store import Stored, Tx
from fhir_server.store.mongo.client import Database, connect, database
from fhir_server.store.mongo.errors import surfaced
from fhir_server.store.mongo.indexes import build, is_type, strip
from fhir_server.store.mongo.store import MongoStore, open_store
from fhir_server.terms import terms_of

BLOCK_BYTES = 1_000_000
MOST_ERRORS = 10_000  # kept; more are only counted
META = ("versionId", "lastUpdated")
LARGE_BYTES = 50_000_000  # about 70,000 resources: for less, indexes that are there are kept
STORED_BYTES = 3  # of a stored document and its index, for a byte of NDJSON


@dataclass(frozen=True, slots=True)
class Target:
    """Where to load to: database URI and name, settings (validation level), own base URL. alone: no other process has the database open meanwhile."""

    uri: str
    name: str
    settings: Settings
    base: str
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """Lines of a file: bytes [start, end), the number of the first line; a Bundle file is one block of all its entries (end -1)."""

    path: str
    start: int
    end: int
    line: int


@dataclass(slots=True)
class Report:
    """What happened so far. errors: (file, line or entry, what is wrong); indexed: parts of the indexes made at the end, of how many."""

    loaded: int = 0
    skipped: int = 0
    failed: int = 0
    blocks: int = 0
    total_bytes: int = 0
    done_bytes: int = 0
    errors: list[tuple[str, int, str]] = field(default_factory=list)
    indexed: tuple[int, int] = (0, 0)


Progress = Callable[[Report], None]
Done = tuple[Block, int, int, list[tuple[str, int, str]]]


def load(paths: Sequence[Path], target: Target, *, processes: int = 2, state: Path | None = None, progress: Progress = lambda report: None) -> Report:
    """Load files; returns the report, errors in it. state: file that remembers finished blocks. Raises OSError for an unreadable file."""
    blocks = [block for path in paths for block in blocks_of(path)]
    finished = _finished(state)
    report = Report(total_bytes=sum(Path(path).stat().st_size for path in paths))
    report.done_bytes = sum(_size(block) for block in blocks if (block.path, block.start) in finished)
    waiting = [block for block in blocks if (block.path, block.start) not in finished]
    left = report.total_bytes - report.done_bytes
    if target.alone and left >= LARGE_BYTES:
        asyncio.run(_on_database(target, lambda there: strip(there, BULK, left * STORED_BYTES)))
    context = multiprocessing.get_context("spawn")
    tasks: Queue[Block | None] = context.Queue()
    answers: Queue[Done | str] = context.Queue()
    for task in (*waiting, *[None] * processes):
        tasks.put(task)
    workers = [context.Process(target=work, args=(target, tasks, answers), daemon=True) for _ in range(processes)]
    for worker in workers:
        worker.start()
    try:
        _collect(report, len(waiting), answers, state, progress)
    finally:
        for worker in workers:
            worker.join(timeout=10)
            worker.terminate()
    if target.alone:
        asyncio.run(_on_database(target, partial(_index, report, progress)))
    return report


async def _on_database(target: Target, act: Callable[[Database], Awaitable[None]]) -> None:
    client = connect(target.uri)
    try:
        with surfaced():
            await act(database(client, target.name))
    finally:
        await client.close()


async def _index(report: Report, progress: Progress, there: Database) -> None:
    """Make the indexes that the loading processes left out."""

    def note(done: int, parts: int) -> None:
        report.indexed = (done, parts)
        progress(report)

    await build(there, [name for name in await there.list_collection_names() if is_type(name)], note)


def _size(block: Block) -> int:
    return Path(block.path).stat().st_size if block.end < 0 else block.end - block.start


def _finished(state: Path | None) -> set[tuple[str, int]]:
    if state is None or not state.exists():
        return set()
    return {(row[0], row[1]) for row in (json.loads(line) for line in state.read_text("utf-8").splitlines())}


def _collect(report: Report, count: int, answers: "Queue[Done | str]", state: Path | None, progress: Progress) -> None:
    for _ in range(count):
        answer = answers.get()
        if isinstance(answer, str):
            raise RuntimeError(f"a loading process failed: {answer}")
        block, loaded, skipped, errors = answer
        report.loaded += loaded
        report.skipped += skipped
        report.failed += len(errors)
        report.blocks += 1
        report.done_bytes += _size(block)
        report.errors += errors[: max(MOST_ERRORS - len(report.errors), 0)]
        if state is not None:
            with state.open("a", encoding="utf-8") as out:
                out.write(json.dumps([block.path, block.start]) + "\n")
        progress(report)


def blocks_of(path: Path) -> Iterator[Block]:
    """The blocks of a file: whole lines of about BLOCK_BYTES; a `.json` file is one Bundle (or one resource)."""
    if path.suffix == ".json":
        yield Block(str(path), 0, -1, 1)
        return
    start = line = 0
    with path.open("rb") as source:
        while chunk := source.read(BLOCK_BYTES):
            chunk += source.readline()
            yield Block(str(path), start, start + len(chunk), line + 1)
            start += len(chunk)
            line += chunk.count(b"\n")


def work(target: Target, tasks: "Queue[Block | None]", answers: "Queue[Done | str]") -> None:
    """A loading process: blocks in, counts and errors out; the reason as text if the process cannot go on."""
    try:
        asyncio.run(_work(target, tasks, answers))
    except (Refusal, OSError, RuntimeError) as error:
        answers.put(f"{type(error).__name__}: {error}")


async def _work(target: Target, tasks: "Queue[Block | None]", answers: "Queue[Done | str]") -> None:
    later = BULK if target.alone else frozenset[str]()
    store = await open_store(target.uri, name=target.name, transaction_seconds=target.settings.transaction_seconds, later=later)
    ctx = context_of(target, store)
    try:
        await refresh(Reindexer(ctx, store.database))
        await renew(ctx)
        pending: asyncio.Task[Done] | None = None
        written: set[str] = set()
        while True:
            block = await asyncio.to_thread(tasks.get)
            if block is None:
                break
            errors: list[tuple[str, int, str]] = []
            drafts = list(_drafts(ctx, block, errors))  # while the block before is being written
            if not written:  # what the first block's types were compiled to stays: walking it with every block was a tenth of the CPU
                gc.freeze()
            written |= {one.change.rtype for one in drafts}
            if pending is not None:
                answers.put(await pending)
            pending = asyncio.create_task(_write(ctx, store, block, drafts, errors))
            await asyncio.sleep(0)
        if pending is not None:
            done = await pending
            await settled(ctx, written)  # a consent counts before the load has ended
            answers.put(done)
    finally:
        await store.close()


def context_of(target: Target, store: MongoStore) -> Context:
    """The loader acts as an administrator of the system."""
    grant = Grant("load", "load", (Right("*", frozenset("cruds")),), admin=True)
    spec = load_spec(installed(target.settings.data_dir / "packages"))
    return Context(
        "load",
        grant,
        store,
        spec,
        terms_of(target.settings, spec),
        target.settings,
        target.base,
        "load",
        datetime.now(UTC),
    )


def _drafts(ctx: Context, block: Block, errors: list[tuple[str, int, str]]) -> Iterator[Draft]:
    for line, data in _lines(block):
        try:
            resources = list(_entries(decode(data)))
        except Refusal as refusal:
            errors.append((block.path, line, _told(refusal)))
            continue
        for at, res in enumerate(resources):
            try:
                yield _draft(ctx, res)
            except Refusal as refusal:
                errors.append((block.path, line if len(resources) == 1 else at + 1, _told(refusal)))


def _told(refusal: Refusal) -> str:
    return "; ".join(f"{issue.expression}: {issue.text}" if issue.expression else issue.text for issue in refusal.issues[:5])


def _lines(block: Block) -> Iterable[tuple[int, bytes]]:
    with open(block.path, "rb") as source:
        source.seek(block.start)
        if block.end < 0:
            return [(1, source.read())]
        lines = source.read(block.end - block.start).split(b"\n")
    return [(block.line + at, line) for at, line in enumerate(lines) if line.strip()]


def _entries(res: Resource) -> Iterator[Resource]:
    """The resources of a Bundle that only carries them; else the resource itself."""
    if res.get("resourceType") != "Bundle" or res.get("type") not in ("collection", "transaction", "batch", "searchset"):
        yield res
        return
    for entry in res.get("entry", ()):
        if isinstance(entry, dict) and isinstance(entry.get("resource"), dict):
            yield entry["resource"]


def _draft(ctx: Context, res: Resource) -> Draft:
    rtype, rid = res.get("resourceType"), res.get("id")
    if rtype not in ctx.spec.types:
        raise bad_request("resourceType names no resource type of R4", "resourceType")
    if not isinstance(rid, str) or not rid:
        raise bad_request("the resource has no id; a bulk load keeps ids", "id")
    return draft(ctx, res, rid, "PUT")


async def _write(ctx: Context, store: MongoStore, block: Block, drafts: list[Draft], errors: list[tuple[str, int, str]]) -> Done:
    """One transaction for the block; a resource twice in a block counts with its last line."""
    last = {(one.change.rtype, one.change.rid): one for one in drafts}

    async def body(tx: Tx) -> int:
        there = await tx.get_many(list(last))
        fresh = [_onto(one, there.get(key)) for key, one in last.items()]
        changes = [one.change for one in fresh if one is not None]
        await tx.put([*changes, *records(ctx, changes)])
        return len(changes)

    loaded = await store.transact(body) if last else 0
    return block, loaded, len(drafts) - loaded, errors


def _onto(made: Draft, prior: Stored | None) -> Draft | None:
    """The draft upon what is stored; None if that has the same content."""
    if prior is None or prior.res is None:
        return onto(made, prior)
    return None if _content(prior.res) == _content(made.change.res or {}) else onto(made, prior)


def _content(res: Resource) -> Resource:
    meta = {name: value for name, value in res.get("meta", {}).items() if name not in META}
    return {**res, "meta": meta}
