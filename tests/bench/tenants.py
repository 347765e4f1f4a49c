"""What tenants cost: a read of a tenant's against the same read of the exchange itself, over HTTP and in process; memory and idle work of each open tenant.

`python -m tests.bench.tenants [READS]`. The two take short turns (READS each) in one worker on one embedded database, so that the machine's moods meet both.
"""

import asyncio
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn

from fhir_server.store import embedded
from fhir_server.store.embedded import Embedded
from fhir_server.web.front import Branch, front
from fhir_server.web.http1 import GuardedProtocol
from tests.security.app import Exchange
from tests.security.tenanted import populate, token_of, world

TURNS, MANY, CALLS = 200, 10, 200_000
PATH = "/fhir/Patient/pat1"


def resident() -> float:
    """Megabytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4 / 1024


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[int]:
    """The application behind a socket, as a worker serves it; the port."""
    options: dict[str, Any] = {"http": GuardedProtocol, "ws": "none", "lifespan": "off", "access_log": False, "log_config": None}
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, **options))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await task


async def reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, token: str, many: int) -> float:
    """Seconds of this process for one read over a connection that is kept; client and server are both in it."""
    asked = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAuthorization: {token}\r\nAccept: application/fhir+json\r\n\r\n".encode()
    started = time.process_time()
    for _ in range(many):
        writer.write(asked)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        size = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(size)
    return (time.process_time() - started) / many


async def cost_of_the_way() -> None:
    """What finding the tenant by the path adds to any request: `front` before an application that does nothing."""

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        return None

    one = Branch("/t/north", nothing, nothing)
    scope = {"type": "http", "path": "/t/north" + PATH, "raw_path": b"/t/north" + PATH.encode(), "root_path": "", "headers": []}
    spent = []
    for app in (nothing, front(nothing, {"north": one})):
        started = time.process_time()
        for _ in range(CALLS):
            await app(scope, None, None)  # type: ignore[arg-type]
        spent.append((time.process_time() - started) / CALLS)
    print(f"the way to a tenant: {(spent[1] - spent[0]) * 1e6:.2f} us a request")


async def cost_of_a_read(mongod: Embedded, folder: Path, many: int) -> None:
    """The share that the way to a tenant adds to a read over HTTP."""
    async with world(mongod, folder, "a", watching=False, audit="off") as made:
        parties: list[tuple[Exchange, str]] = [(made.own, PATH), (made.by_name["a"], f"/t/{made.by_name['a'].server.place.tenant}{PATH}")]
        for one, marker in zip(parties, ("Own", "Other")):
            await populate(one[0], marker)
        tokens = [(await token_of(one))["Authorization"] for one, _ in parties]
        spent: list[list[float]] = [[], []]
        async with served(made.app) as port:
            ends = [await asyncio.open_connection("127.0.0.1", port) for _ in parties]
            for turn in range(TURNS):
                for which in (0, 1) if turn % 2 else (1, 0):
                    spent[which].append(await reads(*ends[which], parties[which][1], tokens[which], many))
            for _, writer in ends:
                writer.close()
        own, tenant = (statistics.median(each[TURNS // 10 :]) for each in spent)
        print(f"read over HTTP: the exchange's own {own * 1e6:.0f} us, a tenant's {tenant * 1e6:.0f} us: {100 * (tenant / own - 1):+.1f} %")


async def cost_of_being_open(mongod: Embedded, folder: Path) -> None:
    """Memory and idle work of open tenants, and memory when each was used."""
    async with world(mongod, folder, "first", watching=False) as made:
        await populate(made.by_name["first"], "First")
    names = [f"t{number}" for number in range(MANY)]
    before, began = resident(), time.perf_counter()
    async with world(mongod, folder, *names, watching=False) as made:
        took, opened = time.perf_counter() - began, resident()
        worked = time.process_time()
        await asyncio.sleep(5)
        idle = (time.process_time() - worked) / 5
        for name in names:
            await populate(made.by_name[name], "Used")
        print(f"{MANY} tenants: opened in {took:.1f} s, {(opened - before) / MANY:.1f} MB each, idle {100 * idle / MANY:.2f} % of a processor each")
        print(f"after each stored and was asked for resources of six types: {(resident() - before) / MANY:.1f} MB each")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        database = embedded.start(Path(name) / "data", cache_gb=0.25)
        try:
            asyncio.run(cost_of_the_way())
            asyncio.run(cost_of_a_read(database, Path(name) / "read", int(sys.argv[1]) if len(sys.argv) > 1 else 25))
            asyncio.run(cost_of_being_open(database, Path(name) / "open"))
        finally:
            database.stop()
