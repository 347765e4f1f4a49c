"""Mutated frames over a real socket: every block is answered, or the connection is closed for a counted reason; nothing crashes or hangs.

After each mutated stretch comes a good message with a control id of its own: its answer shows that the connection still understands.
`python -m tests.mllp.fuzz FIRST [SEEDS]` sends 1,000 frames for each of SEEDS seeds from FIRST on, and prints what became of them.
"""

import asyncio
import logging
import random
import sys
import time
from collections import Counter

from fhir_server.feed.answers import reject
from fhir_server.feed.intake import receive
from fhir_server.feed.receipt import Sender
from fhir_server.mllp.framing import wrap
from fhir_server.mllp.listener import Door, Peer, Stored, open_door
from fhir_server.settings import Settings
from tests.feed.exchange import Exchange, adt, obr, obx, oru, pid, pv1

FRAMES = 1000  # for each seed of a run by hand
FRESH = 50  # messages until the feed behind the door is a new, empty one
BASES = [
    adt("A01", pid("1"), pv1()).encode(),
    adt("A40", pid("1"), "MRG|2^^^HOSP^MR").encode(),
    oru(pv1(), obr(), obx("K", "4.1", kind="NM", unit="mmol/L"), obx("T", "text")).encode(),
    adt("A08", pid("3", "MÜLLER^JÖRG"), msh_rest="|||AL|AL||8859/1").encode("latin-1"),
    b"BHS|^~\\&|A|B\r" + adt("A08", pid("4")).encode() + b"BTS|1\r",
]
BYTES = (b"\x0b", b"\x1c", b"\r", b"\n", b"\x1c\r", b"\x0bMSH", b"|", b"^", b"~", b"\\", b"&", b"\x00", b"\xff", b'""', b"MSH|^~\\&|")


def mutated(dice: random.Random) -> bytes:
    """One or two framed messages with a few things wrong, in the framing as often as in the content."""
    data = bytearray(b"".join(wrap(dice.choice(BASES)) for _ in range(dice.choice((1, 1, 2)))))
    for _ in range(dice.randint(1, 6)):
        place = dice.randrange(len(data) + 1)
        kind = dice.randrange(6)
        if kind == 0:
            data[place:place] = dice.choice(BYTES)
        elif kind == 1:
            del data[place : place + dice.choice((1, 1, 2, 20, 200))]
        elif kind == 2 and place < len(data):
            data[place] = dice.randrange(256)
        elif kind == 3:
            data[place:place] = data[place : place + 30] * dice.choice((1, 2, 50))
        elif kind == 4:
            data[place:place] = bytes(dice.randrange(256) for _ in range(dice.randint(1, 40)))
        else:
            data[:] = data[: max(place, 1)]
        if not data:
            data += b"\x0b"
    return bytes(data)


class Probe:
    """The door, the feed behind it, and a sender that reconnects where it is closed."""

    def __init__(self, dice: random.Random) -> None:
        self.dice, self.count, self.connections, self.exchange = dice, 0, 0, Exchange()
        self.writer: asyncio.StreamWriter | None = None

    async def handle(self, raw: bytes, peer: Peer, stored: Stored) -> bytes | None:
        return await receive(self.exchange.feed, raw, Sender("mllp", peer.address, "", "", peer.connection), stored)

    async def one(self, door: Door) -> None:
        self.count += 1
        if self.count % FRESH == 0:
            self.exchange = Exchange()
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", door.port)
            self.connections += 1
        good = adt("A08", pid("99"), control=f"SYNC{self.count}").encode()
        bad = mutated(self.dice)
        self.writer.write(bad + b"\x1c\r" + wrap(good))
        answers = b""
        while b"|SYNC%d\r" % self.count not in answers:
            data = await asyncio.wait_for(self.reader.read(65536), 10)
            if not data:
                self.writer.close()
                self.writer = None
                return
            answers += data
        assert b"MSA|AA|SYNC%d\r" % self.count in answers, (bad, answers)


async def fuzz(seed: int, frames: int) -> Counter[str]:
    """Send mutated frames; the door's counters. Raises AssertionError where one was neither answered nor its connection closed for a reason."""
    probe = Probe(random.Random(seed))
    door = await open_door(Settings(mllp_port=0), probe.handle, reject)
    try:
        for _ in range(frames):
            await probe.one(door)
    finally:
        await door.close(1.0)
    assert door.counts["failures"] == 0
    assert door.counts["connections"] == probe.connections
    assert sum(number for name, number in door.counts.items() if name.startswith("closed:")) == probe.connections
    return door.counts


def main(first: int, seeds: int) -> None:
    """Seed after seed, and the sum of their counters."""
    logging.disable(logging.CRITICAL)
    counts: Counter[str] = Counter()
    begun = time.monotonic()
    for seed in range(first, first + seeds):
        counts += asyncio.run(fuzz(seed, FRAMES))
    seconds = time.monotonic() - begun
    print(f"seeds {first} to {first + seeds - 1}: {seeds * FRAMES} frames in {seconds:.0f} s", dict(sorted(counts.items())), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
