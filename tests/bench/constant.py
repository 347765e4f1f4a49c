"""The exchange with one operation more: $constant answers Parameters of the same size as a terminology operation, through the same routing and security.

`python -m tests.bench.constant serve ...` takes the arguments of `fhir-exchange`. The answers are those that the operations themselves gave to the requests
in the file named by BENCH_CONSTANT: {"lookup": Parameters, ...}; `GET CodeSystem/$constant-lookup?...` answers the first, whatever it is asked.
"""

import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fhir_server import operations
from fhir_server.context import Context, Reply, Request
from fhir_server.interactions.operation import Operation


def _answering(res: dict[str, Any]) -> Callable[[Context, Request], Awaitable[Reply]]:
    async def run(ctx: Context, request: Request) -> Reply:
        return Reply(200, res)

    return run


def with_constants(answers: dict[str, dict[str, Any]]) -> None:
    """Puts the constant operations into the table, before anything else has read it."""
    rows = {}
    for name, res in answers.items():
        code = f"constant-{name}"
        definition = f"urn:bench:{code}"
        rows[code] = (Operation(code, definition, frozenset({"type"}), frozenset({"*"}), False, _answering(res)),)
    operations.TABLE = MappingProxyType({**operations.TABLE, **rows})


if __name__ == "__main__":
    with_constants(json.loads(Path(os.environ["BENCH_CONSTANT"]).read_text(encoding="utf-8")))
    from fhir_server.cli import app

    app()
