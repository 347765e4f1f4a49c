"""The parent process: sockets, embedded database, N forked workers, clean stop.

Everything heavy is loaded before the fork, so that workers share its memory pages. The parent serves nothing: it restarts a worker or
database that died, passes signals on, and stops the database last.
"""

import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

from fhir_server.settings import Settings

log = logging.getLogger("fhir.supervisor")
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
STOP_SECONDS = 35.0  # HTTP requests have 15 s to end, then HL7 v2 messages 15 s
POLL_SECONDS = 0.1
RESTART_SECONDS = 0.5  # between the death of a worker and its successor, so that a broken start does not spin
LONGEST_TOKEN = 3600  # seconds, SMART: access tokens SHOULD live no longer than an hour
PR_SET_PDEATHSIG = 1

Work = Callable[[int], int]


@dataclass(slots=True)
class Family:
    """The running children: pid -> (worker number, what it runs); a negative number is a one-off child that is not restarted."""

    members: dict[int, tuple[int, Work]] = field(default_factory=dict)
    stopping: bool = False


def check(settings: Settings) -> None:
    """Raises ValueError for settings that must not run together."""
    if settings.auth not in ("smart", "open"):
        raise ValueError("FHIR_AUTH must be 'smart' or 'open'")
    if settings.auth == "open" and settings.host not in LOOPBACK:
        raise ValueError("--auth open is refused on any address but loopback: it answers without tokens")
    if settings.workers < 1:
        raise ValueError("FHIR_WORKERS must be at least 1")
    if not 60 <= settings.token_seconds <= LONGEST_TOKEN:
        raise ValueError(f"FHIR_TOKEN_SECONDS must be between 60 and {LONGEST_TOKEN}: a stolen access token works that long")
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise ValueError("FHIR_TLS_CERT and FHIR_TLS_KEY go together")


def listen(host: str, port: int) -> socket.socket:
    """A bound, listening socket that children inherit. Raises OSError with the address in its text."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Accepted connections inherit it. Without it the body waits 40 ms for the delayed acknowledgement of the head (uvicorn writes twice).
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        one.bind((host, port))
    except OSError as error:
        one.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    one.listen(2048)
    one.set_inheritable(True)
    return one


def spawn(family: Family, number: int, work: Work) -> int:
    """Fork a child that runs `work(number)` and exits with its result; it dies with its parent."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        family.members[pid] = (number, work)
        return pid
    _die_with(parent)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = 1
    try:
        code = work(number)
    except BaseException:
        log.exception("worker failed", extra={"fields": {"worker": number}})
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _die_with(parent: int) -> None:
    """Linux: the kernel sends SIGKILL when the parent dies, so a killed server leaves no half of itself on the port."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def supervise(family: Family, work: Work, workers: int, watch: Callable[[], None]) -> None:
    """Start `workers` children and keep them alive until SIGTERM or SIGINT; `watch` runs in each round (the database's health)."""

    def stop(signum: int, frame: FrameType | None) -> None:
        family.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    gc.collect()
    gc.freeze()
    for number in range(workers):
        spawn(family, number, work)
    while not family.stopping:
        _reap(family)
        watch()
        time.sleep(POLL_SECONDS)
    stop_all(family)


def _reap(family: Family) -> None:
    for pid, status in _ended(family):
        number, work = family.members.pop(pid)
        if number >= 0 and not family.stopping:
            log.error("worker ended, starting another", extra={"fields": {"worker": number, "code": os.waitstatus_to_exitcode(status)}})
            time.sleep(RESTART_SECONDS)
            spawn(family, number, work)


def _ended(family: Family) -> list[tuple[int, int]]:
    """(pid, status) of our children that ended; other children (the database) are not ours to wait for."""
    waited = (os.waitpid(pid, os.WNOHANG) for pid in list(family.members))
    return [(pid, status) for pid, status in waited if pid]


def stop_all(family: Family) -> None:
    """SIGTERM to all children, SIGKILL after STOP_SECONDS."""
    family.stopping = True
    _signal(family, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while family.members and time.monotonic() < deadline:
        for pid, _ in _ended(family):
            family.members.pop(pid, None)
        time.sleep(0.02)
    _signal(family, signal.SIGKILL)


def _signal(family: Family, signum: int) -> None:
    for pid in list(family.members):
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            family.members.pop(pid, None)
