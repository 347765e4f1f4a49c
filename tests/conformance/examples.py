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
        members = [member for member in archive if member.name.endswith(".json") and "/." not in member.name]
        wanted = {member.name for member in sorted(members, key=lambda member: member.name)[::step]}
        found = {}
        for member in members:  # in the order of the archive: going back means unpacking again from the start
            held = archive.extractfile(member) if member.name in wanted else None
            if held is not None:
                found[member.name] = codec.decode(held.read(), 100)
    return tuple(res for _, res in sorted(found.items()) if res.get("resourceType") in types)


@cache
def example(rtype: str, rid: str) -> dict[str, Any] | None:
    """One example resource, None if there is none of that id."""
    with tarfile.open(npm_package("hl7.fhir.r4.examples@4.0.1")) as archive:
        held = archive.extractfile(f"package/{rtype}-{rid}.json") if f"package/{rtype}-{rid}.json" in archive.getnames() else None
        return codec.decode(held.read(), 100) if held is not None else None
