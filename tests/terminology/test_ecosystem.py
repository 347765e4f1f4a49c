"""The terminology ecosystem suite: at least 575 of the 597 general tests of an R4 server, in process and through a running server."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from terminology.service import open_terms
from tests.scenarios.running import serve
from tests.terminology import ecosystem
from tests.terminology.ecosystem import Json, Send

REQUIRED = 575
STATEMENTS = {"metadata": "/metadata", "term-caps": "/metadata?mode=terminology"}


@pytest.fixture
def folder() -> Path:
    root = os.environ.get("FHIR_SUITES")
    if not root:
        pytest.skip("FHIR_SUITES is not set")
    return Path(root) / "tx-ecosystem" / "tests"


def failures(folder: Path, sender: Callable[[list[Json]], Send]) -> tuple[int, dict[str, str]]:
    """How many cases there are, and which fail why."""
    failed: dict[str, str] = {}
    prepared: dict[str, Send] = {}
    listed = [case for case in ecosystem.cases(folder) if case.test["operation"] in ecosystem.OPERATIONS]
    for case in listed:
        name = case.suite["name"]
        if name not in prepared:
            prepared[name] = sender(ecosystem.setup(folder, case.suite))
        difference = ecosystem.run(folder, case, prepared[name])
        if difference:
            failed[case.name] = difference
    return len(listed), failed


def told(total: int, failed: dict[str, str]) -> int:
    for name, difference in failed.items():
        print(f"{name}\n    {difference}")
    print(f"{total - len(failed)} of {total} pass")
    return total - len(failed)


def test_the_general_part_of_the_suite(folder: Path) -> None:
    base = open_terms()
    total, failed = failures(folder, lambda resources: ecosystem.within(base.with_resources(resources)))
    assert told(total, failed) >= REQUIRED


@pytest.mark.slow
def test_the_suite_and_its_statements_through_a_running_server(folder: Path, tmp_path: Path) -> None:
    with serve(tmp_path / "data") as server, server.client() as http:
        total, failed = failures(folder, lambda resources: ecosystem.over(http, resources))
        for case in ecosystem.cases(folder):
            if case.test["operation"] in STATEMENTS and case.suite["name"] == "metadata":
                total += 1
                answer = http.get(STATEMENTS[case.test["operation"]]).json()
                difference = ecosystem.least(ecosystem.load(folder / case.test["response"]), answer, case.test["operation"])
                failed |= {case.name: difference} if difference else {}
    assert total == 597
    assert told(total, failed) >= REQUIRED
