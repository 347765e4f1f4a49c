"""The stems of index documents (query/stems.py), in collection `stems`: {_id: name, of: family, k, t}. Written before the first document that has one.

A name is made of the content, so a row is never changed, and two processes that write the same one write the same. A stem that does not fit any more
(there are MOST of its family) is written out in the documents themselves. Readers ask for the rows they do not know yet before each search of a
type that may have stems: one that stands in a document that is seen was written before it.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from pymongo.errors import AutoReconnect, DuplicateKeyError

from fhir_server.query.clauses import Clause, Index
from fhir_server.query.stems import HELD, Stem, grafted, names, spelt
from fhir_server.store import Change
from fhir_server.store.mongo.client import Database
from fhir_server.store.mongo.document import Document
from fhir_server.store.mongo.lean import Lean

STEMS = "stems"
STEMMED = frozenset({"AuditEvent"})
MOST = {"kind": 150, "caller": 40}  # a search by what they hold asks for as many keys, and the database merges up to 200 in order
MOST_REMEMBERED = 2000


@dataclass(slots=True, eq=False)
class Stems:
    """What this process knows of a database's stems. known: parts by name; families: by name; sure: names that it has written, or found written, itself."""

    database: Database
    lean: Lean | None = None
    known: dict[str, Index] = field(default_factory=dict)
    families: dict[str, str] = field(default_factory=dict)
    sure: set[str] = field(default_factory=set)
    settled_as: dict[Stem, str] = field(default_factory=dict)  # '' for one that is written out

    async def grafted(self, rtype: str, clause: Clause) -> Clause:
        """The clause as it is to be asked of this type's collection."""
        if rtype not in STEMMED:
            return clause
        await self.learn()
        return grafted(clause, self.known)

    async def spelt(self, index: Index) -> Index:
        """A stored index document with its stems written out."""
        wanted = names(index)
        if not wanted:
            return index
        if not all(name in self.known for name in wanted):
            await self.learn()
        return spelt(index, [self.known.get(name, {}) for name in wanted])

    async def settled(self, changes: Sequence[Change]) -> Sequence[Change]:
        """The changes with index documents as they are stored."""
        if not any(HELD in change.index for change in changes):
            return changes
        return [replace(change, index=await self._settled(change.index)) if HELD in change.index else change for change in changes]

    async def _settled(self, index: Index) -> Index:
        stems: tuple[Stem, ...] = index[HELD]
        found = {stem: self.settled_as[stem] if stem in self.settled_as else await self._settle(stem) for stem in stems}
        whole = {name: value for name, value in index.items() if name != HELD}
        if not all(found.values()):
            whole = spelt(index, [stem.index for stem, name in found.items() if not name])
        whole["k"] = [*whole.get("k", ()), *(name for name in found.values() if name)]
        return whole

    async def _settle(self, stem: Stem) -> str:
        """Its name, once it is certainly stored; '' if there are too many of its family."""
        name = stem.name
        if name not in self.known and not self._full(stem.family):
            await self.learn()
        if name not in self.known and self._full(stem.family):
            name = ""
        elif name not in self.sure:
            row = {"_id": name, "of": stem.family, "k": list(stem.keys), "t": list(stem.texts)}
            with suppress(DuplicateKeyError):  # it is there
                await self.database[STEMS].insert_one(row)
            self._note(row)
            self.sure.add(name)
        if len(self.settled_as) >= MOST_REMEMBERED:
            self.settled_as.clear()
        self.settled_as[stem] = name
        return name

    def _full(self, family: str) -> bool:
        return sum(one == family for one in self.families.values()) >= MOST[family]

    async def learn(self) -> None:
        """Read the stems that are not known yet."""
        for row in await self._rows({"_id": {"$nin": list(self.known)}}):
            self._note(row)

    async def _rows(self, wanted: Document) -> list[Document]:
        if self.lean is not None:
            with suppress(AutoReconnect):  # then PyMongo's way, which waits for the server
                return await self.lean.rows({"find": STEMS, "filter": wanted})
        return await self.database[STEMS].find(wanted).to_list()

    def _note(self, row: Document) -> None:
        self.known[row["_id"]] = {"k": row["k"], "t": row["t"]}
        self.families[row["_id"]] = row["of"]
