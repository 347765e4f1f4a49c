"""Room that is kept for the database to recover in: mongod dies on a full disk, and needs some space to come back and answer reads.

While all is well the data directory holds a file of BALLAST_BYTES that does nothing; it is given up when mongod has died of a full disk.
"""

import os
import shutil
import time
from pathlib import Path

BALLAST_BYTES = 256 * 1024 * 1024
NEEDED_BYTES = 128 * 1024 * 1024  # to recover: a journal file (100 MiB), a checkpoint, log lines
LOOK_SECONDS = 30.0
_looked: dict[Path, float] = {}


def keep_ballast(folder: Path) -> None:
    """Create the file if it is missing and there is ample room (looked at every LOOK_SECONDS)."""
    now = time.monotonic()
    if now - _looked.get(folder, float("-inf")) < LOOK_SECONDS:
        return
    _looked[folder] = now
    file = folder / "ballast"
    if not file.exists() and shutil.disk_usage(folder).free > 3 * BALLAST_BYTES and hasattr(os, "posix_fallocate"):
        with file.open("wb") as handle:
            os.posix_fallocate(handle.fileno(), 0, BALLAST_BYTES)


def room(folder: Path) -> bool:
    """True if mongod can start on this disk; gives up the ballast where it must."""
    if shutil.disk_usage(folder).free >= NEEDED_BYTES:
        return True
    (folder / "ballast").unlink(missing_ok=True)
    _looked[folder] = time.monotonic()
    return shutil.disk_usage(folder).free >= NEEDED_BYTES
