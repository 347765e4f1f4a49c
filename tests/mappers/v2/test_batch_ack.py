"""Batches are cut without touching a byte; acknowledgements say what and where, as their version asks."""

from datetime import UTC, datetime

import pytest

from mappers.v2 import ack, batch, message
from mappers.v2.problem import Problem

NOW = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
ONE = b"MSH|^~\\&|A|B|C|D|2024||ADT^A01|1|P|2.5\rPID|1||7\r"
TWO = b"MSH|^~\\&|A|B|C|D|2024||ADT^A08|2|P|2.5\rPID|1||8\r"
PROBLEM = Problem("E", "PID^1^3^1", "101", "PID-3 is missing")


def test_one_message_is_a_batch_of_one() -> None:
    cut = batch.split(b"\x0b" + ONE)
    assert (cut.messages, cut.batched) == ((ONE,), False)


def test_file_and_batch_segments_are_taken_off() -> None:
    cut = batch.split(b"FHS|^~\\&|F\rBHS|^~\\&|A|B|C|D|2024||||77\r" + ONE + TWO + b"BTS|2\rFTS|1\r")
    assert cut.messages == (ONE, TWO)
    assert (cut.batched, cut.closed, cut.files_counted) == (True, True, 1)
    assert cut.groups == (batch.Group("BHS|^~\\&|A|B|C|D|2024||||77", 2, 2, ended=True),)


@pytest.mark.parametrize(
    ("lines", "sizes"),
    [
        ("F B1 M T1 B2 M M T2 E2", [("B1", 1, 1), ("B2", 2, 2)]),
        ("F M M E", [("", 2, None)]),
        ("M M", [("", 2, None)]),
        ("F F B1 B2 M T1 T1 E E", [("B2", 1, 1)]),
        ("B1 M B2 M", [("B1", 1, None), ("B2", 1, None)]),
        ("B1 T0 B2 M T1", [("B1", 0, 0), ("B2", 1, 1)]),
        ("B1 M T1 M", [("B1", 1, 1), ("", 1, None)]),
        ("T1 M", [("", 1, None)]),
    ],
)
def test_every_batch_of_a_file_is_known_by_itself(lines: str, sizes: list[tuple[str, int, int | None]]) -> None:
    names = {"F": "FHS|^~\\&", "B": "BHS|^~\\&|||||||||", "T": "BTS|", "E": "FTS|", "M": ONE.decode().strip("\r")}
    body = "\r".join(names[one[0]] + one[1:] for one in lines.split())
    cut = batch.split(body.encode())
    assert [(f"B{group.header[-1:]}".rstrip("B"), group.size, group.counted) for group in cut.groups] == sizes
    assert sum(group.size for group in cut.groups) == len(cut.messages)


@pytest.mark.parametrize(
    ("body", "empty"),
    [
        ("BHS|^~\\&\rBTS|0\r", True),
        ("BHS|^~\\&\rBTS\r", True),
        ("FHS|^~\\&\rBHS|^~\\&\rBTS|\rFTS|1\r", True),
        ("FHS|^~\\&\rFTS|0\r", True),
        ("FHS|^~\\&\rFTS|2\r", False),
        ("FHS|^~\\&\r", False),
        ("BHS|^~\\&\r", False),
        ("BHS|^~\\&\rBTS|2\r", False),
        ("FHS|^~\\&\rBHS|^~\\&\r", False),
        ("", False),
    ],
)
def test_a_batch_without_messages_is_whole_if_it_ends_and_says_nothing_else(body: str, empty: bool) -> None:
    assert batch.split(body.encode()).empty == empty


def test_wide_batches() -> None:
    cut = batch.split((ONE + TWO).decode().encode("utf-16"))
    assert [message.parse(piece).control_id for piece in cut.messages] == ["1", "2"]


def test_a_response_batch_counts_and_swaps() -> None:
    out = batch.split(ack.batch([ONE, TWO], "BHS|^~\\&|A|B|C|D|2024||||77", now=NOW, control_id="9"))
    (group,) = out.groups
    assert len(out.messages) == group.counted == 2
    assert group.header == "BHS|^~\\&|C|D|A|B|20240102030405+0000||||9|77"


def answer(raw: bytes, code: str, problems: list[Problem]) -> message.Message:
    return message.parse(ack.build(message.parse(raw), code, problems, control_id="R1", now=NOW))


@pytest.mark.parametrize("code", ack.CODES)
def test_header_and_msa(code: str) -> None:
    reply = answer(b"MSH|^~\\&|A^1.2^ISO|B|C|D|2024||ADT^A01^ADT_A01|x\\T\\1|T|2.5.1||||||8859/1\r", code, [])
    got = [reply.get(f"MSH-{number}") for number in (3, 4, 5, 6, 9, 10, 11, 12, 18)]
    assert got == ["C", "D", "A^1.2^ISO", "B", "ACK^A01^ACK", "R1", "T", "2.5.1", "8859/1"]
    assert (reply.get("MSA-1"), reply.get("MSA-2")) == (code, "x&1")


def test_one_err_per_problem_from_2_5() -> None:
    reply = answer(ONE, "AE", [PROBLEM, Problem("W", "OBX^3^5", "103", "not in table | 0078")])
    first, second = reply.all("ERR")
    assert [first.get(place) for place in ("2", "3.1", "3.3", "4", "8")] == ["PID^1^3^1", "101", "HL70357", "E", "PID-3 is missing"]
    assert (second.get("2.2"), second.get("4"), second.get("8")) == ("3", "W", "not in table | 0078")
    assert reply.get("MSA-3") == ""


def test_msa_3_and_err_1_before_2_5() -> None:
    reply = answer(ONE.replace(b"2.5", b"2.3"), "AE", [PROBLEM, PROBLEM])
    assert reply.get("MSH-9") == "ACK^A01"
    assert reply.get("MSA-3") == "PID-3 is missing"
    assert [reply.get(f"ERR-1({n}).{c}") for n, c in ((1, 1), (1, 3), (2, 2))] == ["PID", "3", "1"]
    assert reply.get("ERR-1.4.1") == "101"


@pytest.mark.parametrize(("version", "told"), [(b"2.3", "PID-3 is missing"), (b"2.5", "")])
def test_what_a_message_fails_for_is_said_before_what_is_worth_a_look(version: bytes, told: str) -> None:
    many = [Problem("W", "MSH^1^18", "103", "charset")] * 300
    reply = answer(ONE.replace(b"2.5", version), "AE", [*many, PROBLEM, Problem("E", "PV1", "100", "PV1 is missing")])
    assert reply.get("MSA-3") == told
    first, second = ("ERR-2.1", "ERR(2)-2.2") if version == b"2.5" else ("ERR-1.1", "ERR-1(2).2")
    assert (reply.get(first), reply.get(second)) == ("PID", "1"), "and a missing segment has its occurrence too"


@pytest.mark.parametrize("raw", [b"", b"junk", b"MSH|", b"MSH|^~\\&|\xff\xfe"])
def test_even_broken_bytes_get_an_answer(raw: bytes) -> None:
    reply = answer(raw, "AR", [Problem("E", "", "100", "no MSH")])
    assert reply.get("MSA-1") == "AR"
    assert [problem for problem in reply.problems if problem.severity == "E"] == []


@pytest.mark.parametrize("raw", [b"", b"junk", b"PID|1\r", b"\xff\xfe", b"FHS|^~\\&\rFTS|0\r"])
def test_bodies_without_a_message_give_none(raw: bytes) -> None:
    assert batch.split(raw).messages == ()
