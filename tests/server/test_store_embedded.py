"""The embedded database: private, exclusive, recovered, restarted; what is missing is named."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pymongo import MongoClient
from pymongo.errors import NotPrimaryError

from fhir_server.store import bundled, embedded
from fhir_server.store.bundled import NoDatabase

OWNER = """
import sys, time
from pathlib import Path
from fhir_server.store import embedded
running = embedded.start(Path(sys.argv[1]), cache_gb=0.25)
print(running.pid, flush=True)
time.sleep(60)
"""


def write(uri: str, value: int) -> None:
    """Just after a restart the server may answer 'not primary' to the driver's one retry too."""
    with MongoClient(uri, serverSelectionTimeoutMS=10000) as client:
        for left in range(50, -1, -1):
            try:
                client.get_database("t")["c"].insert_one({"_id": value})
                return
            except NotPrimaryError:
                if not left:
                    raise
                time.sleep(0.1)


def values(uri: str) -> list[int]:
    with MongoClient(uri, serverSelectionTimeoutMS=10000) as client:
        return sorted(row["_id"] for row in client.get_database("t")["c"].find())


def owner(folder: Path) -> tuple[subprocess.Popen, int]:
    """Another process that runs the database of this folder; it and the pid of its mongod."""
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def test_data_survives_stop_kill_and_a_moved_folder(tmp_path: Path):
    folder = tmp_path / "one"
    running = embedded.start(folder, cache_gb=0.25)
    write(running.uri, 1)
    running.stop()
    running = embedded.start(folder, cache_gb=0.25)
    try:
        os.kill(running.pid, signal.SIGKILL)
        running.process.wait()
        assert "signal 9" in running.failure()
        running.watch()
        write(running.uri, 2)
        assert running.failure() == ""
    finally:
        running.stop()
    folder.rename(tmp_path / "two")
    moved = embedded.start(tmp_path / "two", cache_gb=0.25)
    try:
        assert values(moved.uri) == [1, 2]
    finally:
        moved.stop()


def test_only_its_owner_can_reach_it(mongod: embedded.Embedded):
    folder = mongod.launch.socket.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_ISSOCK(mongod.launch.socket.stat().st_mode)
    inodes = {os.readlink(one).removeprefix("socket:[").rstrip("]") for one in Path(f"/proc/{mongod.pid}/fd").iterdir() if one.is_symlink()}
    listening = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    assert not [row for row in listening if row[3] == "0A" and row[9] in inodes]
    for one in mongod.launch.folder.rglob("*"):
        assert not one.stat().st_mode & 0o077 or one.parent == mongod.launch.folder


def test_a_second_server_on_the_directory_is_refused(tmp_path: Path):
    process, _ = owner(tmp_path)
    try:
        assert embedded.attach(tmp_path) is not None
        with pytest.raises(NoDatabase, match=f"in use by another server .process {process.pid}."):
            embedded.start(tmp_path)
    finally:
        process.kill()
        process.wait()


def test_the_database_of_a_killed_server_is_taken_over(tmp_path: Path):
    process, pid = owner(tmp_path)
    write(embedded.attach(tmp_path), 7)
    process.kill()
    process.wait()
    running = embedded.start(tmp_path, cache_gb=0.25)
    try:
        assert running.pid != pid
        assert values(running.uri) == [7]
    finally:
        running.stop()
    assert embedded.attach(tmp_path) is None


def test_an_orphan_that_does_not_end_by_itself_is_stopped(tmp_path: Path):
    process, pid = owner(tmp_path)
    os.kill(pid, signal.SIGSTOP)
    process.kill()
    process.wait()
    time.sleep(0.05)
    os.kill(pid, signal.SIGCONT)
    running = embedded.start(tmp_path, cache_gb=0.25)
    running.stop()
    assert not Path(f"/proc/{pid}").exists() or "zombie" in Path(f"/proc/{pid}/status").read_text()


def test_long_paths_get_a_private_socket_folder(tmp_path: Path):
    folder = tmp_path / ("long" * 30)
    running = embedded.start(folder, cache_gb=0.25)
    try:
        assert len(str(running.launch.socket)) < 100
        assert stat.S_IMODE(running.launch.socket.parent.stat().st_mode) == 0o700
        write(running.uri, 1)
    finally:
        running.stop()
    assert not running.launch.socket.parent.exists()


def test_the_reason_is_given_when_it_cannot_start(tmp_path: Path):
    with pytest.raises(NoDatabase, match="FHIR_MONGOD names"):
        embedded.start(tmp_path, mongod=str(tmp_path / "none"))
    script = tmp_path / "mongod"
    script.write_text("#!/bin/sh\necho 'mongod: error while loading shared libraries: libcurl.so.4: cannot open shared object file' >&2\nexit 127\n")
    script.chmod(0o755)
    with pytest.raises(NoDatabase, match="apt-get install libcurl4"):
        embedded.start(tmp_path, mongod=str(script))
    assert bundled.missing_library("all is well") == ""


def kill_again_and_again(running: embedded.Embedded) -> None:
    for _ in range(7):
        running.process.kill()
        running.process.wait()
        running.watch()


def test_a_mongod_that_keeps_dying_is_given_up(tmp_path: Path):
    running = embedded.start(tmp_path, cache_gb=0.25)
    try:
        with pytest.raises(NoDatabase, match="keeps ending"):
            kill_again_and_again(running)
    finally:
        running.stop()


def test_it_listens_on_its_private_socket_only(mongod: embedded.Embedded):
    """mongod's own socket in the system's temporary folder would be one for all servers of the machine."""
    listed = Path("/proc/net/unix").read_text(encoding="ascii").splitlines()
    inodes = {os.readlink(each).removeprefix("socket:[").removesuffix("]") for each in Path(f"/proc/{mongod.pid}/fd").iterdir() if each.is_symlink()}
    paths = {row.split()[7] for row in listed if len(row.split()) == 8 and row.split()[6] in inodes}
    assert len({path for path in paths if path.endswith(".sock")}) == 1
