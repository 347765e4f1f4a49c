"""Figures of the terminology engine on a synthetic SNOMED-sized release, CPU time on one core.

`python -m tests.bench.snomed_synthetic RELEASE && python -m tests.bench.terminology RELEASE DATA` (DATA is made on the first run)
"""

import random
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from terminology.concepts import subsumes
from terminology.load import load
from terminology.operations import call
from terminology.service import open_terms

URL = "http://snomed.info/sct"


def median(run: Callable[[], object], times: int = 5, each: int = 1) -> float:
    """Median CPU seconds of one call."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        for _ in range(each):
            run()
        taken.append((time.process_time() - start) / each)
    return sorted(taken)[len(taken) // 2]


def main(release: Path, data: Path) -> None:
    if not (data / "current.json").exists():
        start = time.process_time()
        load("snomed", [release], data)
        print(f"load: {time.process_time() - start:.1f} s CPU")
    terms = open_terms(data)
    system = terms.library.system(URL)
    assert system is not None
    rng = random.Random(3)
    codes = [system.code(rng.randrange(system.size)) for _ in range(1000)]
    numbers = [system.find(code) or 0 for code in codes]
    print(f"concepts {system.size}, index {sum(each.stat().st_size for each in data.rglob('*') if each.is_file()) >> 20} MB (shared)")
    print(f"lookup (find, display): {median(lambda: [system.display(system.find(c) or 0) for c in codes]) / 1000 * 1e6:.1f} us")
    print(f"check, not cached: {median(lambda: [terms.seen.clear() or terms.check(URL, c) for c in codes]) / 1000 * 1e6:.1f} us")
    print(f"subsumes: {median(lambda: [subsumes(system, numbers[0], n) for n in numbers]) / 1000 * 1e6:.1f} us")
    broad = max(numbers[:200], key=lambda n: len(system.descendants(n)))
    rows = [{"name": "url", "valueUri": f"{URL}?fhir_vs=isa/{system.code(broad)}"}, {"name": "count", "valueInteger": 100}]
    asked = {"resourceType": "Parameters", "parameter": rows}
    print(
        f"$expand is-a ({len(system.descendants(broad))} codes), count 100: {median(lambda: call(terms, 'ValueSet/$expand', asked, now=datetime.now(UTC))) * 1e3:.2f} ms"
    )
    words = [system.display(n).split()[0] for n in numbers[:200]]
    taken = sorted(median(lambda w=word: system.search(w), 1) for word in [*words, *(w[:3] for w in words), *(f"{w} {w[:2]}" for w in words)])
    print(f"text filter over everything: p50 {taken[len(taken) // 2] * 1e3:.2f} ms, p95 {taken[int(len(taken) * 0.95)] * 1e3:.2f} ms")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
