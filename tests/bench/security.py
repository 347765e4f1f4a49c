"""What a token costs: reads through the whole application with a cached token, against the same reads in open mode. `python -m tests.bench.security`.

Both run in this process on one embedded database, in turns, so that the machine's moods meet both; the share is what authorisation adds to a
read (issue 7: at most 10 %). Beside it: a token met for the first time, a token request, a sign-in.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fhir_server.store import embedded
from fhir_server.store.mongo.store import open_store
from fhir_server.web.asgi import App
from fhir_server.web.gate import Buckets, smart_grant
from tests.security.app import PASSWORD, ROOT, people_and_apps, worker

TURNS, READS = 12, 400
FORM = {"grant_type": "client_credentials", "client_id": "ehr", "client_secret": "e" * 40, "scope": "system/*.cruds"}


async def call(app: App, headers: list[tuple[bytes, bytes]]) -> int:
    """One read as the HTTP server hands it to the application; its status."""
    status = 0

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    scope = {"type": "http", "method": "GET", "path": "/fhir/Patient/one", "raw_path": b"/fhir/Patient/one", "query_string": b"", "scheme": "http"}
    await app({**scope, "headers": [(b"host", b"127.0.0.1:8080"), (b"accept", b"application/fhir+json"), *headers]}, receive, send)
    return status


async def timed(many: int, act: Callable[[], Awaitable[Any]]) -> float:
    """Seconds of CPU of this process for one call."""
    started = time.process_time()
    for _ in range(many):
        await act()
    return (time.process_time() - started) / many


async def main(folder: Path, uri: str) -> None:
    """Measure and print."""
    store = await open_store(uri, name="bench")
    smart, free = await worker(store, folder), await worker(store, folder, auth="open")
    await people_and_apps(smart)
    await free.http.put("/fhir/Patient/one", json={"resourceType": "Patient", "id": "one", "name": [{"family": "Bench"}]})
    token = (await smart.token(**FORM)).json()["access_token"]
    bearer = [(b"authorization", b"Bearer " + token.encode())]
    assert await call(smart.app, bearer) == await call(free.app, []) == 200
    with_token, without = [], []
    for _ in range(TURNS):
        without.append(await timed(READS, lambda: call(free.app, [])))
        with_token.append(await timed(READS, lambda: call(smart.app, bearer)))
    one, other = statistics.median(without), statistics.median(with_token)
    print(f"read in open mode {one * 1e6:.0f} us, with a cached token {other * 1e6:.0f} us: authorisation adds {100 * (other / one - 1):.1f} %")

    buckets, headers = Buckets(10_000_000), {"authorization": "Bearer " + token}
    known = await timed(20_000, lambda: smart_grant(headers, smart.verifier.grant, buckets))
    print(f"of that the token itself, its withdrawal check and the rate limit: {known * 1e6:.1f} us, {100 * known / one:.1f} %")

    async def cold() -> None:
        smart.verifier.state.known.clear()
        await smart.verifier.grant(token)

    verified = await timed(300, cold)
    print(f"a token met for the first time in a minute costs {verified * 1e6:.0f} us")
    print(f"a token request costs {await timed(100, lambda: smart.token(**FORM)) * 1e3:.1f} ms")

    async def sign_in() -> None:
        browser = await smart.browser().open(ROOT + "/auth/manage")
        await browser.submit(username="drdoe", password=PASSWORD)

    print(f"a sign-in costs {await timed(10, sign_in) * 1e3:.1f} ms")
    await store.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        database = embedded.start(Path(name) / "data", cache_gb=0.25)
        try:
            asyncio.run(main(Path(name), database.uri))
        finally:
            database.stop()
