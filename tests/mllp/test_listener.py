"""The MLLP door: one answer per block, limits, time-outs, TLS, and no silent close."""

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fhir_server.mllp import handshake
from fhir_server.mllp.framing import Frame, Framer, wrap
from fhir_server.mllp.listener import Door, Handle, Peer, Stored, check_address, open_door
from fhir_server.settings import Settings


async def echo(raw: bytes, peer: Peer, stored: Stored) -> bytes | None:
    if raw != b"unstored":
        await stored()
    if raw == b"fail":
        raise KeyError("sec" + "ret")
    return None if raw == b"silent" else b"ack:" + raw + peer.certificate.encode()


def refuse(head: bytes, reason: str) -> bytes | None:
    return b"no:" + reason.encode() + b":" + head[:3]


@asynccontextmanager
async def door(handle: Handle = echo, **settings: Any) -> AsyncIterator[Door]:
    opened = await open_door(Settings(mllp_port=0, **settings), handle, refuse)
    try:
        yield opened
    finally:
        await opened.close(1.0)


class Client:
    """A test sender."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer, self.framer, self.got = reader, writer, Framer(1 << 26), []

    @classmethod
    async def to(cls, port: int, **options: Any) -> "Client":
        return cls(*await asyncio.open_connection("127.0.0.1", port, **options))

    async def ask(self, data: bytes) -> bytes:
        self.writer.write(data)
        return await self.answer()

    async def answer(self) -> bytes:
        while not self.got:
            try:
                data = await asyncio.wait_for(self.reader.read(65536), 5)
            except (ConnectionError, ssl.SSLError):
                return b"<end>"
            if not data:
                return b"<end>"
            self.got += [event.data for event in self.framer.receive(data) if isinstance(event, Frame)]
        return self.got.pop(0)


async def until(done: Any) -> None:
    for _ in range(200):
        if done():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("did not happen within two seconds")


async def test_glued_blocks_are_answered_in_order() -> None:
    async with door() as opened:
        client = await Client.to(opened.port)
        assert await client.ask(wrap(b"a") + wrap(b"b") + wrap(b"c")[:2]) == b"ack:a"
        assert await client.answer() == b"ack:b"
        assert await client.ask(wrap(b"c")[2:]) == b"ack:c"


async def test_a_block_without_final_cr_is_answered_after_a_moment() -> None:
    async with door() as opened:
        client = await Client.to(opened.port)
        assert await client.ask(b"\x0ba\x1c") == b"ack:a"


async def test_a_failure_behind_the_door_is_answered_counted_and_logged_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[str, int]] = []
    async with door() as opened:
        opened.observe = lambda what, number: told.append((what, number))
        client = await Client.to(opened.port)
        assert await client.ask(wrap(b"fail")) == b"no:failure:fai"
        assert await client.ask(wrap(b"next")) == b"ack:next"
        assert opened.counts["failures"] == 1
        assert {("connections", 1), ("frames", 1), ("failures", 1)} <= set(told)
    assert "message failed" in caplog.text
    assert "secret" not in caplog.text


async def test_a_block_beyond_the_limit_and_a_cut_off_one_are_answered() -> None:
    async with door(mllp_max_frame=1000) as opened:
        client = await Client.to(opened.port)
        assert await client.ask(wrap(b"x" * 200_000)) == b"no:too-large:xxx"
        assert await client.ask(b"\x0bMSH|1\x0bMSH|2\x1c\r") == b"no:cut-off:MSH"
        assert await client.answer() == b"ack:MSH|2"
        client.writer.write(b"\x0bMSH|3")
        client.writer.write_eof()
        assert await client.answer() == b"no:cut-off:MSH"
        await until(lambda: opened.counts["closed:end"] == 1)


async def test_a_message_without_the_start_of_a_block_is_not_left_without_an_answer() -> None:
    async with door(mllp_read_seconds=0.2) as opened:
        client = await Client.to(opened.port)
        assert await client.ask(b"MSH|1\x1c\r") == b"no:no-start:MSH"
        assert await client.ask(b"MSH|1\r") == b"no:no-start:MSH"
        assert await client.answer() == b"<end>"
        await until(lambda: opened.counts["closed:read-timeout"] == 1)
        assert opened.counts["broken:no-start"] == 2


async def test_silence_within_a_block_is_answered_and_closed_and_an_idle_connection_is_closed() -> None:
    async with door(mllp_read_seconds=0.1, mllp_idle_seconds=0.3) as opened:
        client = await Client.to(opened.port)
        assert await client.ask(b"\x0bMSH|half") == b"no:cut-off:MSH"
        assert await client.answer() == b"<end>"
        idle = await Client.to(opened.port)
        assert await idle.answer() == b"<end>"
        await until(lambda: opened.counts["closed:read-timeout"] == 1 and opened.counts["closed:idle"] == 1)


async def test_noise_without_end_closes_the_connection_and_is_counted() -> None:
    async with door() as opened:
        client = await Client.to(opened.port)
        assert await client.ask(b"n" * 100 + wrap(b"a")) == b"ack:a"
        client.writer.write(b"n" * 70_000)
        assert await client.answer() == b"<end>"
        await until(lambda: opened.counts["closed:noise"] == 1)
        assert opened.counts["noise_bytes"] > 65_536


async def test_commit_bytes_come_before_the_answer_when_asked_for_and_are_never_answered() -> None:
    async with door(mllp_commit_bytes=True) as opened:
        client = await Client.to(opened.port)
        assert await client.ask(wrap(b"a")) == b"\x06"
        assert await client.answer() == b"ack:a"
        assert await client.ask(wrap(b"\x06") + wrap(b"b")) == b"\x06"
        assert await client.answer() == b"ack:b"
        assert opened.counts["commit_bytes"] == 1


async def test_a_block_that_is_not_in_safe_storage_gets_the_commit_byte_nak() -> None:
    async with door(mllp_commit_bytes=True, mllp_max_frame=1000) as opened:
        client = await Client.to(opened.port)
        assert await client.ask(wrap(b"x" * 20_000)) == b"\x15"
        assert await client.answer() == b"no:too-large:xxx"
        assert await client.ask(wrap(b"unstored")) == b"\x15"
        assert await client.answer() == b"ack:unstored"


async def test_a_message_that_wants_no_answer_gets_none_and_is_counted() -> None:
    async with door() as opened:
        client = await Client.to(opened.port)
        assert await client.ask(wrap(b"silent") + wrap(b"b")) == b"ack:b"
        assert opened.counts["unanswered"] == 1


async def test_only_so_many_connections_and_only_allowed_addresses() -> None:
    async with door(mllp_max_connections=1) as opened:
        first = await Client.to(opened.port)
        assert await first.ask(wrap(b"a")) == b"ack:a"
        assert await (await Client.to(opened.port)).answer() == b"<end>"
        assert opened.counts["closed:too-many"] == 1
    async with door(mllp_allow="192.0.2.0/24") as opened:
        assert await (await Client.to(opened.port)).answer() == b"<end>"
        assert opened.counts["closed:not-allowed"] == 1


async def test_the_next_block_is_not_read_before_the_answer_to_the_last() -> None:
    release, seen = asyncio.Event(), []

    async def slow(raw: bytes, peer: Peer, stored: Stored) -> bytes:
        seen.append(raw)
        await release.wait()
        return raw

    async with door(slow) as opened:
        client = await Client.to(opened.port)
        client.writer.write(wrap(b"a") + wrap(b"b"))
        await until(lambda: seen)
        await asyncio.sleep(0.05)
        assert seen == [b"a"]
        release.set()
        assert [await client.answer(), await client.answer()] == [b"a", b"b"]


async def test_closing_lets_the_block_in_work_be_answered() -> None:
    started = asyncio.Event()

    async def slow(raw: bytes, peer: Peer, stored: Stored) -> bytes:
        started.set()
        await asyncio.sleep(0.2)
        return raw

    opened = await open_door(Settings(mllp_port=0), slow, refuse)
    client, idle = await Client.to(opened.port), await Client.to(opened.port)
    client.writer.write(wrap(b"a"))
    await started.wait()
    closing = asyncio.create_task(opened.close(5.0))
    assert await client.answer() == b"a"
    assert await idle.answer() == b"<end>"
    await closing
    assert opened.counts["closed:shutdown"] == 2


async def test_a_later_answer_can_be_pushed_over_an_open_connection() -> None:
    peers: list[Peer] = []

    async def note(raw: bytes, peer: Peer, stored: Stored) -> bytes:
        peers.append(peer)
        return raw

    async with door(note) as opened:
        client = await Client.to(opened.port)
        await client.ask(wrap(b"a"))
        assert await opened.push(peers[0].connection, b"later")
        assert await client.answer() == b"later"
        assert not await opened.push("unknown", b"later")


def test_an_address_beyond_loopback_needs_client_certificates_or_an_allow_list() -> None:
    with pytest.raises(ValueError, match="FHIR_MLLP_ALLOW"):
        check_address(Settings(mllp_host="0.0.0.0"))
    with pytest.raises(ValueError, match="FHIR_MLLP_ALLOW"):
        check_address(Settings(mllp_host="0.0.0.0", mllp_tls_cert="c"))
    check_address(Settings(mllp_host="0.0.0.0", mllp_tls_cert="c", mllp_tls_client_ca="ca"))
    check_address(Settings(mllp_host="0.0.0.0", mllp_allow="10.0.0.0/8"))
    for loopback in ("127.0.0.1", "::1", "localhost", "127.0.0.9"):
        check_address(Settings(mllp_host=loopback))
    with pytest.raises(ValueError):
        check_address(Settings(mllp_allow="not-a-network"))


def certificate(folder: Path, name: str, *, common: bool = True) -> Path:
    """A self-signed certificate and key in one PEM file; not `common`: its name stands among the alternative ones only."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME if common else NameOID.ORGANIZATION_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name if name == "localhost" else f"{name}.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


async def tls_answer(port: int, context: ssl.SSLContext) -> bytes:
    try:
        client = await Client.to(port, ssl=context)
    except (ConnectionError, ssl.SSLError):
        return b"<end>"
    return await client.ask(wrap(b"a"))


async def test_mutual_tls_names_the_client_and_refuses_one_without_a_certificate(tmp_path: Path) -> None:
    server, lab, stranger = (certificate(tmp_path, name) for name in ("server", "lab1", "stranger"))
    async with door(mllp_tls_cert=str(server), mllp_tls_client_ca=str(lab)) as opened:
        trusted = ssl.create_default_context(cafile=str(server))
        trusted.check_hostname = False
        trusted.load_cert_chain(lab)
        client = await Client.to(opened.port, ssl=trusted)
        assert await client.ask(wrap(b"a")) == b"ack:alab1"
        for own in (None, stranger):
            context = ssl.create_default_context(cafile=str(server))
            context.check_hostname = False
            if own:
                context.load_cert_chain(own)
            assert await tls_answer(opened.port, context) == b"<end>"
        plain = await Client.to(opened.port)
        assert await plain.ask(wrap(b"MSH|^~")) == b"<end>", "a client that speaks no TLS"
        await until(lambda: opened.counts["closed:tls"] == 3)
        assert opened.counts["connections"] == 4


async def test_a_certificate_without_a_common_name_is_known_by_its_alternative_one(tmp_path: Path) -> None:
    server, lab = certificate(tmp_path, "server"), certificate(tmp_path, "lab1", common=False)
    async with door(mllp_tls_cert=str(server), mllp_tls_client_ca=str(lab)) as opened:
        context = ssl.create_default_context(cafile=str(server))
        context.check_hostname = False
        context.load_cert_chain(lab)
        assert await (await Client.to(opened.port, ssl=context)).ask(wrap(b"a")) == b"ack:alab1.example"


async def test_a_handshake_that_never_ends_is_given_up_and_counts_among_the_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "SECONDS", 0.3)
    server = certificate(tmp_path, "server")
    async with door(mllp_tls_cert=str(server), mllp_max_connections=1) as opened:
        silent = await Client.to(opened.port)
        await asyncio.sleep(0.05)
        assert await (await Client.to(opened.port)).answer() == b"<end>"
        assert opened.counts["closed:too-many"] == 1
        assert await silent.answer() == b"<end>"
        await until(lambda: opened.counts["closed:tls"] == 1)
    async with door(mllp_tls_cert=str(server), mllp_allow="192.0.2.0/24") as opened:
        assert await (await Client.to(opened.port)).answer() == b"<end>"
        assert opened.counts["closed:not-allowed"] == 1
