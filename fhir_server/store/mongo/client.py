"""Connect to MongoDB: a replica set or a sharded cluster; a standalone server is refused, because it has no transactions."""

from typing import Any

from bson.codec_options import CodecOptions
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import ConfigurationError, InvalidURI, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from fhir_server.store.mongo.document import CODEC, Document
from fhir_server.store.mongo.errors import as_refusal

MAJORITY = WriteConcern(w="majority", j=True, wtimeout=20_000)  # ms; a majority that is away must not hang requests
FAST = WriteConcern(w=1)
SELECTION_MS = 5000
POOL = 64

Client = AsyncMongoClient[Document]
Database = AsyncDatabase[Document]


class WrongDatabase(ValueError):
    """The given database cannot serve the exchange; the text says why."""


def connect(uri: str, *, name: str = "fhir-exchange", selection_ms: int = SELECTION_MS, **options: Any) -> Client:
    """A client (no I/O yet). name: shown in the server's logs and operations. Raises WrongDatabase for a URI that does not parse."""
    try:
        return AsyncMongoClient(
            uri,
            appname=name[:128],
            serverSelectionTimeoutMS=selection_ms,
            connectTimeoutMS=selection_ms,
            waitQueueTimeoutMS=10_000,
            maxPoolSize=POOL,
            retryWrites=True,
            retryReads=True,
            **options,
        )
    except (ConfigurationError, InvalidURI, ValueError) as error:
        raise WrongDatabase(f"FHIR_MONGODB_URI is not a usable MongoDB URI ({type(error).__name__})") from error


async def check(client: Client) -> int:
    """The number of members that vote over a write (1 for one member or a sharded cluster seen through mongos).

    Raises WrongDatabase for a standalone server, Refusal 503 if it cannot be reached.
    """
    try:
        hello = await client.admin.command("hello")
    except PyMongoError as error:
        raise as_refusal(error) from error
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        raise WrongDatabase(
            "the MongoDB server is a standalone: the exchange needs transactions, which only a replica set or a sharded cluster has;"
            " start it with --replSet (one member is enough), or leave FHIR_MONGODB_URI empty to use the embedded one"
        )
    return max(1, len(hello.get("hosts", ())))


def database(client: Client, name: str) -> Database:
    """A tenant's database: acknowledged by the majority and journaled, read from the primary, decoded exactly."""
    return client.get_database(name, codec_options=CODEC, write_concern=MAJORITY, read_preference=ReadPreference.PRIMARY)


PLAIN: "CodecOptions[Document]" = CODEC
LOCAL = ReadConcern("local")
SNAPSHOT = ReadConcern("snapshot")
COMMITTED = ReadConcern("majority")
