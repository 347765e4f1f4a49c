"""Transactions over the lean channel, at a third of PyMongo's cost or less; and inserts into several collections in one, what an audited create needs.

The commands are those of any driver (lsid, txnNumber, autocommit). While the commit is not sent, whatever fails means that nothing was written;
a commit whose answer is lost is asked for again, which the server answers with the outcome of the first.

https://github.com/mongodb/specifications/blob/master/source/transactions/transactions.md
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import bson
from bson.raw_bson import RawBSONDocument
from pymongo.errors import AutoReconnect, PyMongoError

from fhir_server.store.mongo.document import Document
from fhir_server.store.mongo.errors import TRANSIENT, UNKNOWN_COMMIT
from fhir_server.store.mongo.frame import BATCH, batched, insert
from fhir_server.store.mongo.lean import Lean, Session

AGAIN_SECONDS = (0.02, 0.1, 0.5, 1.0, 2.0)
ADMIN = "admin"  # where transactions are ended


class Unknown(AutoReconnect):
    """The commit was sent; whether it counts could not be learnt."""

    def __init__(self, text: str) -> None:
        super().__init__(text, {"errorLabels": [UNKNOWN_COMMIT]})


class Fenced(Exception):
    """The stamp may not be committed any more: nothing was written."""


class LeanFrame:
    """A transaction over the lean channel. concern: of its commit."""

    def __init__(self, lean: Lean, concern: Document) -> None:
        self.lean, self.concern = lean, concern
        self.session = lean.sessions.pop() if lean.sessions else Session()
        self.session.number += 1
        self.frame: Document = {"lsid": self.session.lsid, "txnNumber": bson.Int64(self.session.number), "autocommit": False}
        self.begun = self.over = False

    async def command(self, command: Document) -> Document:
        """See `Frame`. A lost connection means that nothing was committed: the transaction may run again."""
        framed = {**command, **self.frame}
        if not self.begun:
            framed |= {"startTransaction": True, "readConcern": {"level": "snapshot"}}
            self.begun = True
        try:
            return await self.lean.command(framed)
        except AutoReconnect as error:
            raise AutoReconnect(str(error), {"errorLabels": [TRANSIENT]}) from error

    async def rows(self, command: Document) -> list[Document]:
        """See `Frame`."""
        cursor = (await self.command(batched(command)))["cursor"]
        rows: list[Document] = cursor["firstBatch"]
        while cursor["id"]:
            collection = command.get("find") or command["aggregate"]
            cursor = (await self.command({"getMore": bson.Int64(cursor["id"]), "collection": collection, "batchSize": BATCH}))["cursor"]
            rows += cursor["nextBatch"]
        return rows

    async def commit(self) -> None:
        """See `Frame`."""
        self.over = True
        if self.begun:
            ended = {"commitTransaction": 1, **self.frame, "writeConcern": self.concern}
            await _commit(self.lean, ended)
        self.lean.sessions.append(self.session)

    async def abort(self) -> None:
        """See `Frame`."""
        if self.begun and not self.over:
            self.over = True
            await self.lean.command({"abortTransaction": 1, **self.frame}, database=ADMIN)
            self.lean.sessions.append(self.session)


async def insert_all(lean: Lean, rows: Mapping[str, Sequence[RawBSONDocument]], may_commit: Callable[[], bool], concern: Document) -> None:
    """Insert the documents of each collection, all or none. may_commit: asked before the commit.

    Raises Unknown; Fenced or any other PyMongoError: nothing was written.
    """
    frame = LeanFrame(lean, concern)
    try:
        for collection, documents in rows.items():
            await insert(frame, collection, documents)
        if not may_commit():
            raise Fenced
    except BaseException:
        with suppress(PyMongoError):  # the transaction is gone already, or ends with its lifetime
            await frame.abort()
        raise
    await frame.commit()


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
