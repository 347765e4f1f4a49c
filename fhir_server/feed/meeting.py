"""What a mapped message and the store have to do with each other while it is applied: what is decided so far, what to write, with what means."""

import hashlib
import re
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from conformance.outcome import Refusal
from fhir_server.feed.answers import FieldOf, no_field
from fhir_server.feed.items import Item, Work
from fhir_server.feed.ledger import KIND, Ledger
from fhir_server.store import Stored, Tx
from fhir_server.store.inbox import Document, Inbox
from mappers.v2.problem import Problem

Resource = dict[str, Any]
SHARED_TYPES = frozenset({"Practitioner", "PractitionerRole", "Organization", "Location", "Device", "Medication", "Substance"})
ENTRY_ID = re.compile(r"[0-9a-f]{24}")  # `receipt.new_id`: it begins with the milliseconds of receipt
RESULT_TYPES = frozenset({"Observation", "DiagnosticReport"})
STATE = KIND


@dataclass(frozen=True, slots=True)
class Write:
    """One version to write: the resource with its id, the version it supersedes (None for a new one); as_is: references to merged resources stay."""

    res: Resource
    prior: Stored | None
    as_is: bool = False


Commit = Callable[[Tx, Sequence[Write]], Awaitable[list[Stored]]]  # (transaction, versions) -> stored versions, through the one door to disk
Lookup = Callable[[Tx, str, Sequence[str]], Awaitable[list[str]]]  # (transaction, type, 'system|value' ...) -> ids of what clients created
Referrers = Callable[[Tx | None, str, int], Awaitable[list[Stored]]]  # (transaction, 'Patient/1', limit) -> resources that refer to it


@dataclass(frozen=True, slots=True)
class Means:
    """What `apply` works with."""

    inbox: Inbox
    commit: Commit
    lookup: Lookup
    referrers: Referrers
    choice: Callable[[str, str], str]  # (type, JSON name) -> element name, 'deceased[x]'
    field_of: FieldOf = no_field
    guesses: dict[str, str] = field(default_factory=dict)  # identity key -> resource it last meant: what to read along; never believed


@dataclass(frozen=True, slots=True)
class Applied:
    """refs: versions written ('Observation/1/_history/2'), the Provenance last; problems: warnings that came up."""

    refs: tuple[str, ...]
    problems: tuple[Problem, ...]


@dataclass(slots=True, eq=False)
class Invalid(Refusal):
    """A mapped resource breaks the rules: `ref` says which."""

    ref: str = ""


class Deferred(Exception):
    """A person must decide: `problems` say why."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("deferred")
        self.problems = problems


@dataclass(slots=True, eq=False)
class Meeting:
    """The state of one `apply`: what is decided so far."""

    means: Means
    tx: Tx
    work: Work
    ledger: Ledger
    refs: dict[str, str] = field(default_factory=dict)
    states: dict[str, Document] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)  # states that were looked for
    withdrawn: dict[str, str] = field(default_factory=dict)  # 'Observation/1' -> why
    late: dict[str, list[str]] = field(default_factory=dict)  # stored result -> the results it turns out to be derived from
    seen: dict[str, int] = field(default_factory=dict)

    def new_id(self, name: str) -> str:
        """An id for something new: the same on every attempt of the transaction, so that a large body that was uploaded is found again."""
        return dated_id(self.work.entry, f"{self.work.attempt}|{name}")

    def decide(self, item: Item, ref: str) -> None:
        """The item is (or becomes) this resource."""
        item.new = not ref
        item.ref = ref or f"{item.rtype}/{self.new_id(item.url)}"
        self.refs[item.url] = item.ref


def dated_id(entry: str, name: str) -> str:
    """A UUID of version 7 (RFC 9562) with the entry's time of receipt, the rest a hash: what a message makes stands together in the indexes."""
    millis = int(entry[:12], 16) if ENTRY_ID.match(entry) else 0
    rest = int.from_bytes(hashlib.blake2b(f"{entry}|{name}".encode(), digest_size=10).digest(), "big")
    return str(uuid.UUID(int=millis << 80 | 0x7 << 76 | (rest >> 68) << 64 | 0b10 << 62 | (rest & (1 << 62) - 1)))


def version(write: Write) -> str:
    """The versioned reference that a write makes: versions of one resource are numbered without gaps."""
    return f"{write.res['resourceType']}/{write.res['id']}/_history/{(write.prior.vid if write.prior else 0) + 1}"


def has_state(item: Item) -> bool:
    """True if the feed keeps a state of the resource beside it (contributions, steps of a visit)."""
    return item.rtype not in RESULT_TYPES
