"""The framer finds the same blocks however the stream is split, and never loses one silently."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.mllp.framing import HEAD, Broken, Event, Frame, Framer, Noise, wrap

MESSAGE = b"MSH|^~\\&|A|B|C|D|20240101||ADT^A01|1|P|2.5\rPID|1\r"


def events_of(stream: bytes, cuts: list[int] = [], limit: int = 10_000, close: bool = True) -> list[Event]:  # noqa: B006 never changed
    framer = Framer(limit)
    found: list[Event] = []
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for low, high in itertools.pairwise(places):
        found += framer.receive(stream[low:high])
    return found + (framer.close() if close else [])


def merged(events: list[Event]) -> list[Event]:
    """Neighbouring noise counts added up: how noise is reported may depend on the splits, how much may not."""
    out: list[Event] = []
    for event in events:
        if isinstance(event, Noise) and out and isinstance(out[-1], Noise):
            out[-1] = Noise(out[-1].size + event.size)
        else:
            out.append(event)
    return out


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (wrap(b"a"), [Frame(b"a")]),
        (wrap(b"a") + wrap(b"b"), [Frame(b"a"), Frame(b"b")]),
        (b"\r\n" + wrap(b"a") + b"\r\n" + wrap(b"b") + b"\n", [Frame(b"a"), Frame(b"b")]),
        (b"\x0ba\x1c\x0bb\x1c\r", [Frame(b"a"), Frame(b"b")]),
        (b"\x0ba\x1c\n\x0bb\x1c\r", [Frame(b"a"), Frame(b"b")]),
        (b"\x0ba\x1c", [Frame(b"a")]),
        (b"xy" + wrap(b"a") + b"z", [Noise(2), Frame(b"a"), Noise(1)]),
        (wrap(b""), [Frame(b"")]),
        (b"\x0b" + MESSAGE + wrap(MESSAGE), [Broken("cut-off", MESSAGE, len(MESSAGE)), Frame(MESSAGE)]),
        (b"\x0b" + MESSAGE + b"\x1cjunk" + wrap(MESSAGE), [Frame(MESSAGE), Noise(4), Frame(MESSAGE)]),
        (b"\x0b" + MESSAGE, [Broken("cut-off", MESSAGE, len(MESSAGE))]),
        (wrap(b"a\x1cb"), [Frame(b"a\x1cb")]),
        (wrap(b"a\x0bb"), [Frame(b"a\x0bb")]),
        (wrap(b"a\x1c\x1c"), [Frame(b"a")]),
        (b"xMSH|noise\r", [Noise(10)]),
        (b"\x0b\x0ba\x1c\r", [Frame(b"\x0ba")]),
        (b"\x0b\r\n" + wrap(MESSAGE), [Noise(1), Frame(MESSAGE)]),
        (b"\x0b", [Noise(1)]),
        (MESSAGE, [Broken("no-start", MESSAGE, len(MESSAGE))]),
        (wrap(b"a") + MESSAGE + b"\x1c\r" + wrap(b"b"), [Frame(b"a"), Broken("no-start", MESSAGE, len(MESSAGE)), Frame(b"b")]),
        (b"x\r\n" + MESSAGE + wrap(MESSAGE), [Noise(1), Broken("no-start", MESSAGE, len(MESSAGE)), Frame(MESSAGE)]),
        (b"MS" + wrap(b"a") + b"M", [Noise(2), Frame(b"a"), Noise(1)]),
    ],
)
def test_each_shape_of_stream_gives_its_blocks_at_every_split(stream: bytes, expected: list[Event]) -> None:
    assert merged(events_of(stream)) == expected
    assert merged(events_of(stream, list(range(len(stream))))) == expected
    for cut in range(len(stream)):
        assert merged(events_of(stream, [cut])) == expected


@given(
    st.lists(st.sampled_from([b"\x0b", b"\x1c", b"\r", b"\n", b"MSH", b"M", b"\x0bMSH", b"S", b"H", b"x" * 9, b" ", b"\x1c\r"]), max_size=40),
    st.integers(1, 40),
    st.randoms(),
)
def test_any_bytes_give_the_same_events_at_any_split(parts: list[bytes], limit: int, chance: random.Random) -> None:
    stream = b"".join(parts)
    cuts = [chance.randrange(len(stream) + 1) for _ in range(chance.randrange(6))]
    assert merged(events_of(stream, cuts, limit)) == merged(events_of(stream, [], limit))


def test_a_block_that_ended_in_fs_is_whole_after_a_silence() -> None:
    framer = Framer(100)
    assert framer.receive(b"\x0babc\x1c") == []
    assert framer.waiting
    assert framer.quiet() == [Frame(b"abc")]
    assert not framer.inside
    assert framer.receive(b"\r" + wrap(b"d")) == [Frame(b"d")]


def test_silence_within_a_block_ends_nothing() -> None:
    framer = Framer(100)
    framer.receive(b"\x0babc")
    assert not framer.waiting
    assert framer.quiet() == []
    assert framer.inside


def test_a_block_beyond_the_limit_is_skipped_without_being_kept() -> None:
    framer = Framer(50_000)
    assert framer.receive(b"\x0bMSH|") == []
    for _ in range(200):
        assert framer.receive(b"x" * 10_000) == []
        assert framer.buffered <= 50_000 + 10_001 + HEAD
    events = framer.receive(b"\x1c\r" + wrap(b"next"))
    assert events == [Broken("too-large", b"MSH|" + b"x" * (HEAD - 4), 2_000_004), Frame(b"next")]


def test_a_block_of_exactly_the_limit_passes_and_one_more_does_not() -> None:
    assert events_of(wrap(b"x" * 10), limit=10) == [Frame(b"x" * 10)]
    assert events_of(wrap(b"x" * 11), limit=10) == [Broken("too-large", b"x" * 11, 11)]


def test_a_large_block_in_small_pieces_takes_linear_time() -> None:
    framer = Framer(64 * 1024 * 1024)
    framer.receive(b"\x0b")
    piece = b"y" * 4096
    for _ in range(5000):
        assert framer.receive(piece) == []
    events = framer.receive(b"\x1c\r")
    assert isinstance(events[0], Frame)
    assert len(events[0].data) == 5000 * 4096
