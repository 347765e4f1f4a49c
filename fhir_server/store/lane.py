"""A lane that one passes at a time on this machine, among the processes forked from one parent (the server's workers), with a rest after each.

What is heavy goes through a lane, so that it takes at most a known part of the processors from its neighbours. A worker that dies in a lane
leaves it: the lock is the operating system's (a record lock of the process). https://docs.python.org/3/library/fcntl.html#fcntl.lockf
"""

import asyncio
import fcntl
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

POLL_SECONDS = 0.005


class Lane:
    """To be made at import, before workers are forked. rest: how long it stays closed after each, in times of what that took; longest: in seconds."""

    def __init__(self, rest: float, longest: float) -> None:
        self.rest, self.longest = rest, longest
        self.gate = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self.queue: deque[object] = deque()
        self.busy, self.free_at = False, 0.0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Runs its block alone in the lane, first come first served within a process."""
        ticket = object()
        self.queue.append(ticket)
        try:
            while self.queue[0] is not ticket or not self._enter():  # noqa: ASYNC110 - another process cannot set an event of this one
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self.queue.remove(ticket)
        started = time.monotonic()
        try:
            yield
        finally:
            self._leave(time.monotonic() - started)

    def _enter(self) -> bool:
        if self.busy or time.monotonic() < self.free_at:
            return False
        try:
            fcntl.lockf(self.gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        self.busy = True
        return True

    def _leave(self, took: float) -> None:
        pause = min(self.rest * took, self.longest)
        self.busy, self.free_at = False, time.monotonic() + pause
        asyncio.get_running_loop().call_later(pause, self._open)

    def _open(self) -> None:
        """Let other processes in, unless this one is in again."""
        if not self.busy:
            fcntl.lockf(self.gate, fcntl.LOCK_UN)
