"""What is said to the sender: which failure answers AE, AR or nothing (table `failures.csv`), and the bytes of the answer.

AE says that the message itself must change (or a person decide); AR that it may be accepted at another time or by another system, which for
a store failure invites a resend. In enhanced mode the immediate answer is CA once the message is stored, CE or CR otherwise.
HL7 v2.8 chapter 2, 2.9.2 and tables 0008, 0155.
"""

import csv
import itertools
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from conformance.outcome import Issue
from mappers.v2 import ack
from mappers.v2.batch import Batch, Group
from mappers.v2.message import Message, Segment, parse
from mappers.v2.problem import Problem, erl

MOST_ROWS = 500  # problems of one message that are kept
COMMIT = MappingProxyType({"AA": "CA", "AE": "CE", "AR": "CR"})


@dataclass(frozen=True, slots=True)
class Failure:
    """One row of the table: the status the message gets in the inbox, the acknowledgement code, a condition of table 0357 and its text."""

    status: str
    code: str
    condition: str
    text: str


def _table() -> Mapping[str, Failure]:
    with Path(__file__).with_name("failures.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return MappingProxyType({row["failure"]: Failure(row["status"], row["code"], row["condition"], row["text"]) for row in rows})


FAILURES = _table()


class Failed(Exception):
    """A message cannot be accepted: `kind` is a row of the table, `problems` what is wrong (the row's own text if none are given)."""

    def __init__(self, kind: str, problems: Sequence[Problem] = (), expected: str = "") -> None:
        super().__init__(kind)
        self.failure = FAILURES[kind]
        self.problems = tuple(problems) or (Problem("E", "", self.failure.condition, self.failure.text),)
        self.expected = expected


def new_control_id() -> str:
    """MSH-10 of an answer: unique, 20 characters."""
    return uuid.uuid4().hex[:20].upper()


def answer(message: Message, code: str, problems: Sequence[Problem], expected: str = "") -> bytes:
    """An acknowledgement of a message."""
    return ack.build(message, code, problems, control_id=new_control_id(), now=datetime.now(UTC), expected_sequence=expected)


def batched(given: Sequence[bytes | None], asked: Batch) -> bytes:
    """What answers a batch, several, or a file of them: for each a response batch with the answers to its messages (given, None where a sender wants none).

    One that says in BTS-1 or FTS-1 how many it holds and holds others is told so.
    """
    now, rest = datetime.now(UTC), iter(given)
    batches = []
    for group in asked.groups or ([] if asked.file_header else [Group()]):
        inside = [one for one in itertools.islice(rest, group.size) if one is not None]
        note = _miscounted("BTS-1", group.counted, group.size, "messages")
        batches.append(ack.batch(inside, group.header or asked.file_header, now=now, control_id=new_control_id(), note=note, codec=asked.codec))
    if not asked.file_header and len(batches) == 1:
        return batches[0]
    note = _miscounted("FTS-1", asked.files_counted, len(batches), "batches")
    return ack.file(batches, asked.file_header, now=now, control_id=new_control_id(), note=note, codec=asked.codec)


def _miscounted(field: str, said: int | None, came: int, what: str) -> str:
    return "" if said in (None, came) else f"{field} says {said} {what}, {came} came"


def reject(head: bytes, reason: str) -> bytes | None:
    """The answer to a block that could not be taken (`reason` is a row of the table); its first bytes may hold MSH."""
    failure = FAILURES[reason]
    problem = Problem("E", "", failure.condition, failure.text)
    start = head.find(b"MSH")
    if start < 0:
        return ack.unreadable([problem], control_id=new_control_id(), now=datetime.now(UTC))
    line, ended, _ = head[start:].replace(b"\n", b"\r").partition(b"\r")
    if not ended:
        line = line.rpartition(line[3:4] or b"|")[0]  # half a control id would name another message
    return answer(parse(line), failure.code, [problem])


def as_rows(problems: Sequence[Problem]) -> tuple[dict[str, Any], ...]:
    """Problems as the inbox keeps them."""
    return tuple({"severity": one.severity, "code": one.code, "place": one.location, "text": one.text} for one in problems[:MOST_ROWS])


FieldOf = Callable[[str, str, str], int]  # (segment, type, element) -> the field that fills it, 0 if no table says


def no_field(segment: str, rtype: str, element: str) -> int:
    """A `FieldOf` that knows no fields."""
    return 0


def of_issues(issues: Sequence[Issue], segment: Segment | None, field_of: FieldOf) -> list[Problem]:
    """Problems of a mapped resource that breaks the rules: the rule, the FHIR element, and the v2 place that filled it."""
    found = []
    for issue in issues:
        if issue.severity in ("error", "fatal"):
            rtype, _, rest = issue.expression.partition(".")
            element = re.split(r"[.\[]", rest, maxsplit=1)[0]
            place = erl(segment.name, segment.occurrence, field_of(segment.name, rtype, element)) if segment is not None else ""
            where = f" ({issue.expression})" if issue.expression else ""
            found.append(Problem("E", place, "103" if issue.code == "code-invalid" else "102", f"{issue.text}{where}"))
    return found
