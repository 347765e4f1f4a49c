"""Inserts into several collections in one transaction over the lean channel: what an audited create needs, at a third of PyMongo's cost.

The commands are those of any driver (lsid, txnNumber, autocommit). While the commit is not sent, whatever fails means that nothing was written;
a commit whose answer is lost is asked for again, which the server answers with the outcome of the first.

https://github.com/mongodb/specifications/blob/master/source/transactions/transactions.md
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument
from pymongo.errors import AutoReconnect, PyMongoError

from fhir_server.store.mongo.document import Document
from fhir_server.store.mongo.lean import Lean, Session, failures

AGAIN_SECONDS = (0.02, 0.1, 0.5, 1.0, 2.0)
ADMIN = "admin"  # where transactions are ended


class Unknown(AutoReconnect):
    """The commit was sent; whether it counts could not be learnt."""


class Fenced(Exception):
    """The stamp may not be committed any more: nothing was written."""


async def insert_all(lean: Lean, rows: Mapping[str, Sequence[RawBSONDocument]], may_commit: Callable[[], bool], concern: Document) -> None:
    """Insert the documents of each collection, all or none. may_commit: asked before the commit.

    Raises Unknown; Fenced or any other PyMongoError: nothing was written.
    """
    session = lean.sessions.pop() if lean.sessions else Session()
    session.number += 1
    frame: Document = {"lsid": session.lsid, "txnNumber": bson.Int64(session.number), "autocommit": False}
    try:
        await _insert(lean, rows, frame)
        if not may_commit():
            raise Fenced
    except BaseException:
        with suppress(PyMongoError):  # the transaction is gone already, or ends with its lifetime
            await lean.command({"abortTransaction": 1, **frame}, database=ADMIN)
        raise
    await _commit(lean, {"commitTransaction": 1, **frame, "writeConcern": concern})
    lean.sessions.append(session)


async def _insert(lean: Lean, rows: Mapping[str, Sequence[RawBSONDocument]], frame: Document) -> None:
    begin: dict[str, Any] = {"startTransaction": True, "readConcern": {"level": "snapshot"}}
    for collection, documents in rows.items():
        answer = await lean.command({"insert": collection, "documents": documents, "ordered": True, **frame, **begin})
        for failure in failures(answer, len(documents)).values():
            raise failure
        begin = {}


async def _commit(lean: Lean, command: Document) -> None:
    for pause in (*AGAIN_SECONDS, None):
        try:
            answer = await lean.command(command, database=ADMIN)
        except AutoReconnect as error:
            if pause is None:
                raise Unknown("the commit was not answered") from error
            await asyncio.sleep(pause)
        else:
            if "writeConcernError" in answer:
                raise Unknown("the commit was not acknowledged as asked")
            return
