"""Bodies beyond MongoDB's document limit: content-addressed files in GridFS, referenced inside the transaction that needs them.

A blob is stored first; the transaction then adds its owner (`Binary/1/2`) to the file's document. A blob without an owner is what a failed
request left; `collect` removes those that are older than an hour. Adding an owner and collecting both write the file's document, so they
exclude each other. https://www.mongodb.com/docs/manual/core/gridfs/
"""

import contextlib
import hashlib
from dataclasses import dataclass
from datetime import timedelta

from gridfs.asynchronous import AsyncGridFSBucket
from gridfs.errors import FileExists, NoFile

from conformance.outcome import refuse
from fhir_server.store.mongo.client import Database
from fhir_server.store.mongo.frame import Frame, update

BUCKET = "blobs"
UNOWNED_FOR = timedelta(hours=1)
FRESH_FOR = timedelta(minutes=10)  # after a touch a blob needs no other: far from being collected


class BlobGone(Exception):
    """A blob was collected between its upload and its reference; the transaction uploads it again."""


@dataclass(frozen=True, slots=True)
class Blobs:
    """The blobs of one tenant."""

    database: Database

    async def put(self, data: bytes) -> str:
        """Store bytes durably; their SHA-256 as hex is the id. Storing the same bytes again costs a look-up."""
        digest = hashlib.sha256(data).hexdigest()
        files = self.database[f"{BUCKET}.files"]
        fresh = {"_id": digest, "$expr": {"$gt": ["$touched", {"$subtract": ["$$NOW", FRESH_FOR // timedelta(milliseconds=1)]}]}}
        if await files.find_one(fresh, {"_id": 1}) is not None:
            return digest  # not touched again: a transaction that began before would conflict with that for ever
        if await files.find_one_and_update({"_id": digest}, [{"$set": {"touched": "$$NOW"}}], {"_id": 1}) is None:
            with contextlib.suppress(FileExists):  # another request stored the same bytes at the same moment
                await AsyncGridFSBucket(self.database, BUCKET).upload_from_stream_with_id(digest, digest, data)
                await files.update_one({"_id": digest}, [{"$set": {"touched": "$$NOW"}}])
        return digest

    async def get(self, digest: str) -> bytes:
        """The bytes. Raises Refusal 500 if they are not there (a damaged store)."""
        try:
            stream = await AsyncGridFSBucket(self.database, BUCKET).open_download_stream(digest)
            return bytes(await stream.read())
        except NoFile as error:
            raise refuse("exception", "a large body is missing from the store: restore it from a backup") from error

    async def own(self, digest: str, owner: str, frame: Frame | None) -> None:
        """Reference a blob, inside the transaction if there is one. Raises BlobGone if it was collected meanwhile."""
        files, wanted, added = f"{BUCKET}.files", {"_id": digest}, {"$addToSet": {"owners": owner}}
        if frame is not None:
            matched = await update(frame, files, [{"q": wanted, "u": added}])
        else:
            matched = (await self.database[files].update_one(wanted, added)).matched_count
        if not matched:
            raise BlobGone

    async def collect(self) -> int:
        """Remove blobs that nothing has owned for UNOWNED_FOR; how many were removed."""
        files = self.database[f"{BUCKET}.files"]
        old = {"owners": {"$exists": False}, "$expr": {"$lt": ["$touched", {"$subtract": ["$$NOW", UNOWNED_FOR // timedelta(milliseconds=1)]}]}}
        removed = 0
        while (row := await files.find_one_and_delete(old, {"_id": 1})) is not None:
            await self.database[f"{BUCKET}.chunks"].delete_many({"files_id": row["_id"]})
            removed += 1
        return removed

    async def prepare(self) -> None:
        """Create the collections and their indexes outside of any transaction."""
        await self.database[f"{BUCKET}.chunks"].create_index([("files_id", 1), ("n", 1)], unique=True)
        await self.database[f"{BUCKET}.files"].create_index([("filename", 1), ("uploadDate", 1)])
