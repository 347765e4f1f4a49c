"""The terminology ecosystem suite: at least 575 of the 597 general tests of an R4 server; the metadata pair needs HTTP and is counted there."""

import os
from pathlib import Path

import pytest

from terminology.service import open_terms
from tests.terminology import ecosystem

REQUIRED = 575


def test_the_general_part_of_the_suite() -> None:
    root = os.environ.get("FHIR_SUITES")
    if not root:
        pytest.skip("FHIR_SUITES is not set")
    folder = Path(root) / "tx-ecosystem" / "tests"
    base = open_terms()
    failed: dict[str, str] = {}
    listed = [case for case in ecosystem.cases(folder) if case.test["operation"] in ecosystem.OPERATIONS]
    prepared = {}
    for case in listed:
        name = case.suite["name"]
        if name not in prepared:
            prepared[name] = ecosystem.setup(folder, case.suite, base)
        difference = ecosystem.run(folder, case, prepared[name])
        if difference:
            failed[case.name] = difference
    for name, difference in failed.items():
        print(f"{name}\n    {difference}")
    print(f"{len(listed) - len(failed)} of {len(listed)} pass")
    assert len(listed) - len(failed) >= REQUIRED
