"""Work that runs beside the requests of a process for as long as it serves. A defect in it is logged and it starts again: it never ends in silence."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

log = logging.getLogger("fhir.jobs")
PAUSE_SECONDS = 1.0  # before broken work starts again
Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(slots=True, eq=False)
class _Kept:
    """One piece of work: what starts it, what runs now, whether it may start again."""

    name: str
    work: Work
    task: "asyncio.Task[None] | None" = None
    over: bool = False

    def start(self) -> None:
        """Begin, unless the process has stopped serving meanwhile."""
        if not self.over:
            self.task = asyncio.get_running_loop().create_task(self.work())
            self.task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("%s broke off and starts again", self.name, exc_info=error)
            task.get_loop().call_later(PAUSE_SECONDS, self.start)


@contextlib.asynccontextmanager
async def beside(name: str, work: Work, stop: asyncio.Event | None = None) -> AsyncIterator[None]:
    """Runs `work` beside the block. At the block's end it is cancelled, or, where it watches an event `stop`, told to finish and waited for."""
    kept = _Kept(name, work)
    kept.start()
    try:
        yield
    finally:
        kept.over = True
        if kept.task is not None:
            if stop is not None:
                stop.set()
            else:
                kept.task.cancel()
            await asyncio.wait([kept.task])
