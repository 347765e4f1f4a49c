"""The limits on a request's head: time and bytes, over real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn

from conformance.codec import decode
from fhir_server.web import http1
from fhir_server.web.asgi import respond


async def hello(scope, receive, send) -> None:
    await respond(send, 200, [(b"content-length", b"5")], b"hello")


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(http1, "HEAD_SECONDS", 0.3)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(hello, http=http1.GuardedProtocol, lifespan="off", log_level="error", timeout_graceful_shutdown=2))
        task = asyncio.create_task(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        yield listener.getsockname()[1]
        server.should_exit = True
        await task


async def converse(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send the parts with pauses between them; everything the server says until it closes (or 2 s)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await asyncio.sleep(pause)
    try:
        return await asyncio.wait_for(reader.read(), 2)
    finally:
        writer.close()


async def test_a_whole_request_is_answered_also_a_second_one_on_the_connection(port: int) -> None:
    request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    said = await converse(port, request, request.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"), pause=0.1)
    assert said.count(b"hello") == 2


async def test_a_head_that_trickles_in_is_cut_off_with_408(port: int) -> None:
    assert (await converse(port, b"GET / HT", b"TP/1.1\r\n", b"a: b\r\n", pause=0.1)).startswith(b"HTTP/1.1 408")


async def test_a_head_without_end_is_cut_off_with_431(port: int) -> None:
    assert (await converse(port, b"GET / HTTP/1.1\r\n", b"x: " + b"y" * 70_000)).startswith(b"HTTP/1.1 431")


async def test_a_head_without_end_is_refused_after_a_pause_in_which_nothing_is_read(port: int) -> None:
    started = asyncio.get_running_loop().time()
    said = await converse(port, b"GET /?" + b"code=x&" * 10_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 431")
    assert asyncio.get_running_loop().time() - started >= http1.PAUSE_SECONDS


@pytest.mark.parametrize(
    "sent", [b"JUMP / HTTP/1.1\r\nhost: x\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET /\x00 HTTP/1.1\r\n\r\n"]
)
async def test_what_is_no_http_is_refused_by_an_operation_outcome(port: int, sent: bytes) -> None:
    head, _, body = (await converse(port, sent)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert f"content-length: {len(body)}".encode() in head
    assert decode(body)["issue"][0]["severity"] == "fatal"
