"""One server for all scenarios that do not need their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.running import Server, serve


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("exchange")
    with serve(folder / "data", "--workers", "2") as running:
        yield running
