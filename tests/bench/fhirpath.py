"""Figures of codec and FHIRPath: `python -m tests.bench.fhirpath` (CPU µs per call, median of 9 rounds)."""

import json
import statistics
import tarfile
import time
from collections.abc import Callable
from typing import Any

from conformance import codec
from tests.packages import npm_package


def cpu(call: Callable[[], Any], seconds: float = 0.1) -> float:
    """CPU µs of one call."""
    count = 1
    while True:
        start = time.process_time()
        for _ in range(count):
            call()
        spent = time.process_time() - start
        if spent > seconds / 4:
            break
        count *= 4
    rounds = []
    for _ in range(9):
        start = time.process_time()
        for _ in range(count):
            call()
        rounds.append((time.process_time() - start) / count * 1e6)
    return statistics.median(rounds)


def example(name: str) -> dict[str, Any]:
    """One official example, as dict."""
    with tarfile.open(npm_package("hl7.fhir.r4.examples@4.0.1")) as archive:
        held = archive.extractfile(f"package/{name}.json")
        assert held is not None
        return codec.decode(held.read())


def bench_codec() -> None:
    """Decode and encode of a small and a larger resource; the second column is the standard library's."""
    for name in ("Observation-f001", "Patient-example", "Observation-example"):
        body = codec.encode(example(name))
        value = codec.decode(body)
        print(f"codec {name:22} {len(body):6} bytes  decode {cpu(lambda: codec.decode(body)):6.1f}  encode {cpu(lambda: codec.encode(value)):6.1f}"  # noqa: B023
              f"  (json.loads {cpu(lambda: json.loads(body)):6.1f}  bare msgspec {cpu(lambda: codec._decode(body)):6.1f})")  # noqa: B023  # fmt: skip


def main() -> None:
    """Print all figures."""
    bench_codec()


if __name__ == "__main__":
    main()
