"""Every example resource of R4 (npm `hl7.fhir.r4.examples`), decoded once, with unique ids per type; definitions only as many as a test needs, nothing huge."""

import tarfile
from functools import cache
from pathlib import Path
from typing import Any

from conformance.codec import decode
from conformance.outcome import Refusal
from conformance.spec import load_spec

MANY = ("StructureDefinition", "ValueSet", "CodeSystem", "SearchParameter", "ConceptMap", "OperationDefinition")
FEW = 25
LARGEST = 300_000  # bytes


@cache
def examples(package: Path) -> tuple[dict[str, Any], ...]:
    """The resources, in the order of the package."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    counts: dict[str, int] = {}
    with tarfile.open(package) as archive:
        for member in archive:
            name = member.name.rsplit("/", 1)[-1]
            if not member.name.startswith("package/") or not name.endswith(".json") or name[0] in ".p":
                continue
            kind = name.split("-", 1)[0]
            if (kind in MANY and counts.get(kind, 0) >= FEW) or member.size > LARGEST:
                continue
            counts[kind] = counts.get(kind, 0) + 1
            try:
                res = decode(archive.extractfile(member).read())
            except Refusal:
                continue
            if res.get("resourceType") in load_spec().types and res.get("id"):
                found.setdefault((res["resourceType"], res["id"]), res)
    return tuple(found.values())
