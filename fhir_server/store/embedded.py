"""The embedded database: one `mongod` as a one-member replica set in the data directory, owned by the process that started it.

It listens on nothing but a Unix socket in a folder of mode 0700, so no other user of the machine can reach it. Files below
`<data dir>/mongo`: `db/` (the data), `server.lock` (held by the living owner), `running.json` (pid, socket), `mongod.log`.
A mongod that outlived a killed owner is stopped cleanly before a new one starts; the kernel ends it with its owner where it can (Linux).
"""

import contextlib
import ctypes
import fcntl
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from fhir_server.store.ballast import keep_ballast, room
from fhir_server.store.bundled import NoDatabase, find_mongod, missing_library

log = logging.getLogger("fhir.embedded")
SET_NAME = "fhir"
SOCKET_NAME = "mongodb-27017.sock"  # mongod derives it from its port number, which nothing else uses
SOCKET_PATH_BYTES = 103  # sun_path holds 108 bytes on Linux, 104 on macOS, one of them the closing zero
READY_SECONDS = 60.0  # recovery after a crash is included
STOP_SECONDS = 30.0
SYNC_SECONDS = 10  # between checkpoints: bounds the recovery after a kill
EVICTION = (
    "eviction_dirty_target=20,eviction_dirty_trigger=40,eviction_updates_target=10,eviction_updates_trigger=25"  # % of the cache, see DECISIONS.md
)
HISTORY_SECONDS = 0  # of old snapshots: only a backup reads them and asks for more meanwhile; what is kept is written again with every changed page
LEAST_BUILD_MB, USUAL_BUILD_MB = 50, 200  # of memory for each index that is being made: what mongod takes at least, and its default
LOG_BYTES = 16 * 1024 * 1024
NOT_YET_INITIALISED = 94
PR_SET_PDEATHSIG = 1
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Launch:
    """How to run mongod. folder: `<data dir>/mongo`; cache_gb: WiredTiger cache in GiB, 0: chosen by the machine's memory."""

    folder: Path
    binary: Path
    socket: Path
    transaction_seconds: int
    cache_gb: float


@dataclass(slots=True)
class Embedded:
    """A running embedded database. `uri` stays the same over restarts; hand it to worker processes. Call `stop` at the end."""

    launch: Launch
    uri: str
    process: "subprocess.Popen[bytes]"
    lock: IO[str]
    restarts: list[float] = field(default_factory=list)
    stopping: bool = False

    @property
    def pid(self) -> int:
        """The process id of mongod."""
        return self.process.pid

    def failure(self) -> str:
        """Why mongod is not running, '' if it is."""
        code = self.process.poll()
        return "" if code is None else _why_exited(self.launch, code)

    def watch(self) -> None:
        """Start mongod again if it died (killed, crashed, disk full: as soon as there is room). Raises NoDatabase if it keeps dying: five times within a minute."""
        why = "" if self.stopping else self.failure()
        if not why:
            keep_ballast(self.launch.folder)
            return
        if not room(self.launch.folder):
            return  # it cannot recover on a full disk; the next round looks again
        log.error("the embedded database ended and is started again", extra={"fields": {"reason": why}})
        now = time.monotonic()
        self.restarts[:] = [at for at in self.restarts if at > now - 60] + [now]
        if len(self.restarts) > 5:
            raise NoDatabase(f"the embedded database keeps ending: {why}")
        self.process = _spawn(self.launch)
        _note_running(self.launch, self.process.pid, ready=True)

    def stop(self) -> None:
        """End mongod cleanly (SIGTERM, then SIGKILL after STOP_SECONDS) and release the data directory."""
        self.stopping = True
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        (self.launch.folder / "running.json").unlink(missing_ok=True)
        if self.launch.socket.parent != self.launch.folder:
            shutil.rmtree(self.launch.socket.parent, ignore_errors=True)
        self.lock.close()


def start(data_dir: Path, *, mongod: str = "", transaction_seconds: int = 30, cache_gb: float = 0) -> Embedded:
    """Start (or recover) the database of `data_dir`; returns when it is writable. Raises NoDatabase with the reason if it cannot.

    transaction_seconds: longest life of a transaction; a client killed inside one leaves its locks no longer than this.
    """
    binary = find_mongod(mongod)
    folder = data_dir.resolve() / "mongo"
    (folder / "db").mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    lock = _take_lock(folder)
    try:
        _stop_orphan(folder)
        if not room(folder):
            raise NoDatabase(f"the disk of {folder} is full: the database cannot start; make room")
        launch = Launch(folder, binary, _socket_path(folder), transaction_seconds, cache_gb or _cache_gb())
        process = _spawn(launch)
        _note_running(launch, process.pid, ready=False)
        running = Embedded(launch, _uri(launch.socket), process, lock)
    except BaseException:
        lock.close()
        raise
    try:
        _until_primary(running)
        _note_running(launch, process.pid, ready=True)
    except BaseException:
        running.stop()
        raise
    return running


def attach(data_dir: Path) -> str | None:
    """The URI of the database that a living server runs in `data_dir`, None if none does (for commands beside a running server)."""
    running = _read_running(data_dir.resolve() / "mongo")
    return _uri(Path(running["socket"])) if running.get("ready") and _is_our_mongod(running) else None


def _uri(socket: Path) -> str:
    return "mongodb://" + str(socket).replace("%", "%25").replace("/", "%2F") + "/?directConnection=true"


def _take_lock(folder: Path) -> IO[str]:
    """A POSIX record lock: it ends with its process however that dies, and forked children do not inherit it."""
    handle = (folder / "server.lock").open("a+", encoding="ascii")
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.seek(0)
        owner = handle.read().strip() or "unknown"
        handle.close()
        raise NoDatabase(
            f"the data directory {folder.parent} is in use by another server (process {owner}); stop it, or choose another FHIR_DATA_DIR"
        ) from error
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()
    return handle


def _socket_path(folder: Path) -> Path:
    """In the data directory, or, where that path is too long for a socket, in a private folder of the system's temporary one."""
    inside = folder / SOCKET_NAME
    if len(os.fsencode(inside)) <= SOCKET_PATH_BYTES:
        return inside
    tag = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    private = Path(tempfile.gettempdir()) / f"fhir-{os.getuid()}-{tag}"
    private.mkdir(mode=0o700, exist_ok=True)
    state = private.lstat()
    if private.is_symlink() or state.st_uid != os.getuid() or state.st_mode & 0o077:
        private = Path(tempfile.mkdtemp(prefix="fhir-"))  # somebody else took the name
    return private / SOCKET_NAME


def _cache_gb() -> float:
    """An eighth of the memory this process may use, between a quarter of a GiB and 4 GiB."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    with contextlib.suppress(OSError, ValueError):  # no cgroup, or "max"
        total = min(total, int(limit.read_text(encoding="ascii")))
    return round(min(4.0, max(0.25, total / 8 / 2**30)), 2)


def _command(launch: Launch) -> list[str]:
    """slowms: mongod would log slow queries with their values, which are patients' data. nounixsocket: only our private socket, not also mongod's
    own in the system's temporary folder, where it would meet those of other servers.
    """
    settings = {
        "transactionLifetimeLimitSeconds": launch.transaction_seconds,
        "diagnosticDataCollectionEnabled": "false",
        "minSnapshotHistoryWindowInSeconds": HISTORY_SECONDS,
        "maxIndexBuildMemoryUsageMegabytes": max(LEAST_BUILD_MB, min(USUAL_BUILD_MB, round(launch.cache_gb * 1024 / 4))),
    }
    command = [str(launch.binary), "--dbpath", str(launch.folder / "db"), "--replSet", SET_NAME]
    command += ["--bind_ip", str(launch.socket), "--nounixsocket"]
    command += ["--syncdelay", str(SYNC_SECONDS), "--wiredTigerCacheSizeGB", str(launch.cache_gb), "--oplogSize", "1024"]
    command += ["--wiredTigerEngineConfigString", EVICTION]
    command += ["--slowms", "2147483647", "--slowOpSampleRate", "0", "--logpath", str(launch.folder / "mongod.log"), "--logappend"]
    for name, value in settings.items():
        command += ["--setParameter", f"{name}={value}"]
    return command


def _spawn(launch: Launch) -> "subprocess.Popen[bytes]":
    logged = launch.folder / "mongod.log"
    if logged.exists() and logged.stat().st_size > LOG_BYTES:
        logged.replace(launch.folder / "mongod.1.log")
    launch.socket.unlink(missing_ok=True)
    with (launch.folder / "mongod.err").open("wb") as errors:
        return subprocess.Popen(  # in a group of its own: Ctrl-C in a terminal must reach the server only, which stops us last
            _command(launch),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            process_group=0,
            umask=0o077,
            preexec_fn=_die_with_owner(),
        )


def _die_with_owner() -> Callable[[], None] | None:
    """Linux: the kernel asks mongod to stop when its owner dies (also of kill -9)."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    owner = os.getpid()

    def tie() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != owner:
            os._exit(1)

    return tie


def _why_exited(launch: Launch, code: int) -> str:
    errors = (launch.folder / "mongod.err").read_text(encoding="utf-8", errors="replace")
    said = missing_library(errors) or _last_error(launch.folder / "mongod.log") or errors.strip()[-300:]
    return f"mongod ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}" + (f": {said}" if said else "")


def _last_error(logged: Path) -> str:
    """The last line of mongod's own log (JSON lines) that is an error or fatal, as text."""
    if not logged.exists():
        return ""
    with logged.open("rb") as handle:
        handle.seek(max(0, logged.stat().st_size - 65536))
        lines = handle.read().decode("utf-8", "replace").splitlines()
    for line in reversed(lines):
        if '"s":"E"' in line or '"s":"F"' in line:
            with contextlib.suppress(ValueError, KeyError):  # a line that was cut off
                entry = json.loads(line)
                return f"{entry['msg']} {entry.get('attr', {}).get('error', '')}".strip()
    return ""


def _note_running(launch: Launch, pid: int, *, ready: bool) -> None:
    """ready: it has been a primary; before that a client would take it for a standalone server."""
    note = {"ready": ready, "pid": pid, "owner": os.getpid(), "socket": str(launch.socket), "db": str(launch.folder / "db")}
    fresh = launch.folder / "running.json.new"
    try:
        fresh.write_text(json.dumps(note), encoding="utf-8")
        fresh.replace(launch.folder / "running.json")
    except OSError as error:  # a full disk: commands beside the server will not find it, the server itself can go on
        log.warning("the embedded database's place could not be noted", extra={"fields": {"error": error.strerror}})


def _read_running(folder: Path) -> Document:
    try:
        return dict(json.loads((folder / "running.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}


def _is_our_mongod(running: Document) -> bool:
    """True if the noted process lives and is a mongod on the noted directory (a process id may have been given to another)."""
    proc = Path(f"/proc/{running['pid']}/cmdline")
    try:
        if Path("/proc/self").exists():
            line = proc.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        else:
            line = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(running["pid"])], capture_output=True, text=True, check=False).stdout
    except OSError:
        return False
    return running["db"] in line


def _stop_orphan(folder: Path) -> None:
    """A mongod whose owner was killed: wait for its clean stop (it checkpoints), kill it if it does not end."""
    running = _read_running(folder)
    if not running or not _is_our_mongod(running):
        return
    log.warning("stopping the database that a killed server left", extra={"fields": {"pid": running["pid"]}})
    for signum, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 10.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(running["pid"], signum)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not _is_our_mongod(running):
                return
            time.sleep(0.02)
    raise NoDatabase(f"process {running['pid']} still runs a mongod on {running['db']} and does not end")


def _until_primary(running: Embedded) -> None:
    """Wait for the socket, initiate the set on first use, follow a moved data directory, wait until it accepts writes."""
    deadline = time.monotonic() + READY_SECONDS
    while not running.launch.socket.exists():
        _check(running, deadline)
    while not _step(running):
        _check(running, deadline)


def _check(running: Embedded, deadline: float) -> None:
    why = running.failure()
    if why:
        raise NoDatabase(why)
    if time.monotonic() > deadline:
        raise NoDatabase(f"the embedded database was not ready within {READY_SECONDS:.0f} s; see {running.launch.folder / 'mongod.log'}")
    time.sleep(0.01)


def _step(running: Embedded) -> bool:
    """One look at the server: True if it is the primary. A first start or a moved directory is settled on the way."""
    host = str(running.launch.socket)
    client: MongoClient[Document] = MongoClient(running.uri, serverSelectionTimeoutMS=250, connectTimeoutMS=2000)
    try:
        state = client.admin.command("hello")
        if state.get("isWritablePrimary"):
            return True
        if not state.get("setName"):
            _configure(client, host)
    except PyMongoError as error:
        log.debug("the embedded database is not ready yet", extra={"fields": {"error": type(error).__name__}})
    finally:
        client.close()
    return False


def _configure(client: MongoClient[Document], host: str) -> None:
    """Write the set's configuration: none yet, or one that names the socket of the place where the data directory was before."""
    try:
        config = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code != NOT_YET_INITIALISED:
            raise
        client.admin.command("replSetInitiate", {"_id": SET_NAME, "members": [{"_id": 0, "host": host}]})
        return
    if config["members"][0]["host"] != host:
        config["members"][0]["host"] = host
        config["version"] += 1
        client.admin.command("replSetReconfig", config, force=True)
