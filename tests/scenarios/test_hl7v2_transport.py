"""A real server with mutual TLS, short time-outs and commit bytes: what senders do to a connection, over real sockets. Every wait is bounded."""

import re
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.feed.exchange import adt, obr, obx, oru, pid
from tests.mllp.test_listener import certificate
from tests.scenarios.running import Server, serve, start, stop, wait_ready

SOURCES = """{"unknown": "own", "sources": [
  {"name": "lab1", "certificates": ["lab1"]},
  {"name": "seq", "senders": ["SEQ|HOSP"], "sequence": true},
  {"name": "quiet", "senders": ["QUIET|HOSP"], "silent_minutes": 1}]}"""
WAIT = 20.0


class Wire:
    """One connection of a sender; what comes back is split into blocks."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        plain = socket.create_connection(("127.0.0.1", port), timeout=WAIT)
        self.socket = context.wrap_socket(plain) if context else plain
        self.data = b""

    def send(self, data: bytes) -> "Wire":
        self.socket.sendall(data)
        return self

    def block(self) -> bytes:
        """The next block; b'' if the other end closed."""
        deadline = time.monotonic() + WAIT
        while b"\x1c\r" not in self.data:
            assert time.monotonic() < deadline, "no answer in time"
            part = self.socket.recv(65536)
            if not part:
                return b""
            self.data += part
        block, _, self.data = self.data.partition(b"\x1c\r")
        return block.lstrip(b"\x0b")

    def ask(self, message: str | bytes) -> str:
        """Send a message; MSA-1 and MSA-2 of the answer."""
        raw = message if isinstance(message, bytes) else message.encode()
        return msa(self.send(b"\x0b" + raw + b"\x1c\r").block())

    def closed(self) -> bool:
        return self.block() == b""


def msa(answer: bytes) -> str:
    found = re.search(rb"MSA\|([A-Z]{2})\|([^|\r]*)", answer)
    return f"{found[1].decode()} {found[2].decode()}" if found else ""


@contextmanager
def wire(server: Server) -> Iterator[Wire]:
    one = Wire(server.mllp_port)
    try:
        yield one
    finally:
        one.socket.close()


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("transport")
    (folder / "sources.json").write_text(SOURCES)
    with serve(
        folder / "data",
        "--workers",
        "1",
        FHIR_SOURCES=str(folder / "sources.json"),
        FHIR_MLLP_READ_SECONDS="1",
        FHIR_MLLP_IDLE_SECONDS="3",
        FHIR_MLLP_MAX_CONNECTIONS="20",
    ) as running:
        yield running


def test_split_glued_and_noisy_blocks_and_every_line_end_are_understood(exchange: Server) -> None:
    with wire(exchange) as one:
        for number, end in enumerate(("\r", "\n", "\r\n")):
            assert one.ask(adt("A08", pid("10"), control=f"END{number}").replace("\r", end)) == f"AA END{number}"
        first, second = (b"\x0b" + adt("A08", pid("10"), control=name).encode() + b"\x1c\r" for name in ("G1", "G2"))
        one.send(b"noise\r\n" + first + b"between" + second[:30])
        assert msa(one.block()) == "AA G1"
        for byte in second[30:]:
            one.send(bytes([byte]))
        assert msa(one.block()) == "AA G2"
        one.send(first.replace(b"G1", b"G3")[:-1])  # FS without CR
        assert msa(one.block()) == "AA G3"


def test_a_sender_that_stops_within_a_block_is_told_and_an_idle_one_is_closed(exchange: Server) -> None:
    with wire(exchange) as half, wire(exchange) as idle:
        begun = time.monotonic()
        assert msa(half.send(b"\x0bMSH|^~\\&|A|B|C|D|2024||ADT^A08|HALF|P|2.5.1\rPID|1").block()).startswith("AR")
        assert half.closed()
        assert 0.5 < time.monotonic() - begun < 3
        assert idle.closed()
        assert time.monotonic() - begun < 8


@pytest.mark.parametrize(
    ("msh18", "codec", "family"),
    [
        ("8859/1", "latin-1", "MÜLLER"),
        ("UNICODE UTF-8", "utf-8", "Ωmega"),
        ("GB 18030-2000", "gb18030", "山田"),
        ("ISO IR87", "iso2022_jp", "山田"),
        ("KS X 1001", "euc_kr", "김"),
        ("BIG-5", "big5", "山田"),
    ],
)
def test_charsets_over_both_doors(exchange: Server, msh18: str, codec: str, family: str) -> None:
    for door in ("mllp", "http"):
        number = f"{codec}-{door}"
        raw = adt("A08", pid(number, f"{family}^X"), control=number, msh_rest=f"||||||{msh18}").encode(codec)
        if door == "mllp":
            with wire(exchange) as one:
                assert one.ask(raw) == f"AA {number}"
        else:
            answer = httpx.post(f"http://127.0.0.1:{exchange.port}/hl7v2", content=raw, headers={"Content-Type": "application/hl7-v2"}, timeout=WAIT)
            assert msa(answer.content) == f"AA {number}"
        with exchange.client() as http:
            (entry,) = http.get("/Patient", params={"identifier": number}).json()["entry"]
        assert entry["resource"]["name"][0]["family"] == family


def test_a_batch_is_answered_by_a_batch_with_one_acknowledgement_each(exchange: Server) -> None:
    body = "FHS|^~\\&|A|B\rBHS|^~\\&|A|B|C|D|2024||||B1\r" + adt("A08", pid("20"), control="B1") + "ZZZ|junk\r" + oru(control="B2") + "BTS|2\rFTS|1\r"
    answer = httpx.post(
        f"http://127.0.0.1:{exchange.port}/hl7v2", content=body.encode(), headers={"Content-Type": "application/hl7-v2"}, timeout=WAIT
    )
    lines = answer.text.strip().split("\r")
    assert lines[0].startswith(("FHS", "BHS"))
    assert lines[-1].startswith(("FTS", "BTS"))
    assert [line.split("|")[2] for line in lines if line.startswith("MSA")] == ["B1", "B2"]


def test_enhanced_mode_says_that_it_is_stored_and_later_what_became_of_it(exchange: Server) -> None:
    with wire(exchange) as one:
        assert one.ask(adt("A08", pid("30"), control="E1", msh_rest="|||AL|AL")) == "CA E1"
        assert msa(one.block()) == "AA E1"
        assert one.ask(adt("A08", pid("30", "OTHER^EVE", "19990909", "F"), control="E2", msh_rest="|||AL|ER")) == "CA E2"
        assert msa(one.block()) == "AE E2"
        one.send(b"\x0b" + adt("A08", pid("30"), control="E3", msh_rest="|||NE|NE").encode() + b"\x1c\r")
        assert one.ask(adt("A08", pid("30"), control="E4", msh_rest="|||AL|NE")) == "CA E4", "and E3 wanted no answer"


def test_sequence_numbers_are_kept_and_a_gap_is_told(exchange: Server) -> None:
    def numbered(number: str, control: str) -> str:
        return adt("A08", pid("60"), sender="SEQ|HOSP", control=control, msh_rest=f"|{number}")

    with wire(exchange) as one:
        assert one.ask(numbered("1", "S1")) == "AA S1"
        assert one.ask(numbered("2", "S2")) == "AA S2"
        gap = one.send(b"\x0b" + numbered("9", "S9").encode() + b"\x1c\r").block()
        assert msa(gap) != "AA S9"
        assert b"|3" in gap, "the number that is expected is told"


def test_test_messages_stay_out_and_duplicates_are_told_by_their_outcome(exchange: Server) -> None:
    with wire(exchange) as one:
        test = adt("A08", pid("40"), control="T1").replace("|T1|P|", "|T1|T|")
        assert one.ask(test) == "AA T1"
        with exchange.client() as http:
            assert http.get("/Patient", params={"identifier": "40"}).json()["total"] == 0
        good = adt("A08", pid("41"), control="D1")
        assert [one.ask(good), one.ask(good)] == ["AA D1", "AA D1"]
        assert one.ask(adt("A08", pid("41", "SMITH^JOHNNY"), control="D1")) == "AA D1", "another body under the same number is processed"
        wrong = adt("A08", pid("41", "OTHER^EVE", "19990909", "F"), control="D2")
        assert [one.ask(wrong), one.ask(wrong)] == ["AE D2", "AE D2"]
        with exchange.client() as http:
            (entry,) = http.get("/Patient", params={"identifier": "41"}).json()["entry"]
        assert entry["resource"]["meta"]["versionId"] == "2"
    inbox = httpx.get(f"http://127.0.0.1:{exchange.port}/admin/hl7v2/inbox", params={"control_id": "D1"}, timeout=WAIT).json()
    assert sorted(row["flags"] for row in inbox) == [[], ["control-id-reused"]]


def test_what_is_deferred_is_listed_edited_and_released_over_the_admin_api(exchange: Server) -> None:
    admin = f"http://127.0.0.1:{exchange.port}/admin/hl7v2"
    with wire(exchange) as one:
        assert one.ask(adt("A08", pid("50"), control="R1")) == "AA R1"
        conflict = adt("A08", pid("50", "OTHER^EVE", "19990909", "F"), control="R2")
        assert one.ask(conflict) == "AE R2"
        assert one.ask(conflict.replace("|R2|", "|R3|")) == "AE R3", "it stays as it is, and counts as an error of its source"
    (row,) = httpx.get(f"{admin}/inbox", params={"status": "deferred", "control_id": "R2"}, timeout=WAIT).json()
    fixed = conflict.replace(pid("50", "OTHER^EVE", "19990909", "F"), pid("51", "OTHER^EVE", "19990909", "F"))
    done = httpx.post(f"{admin}/inbox/{row['id']}/resubmit", content=fixed.encode(), timeout=WAIT)
    assert done.status_code == 200, done.text
    with exchange.client() as http:
        (entry,) = http.get("/Patient", params={"identifier": "51"}).json()["entry"]
    rid = entry["resource"]["id"]
    assert httpx.get(f"{admin}/messages/Patient/{rid}", timeout=WAIT).json()
    before = entry["resource"]["meta"]["versionId"]
    assert httpx.post(f"{admin}/replay", params={"control_id": "R1"}, timeout=WAIT).status_code == 200
    with exchange.client() as http:
        assert http.get(f"/Patient/{rid}").json()["meta"]["versionId"] == before
    sources = {row["source"]: row for row in httpx.get(f"{admin}/sources", timeout=WAIT).json()}
    assert sources["quiet"]["silent"] is True
    assert sources["ADT.HOSP"]["error_rate"] > 0
    measured = httpx.get(f"{admin.partition('/admin')[0]}/metrics", timeout=WAIT).text
    for line in ('hl7v2_last_received_seconds{source="ADT.HOSP"}', 'mllp_events_total{event="frames"}', 'mllp_events_total{event="connections"}'):
        assert line in measured


@pytest.mark.slow
def test_mutual_tls_commit_bytes_and_the_source_by_its_certificate(tmp_path: Path) -> None:
    own, lab, stranger = (certificate(tmp_path, name) for name in ("server", "lab1", "stranger"))
    (tmp_path / "sources.json").write_text(SOURCES)
    with serve(
        tmp_path / "data",
        "--workers",
        "1",
        FHIR_SOURCES=str(tmp_path / "sources.json"),
        FHIR_MLLP_TLS_CERT=str(own),
        FHIR_MLLP_TLS_CLIENT_CA=str(lab),
        FHIR_MLLP_COMMIT_BYTES="true",
    ) as server:
        context = ssl.create_default_context(cafile=str(own))
        context.check_hostname = False
        context.load_cert_chain(lab)
        one = Wire(server.mllp_port, context)
        one.send(b"\x0b" + oru(obr(), obx("K", "4"), control="TLS1").encode() + b"\x1c\r")
        assert one.block() == b"\x06"
        assert msa(one.block()) == "AA TLS1"
        inbox = httpx.get(f"http://127.0.0.1:{server.port}/admin/hl7v2/inbox", timeout=WAIT).json()
        assert [row["source"] for row in inbox] == ["lab1"]
        other = ssl.create_default_context(cafile=str(own))
        other.check_hostname = False
        other.load_cert_chain(stranger)
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            assert Wire(server.mllp_port, other).ask(adt("A08", pid("1"))) != ""
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            assert Wire(server.mllp_port).ask(adt("A08", pid("1"))) != ""


def received(server: Server, control: str) -> None:
    """Returns when the message is in the inbox: its answer may still be on the way."""
    for _ in range(400):
        if httpx.get(f"http://127.0.0.1:{server.port}/admin/hl7v2/inbox", params={"control_id": control}, timeout=WAIT).json():
            return
        time.sleep(0.01)
    raise AssertionError("the message was not received")


@pytest.mark.slow
def test_a_stop_lets_the_message_in_work_be_answered_and_a_kill_loses_none(tmp_path: Path) -> None:
    server = start(tmp_path / "data", "--workers", "1")
    try:
        wait_ready(server)
        big = oru(obr("BIG"), *[obx(f"C{number}", "1") for number in range(600)], control="STOP1")
        one = Wire(server.mllp_port)
        one.send(b"\x0b" + big.encode() + b"\x1c\r")
        received(server, "STOP1")
        server.process.send_signal(signal.SIGTERM)
        assert msa(one.block()) == "AA STOP1"
        assert one.closed()
        stop(server)
    finally:
        stop(server)
    server = start(tmp_path / "data", "--workers", "1")
    try:
        wait_ready(server)
        one = Wire(server.mllp_port)
        killed = oru(obr("KILL"), *[obx(f"C{number}", "1") for number in range(300)], control="KILL1")
        one.send(b"\x0b" + killed.encode() + b"\x1c\r")
        received(server, "KILL1")
        server.kill()
    finally:
        stop(server)
    with serve(tmp_path / "data", "--workers", "1") as again:
        with wire(again) as one:
            assert one.ask(killed) == "AA KILL1"
        with again.client() as http:
            assert http.get("/DiagnosticReport", params={"_summary": "count"}).json()["total"] == 2
            assert http.get("/Observation", params={"_summary": "count"}).json()["total"] == 900
