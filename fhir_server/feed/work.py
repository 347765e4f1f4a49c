"""From a message to what is applied: the checks before mapping, the mapping, and the order merge - apply inside the transaction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fhir_server.feed.answers import Failed
from fhir_server.feed.apply import apply
from fhir_server.feed.aside import aside, is_large
from fhir_server.feed.documents import relate
from fhir_server.feed.items import Work, items_of
from fhir_server.feed.meeting import Applied, Means, Meeting, Write
from fhir_server.feed.merge import also_known, left_out, merge, retiring, row_of
from fhir_server.feed.sequence import opens
from fhir_server.feed.times import event_time, sortable, zone_of
from fhir_server.sources import Source
from fhir_server.store import Tx
from fhir_server.store.inbox import Entry
from mappers.v2.convert import Conversion, Facts
from mappers.v2.message import Message
from mappers.v2.problem import Problem, failed
from mappers.v2.run import Unmapped

PROCESSING = frozenset({"", "P", "T", "D", "N"})  # table 0103, https://terminology.hl7.org/CodeSystem/v2-0103 (N: education, since 2.9)


@dataclass(frozen=True, slots=True)
class Mapped:
    """A mapped message before its transaction. excluded: it is kept out of production and nothing is applied."""

    entry: str
    message: Message
    source: Source
    bundle: dict[str, Any]
    facts: Facts
    problems: tuple[Problem, ...]
    received: datetime
    excluded: bool = False
    attempt: int = 1
    unmapped: tuple[Unmapped, ...] = ()

    def work(self) -> Work:
        """Fresh items: a transaction that is retried starts again from what was mapped."""
        at = event_time(self.message, "person", zone_of(self.source.zone), self.received)
        items = items_of(self.bundle, self.facts, self.message, left_out(self.message))
        also, gone = also_known(self.message, self.source), retiring(self.message, self.source)
        occurred = self.facts.event_time if self.message.code == "ADT" else ""
        return Work(
            self.entry, self.message, self.source, items, sortable(at), self.received, self.attempt, also, gone, occurred, self.facts.namespaces
        )


def map_message(convert: Callable[[Message, Source], Conversion], entry: Entry, message: Message, source: Source) -> Mapped:
    """Check and map by `convert`, the mapper. Raises Failed with the row of the failure table that applies."""
    check(message, source)
    if source.processing and message.processing_id not in source.processing:
        note = Problem("W", "MSH^1^11", "202", "kept, but not processed: the processing id is not one of production")
        return Mapped(entry.id, message, source, {}, Facts("", ()), (*message.problems, note), entry.received, excluded=True)
    if opens(source, message):
        return Mapped(entry.id, message, source, {}, Facts("", ()), (), entry.received, attempt=entry.attempt)
    conversion = convert(message, source)
    problems = tuple(conversion.problems)  # those of the message's form among them
    if failed(list(problems)):
        raise Failed(kind_of(conversion.problems), problems)
    return Mapped(
        entry.id, message, source, conversion.bundle, conversion.facts, problems, entry.received, attempt=entry.attempt, unmapped=conversion.unmapped
    )


def check(message: Message, source: Source) -> None:
    """Raises Failed for a message that is not even to be mapped: its form, its header or its sender is not acceptable."""
    if message.header is None:
        raise Failed("unreadable", message.problems)
    if not message.control_id.strip():
        raise Failed("no-control-id", [Problem("E", "MSH^1^10", "101", "MSH-10 (message control id) is missing")])
    if source.policy:
        raise Failed("unknown-source" if source.policy == "defer" else "refused-source")
    if message.processing_id not in PROCESSING and message.processing_id not in source.processing:
        raise Failed("processing", [Problem("E", "MSH^1^11", "202", "MSH-11 (processing id) is not a code of table 0103")])
    if failed(list(message.problems)) and not opens(source, message):
        header = any(problem.severity == "E" and problem.location.startswith("MSH") for problem in message.problems)
        raise Failed("header" if header else "parse", message.problems)


def merges(message: Message) -> bool:
    """True for a message that may have let one resource stand for another."""
    row = row_of(message)
    return row is not None and not {"merge", "move"}.isdisjoint((row.patient, row.account, row.visit))


def kind_of(problems: Sequence[Problem]) -> str:
    """Unsupported types and events are rejected (AR), other mapping errors are errors (AE)."""
    codes = {problem.code for problem in problems if problem.severity == "E"}
    return "unsupported-type" if "200" in codes else "unsupported-event" if "201" in codes else "mapping"


async def apply_all(means: Means, tx: Tx, mapped: Mapped) -> Applied:
    """Everything a message does, in one transaction."""
    return await apply(means, tx, await aside(is_large(mapped.message), mapped.work), _beyond)


async def _beyond(meeting: Meeting, writes: dict[str, Write]) -> None:
    """What a message does to resources that it does not carry itself."""
    await merge(meeting, writes)
    await relate(meeting, writes)
