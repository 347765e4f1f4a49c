"""Collections and their indexes: created before first use, never inside a transaction.

An index that is made of what a collection holds already is sorted once and written from end to end: measured 50 µs a resource for all of a type's, where
keeping them up to date key by key costs 120 µs in a small store and 500 µs in one of 600,000 resources (DECISIONS.md). A bulk load that nobody else
shares the database with therefore creates collections without indexes (`MongoStore.later`) and ends with `build`. Where it does not come so far, the next
who opens the store makes the indexes before anything is asked, as `open_store` does with every index that is missing.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import OperationFailure

from fhir_server.query.indexes import IndexSpec, indexes
from fhir_server.store.mongo.client import Database
from fhir_server.store.mongo.guard import GUARD_SECONDS, GUARDS
from fhir_server.store.mongo.read import HISTORY

Progress = Callable[[int, int], None]
AT_ONCE = 2  # index builds: each is the work of one thread of the database, which does three at most
NAMESPACE_EXISTS = 48
REDEFINED = frozenset({85, 86})
HISTORY_INDEXES = [
    IndexModel([("t", ASCENDING), ("at", DESCENDING), ("i", ASCENDING), ("v", DESCENDING)], name="type"),
    IndexModel([("at", DESCENDING), ("t", ASCENDING), ("i", ASCENDING), ("v", DESCENDING)], name="system"),
    IndexModel([("t", ASCENDING), ("i", ASCENDING), ("v", DESCENDING)], name="versions"),
    IndexModel([("t", ASCENDING), ("k", ASCENDING)], name="tombstone_keys", partialFilterExpression={"m": "DELETE"}),
    IndexModel([("t", ASCENDING), ("p", ASCENDING)], name="tombstone_patients", partialFilterExpression={"m": "DELETE"}),
]
GUARD_INDEXES = [IndexModel([("at", ASCENDING)], name="age", expireAfterSeconds=GUARD_SECONDS)]


def is_type(collection: str) -> bool:
    """Collections named after resource types start with a capital; the exchange's own never do."""
    return collection[:1].isupper()


def _model(spec: IndexSpec) -> IndexModel:
    return IndexModel(list(spec.fields), name=spec.name, **({"sparse": True} if spec.sparse else {}))


async def create_type(database: Database, rtype: str, *, indexed: bool = True) -> None:
    """The collection of a resource type with its indexes; nothing happens where they exist. Several processes may do it at once.

    indexed False: no index that is not there already.
    """
    await _create(database, rtype, [_model(spec) for spec in indexes(rtype)] if indexed else [])


async def strip(database: Database, rtypes: Iterable[str], coming: int) -> None:
    """Drop the indexes of these types' collections if they hold less than `coming` bytes in all: made again with what comes, they cost less than kept."""
    there = sorted(set(await database.list_collection_names()) & set(rtypes))
    held = [(await database.command("collStats", rtype))["size"] for rtype in there]  # right to within a crash: it decides about the effort only
    if sum(held) < coming:
        for rtype in there:
            await database[rtype].drop_indexes()


async def build(database: Database, rtypes: Iterable[str], progress: Progress = lambda done, parts: None) -> None:
    """Make the indexes that these types' collections lack, of what they hold, some at once; progress: parts done, parts in all."""
    sizes = {rtype: await database[rtype].estimated_document_count() for rtype in rtypes}  # for the order of the work only
    parts = [(rtype, part) for rtype in sorted(sizes, key=lambda each: -sizes[each]) for part in _halves(indexes(rtype))]
    turn, done = asyncio.Semaphore(AT_ONCE), 0

    async def make(rtype: str, part: Sequence[IndexSpec]) -> None:
        nonlocal done
        async with turn:
            await _create(database, rtype, [_model(spec) for spec in part])
        done += 1
        progress(done, len(parts))

    await asyncio.gather(*(make(rtype, part) for rtype, part in parts))


def _halves(specs: Sequence[IndexSpec]) -> tuple[Sequence[IndexSpec], Sequence[IndexSpec]]:
    """The indexes of a type in two parts of about the same work, for two threads; each reads the collection once."""
    return specs[:2], specs[2:]


async def create_own(database: Database) -> None:
    """The store's own collections."""
    await _create(database, HISTORY, HISTORY_INDEXES)
    await _create(database, GUARDS, GUARD_INDEXES)


async def _create(database: Database, name: str, models: list[IndexModel]) -> None:
    try:
        await database.create_collection(name, check_exists=False)
    except OperationFailure as error:
        if error.code != NAMESPACE_EXISTS:
            raise
    try:
        if models:
            await database[name].create_indexes(models)
    except OperationFailure as error:
        if error.code not in REDEFINED:
            raise
        for model in models:
            await _index(database, name, model)


async def _index(database: Database, name: str, model: IndexModel) -> None:
    """One index; one of the same name and another definition (an earlier version's) is replaced."""
    try:
        await database[name].create_indexes([model])
    except OperationFailure as error:
        if error.code not in REDEFINED:
            raise
        await database[name].drop_index(model.document["name"])
        await database[name].create_indexes([model])
