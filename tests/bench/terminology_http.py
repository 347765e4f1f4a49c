"""Terminology over HTTP: $lookup, both $validate-code and $subsumes against a constant answer of the same size through the same routing and security.

    python -m tests.bench.snomed_synthetic RELEASE && python -m tests.bench.terminology load RELEASE DATA
    python -m tests.bench.terminology_http DATA

Two workers, 16 connections, embedded database; the load generator shares the machine's cores. Also memory per worker, private and shared.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from terminology.operations import call
from terminology.parameters import from_query
from terminology.service import open_terms
from tests.bench import processes
from tests.bench.processes import http_request, load

URL = "http://snomed.info/sct"
SECONDS, ROUNDS, CONNECTIONS = 2.0, 3, 16
REQUESTS = {"hot": 1000, "cold": 20_000}  # different questions: fewer than the server remembers, and many more
SETTLE = 10.0  # a new server puts its shelf into the database first
PATHS = {
    "lookup": "CodeSystem/$lookup",
    "validate-code": "CodeSystem/$validate-code",
    "subsumes": "CodeSystem/$subsumes",
    "member": "ValueSet/$validate-code",
}
Pairs = list[tuple[str, str]]


def queries(data: Path, count: int = 2000) -> dict[str, list[Pairs]]:
    """The query of each request."""
    system = open_terms(data).library.system(URL)
    assert system is not None
    rng = random.Random(5)
    codes = [system.code(rng.randrange(system.size)) for _ in range(count)]
    return {
        "lookup": [[("system", URL), ("code", code)] for code in codes],
        "validate-code": [[("url", URL), ("code", code)] for code in codes],
        "subsumes": [[("system", URL), ("codeA", one), ("codeB", other)] for one, other in zip(codes, codes[1:] + codes[:1], strict=True)],
        "member": [[("url", f"{URL}?fhir_vs"), ("system", URL), ("code", code)] for code in codes],
    }


def typical(data: Path, asked: dict[str, list[Pairs]]) -> dict[str, Any]:
    """Of each operation the answer of median size."""
    terms = open_terms(data)
    found = {}
    for name, rows in asked.items():
        answers = [call(terms, PATHS[name], from_query(pairs), now=datetime.now(UTC))[1] for pairs in rows[:301]]
        found[name] = sorted(answers, key=lambda res: len(json.dumps(res)))[150]
    return found


@contextmanager
def server(folder: Path, data: Path, answers: dict[str, Any], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The exchange with the constant operations, on this terminology."""
    (folder / "data").mkdir()
    (folder / "data" / "terminology").symlink_to(data)
    (folder / "answers.json").write_text(json.dumps(answers), encoding="utf-8")
    arguments = ["serve", "--auth", "open", "--workers", "2", "--port", str(port), "--mllp-port", "-1", "--data-dir", str(folder / "data")]
    environment = {**os.environ, "BENCH_CONSTANT": str(folder / "answers.json")}
    with (folder / "log").open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.constant", *arguments], cwd=processes.ROOT, env=environment, stdout=sink, stderr=sink
        )
    try:
        processes.wait_ready(f"http://127.0.0.1:{port}/health/ready", process)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def request(path: str, pairs: Pairs) -> bytes:
    """One GET."""
    return http_request("GET", f"/fhir/{path}?" + "&".join(f"{name}={value}" for name, value in pairs))


def main(data: Path) -> None:
    """Prints the figures."""
    asked = queries(data)
    answers = typical(data, asked)
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        folder, port = Path(name), processes.free_port()
        with server(folder, data.resolve(), answers, port) as process:
            time.sleep(SETTLE)
            for kind, count in REQUESTS.items():
                asked = queries(data, count)
                for name in PATHS:
                    print(
                        f"{PATHS[name]}, {kind}: {duel(port, name, asked[name], folder)}, answer of {len(json.dumps(answers[name]))} bytes",
                        flush=True,
                    )
            for pid in processes.family(process.pid)[1:]:
                if "tests.bench.constant" in Path(f"/proc/{pid}/cmdline").read_text():
                    print(
                        f"worker: {processes.pss_without_files(pid) / 1e6:.0f} MB of its own, {mapped(pid) / 1e6:.0f} MB mapped from the shelf (shared)"
                    )


def duel(port: int, name: str, asked: list[Pairs], folder: Path) -> str:
    """The best rate of the operation and of its constant, in turn."""
    rates: dict[str, float] = {}
    for turn in range(ROUNDS):
        for side in ("constant", "real") if turn % 2 else ("real", "constant"):
            where = PATHS[name] if side == "real" else f"CodeSystem/$constant-{name}"
            done = load(port, CONNECTIONS, SECONDS, [request(where, pairs) for pairs in asked], folder)
            assert set(done["statuses"]) == {"200"}, done["statuses"]
            rates[side] = max(rates.get(side, 0.0), done["rate"])
    return f"{rates['real']:.0f}/s, constant {rates['constant']:.0f}/s, ratio {rates['real'] / rates['constant']:.2f}"


def mapped(pid: int) -> int:
    """Resident bytes of the shelf's files in a process."""
    total, inside = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0]:
            inside = "snomed-" in line
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


if __name__ == "__main__":
    main(Path(sys.argv[1]))
