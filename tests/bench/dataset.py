"""Data sets that benchmarks measure on: built once into a data directory that `fhir-exchange serve --data-dir` takes, kept, and gone on with if interrupted.

    python -m tests.bench.dataset FOLDER PATIENTS        (about 40 resources each)

Prints the rate of the load, in tenths, and the bytes of indexes and data. The file `complete` in the folder holds the number of patients.
"""

import sys
import time
from pathlib import Path

from pymongo import MongoClient

from fhir_server.jobs.load import Report, Target, load
from fhir_server.settings import Settings
from fhir_server.store import embedded
from tests.bench.synthetic import write

BASE, DATABASE, COMPLETE = "http://127.0.0.1:8080/fhir", "fhir", "complete"


def build(folder: Path, patients: int) -> None:
    """Load the synthetic patients through the bulk load. Raises ValueError if the folder holds another number of them."""
    done = folder / COMPLETE
    if done.exists():
        if int(done.read_text("ascii")) != patients:
            raise ValueError(f"{folder} holds {done.read_text('ascii')} patients")
        return
    folder.mkdir(parents=True, exist_ok=True)
    source, state = folder / "source.ndjson", folder / "load.state"
    lines = write(patients, source)  # the same bytes every time, so a load that was interrupted goes on
    database = embedded.start(folder)
    try:
        print(_loaded(source, Target(database.uri, DATABASE, Settings(secret="b" * 32, data_dir=folder), BASE, alone=True), state, lines))
        print(sizes(database.uri))
    finally:
        database.stop()
    source.unlink()
    done.write_text(str(patients), "ascii")


def _loaded(source: Path, target: Target, state: Path, lines: int) -> str:
    marks = [(time.perf_counter(), 0)]

    def note(report: Report) -> None:
        if not report.indexed[1]:
            marks.append((time.perf_counter(), report.loaded))

    report = load([source], target, processes=2, state=state, progress=note)
    if report.failed:
        raise RuntimeError(f"{report.failed} resources were refused: {report.errors[:2]}")
    step = max((len(marks) - 1) // 10, 1)
    tenths = [round((late[1] - early[1]) / (late[0] - early[0])) for early, late in zip(marks[1::step], marks[1 + step :: step])]
    end, written = time.perf_counter(), marks[-1][1] - marks[1][1]
    whole, indexing = written / (end - marks[1][0]), end - marks[-1][0]
    return f"loaded {report.loaded} of {lines}: {whole:.0f} resources/s after start-up, {indexing:.1f} s for the indexes included; tenths before them {tenths}"


def sizes(uri: str) -> str:
    """Index bytes by data bytes, and what each index takes of them."""
    data = index = 0
    by_name: dict[str, int] = {}
    with MongoClient(uri) as client:
        database = client[DATABASE]
        for name in database.list_collection_names():
            if name[:1].isupper():
                stats = database.command("collStats", name)
                data, index = data + stats["size"], index + stats["totalIndexSize"]
                for each, size in stats["indexSizes"].items():
                    by_name[each] = by_name.get(each, 0) + size
    shares = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in sorted(by_name.items(), key=lambda item: -item[1]))
    return f"data {data / 1e6:.0f} MB, indexes {index / 1e6:.0f} MB, ratio {index / data:.2f} ({shares})"


if __name__ == "__main__":
    build(Path(sys.argv[1]), int(sys.argv[2]))
