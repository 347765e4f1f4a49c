"""Work on large messages beside the event loop: a report of 15,000 results takes seconds of mapping, and nobody else shall wait for it.

One thread per process: large messages take turns, and the event loop gets the interpreter back within its switch interval (5 ms).
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from mappers.v2.message import Message

P = ParamSpec("P")
T = TypeVar("T")
LARGE_BYTES = 128 * 1024
LARGE_SEGMENTS = 200
LARGE_NUMBER = 200  # resources of one message
_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="feed-large")  # it starts with its first work: after the fork


def is_large(message: Message) -> bool:
    """True for a message whose mapping takes longer than others should wait."""
    return len(message.segments) > LARGE_SEGMENTS or any(len(segment.line) > LARGE_BYTES for segment in message.segments)


async def aside(large: bool, call: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """`call(*args)`: at once, or if it is large beside the event loop. Raises what the call raises."""
    if not large:
        return call(*args, **named)
    return await asyncio.get_running_loop().run_in_executor(_THREAD, lambda: call(*args, **named))
