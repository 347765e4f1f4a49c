"""Hostile bytes on the HTTP door: each is refused within its limit and the server goes on serving its neighbours."""

import gzip
import socket
import time

import httpx
import pytest

from tests.scenarios.running import Server

JSON = {"Content-Type": "application/fhir+json"}


def raw(server: Server, data: bytes, seconds: float = 5.0) -> bytes:
    """Send bytes as they are; what comes back until the server closes or the time is over."""
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as one:
        try:
            one.sendall(data)
            while part := one.recv(65536):
                received += part
        except (TimeoutError, ConnectionError):  # a server that closes with bytes unread resets the connection
            return received
    return received


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0


def alive(server: Server) -> None:
    """A neighbour is served, and soon."""
    started = time.perf_counter()
    assert httpx.get(f"{server.base}/metadata", timeout=10).status_code == 200
    assert time.perf_counter() - started < 5


SMUGGLED = [
    b"POST /fhir/Patient HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\nGET /fhir/Patient HTTP/1.1\r\nHost: evil\r\n\r\n",
    b"POST /fhir/Patient HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\nabcde",
    b"POST /fhir/Patient HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
    b"POST /fhir/Patient HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\nConnection: close\r\n\r\n",
    b"GET /fhir/Patient HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\nConnection: close\r\n\r\n",
    b"GET /fhir/Patient HTTP/9.9\r\nHost: localhost\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"NONSENSE\r\n\r\n",
]


@pytest.mark.parametrize("data", SMUGGLED)
def test_ambiguous_or_broken_framing_is_400_or_a_closed_connection(server: Server, data: bytes) -> None:
    answer = raw(server, data, 3.0)
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert status(answer) in (0, 400, 405, 501)
    alive(server)


def test_a_decompression_bomb_is_413(server: Server) -> None:
    bomb = gzip.compress(b"0" * 200_000_000, 9)
    answer = httpx.post(f"{server.base}/Patient", content=bomb, headers={**JSON, "Content-Encoding": "gzip"}, timeout=20)
    assert answer.status_code == 413
    alive(server)


@pytest.mark.parametrize(
    "body",
    [
        b'{"resourceType":"Patient","extension":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    ],
)
def test_a_depth_bomb_in_json_is_413(server: Server, body: bytes) -> None:
    assert httpx.post(f"{server.base}/Patient", content=body, headers=JSON, timeout=20).status_code == 413
    alive(server)


def test_depth_and_entity_bombs_in_xml_are_refused(server: Server) -> None:
    deep = b"<Patient xmlns='http://hl7.org/fhir'>" + b"<contact>" * 50_000 + b"</contact>" * 50_000 + b"</Patient>"
    laughs = b"<!DOCTYPE p [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;'>]><Patient xmlns='http://hl7.org/fhir'><id value='&b;'/></Patient>"
    outside = b"<!DOCTYPE p [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><Patient xmlns='http://hl7.org/fhir'><id value='&x;'/></Patient>"
    for body in (deep, laughs, outside):
        answer = httpx.post(f"{server.base}/Patient", content=body, headers={"Content-Type": "application/fhir+xml"}, timeout=20)
        assert answer.status_code in (400, 413)
        assert "root:" not in answer.text
    alive(server)


def test_ten_thousand_parameters_and_a_huge_address_are_refused(server: Server) -> None:
    many = "&".join(f"name=a{number}" for number in range(3000))
    assert httpx.get(f"{server.base}/Patient?{many}", timeout=20).status_code in (413, 414, 431)
    assert status(raw(server, b"GET /fhir/Patient?name=" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")) in (0, 400, 414, 431)
    alive(server)


def test_a_number_with_a_huge_exponent_is_refused_quickly(server: Server) -> None:
    body = b'{"resourceType":"Observation","status":"final","code":{"text":"x"},"valueQuantity":{"value":1e999999999}}'
    assert httpx.post(f"{server.base}/Observation", content=body, headers=JSON, timeout=5).status_code == 400
    alive(server)


def test_two_hundred_idle_connections_do_not_stop_a_neighbour(server: Server) -> None:
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
    try:
        for one in idle[:100]:
            one.sendall(b"POST /fhir/Patient HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nContent-Type: application/fhir+json\r\n\r\n{")
        alive(server)
    finally:
        for one in idle:
            one.close()
