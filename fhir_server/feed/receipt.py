"""The first look at a message: whose it is, what makes it the same as another, and its entry for the inbox. Pure but for the clock."""

import hashlib
import itertools
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fhir_server.feed.identity import MERGED_FIELDS, PATIENT_FIELDS, patient_keys
from fhir_server.feed.sequence import link_key
from fhir_server.sources import Source
from fhir_server.store.inbox import SEPARATOR, Entry
from mappers.v2.escape import Delimiters
from mappers.v2.message import Message, parse

MAX_ORDER_KEYS = 16
LEASE = timedelta(seconds=20)
CHARSET = "charset"  # in Entry.extra
FOREVER = datetime(9999, 1, 1, tzinfo=UTC)  # 'now' for taking over what a dead process holds
_COUNTER = itertools.count(int.from_bytes(os.urandom(2), "big"))


@dataclass(frozen=True, slots=True)
class Sender:
    """How a message came: transport 'mllp' or 'http', address, certificate name, OAuth client, MLLP connection id."""

    transport: str = "http"
    address: str = ""
    certificate: str = ""
    client: str = ""
    connection: str = ""


def new_id() -> str:
    """An id that sorts by time of receipt (and, within a process, by order of receipt)."""
    return f"{time.time_ns() // 1_000_000:012x}{next(_COUNTER) % 0x10000:04x}{os.urandom(4).hex()}"


def digest(message: Message) -> str:
    """What a resend has in common with the first: everything but MSH-7, MSH-13 and trailing delimiters."""
    marks = message.delimiters
    trailing = marks.component + marks.subcomponent + marks.repetition + " "
    inner = (marks.component + marks.repetition, marks.subcomponent + marks.repetition, marks.subcomponent + marks.component)
    hashed = hashlib.sha256()
    for segment in message.segments:
        fields = segment.fields
        if segment.name == "MSH":
            fields = ["MSH", *("" if number in (7, 13) else text for number, text in enumerate(fields) if number > 2)]
        if any(pair in segment.line for pair in inner):
            fields = [_trimmed(text, marks) for text in fields]
        line = marks.field.join([text.rstrip(trailing) for text in fields])
        hashed.update(line.rstrip(marks.field).encode("utf-8", "surrogatepass") + b"\r")
    return hashed.hexdigest()


def _trimmed(text: str, marks: Delimiters) -> str:
    """A field without the delimiters at the end of its components and repetitions."""
    repetitions = text.split(marks.repetition)
    return marks.repetition.join(
        marks.component.join(part.rstrip(marks.subcomponent) for part in one.split(marks.component)).rstrip(marks.component) for one in repetitions
    )


def entry_of(message: Message, raw: bytes, source: Source, sender: Sender, owner: str, commit: bytes = b"", charset: str | None = None) -> Entry:
    """The inbox entry of a message just received; the process `owner` holds it ('': nobody yet). commit: the answer that it was stored; charset: what the
    transport said of its bytes."""
    now = datetime.now(UTC)
    received = now.replace(microsecond=now.microsecond // 1000 * 1000)
    application, facility, control_id = (message.get(f"MSH-{number}") for number in (3, 4, 10))
    content = digest(message)
    return Entry(
        id=new_id(),
        key=SEPARATOR.join([source.name, application, facility, control_id, content]),
        source=source.name,
        application=application,
        facility=facility,
        control_id=control_id,
        event="^".join(part for part in (message.code, message.trigger) if part),
        digest=content,
        received=received,
        raw=raw,
        order=order_keys(message, source),
        size=len(raw),
        processing=message.processing_id,
        transport=sender.transport,
        peer=sender.address,
        connection=sender.connection,
        owner=owner,
        until=received + LEASE if owner else None,
        commit=commit,
        extra={CHARSET: charset} if charset else {},
    )


def read(entry: Entry) -> Message:
    """The message of a stored entry, as it was read when it came."""
    return parse(entry.raw, entry.extra.get(CHARSET))


def order_keys(message: Message, source: Source) -> tuple[str, ...]:
    """Keys of all patients a message concerns, and of its numbered link: messages that share one are worked on in order of receipt."""
    link = link_key(source, message)
    keys: dict[str, None] = {link: None} if link else {}
    for segment in message.segments:
        if segment.name in ("PID", "MRG"):
            keys.update(dict.fromkeys(patient_keys(source, segment, PATIENT_FIELDS if segment.name == "PID" else MERGED_FIELDS)))
    return tuple(keys)[:MAX_ORDER_KEYS]


def unreadable_entry(raw: bytes, sender: Sender, owner: str) -> Entry:
    """The inbox entry of bytes that are no message: kept all the same."""
    now = datetime.now(UTC)
    content = hashlib.sha256(raw).hexdigest()
    return Entry(
        id=new_id(),
        key=SEPARATOR.join(["", "", "", "", content]),
        source="unreadable",
        application="",
        facility="",
        control_id="",
        event="",
        digest=content,
        received=now,
        raw=raw,
        size=len(raw),
        transport=sender.transport,
        peer=sender.address,
        connection=sender.connection,
        owner=owner,
        until=now + LEASE,
    )
