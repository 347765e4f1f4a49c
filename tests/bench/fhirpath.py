"""Figures of codec and FHIRPath: `python -m tests.bench.fhirpath` (CPU µs per call, median of 9 rounds)."""

import json
import statistics
import tarfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from conformance import codec
from conformance.dates import interval
from conformance.path import compile_invariant, search_path, search_path_typed
from conformance.spec import load_spec
from conformance.xml import from_xml, to_xml
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


def bench_search() -> None:
    """Every search parameter of three resources: median and sum."""
    spec = load_spec()
    for name in ("Observation-f001", "Patient-example", "Encounter-f001"):
        res = example(name)
        expressions = [param.expression for param in spec.params(res["resourceType"]).values() if param.expression]
        costs = [cpu(partial(search_path(text), res), 0.01) for text in expressions]
        typed = [cpu(partial(search_path_typed(text), res), 0.01) for text in expressions]
        print(
            f"search paths {name:18} {len(costs):3} expressions  median {statistics.median(costs):5.2f}  most {max(costs):5.2f}  all {sum(costs):6.1f}  (typed: median {statistics.median(typed):5.2f})"
        )


def bench_invariants() -> None:
    """The invariants of some types, each on one element."""
    spec = load_spec()
    res = example("Patient-example")
    for key, type_, value in (
        ("ele-1", "HumanName", res["name"][0]),
        ("ext-1", "Extension", {"url": "u", "valueString": "x"}),
        ("dom-2", "Patient", res),
        ("dom-3", "Patient", res),
        ("per-1", "Period", {"start": "2020-01-01", "end": "2021-01-01"}),
        ("pat-1", "Patient.contact", res["contact"][0]),
        ("ref-1", "Reference", {"reference": "#x"}),
    ):
        run = compile_invariant(spec.rules[key].expression, type_)
        print(f"invariant {key:6} {cpu(partial(run, value, res), 0.02):7.2f}   {spec.rules[key].expression[:90]}")


def bench_rest() -> None:
    """XML and patches of one Observation."""
    spec = load_spec()
    res = example("Observation-f001")
    body = to_xml(res, spec)
    print(f"xml read {cpu(lambda: from_xml(body, spec)):6.1f}  write {cpu(lambda: to_xml(res, spec)):6.1f}")
    print(
        f"dates.interval, not remembered {cpu(lambda: interval.__wrapped__('2020-05-01T10:00:00+02:00')):5.2f}  remembered {cpu(lambda: interval('2020-05-01T10:00:00+02:00')):5.2f}"
    )


def main() -> None:
    """Print all figures."""
    bench_codec()
    bench_search()
    bench_invariants()
    bench_rest()


if __name__ == "__main__":
    main()
