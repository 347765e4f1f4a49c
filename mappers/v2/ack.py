"""Acknowledgements: AA AE AR CA CE CR with MSA and ERR, as the version of the message that is answered asks.

From 2.5 on one ERR segment per problem (ERR-2 place, ERR-3 table 0357, ERR-4 severity, ERR-8 text); before that one ERR
with a repetition of ERR-1 per problem, and MSA-3. HL7 v2.8 chapter 2, 2.9 and 2.14; v2.4 chapter 2, 2.16.5.
"""

import re
from collections.abc import Sequence
from datetime import datetime

from mappers.v2 import charset, escape
from mappers.v2.escape import Delimiters
from mappers.v2.message import Message, Segment
from mappers.v2.problem import CONDITIONS, ERROR, Problem

_VERSION = re.compile(r"2\.(\d+)")
CODES = ("AA", "AE", "AR", "CA", "CE", "CR")
MAX_ERRORS = 200


def build(message: Message, code: str, problems: Sequence[Problem], *, control_id: str, now: datetime, expected_sequence: str = "") -> bytes:
    """The acknowledgement of a message, segments ended by CR, in the message's own charset and delimiters.

    code: one of CODES; control_id: MSH-10 of the answer; now: its time (with zone). The message may be broken: what MSH lacks
    is left empty. Raises ValueError for a code that is none.
    """
    if code not in CODES:
        raise ValueError(f"no acknowledgement code: {code}")
    marks = message.delimiters
    minor = minor_version(message)
    first = sorted(problems, key=lambda problem: problem.severity != ERROR)  # what the message fails for stands before what is worth a look
    lines = [_msh(message, control_id, now, minor), _msa(message, code, first, minor, expected_sequence)]
    listed = [problem for problem in first if problem.severity != "I" or code[1] != "A"][:MAX_ERRORS]
    if listed:
        lines += [_err(problem, marks) for problem in listed] if minor >= 5 else [_old_err(listed, marks)]
    return "".join(line.rstrip(marks.field) + "\r" for line in lines).encode(message.charset, "replace")


def unreadable(problems: Sequence[Problem], *, control_id: str, now: datetime) -> bytes:
    """The answer to bytes that are no message at all: AR without a control id to name."""
    return build(Message((), Delimiters(), "utf-8", (), str), "AR", problems, control_id=control_id, now=now)


def batch(answers: Sequence[bytes], header: str, *, now: datetime, control_id: str, note: str = "", codec: str = "latin_1") -> bytes:
    """A response batch around acknowledgements. HL7 v2.8 chapter 2, 2.10.3.

    header: the raw BHS (else FHS) that is answered ('' if there was none), decoded by `codec`; note: comment of BTS-2.
    """
    return _around("BHS", "BTS", answers, header, now, control_id, note, codec)


def file(batches: Sequence[bytes], header: str, *, now: datetime, control_id: str, note: str = "", codec: str = "latin_1") -> bytes:
    """A response file around response batches; header: the raw FHS that is answered; note: comment of FTS-2."""
    return _around("FHS", "FTS", batches, header, now, control_id, note, codec)


def _around(first: str, last: str, inner: Sequence[bytes], header: str, now: datetime, control_id: str, note: str, codec: str) -> bytes:
    mark, top = _response_header(first, header, now, control_id)
    end = f"{last}{mark}{len(inner)}" + (f"{mark}{note}" if note else "") + "\r"
    order_mark = "".encode(codec)  # only at the very beginning
    return top.encode(codec, "replace") + b"".join(one.removeprefix(order_mark) for one in (*inner, end.encode(codec, "replace")))


def _response_header(name: str, header: str, now: datetime, control_id: str) -> tuple[str, str]:
    """(field separator, BHS or FHS line): sender and receiver swapped, field 12 the control id of what is answered."""
    mark = header[3:4] or "|"
    sent = header.split(mark) if header else []
    field = [sent[place] if place < len(sent) else "" for place in range(12)]
    row = [name, field[1] or "^~\\&", field[4], field[5], field[2], field[3], stamp(now), "", "", "", control_id, field[10]]
    return mark, mark.join(row).rstrip(mark) + "\r"


def minor_version(message: Message) -> int:
    """The minor version of MSH-12 as a number (2.5.1 -> 5); 5 where there is none or it cannot be read."""
    match = _VERSION.match(message.version)
    return int(match[1]) if match else 5


def stamp(now: datetime) -> str:
    """A DTM with offset, to the second."""
    return now.strftime("%Y%m%d%H%M%S%z")


def _msh(message: Message, control_id: str, now: datetime, minor: int) -> str:
    marks, header = message.delimiters, message.header
    row = [""] * 22
    row[0], row[1] = "MSH", marks.encoding_characters
    for ours, theirs in ((2, 5), (3, 6), (4, 3), (5, 4), (10, 11), (11, 12), (16, 17)):
        row[ours] = _raw(header, theirs)
    row[6] = stamp(now)
    row[8] = _type(message, minor)
    row[9] = escape.encode(control_id, marks)
    row[10] = row[10] or "P"
    row[17] = _charset(message)
    row[11] = row[11] or "2.5"
    return marks.field.join(row).rstrip(marks.field)


def _type(message: Message, minor: int) -> str:
    trigger = message.get("MSH-9.2")
    if minor < 3 or not re.fullmatch(r"[A-Z0-9]{3}", trigger):
        return "ACK"
    parts = ["ACK", trigger, "ACK"] if minor >= 4 else ["ACK", trigger]
    return message.delimiters.component.join(parts)


def _charset(message: Message) -> str:
    """MSH-18 of the answer: that of the message, empty where it names 16- or 32-bit units and the answer is not made of them."""
    declared = _raw(message.header, 18)
    return "" if charset.codec_of(declared) in charset.UNITS and not message.charset.startswith(tuple(charset.UNITS)) else declared


def _raw(header: Segment | None, number: int) -> str:
    return header.text(number) if header else ""


def _msa(message: Message, code: str, problems: Sequence[Problem], minor: int, expected: str) -> str:
    marks = message.delimiters
    text = escape.encode(problems[0].text, marks)[:80] if problems and minor < 5 else ""
    return marks.field.join(["MSA", code, _raw(message.header, 10), text, expected]).rstrip(marks.field)


def _err(problem: Problem, marks: Delimiters) -> str:
    place = _place(problem.location).replace("^", marks.component)
    text = escape.encode(problem.text, marks)
    return marks.field.join(["ERR", "", place, _condition(problem, marks, marks.component), problem.severity, "", "", "", text])


def _place(location: str) -> str:
    """ERR-2: an ERL names which segment of its name is meant, also where it is missing. HL7 v2.8 chapter 2A, 2A.3.28"""
    return f"{location}^1" if location and "^" not in location else location


def _condition(problem: Problem, marks: Delimiters, between: str) -> str:
    code = problem.code if problem.code in CONDITIONS else "207"
    return between.join([code, CONDITIONS[code], "HL70357"])


def _old_err(problems: Sequence[Problem], marks: Delimiters) -> str:
    """ERR-1 of 2.1-2.4 (ELD): segment ^ sequence ^ field ^ code & text & HL70357, repeating."""
    rows = []
    for problem in problems:
        place = [*_place(problem.location).split("^"), "", "", ""][:3]
        rows.append(marks.component.join([*place, _condition(problem, marks, marks.subcomponent)]))
    return marks.field.join(["ERR", marks.repetition.join(rows)])
