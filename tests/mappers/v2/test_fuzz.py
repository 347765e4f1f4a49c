"""Mutated messages: no crash, no hang, always a Conversion and an acknowledgement. HL7 v2.8 chapter 2."""

import random
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mappers.v2 import ack, batch, convert, message, tables
from tests.bench.v2 import typical

NOW = datetime(2024, 1, 2, tzinfo=UTC)
BASES = [
    typical(),
    b"MSH|^~\\&|A|B|C|D|20240101||ADT^A01|1|P|2.5\rEVN|A01|20240101\rPID|1||7^^^H^MR||Doe^J||19700101|M|||1 St^^T||^PRN^PH^^1^2^3\rNK1|1|D^M|SPO\rPV1|1|I|W^R^B||||1^A\rAL1|1|DA|x|SV|rash\rDG1|1||I10^H^I10C\rIN1|1|P|C|N\r",
    b"MSH|^~\\&|A|B|C|D|20240101||ORU^R01|1|P|2.5.1|||||||UNICODE UTF-8\rPID|1||7\rOBR|1|1|2|3^x^L\rOBX|1|ED|4^d^L||A^AP^PDF^Base64^JVBERi0=||||||F\rOBX|2|SN|5^s^L||>^1^:^2|u\rOBX|3|NA|6^s^L||1^2~3^4\rNTE|1||a\\.br\\b\r",
    b"MSH|^~\\&|A|B|C|D|20240101||VXU^V04|1|P|2.5.1\rPID|1||7\rORC|RE\rRXA|0|1|20240101||08^Hep^CVX|0.5|mL^^UCUM\rRXR|IM\r",
    b"MSH|^~\\&|A|B|C|D|20240101||SIU^S12|1|P|2.5.1\rSCH|1|2||||R|R|N|30|min|^^^202401010800^202401010830\rPID|1||7\rRGS|1\rAIS|1||x\rAIP|1||1^A^B\r",
    b"MSH|^~\\&|A|B|C|D|20240101||RDE^O11|1|P|2.5.1\rPID|1||7\rORC|NW|1\rRXE|^Q6H|1^d^L|1|2|mg\rTQ1|1|1|BID\rRXR|PO\r",
]
PIECES = [
    b"|",
    b"^",
    b"~",
    b"&",
    b"\\",
    b"\r",
    b"\n",
    b'""',
    b"\x00",
    b"\xff",
    b"\\X",
    b"\\X41\\",
    b"MSH|",
    b"PID|",
    b"OBX|",
    b"ORC|",
    b"9" * 40,
    b"-",
    b"(",
    b"\x0b",
    b"\x1c\r",
    b"^" * 60,
    b"|" * 80,
    b"~" * 50,
    "Ł日".encode(),
]


def mutate(raw: bytes, dice: random.Random) -> bytes:
    """A message with up to six random changes: bytes lost, doubled, put in, cut or swapped."""
    out = bytearray(raw)
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(len(out) + 1)
        size = dice.choice((1, 1, 2, 5, 20, 100))
        kind = dice.randrange(5)
        if kind == 0:
            del out[at : at + size]
        elif kind == 1:
            out[at:at] = out[at : at + size]
        elif kind == 2:
            out[at:at] = dice.choice(PIECES)
        elif kind == 3 and out:
            out[min(at, len(out) - 1)] = dice.randrange(256)
        else:
            lines = bytes(out).split(b"\r")
            dice.shuffle(lines[1:] if dice.random() < 0.7 else lines)
            out = bytearray(b"\r".join(lines))
    return bytes(out)


def judge(raw: bytes) -> None:
    """All that a feed does with bytes, purely: split, parse, convert, answer; within a second."""
    start = time.process_time()
    known = tables.load_tables()
    for piece in [*batch.split(raw).messages, raw]:
        parsed = message.parse(piece)
        done = convert.convert(parsed, known)
        assert ("entry" in done.bundle) or any(problem.severity == "E" for problem in done.problems)
        assert ack.build(parsed, "AE", done.problems, control_id="1", now=NOW).startswith(b"MSH")
    assert time.process_time() - start < 20


@pytest.mark.parametrize("seed", range(4))
def test_mutated_messages_never_crash(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(250):
        judge(mutate(dice.choice(BASES[1:]), dice))


@pytest.mark.fuzz
def test_two_hundred_thousand_mutated_messages() -> None:
    dice = random.Random(2024)
    for count in range(200_000):
        judge(mutate(BASES[0] if count % 50 == 0 else dice.choice(BASES[1:]), dice))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_after_a_header(tail: bytes) -> None:
    judge(b"MSH|^~\\&|A|B|C|D|20240101||ORU^R01|1|P|2.5\r" + tail)


@settings(max_examples=100, deadline=None)
@given(
    st.text(alphabet='^~\\&|"ABZ019.-+\r<>:/ ', max_size=120),
    st.sampled_from(["PID", "PV1", "OBX", "OBR", "ORC", "NK1", "TQ1", "RXE", "SCH", "TXA", "MRG", "IN1", "FT1", "SPM"]),
)
def test_any_fields_in_any_segment(text: str, name: str) -> None:
    judge(f"MSH|^~\\&|A|B|C|D|20240101||ORU^R01|1|P|2.5\rPID|1||7\rOBR|1\r{name}|1|{text}".encode())
