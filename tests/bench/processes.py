"""Processes under measurement: start servers, wait until they answer, read their CPU time and memory from /proc (Linux)."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

TICKS = os.sysconf("SC_CLK_TCK")
ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def family(pid: int) -> list[int]:
    """`pid` and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += family(int(child))
    return found


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes so far."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def pss_without_files(pid: int) -> int:
    """Proportional set size of anonymous memory in bytes (mapped files left out)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this kernel reports no Pss_Anon")


@contextmanager
def exchange(
    arguments: list[str], port: int, environment: dict[str, str] | None = None, log: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A running `fhir-exchange serve --auth open` on `port`, ready to serve; stopped at the end."""
    command = [sys.executable, "-m", "fhir_server.cli", "serve", "--auth", "open", "--port", str(port), *arguments]
    sink = log.open("ab") if log else subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **(environment or {})}, stdout=sink, stderr=sink)
    try:
        wait_ready(f"http://127.0.0.1:{port}/health/ready", process)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_ready(url: str, process: subprocess.Popen[bytes], seconds: float = 60.0) -> float:
    """Seconds until `url` answers 200. Raises RuntimeError if the process ends or the time is over."""
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with code {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return time.perf_counter() - started
        except (urllib.error.URLError, OSError):
            time.sleep(0.01)
    raise RuntimeError(f"{url} was not ready within {seconds} s")


@contextmanager
def floor(uri: str, workers: int) -> Iterator[tuple[int, list[int]]]:
    """(port, pids) of `workers` processes of the bare ASGI floor on one listening socket."""
    with socket.socket() as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as the exchange does, see fhir_server/supervisor.py
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        listener.set_inheritable(True)
        command = [sys.executable, "-m", "tests.bench.floor", str(listener.fileno()), uri]
        processes = [subprocess.Popen(command, cwd=ROOT, pass_fds=[listener.fileno()]) for _ in range(workers)]
        time.sleep(1.5)
        try:
            yield listener.getsockname()[1], [process.pid for process in processes]
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()


def http_request(method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
    """The bytes of one HTTP/1.1 request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/fhir+json\r\n{headers}"
    if body:
        head += f"Content-Type: application/fhir+json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def load(port: int, connections: int, seconds: float, requests: list[bytes], folder: Path) -> dict:
    """Run the load generator in its own process; its JSON answer."""
    path = folder / "requests.msgpack"
    path.write_bytes(msgspec.msgpack.encode(requests))
    command = [sys.executable, "-m", "tests.bench.load", str(port), str(connections), str(seconds), str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=1800)
    return msgspec.json.decode(done.stdout)
