"""Collections and their indexes: created before first use, never inside a transaction."""

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import OperationFailure

from fhir_server.query.indexes import IndexSpec, indexes
from fhir_server.store.mongo.client import Database
from fhir_server.store.mongo.guard import GUARD_SECONDS, GUARDS
from fhir_server.store.mongo.read import HISTORY

NAMESPACE_EXISTS = 48
HISTORY_INDEXES = [
    IndexModel([("t", ASCENDING), ("at", DESCENDING), ("i", ASCENDING), ("v", DESCENDING)], name="type"),
    IndexModel([("at", DESCENDING), ("t", ASCENDING), ("i", ASCENDING), ("v", DESCENDING)], name="system"),
    IndexModel([("t", ASCENDING), ("i", ASCENDING), ("v", DESCENDING)], name="tombstones", partialFilterExpression={"m": "DELETE"}),
]
GUARD_INDEXES = [IndexModel([("at", ASCENDING)], name="age", expireAfterSeconds=GUARD_SECONDS)]


def is_type(collection: str) -> bool:
    """Collections named after resource types start with a capital; the exchange's own never do."""
    return collection[:1].isupper()


def _model(spec: IndexSpec) -> IndexModel:
    return IndexModel(list(spec.fields), name=spec.name, **({"sparse": True} if spec.sparse else {}))


async def create_type(database: Database, rtype: str) -> None:
    """The collection of a resource type with its indexes; nothing happens where they exist. Several processes may do it at once."""
    await _create(database, rtype, [_model(spec) for spec in indexes(rtype)])


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
    if models:
        await database[name].create_indexes(models)
