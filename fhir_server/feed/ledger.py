"""The identity documents of one transaction: loaded, matched, extended. Identity documents: {_id: key, tracks, digests}.

tracks: [{ref: 'Patient/1', patient: 'Patient/1' | '', told: numbers of `apart`}], one per patient for things that belong to a patient (two patients may
have orders of the same number). What has no number of its own (an allergy, a visit without PV1-19), or only one of a plan that thousands share, is kept per
patient: '@Patient/1|AllergyIntolerance|...'. digests: [[source, digest]] of what each source last said of a shared thing (a doctor, a ward), so that saying it again
costs nothing. Aliases of merged resources are documents 'alias|Patient/2' {ref: 'Patient/1', g: 7} of the same kind (ref '' after an undo).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from fhir_server.store import Tx
from fhir_server.store.inbox import Document, Inbox

KIND = "feed"  # the one collection of the feed's own documents: identity, aliases, states
GENERATION = "aliases"  # the document that counts the changes of aliases: {n}
MAX_CHAIN = 32
MOST_OWNED = 10_000  # things of one patient without numbers of their own
UNTOLD: Mapping[str, str] = MappingProxyType({})


def owned(key: str, patient: str) -> str:
    """The key of something that only belongs to a patient, and is none but in its papers: one document for all patients would grow with each."""
    return f"@{patient}|{key}" if patient else key


@dataclass(slots=True, eq=False)
class Ledger:
    """Identity documents as this transaction sees them."""

    inbox: Inbox
    tx: Tx | None
    documents: dict[str, Document] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    under: dict[str, str] = field(default_factory=dict)  # key by a namespace -> the universal authority that this message says with it

    async def load(self, keys: Iterable[str], others: Iterable[str] = ()) -> dict[str, Document]:
        """Have these documents at hand; `others` are further documents of the feed to read along, which are returned."""
        wanted = {key for key in keys if key not in self.documents and key not in self.missing}
        along = set(others)
        if not wanted and not along:
            return {}
        found = await self.inbox.load(self.tx, KIND, wanted | along)
        self.documents.update({key: row for key, row in found.items() if key in wanted})
        self.missing |= wanted - self.documents.keys()
        return {key: row for key, row in found.items() if key in along}

    def refs(self, key: str) -> list[str]:
        """Resources that a loaded key names."""
        return [row["ref"] for row in self.meant(key)]

    def meant(self, key: str) -> list[Document]:
        """The rows of a key; of a namespace that the message says an OID with not those that are known under another OID."""
        rows = self.documents.get(key, {}).get("tracks", ())
        universal = self.under.get(key)
        return [row for row in rows if not universal or row.get("under", universal) == universal]

    def is_taken(self, key: str) -> bool:
        """True if a key names things, but none that the message can mean."""
        return bool(self.documents.get(key, {}).get("tracks")) and not self.meant(key)

    def of_others(self, keys: Iterable[str], patient: str) -> bool:
        """True if these keys name things, but none of this patient."""
        rows = [row for key in keys for row in self.meant(key)]
        return bool(rows) and all(row["patient"] != patient for row in rows)

    def universal(self, key: str, ref: str) -> str:
        """The universal authority that the namespace of a key was said with for this resource; '' if none, or if this message says one."""
        if key in self.under:
            return ""
        return next((str(row["under"]) for row in self.documents.get(key, {}).get("tracks", ()) if row["ref"] == ref and "under" in row), "")

    async def find(self, key: str, patient: str) -> str:
        """The resource a loaded key names for this patient ('' for things of no patient); '' if there is none yet."""
        return next((str(row["ref"]) for row in await self.rows(key, patient)), "")

    async def rows(self, key: str, patient: str) -> list[Document]:
        """All that a loaded key names for this patient, what came from patients that were merged into this one behind its own."""
        tracks = self.meant(key)
        own = [row for row in tracks if row["patient"] == patient]
        return own + [row for row in tracks if row["patient"] not in ("", patient) and await self.alias(row["patient"]) == patient]

    async def alias(self, ref: str) -> str:
        """The resource that stands for this one after merges: itself if it was never merged."""
        for _ in range(MAX_CHAIN):
            key = f"alias|{ref}"
            await self.load([key])
            if not self.documents.get(key, {}).get("ref"):  # never merged, or the merge was undone
                return ref
            ref = str(self.documents[key]["ref"])
        raise RuntimeError("a chain of merges has no end")

    def keep(self, key: str, ref: str, patient: str = "", told: Mapping[str, str] = UNTOLD) -> None:
        """Let a key name this resource. told: numbers that tell it apart from others of this key (`apart`)."""
        document = self.documents.setdefault(key, {"_id": key, "tracks": []})
        row = next((row for row in document["tracks"] if row["ref"] == ref and row["patient"] == patient), None)
        under = {"under": self.under[key]} if key in self.under else {}
        if row is None:
            document["tracks"] = [*document["tracks"], {"ref": ref, "patient": patient, **({"told": dict(told)} if told else {}), **under}]
            self._touch(key)
        elif under and "under" not in row:
            document["tracks"] = [{**one, **under} if one is row else one for one in document["tracks"]]
            self._touch(key)
        elif told and (known := {**row.get("told", {}), **told}) != row.get("told"):
            document["tracks"] = [{**one, "told": known} if one is row else one for one in document["tracks"]]
            self._touch(key)

    def same(self, key: str, source: str, digest: str) -> bool:
        """True if the source said just this the last time; notes it otherwise."""
        document = self.documents.setdefault(key, {"_id": key, "tracks": []})
        said = dict(document.get("digests", ()))
        if said.get(source) == digest:
            return True
        said[source] = digest
        document["digests"] = [list(pair) for pair in said.items()]
        self._touch(key)
        return False

    def retire(self, key: str) -> None:
        """Mark a key as the number of a patient that was merged away."""
        document = self.documents.setdefault(key, {"_id": key, "tracks": []})
        if not document.get("retired"):
            document["retired"] = True
            self._touch(key)

    def is_retired(self, key: str) -> bool:
        """True if this number's patient was merged away."""
        return bool(self.documents.get(key, {}).get("retired"))

    def move(self, key: str, old: str, new: str) -> None:
        """Let a key name `new` wherever it named `old`."""
        document = self.documents.setdefault(key, {"_id": key, "tracks": []})
        swapped = [
            {**row, "ref": new if row["ref"] == old else row["ref"], "patient": new if row["patient"] == old else row["patient"]}
            for row in document["tracks"]
        ]
        document["tracks"] = [row for place, row in enumerate(swapped) if row not in swapped[:place]]
        self._touch(key)

    def reassign(self, key: str, ref: str, patient: str) -> None:
        """Let what a key names belong to another patient."""
        if key in self.documents:
            document = self.documents[key]
            document["tracks"] = [{**row, "patient": patient} if row["ref"] == ref else row for row in document["tracks"]]
            self._touch(key)

    async def hand_over(self, old: str, new: str) -> None:
        """Let what belongs to one patient be found by the messages of another, who stands for that one from now on."""
        for row in await self.inbox.beginning(self.tx, KIND, owned("", old), MOST_OWNED):
            key = owned(row["_id"].removeprefix(owned("", old)), new)
            await self.load([key])
            document = self.documents.setdefault(key, {"_id": key, "tracks": []})
            document["tracks"] = [*document["tracks"], *(track for track in row["tracks"] if track not in document["tracks"])]
            self._touch(key)

    async def point(self, retired: str, survivor: str) -> list[str]:
        """Let a resource, and all that it stood for, be stood for by another one from now on; the ids of those older alias documents.

        Every change has a number of its own (`g`), counted in one document: two merges at once exclude each other, and who has seen
        one number has seen all before it.
        """
        older = [row["_id"] for row in await self.inbox.find(self.tx, KIND, "ref", [retired], 10_000)]
        await self.load([GENERATION])
        number = self.documents.get(GENERATION, {}).get("n", 1) + 1
        for row in [{"_id": GENERATION, "n": number}, *({"_id": alias, "ref": survivor, "g": number} for alias in [*older, f"alias|{retired}"])]:
            self.documents[row["_id"]] = row
            self._touch(row["_id"])
        return older

    def adopt(self, rows: Iterable[Document]) -> None:
        """Have these documents at hand, unless they are already."""
        for row in rows:
            if row["_id"] not in self.documents:
                self.documents[row["_id"]] = row
                self.missing.discard(row["_id"])

    def _touch(self, key: str) -> None:
        self.missing.discard(key)
        self.changed.add(key)

    def to_save(self) -> list[Document]:
        """What changed."""
        return [self.documents[key] for key in sorted(self.changed)]
