"""MLLP blocks out of a byte stream, and back: pure, no I/O, so that every way of splitting the stream can be tested.

A block is VT, content, FS, CR (HL7 MLLP release 1; http://www.hl7.org/documentcenter/public/wg/inm/mllp_transport_specification.PDF).
Real senders glue blocks together, split them anywhere, put line ends or noise between them, leave out the CR, or die within a block and
start again. What they meant is decided here, the same way wherever the stream happens to be split:

- FS ends a block if CR, LF or VT follows, or if nothing follows for a moment (`quiet`); an FS before any other byte is content.
- VT directly before `MSH`, `FHS` or `BHS` inside a block starts a new one: the old one ended at its last FS, or else was cut off (`Broken`).
- Bytes between blocks are noise: counted, never interpreted; CR, LF, blanks and NUL are not even noise, nor is a VT that another one follows.
- A line that begins with MSH between blocks is one whose VT was lost: its sender waits for an answer, so that it is `Broken`, not noise.
- A block beyond the limit is skipped to its end without being kept; its first bytes are reported so that it can be answered.
"""

import re
from dataclasses import dataclass

VT, FS, CR, LF = 0x0B, 0x1C, 0x0D, 0x0A
COMMIT_BYTES = (b"\x06", b"\x15")  # MLLP release 2: a block of ACK or NAK alone
HEAD = 4096  # bytes of a block kept to answer it when the block itself is not kept
RESTART = re.compile(rb"\x0b(?:MSH|FHS|BHS)")
START = re.compile(rb"\x0b|(?<![^\r\n])MSH")  # of a block, where the bytes begin a line; else:
START_WITHIN = re.compile(rb"\x0b|(?<=[\r\n])MSH")
HALF = re.compile(rb"(?<![^\r\n])MS?\Z")  # may become such a line
HALF_WITHIN = re.compile(rb"(?<=[\r\n])MS?\Z")
MARKS = re.compile(rb"[\x0b\x1c]")
FILLER = bytes((CR, LF, 0x20, 0x09, 0x00))


@dataclass(frozen=True, slots=True)
class Frame:
    """The content of one whole block, as sent."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Broken:
    """A block without an end (`cut-off`), without a start (`no-start`) or beyond the limit (`too-large`): its size in bytes and its first bytes."""

    reason: str
    head: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Noise:
    """So many bytes stood outside of blocks."""

    size: int


Event = Frame | Broken | Noise


def wrap(content: bytes) -> bytes:
    """One block around `content`."""
    return b"\x0b" + content + b"\x1c\r"


class Framer:
    """The state of one connection's input. `receive` bytes as they come; `quiet` after a short silence; `close` at the end."""

    def __init__(self, limit: int) -> None:
        """limit: largest content of a block in bytes."""
        self._limit = limit
        self._buffer = bytearray()
        self._scan = 0  # everything in the buffer before this place has been looked at
        self._ended = -1  # place of the last FS that was taken for content
        self._skipped = 0  # bytes of an oversized block that are no longer kept
        self._inside = False
        self._started = True  # False within a block that has no VT
        self._new_line = True  # the next byte outside of a block begins a line

    @property
    def inside(self) -> bool:
        """True within a block: the rest must come within the read time-out."""
        return self._inside

    @property
    def waiting(self) -> bool:
        """True if the block looks complete and only the byte after FS could say otherwise: call `quiet` after a short silence."""
        return self._inside and self._buffer[-1:] == b"\x1c"

    @property
    def buffered(self) -> int:
        """Bytes held."""
        return len(self._buffer)

    def receive(self, data: bytes) -> list[Event]:
        """The events that these bytes complete, in order."""
        self._buffer += data
        events: list[Event] = []
        while self._step_inside(events) if self._inside else self._step_outside(events):
            pass
        return events

    def quiet(self) -> list[Event]:
        """Nothing followed an FS for a moment: the block is complete."""
        if not self.waiting:
            return []
        events: list[Event] = []
        self._finish(len(self._buffer) - 1, len(self._buffer), events)
        return events

    def close(self) -> list[Event]:
        """The stream ended: a block that ended in FS is whole, another one was cut off."""
        events = self.quiet()
        if self._inside:
            self._abandon(len(self._buffer), events)
        self._drop_noise(len(self._buffer), events)
        return events

    def _step_outside(self, events: list[Event]) -> bool:
        found = (START if self._new_line else START_WITHIN).search(self._buffer)
        half = None if found else (HALF if self._new_line else HALF_WITHIN).search(self._buffer)
        end = found.start() if found else half.start() if half else len(self._buffer)
        started = found is not None and self._buffer[end] == VT
        self._drop_noise(end, events)
        if found is None:
            return False
        self._started = started
        del self._buffer[: 1 if self._started else 0]
        self._inside, self._scan, self._ended, self._skipped = True, 0, -1, 0
        return True

    def _drop_noise(self, end: int, events: list[Event]) -> None:
        """Leave out what stands before `end`, which is no block."""
        if not end:
            return
        noise = bytes(self._buffer[:end])
        self._new_line = noise[-1] in (CR, LF)
        meant = len(noise.translate(None, FILLER))
        if meant:
            events.append(Noise(meant))
        del self._buffer[:end]

    def _step_inside(self, events: list[Event]) -> bool:
        mark = MARKS.search(self._buffer, self._scan)
        if mark is None:
            self._scan = len(self._buffer)
            return self._shrink()
        place = mark.start()
        self._scan = place
        if self._buffer[place] == VT:
            return self._at_start(place, events)
        return self._at_end(place, events)

    def _at_start(self, place: int, events: list[Event]) -> bool:
        if RESTART.match(self._buffer, place):
            self._abandon(place, events)
            return True
        if len(self._buffer) - place < 4 and b"\x0bMSH\x0bFHS\x0bBHS".find(self._buffer[place:]) >= 0:
            return self._shrink()
        self._scan = place + 1
        return True

    def _at_end(self, place: int, events: list[Event]) -> bool:
        if place + 1 == len(self._buffer):
            return self._shrink()
        following = self._buffer[place + 1]
        if following in (CR, LF, VT):
            self._finish(place, place + (1 if following == VT else 2), events)
        else:
            self._ended, self._scan = place, place + 1
        return True

    def _finish(self, end: int, consumed: int, events: list[Event]) -> None:
        """The block's content ends before `end`; drop the buffer up to `consumed`."""
        content = bytes(self._buffer[:end])
        if self._skipped or end > self._limit:
            events.append(Broken("too-large", content[:HEAD], self._skipped + end))
        elif not self._started:
            events.append(Broken("no-start", content[:HEAD], end))
        else:
            events.append(Frame(content.rstrip(b"\x1c")))
        self._leave(consumed)

    def _abandon(self, place: int, events: list[Event]) -> None:
        """The block stops at `place` without a proper end."""
        ended = self._ended
        if ended >= 0 and not self._skipped:
            rest = place - ended - 1
            self._finish(ended, place, events)
            events.append(Noise(rest))
            return
        if not self._buffer[:place].translate(None, FILLER):
            events.append(Noise(1))  # a VT without a block
            self._leave(place)
            return
        reason = "too-large" if self._skipped else "cut-off" if self._started else "no-start"
        events.append(Broken(reason, bytes(self._buffer[: min(place, HEAD)]), self._skipped + place))
        self._leave(place)

    def _leave(self, consumed: int) -> None:
        del self._buffer[:consumed]
        self._inside, self._scan, self._ended, self._skipped = False, 0, -1, 0
        self._started = self._new_line = True

    def _shrink(self) -> bool:
        """Keep only the head and the unread tail of a block beyond the limit; always False: more bytes are needed."""
        if len(self._buffer) > self._limit + 1 and self._scan > HEAD:
            self._skipped += self._scan - HEAD
            del self._buffer[HEAD : self._scan]
            self._scan, self._ended = HEAD, -1
        return False
