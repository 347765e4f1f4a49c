"""Official FHIR packages for tests, fetched from the npm registry by name and kept in `.cache/npm`; tests skip where it cannot be reached."""

import shutil
import subprocess
from pathlib import Path

import pytest

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "npm"


def npm_package(spec: str) -> Path:
    """The .tgz of `name@version`; skips the test with the reason if npm cannot give it."""
    name, version = spec.rsplit("@", 1)
    path = CACHE / f"{name}-{version}.tgz"
    if path.exists():
        return path
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"npm is not installed, so {spec} cannot be fetched")
    CACHE.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([npm, "pack", spec, "--pack-destination", str(CACHE)], capture_output=True, text=True, timeout=300)
    if done.returncode != 0 or not path.exists():
        pytest.skip(f"npm could not fetch {spec}: {done.stderr.strip()[-200:]}")
    return path
