"""Sending to a peer that accepts, refuses, asks for it again, is silent, talks nonsense, or hangs up: bounded, and told apart."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fhir_server.mllp.delivery import deliver
from fhir_server.mllp.framing import wrap
from fhir_server.mllp.listener import Peer, Stored
from fhir_server.mllp.sender import trusting
from tests.feed.exchange import adt, pid
from tests.mllp.test_listener import certificate, door
from tests.scenarios.test_commands import command

MESSAGE = adt("A08", pid("1"), control="OUT1").encode()
CLOSE, SILENT = b"<close>", b"<silent>"


def ack(code: str, control: str = "OUT1", rest: str = "") -> bytes:
    return wrap(f"MSH|^~\\&|A|B|C|D|20240101||ACK|1|P|2.5.1\rMSA|{code}|{control}|{rest}\r".encode())


@asynccontextmanager
async def peer(*answers: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """(port, what came): each block is answered by the next of the answers."""
    left, got, held = list(answers), [], []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        data = b""
        while not data.endswith(b"\x1c\r"):
            part = await asyncio.wait_for(reader.read(65536), 10)
            if not part:
                return
            data += part
        got.append(data)
        answer = left.pop(0)
        if answer == CLOSE:
            writer.close()
        elif answer != SILENT:
            writer.write(answer)
            await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], got
    finally:
        server.close()
        for writer in held:
            writer.close()


@pytest.mark.parametrize(
    ("answers", "code", "attempts"),
    [
        ([ack("AA")], "AA", 1),
        ([ack("CA")], "CA", 1),
        ([wrap(b"\x06") + ack("AA")], "AA", 1),
        ([wrap(b"\x15") + ack("AR"), wrap(b"\x06") + ack("AA")], "AA", 2),
        ([ack("AE", rest="wrong")], "AE", 1),
        ([ack("CE")], "CE", 1),
        ([ack("AR"), ack("AA")], "AA", 2),
        ([ack("AR"), ack("CR"), ack("AR")], "AR", 3),
        ([CLOSE, ack("AA")], "AA", 2),
        ([SILENT, ack("AA")], "AA", 2),
        ([wrap(b"garbage"), ack("AA")], "AA", 2),
        ([ack("AA", "OTHER"), ack("AA")], "AA", 2),
        ([ack("ZZ"), CLOSE, SILENT], "", 3),
    ],
    ids=[
        "AA",
        "CA",
        "committed",
        "not committed",
        "AE",
        "CE",
        "AR then AA",
        "AR for ever",
        "closes",
        "silent",
        "garbage",
        "another's",
        "nothing that counts",
    ],
)
async def test_each_answer_ends_as_it_should(answers: list[bytes], code: str, attempts: int) -> None:
    async with peer(*answers) as (port, got):
        done = await asyncio.wait_for(deliver("127.0.0.1", port, MESSAGE, seconds=0.3, pause=0.01), 10)
    assert (done.code, done.attempts) == (code, attempts)
    assert got == [wrap(MESSAGE)] * attempts, "the same bytes each time"
    assert done.accepted == (code in ("AA", "CA"))


async def test_nobody_there_is_told_not_raised(unused_tcp_port: int) -> None:
    done = await asyncio.wait_for(deliver("127.0.0.1", unused_tcp_port, MESSAGE, attempts=2, pause=0.01), 10)
    assert (done.code, done.attempts) == ("", 2)
    assert "no connection" in done.text


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    done = command("hl7v2", "send", str(tmp_path / "nothing.hl7"), "--port", "1", code=2)
    assert "nothing.hl7" in "".join(done.stderr.split()).replace("│", "")  # wherever the terminal's frame breaks the line
    assert "Traceback" not in done.stderr


async def test_a_message_is_sent_over_mutual_tls_and_not_to_a_stranger(tmp_path: Path) -> None:
    server, own, stranger = (certificate(tmp_path, name) for name in ("localhost", "lab1", "stranger"))

    async def accept(raw: bytes, peer: Peer, stored: Stored) -> bytes:
        await stored()
        return ack("AA" if peer.certificate == "lab1" else "AR")[1:-2]

    async with door(accept, mllp_tls_cert=str(server), mllp_tls_client_ca=str(own), mllp_commit_bytes=True) as opened:
        for authorities, mine, code in ((server, own, "AA"), (server, "", ""), (stranger, own, "")):
            done = await deliver("localhost", opened.port, MESSAGE, attempts=1, context=trusting(str(authorities), str(mine)))
            assert done.code == code
