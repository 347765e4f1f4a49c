"""A running `fhir-exchange serve` for scenario tests: real processes, real database, real sockets."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 60.0


@dataclass
class Server:
    """A server under test: where it listens and its parent process."""

    port: int
    mllp_port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}/fhir"

    def client(self, **options: object) -> httpx.Client:
        """An HTTP client whose paths are below the FHIR base."""
        return httpx.Client(base_url=self.base, timeout=60, headers={"Accept": "application/fhir+json"}, **options)  # type: ignore[arg-type]

    def kill(self) -> None:
        """kill -9 of the parent; the kernel takes the workers with it."""
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def serve(data: Path, *arguments: str, port: int = 0, mllp_port: int = 0, **environment: str) -> Iterator[Server]:
    """Start a server on `data`, wait until it is ready, stop it at the end (SIGTERM, then SIGKILL)."""
    server = start(data, *arguments, port=port, mllp_port=mllp_port, **environment)
    try:
        wait_ready(server)
        yield server
    finally:
        stop(server)


def start(data: Path, *arguments: str, port: int = 0, mllp_port: int = 0, **environment: str) -> Server:
    """Start a server without waiting for it."""
    port, mllp_port = port or free_port(), mllp_port or free_port()
    log = data.parent / f"{data.name}.log"
    flags = ["--auth", "open", "--port", str(port), "--mllp-port", str(mllp_port), "--data-dir", str(data), *arguments]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FHIR_")}
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "fhir_server.cli", "serve", *flags], cwd=ROOT, env={**clean, **environment}, stdout=sink, stderr=sink
        )
    return Server(port, mllp_port, process, log)


def wait_ready(server: Server, seconds: float = READY_SECONDS) -> float:
    """Seconds until /health/ready answers 200. Raises AssertionError with the log's end if it does not."""
    started = time.perf_counter()
    url = f"http://127.0.0.1:{server.port}/health/ready"
    while time.perf_counter() - started < seconds:
        if server.process.poll() is not None:
            break
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return time.perf_counter() - started
        except httpx.TransportError:
            time.sleep(0.02)
    raise AssertionError(f"the server did not become ready: {server.log.read_text()[-3000:]}")


def stop(server: Server) -> int:
    """SIGTERM and wait; the exit code."""
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
        try:
            server.process.wait(40)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()
    return server.process.returncode


def mllp(port: int, message: str, seconds: float = 30.0) -> str:
    """Send one HL7 v2 message in an MLLP block; the content of the block that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as one:
        one.sendall(b"\x0b" + message.replace("\n", "\r").encode() + b"\x1c\r")
        data = b""
        while not data.endswith(b"\x1c\r"):
            part = one.recv(65536)
            if not part:
                raise AssertionError("the connection was closed without an acknowledgement")
            data += part
    return data.strip(b"\x0b\x1c\r").decode()
