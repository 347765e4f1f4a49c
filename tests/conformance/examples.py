"""The official R4 examples, read once per test run."""

import tarfile
from functools import cache
from typing import Any

from conformance import codec
from conformance.spec import load_spec
from tests.packages import npm_package


@cache
def examples(step: int = 1) -> tuple[dict[str, Any], ...]:
    """Every `step`-th example resource of hl7.fhir.r4.examples, in the order of their names."""
    types = load_spec().types
    with tarfile.open(npm_package("hl7.fhir.r4.examples@4.0.1")) as archive:
        names = sorted(name for name in archive.getnames() if name.endswith(".json") and "/." not in name)
        found = []
        for name in names[::step]:
            held = archive.extractfile(name)
            assert held is not None
            res = codec.decode(held.read(), 100)
            if res.get("resourceType") in types:
                found.append(res)
    return tuple(found)
