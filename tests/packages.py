"""Official FHIR packages for tests, fetched from the npm registry by name and kept in `.cache/npm`; tests skip where it cannot be reached."""

import fcntl
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "npm"
UNREACHABLE = CACHE / "unreachable"
FETCH_SECONDS, RETRY_SECONDS = 120, 600  # a registry that does not answer costs one wait, not one for each test


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Only one test process at a time in blocks of this name: pytest-xdist's would fetch the same thing at once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def npm_package(spec: str) -> Path:
    """The .tgz of `name@version`; skips the test with the reason if npm cannot give it."""
    name, version = spec.rsplit("@", 1)
    path = CACHE / f"{name}-{version}.tgz"
    with alone("npm"):  # also for the look: a file that is being written is there already
        return path if path.exists() else _fetched(spec, path)


def _fetched(spec: str, path: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"npm is not installed, so {spec} cannot be fetched")
    if UNREACHABLE.exists() and time.time() - UNREACHABLE.stat().st_mtime < RETRY_SECONDS:
        pytest.skip(f"npm could not be reached a moment ago, so {spec} cannot be fetched")
    try:
        done = subprocess.run([npm, "pack", spec, "--pack-destination", str(CACHE)], capture_output=True, text=True, timeout=FETCH_SECONDS)
        problem = "" if done.returncode == 0 and path.exists() else done.stderr.strip()[-200:]
    except subprocess.TimeoutExpired:
        problem = f"no answer within {FETCH_SECONDS} s"
        UNREACHABLE.touch()
    if problem:
        pytest.skip(f"npm could not fetch {spec}: {problem}")
    return path
