"""The official R4 examples, for tests."""

import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from conformance.codec import decode_value
from tests.packages import npm_package


def resources(spec: str = "hl7.fhir.r4.examples@4.0.1", types: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file name without .json, resource) of a package; types: only files whose name begins with one of them."""
    with tarfile.open(npm_package(spec)) as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if name.suffix != ".json" or (types and name.name.split("-")[0] not in types):
                continue
            stream = archive.extractfile(member)
            res = decode_value(stream.read()) if stream else None
            if isinstance(res, dict) and "resourceType" in res:
                yield name.stem, res
