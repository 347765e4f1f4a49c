"""Collections and their indexes: created before first use, never inside a transaction."""

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import OperationFailure

from fhir_server.query.indexes import IndexSpec, indexes
from fhir_server.store.mongo.client import Database
from fhir_server.store.mongo.guard import GUARD_SECONDS, GUARDS
from fhir_server.store.mongo.read import HISTORY

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
