"""A lean HTTP/1.1 load generator: keep-alive connections, prepared request bytes, latencies per request. Loopback only.

`python -m tests.bench.load PORT CONNECTIONS SECONDS FILE`: FILE holds requests as msgpack list of bytes, used round-robin from a random
place by each connection; with SECONDS 0 each request is sent exactly once. Prints one JSON line.
"""

import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import uvloop


@dataclass
class Tally:
    """What one run saw: latencies in seconds with the second each request ended in, statuses, bytes."""

    latencies: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    received: int = 0


class Connection(asyncio.Protocol):
    """One keep-alive connection that sends the next request as soon as an answer is complete."""

    def __init__(self, requests: Iterator[bytes], tally: Tally, deadline: float, done: asyncio.Future[None]) -> None:
        self.requests, self.tally, self.deadline, self.done = requests, tally, deadline, done
        self.buffer = b""
        self.started = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        request = next(self.requests, None)
        if request is None or (self.deadline and time.perf_counter() > self.deadline):
            self.transport.close()
            return
        self.started = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            now = time.perf_counter()
            self.tally.latencies.append(now - self.started)
            self.tally.ends.append(now)
            self.tally.statuses[int(head[9:12])] += 1
            self.tally.received += end + 4 + length
            self.buffer = self.buffer[end + 4 + length :]
            self.send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def run(port: int, connections: int, seconds: float, requests: list[bytes]) -> dict[str, object]:
    """Send and count. Returns rate, latency quantiles in milliseconds, statuses, and the rate of each tenth of the run."""
    loop = asyncio.get_running_loop()
    tally = Tally()
    started = time.perf_counter()
    deadline = started + seconds if seconds else 0.0
    endless = itertools.cycle(requests) if seconds else iter(requests)
    waits = []
    for _ in range(connections):
        done = loop.create_future()
        waits.append(done)
        await loop.create_connection(lambda done=done: Connection(endless, tally, deadline, done), "127.0.0.1", port)
    await asyncio.gather(*waits)
    return summary(tally, started, time.perf_counter())


def summary(tally: Tally, started: float, ended: float) -> dict[str, object]:
    """The figures of one run."""
    ordered = sorted(tally.latencies) or [0.0]
    count = len(tally.latencies)
    tenths = [0] * 10
    for end in tally.ends:
        tenths[min(9, int((end - started) / (ended - started) * 10))] += 1
    return {
        "requests": count,
        "seconds": round(ended - started, 3),
        "rate": round(count / (ended - started), 1),
        "p50": round(ordered[count // 2] * 1000, 3) if count else None,
        "p99": round(ordered[min(count - 1, int(count * 0.99))] * 1000, 3) if count else None,
        "statuses": {str(key): value for key, value in sorted(tally.statuses.items())},
        "bytes": tally.received,
        "tenths": [round(value / ((ended - started) / 10), 1) for value in tenths],
    }


def main(argv: list[str]) -> None:
    """Command line entry; see the module docstring."""
    port, connections, seconds, path = int(argv[0]), int(argv[1]), float(argv[2]), Path(argv[3])
    requests = msgspec.msgpack.decode(path.read_bytes(), type=list[bytes])
    print(json.dumps(uvloop.run(run(port, connections, seconds, requests))))


if __name__ == "__main__":
    main(sys.argv[1:])
