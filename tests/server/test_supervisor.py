"""The parent process: settings that must not run together, workers that are replaced, children that end with it."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from fhir_server.settings import Settings
from fhir_server.supervisor import check, listen

SCRIPT = textwrap.dedent(
    """
    import os, sys, time
    from fhir_server import supervisor

    def work(number):
        with open(sys.argv[1], "a") as notes:
            notes.write(f"{number} {os.getpid()}\\n")
        time.sleep(60)
        return 0

    supervisor.supervise(supervisor.Family(), work, 2, lambda: None)
    """
)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(auth="open", host="0.0.0.0"),
        Settings(auth="open", host="192.0.2.1"),
        Settings(auth="none"),
        Settings(workers=0),
        Settings(token_seconds=7200),
        Settings(tls_cert="x.pem"),
    ],
)
def test_settings_that_are_not_safe_together_are_refused(settings: Settings) -> None:
    with pytest.raises(ValueError):
        check(settings)


def test_an_address_in_use_is_named() -> None:
    first = listen("127.0.0.1", 0)
    with pytest.raises(OSError, match=str(first.getsockname()[1])):
        listen("127.0.0.1", first.getsockname()[1])
    first.close()


def pids(notes: Path, count: int) -> list[tuple[int, int]]:
    """Wait until `count` workers have noted themselves."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        rows = notes.read_text().splitlines() if notes.exists() else []
        if len(rows) >= count:
            return [(int(row.split()[0]), int(row.split()[1])) for row in rows]
        time.sleep(0.05)
    raise AssertionError(f"{count} workers did not start")


def gone(pid: int) -> bool:
    """True once the process has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_dead_worker_is_replaced_and_sigterm_ends_all(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT, str(notes)])
    first = pids(notes, 2)
    os.kill(first[0][1], signal.SIGKILL)
    after = pids(notes, 3)
    assert after[2][0] == first[0][0]
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(15) == 0
    assert all(gone(pid) for _, pid in after)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT, str(notes)])
    started = pids(notes, 2)
    parent.kill()
    parent.wait()
    assert all(gone(pid) for _, pid in started)
