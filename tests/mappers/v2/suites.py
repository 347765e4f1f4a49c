"""The public HL7 v2 messages, where FHIR_SUITES names their folder."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mappers.v2 import batch


def messages() -> Iterator[tuple[str, bytes]]:
    """(file name, bytes) of every message of the suites; skips the test where they are not there."""
    folder = Path(os.environ.get("FHIR_SUITES", "")) / "hl7v2-messages"
    if not os.environ.get("FHIR_SUITES") or not folder.is_dir():
        pytest.skip("FHIR_SUITES does not name the folder of the public suites")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            for raw in batch.split(path.read_bytes()).messages:
                yield path.name, raw
