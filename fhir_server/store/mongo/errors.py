"""Driver errors -> refusals: nothing of PyMongo leaves the store. Texts never hold values: server messages quote documents."""

from collections.abc import Iterator
from contextlib import contextmanager

from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConnectionFailure,
    DocumentTooLarge,
    ExecutionTimeout,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)

from conformance.outcome import Refusal, refuse, too_large, unavailable

DUPLICATE_KEY = 11000
OUT_OF_DISK_SPACE = 14031
OUT_OF_SPACE_ERRNO = 28
TOO_LARGE = frozenset({10334, 17280, 17419, 17420})
OUT_OF_TIME = frozenset({50, 202, 262})
CACHE_FULL = 388  # TransactionTooLargeForCache: together with what else runs now
STOPPING = frozenset({91, 11600, 11602, 10107, 13435, 189, 13436, 10058})
FORBIDDEN = frozenset({13, 18})
TRANSIENT = "TransientTransactionError"
UNKNOWN_COMMIT = "UnknownTransactionCommitResult"
NO_SPACE = "No space left"


def code_of(error: BaseException) -> int:
    """The server's error code, that of the first failed write of a bulk; 0 where the server gave none."""
    if isinstance(error, BulkWriteError):
        failures = error.details.get("writeErrors") or error.details.get("writeConcernErrors") or [{}]
        return int(failures[0].get("code", 0))
    return int(error.code or 0) if isinstance(error, OperationFailure) else 0


def is_duplicate(error: BaseException) -> bool:
    """A unique key is taken."""
    return code_of(error) == DUPLICATE_KEY


def as_refusal(error: PyMongoError) -> Refusal:
    """503 where waiting helps, 507 for a full disk, 413 for a document over MongoDB's limit, else 500; the text names the kind, no values."""
    code = code_of(error)
    if code in (OUT_OF_DISK_SPACE, OUT_OF_SPACE_ERRNO) or NO_SPACE in str(error):
        return refuse("no-store", "the database's disk is full: nothing was written; the operator has to make room")
    if isinstance(error, DocumentTooLarge) or code in TOO_LARGE:
        return too_large("the resource with its index is larger than the database can hold in one document")
    if isinstance(error, ServerSelectionTimeoutError | WaitQueueTimeoutError | NetworkTimeout | AutoReconnect | ConnectionFailure):
        return unavailable("the database cannot be reached now")
    if isinstance(error, ExecutionTimeout) or code in OUT_OF_TIME or error.timeout:
        return unavailable("the database did not answer in time")
    if code == CACHE_FULL:
        return unavailable("the transaction is larger than the database's cache has room for now: try again, or in smaller parts")
    if code in STOPPING or error.has_error_label(TRANSIENT) or error.has_error_label("RetryableWriteError"):
        return unavailable("the database is changing over or busy with a conflicting change")
    if is_duplicate(error):
        return refuse("conflict", "another request created the same key at the same moment")
    if code in FORBIDDEN:
        return refuse("exception", "the database refuses the exchange's user: its rights are insufficient")
    return refuse("exception", f"the database failed ({type(error).__name__}, code {code})")


@contextmanager
def surfaced() -> Iterator[None]:
    """Turns driver errors inside the block into refusals."""
    try:
        yield
    except PyMongoError as error:
        raise as_refusal(error) from error
    except TimeoutError as error:
        raise unavailable("the database did not answer in time") from error
