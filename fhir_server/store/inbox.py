"""The feed's part of the store: durable messages (the inbox) and the documents that feed keeps beside resources.

`store/mongo/inbox.py` implements it. An entry is one received HL7 v2 message; its raw bytes are kept for ever and unchanged. Statuses:
  received       stored, not finished (somebody may be at work on it: the lease)
  processed      its resources are committed; `answer` is what was said
  warning        like processed, with problems worth a look
  parse-error, mapping-error, store-error   answered AE or AR; a resend or a replay works on it again
  deferred       waits for a person (conflicting identity, unknown source)
  excluded       accepted but kept out of production (test or debugging processing id)
  replaced       an edited copy took its place
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Protocol

from fhir_server.store import Tx

Document = dict[str, Any]
ACCEPTED = frozenset({"processed", "warning", "excluded"})
FAILED = frozenset({"parse-error", "mapping-error", "store-error", "deferred"})
SEPARATOR = "\x1f"  # between the parts of an entry's key
REUSED = "control-id-reused"  # flag: the sender gave this control id to another message before
RESENT = "resent"  # flag: it came again after it was not accepted
RESUBMITTED = "resubmit"  # transport of a message that an operator sends again
STATUSES = frozenset({"received", "replaced"}) | ACCEPTED | FAILED


@dataclass(frozen=True, slots=True)
class Entry:
    """One message in the inbox.

    id: sorts by time of receipt; key: unique (sender, MSH-10, digest of the content); order: what must be worked on in sequence (keys of
    the patients concerned); attempt: how often work began; problems: {severity, code, place, text} without patient data; refs: versions
    written ('Observation/1/_history/2'); commit: the immediate answer of enhanced mode; answer: the (application) answer; due: the answer
    still has to be delivered; flags: 'control-id-reused', 'edited', 'resent'; origin: id of the entry this is an edited copy of.
    """

    id: str
    key: str
    source: str
    application: str
    facility: str
    control_id: str
    event: str
    digest: str
    received: datetime
    raw: bytes
    order: tuple[str, ...] = ()
    size: int = 0
    processing: str = ""
    transport: str = ""
    peer: str = ""
    connection: str = ""
    status: str = "received"
    attempt: int = 1
    owner: str = ""
    until: datetime | None = None
    event_time: datetime | None = None
    done: datetime | None = None
    problems: tuple[Mapping[str, Any], ...] = ()
    refs: tuple[str, ...] = ()
    commit: bytes = b""
    answer: bytes = b""
    due: bool = False
    flags: tuple[str, ...] = ()
    origin: str = ""
    extra: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


class Busy(Exception):
    """Another process works on this entry, or finished it meanwhile: look at it again."""


class Inbox(Protocol):
    """Durable messages and the feed's own documents of one tenant."""

    async def receive(self, entries: Sequence[Entry]) -> list[tuple[Entry, bool]]:
        """Store new entries durably, raw bytes included; where the key is known already, the stored entry and False.

        An entry whose sender and control id are those of another one (but for edited copies) is flagged `REUSED`.
        """

    async def get(self, id: str, *, raw: bool = False) -> Entry | None:
        """One entry; `raw` also loads its bytes."""

    async def claim(self, owner: str, until: datetime, now: datetime, limit: int) -> list[Entry]:
        """Take up to `limit` received entries that nobody holds, oldest first, with their bytes."""

    async def take(self, id: str, owner: str, until: datetime | None, now: datetime, *, accepted: bool = False) -> Entry | None:
        """Begin work on a failed entry, or on a received one whose lease ended before `now`; with `accepted` (a replay) on an accepted one too.

        None if somebody holds it, or it is accepted. An empty owner without `until` gives it to whoever claims it.
        """

    async def extend(self, owner: str, until: datetime, *, only: str = "", besides: Collection[str] = ()) -> int:
        """Prolong everything this owner holds, or one entry of it, or all but some; how many entries that is."""

    async def release(self, id: str, owner: str) -> None:
        """Give a received entry back without a result."""

    async def earlier(self, tx: Tx | None, entry: Entry) -> list[Entry]:
        """Received entries before this one that share an order key, oldest first."""

    async def finish(self, tx: Tx | None, entry: Entry, changes: Mapping[str, Any]) -> None:
        """Set fields (status, answer, refs ...) of an entry that this owner and attempt hold; raises Busy if they no longer do."""

    async def claim_due(self, id: str, until: datetime, now: datetime) -> bool:
        """Take it upon this process to send a due answer, until then; False if it is not due any more, or another process does."""

    async def mark(self, id: str, changes: Mapping[str, Any]) -> None:
        """Set fields of an entry whoever holds it (due, flags, status of an edited one)."""

    async def search(self, filters: Mapping[str, Any], *, after: str = "", limit: int = 50, newest_first: bool = True) -> list[Entry]:
        """Entries by source (or several), status, control_id, event, order, ref, due, received_ge, received_lt; without their bytes."""

    async def summary(self, since: datetime) -> list[Document]:
        """Per source and status: count, oldest and newest receipt, and `recent`, how many were received since."""

    async def waiting(self) -> dict[str, datetime]:
        """Per source the receipt of its oldest unfinished message."""

    async def load(self, tx: Tx | None, kind: str, ids: Iterable[str]) -> dict[str, Document]:
        """Documents of feed ('feed': identity, aliases and states; 'merges') by id."""

    async def find(self, tx: Tx | None, kind: str, name: str, values: Sequence[Any], limit: int = 1000, *, after: str = "") -> list[Document]:
        """Documents of feed whose indexed field `name` is one of `values`, by id, those behind `after`."""

    async def beginning(self, tx: Tx | None, kind: str, prefix: str, limit: int) -> list[Document]:
        """Documents whose id begins like this, in the order of their ids."""

    async def save(self, tx: Tx | None, kind: str, documents: Sequence[Document]) -> None:
        """Write these documents whole (each has `_id`), replacing what was there."""

    async def aliases(self, after: int) -> list[tuple[int, str, str]]:
        """What was merged (or not any more: survivor '') after this generation: (generation, 'Patient/2', 'Patient/1'), in order."""

    async def drop(self, tx: Tx | None, kind: str, ids: Sequence[str]) -> None:
        """Remove documents of feed."""
