"""Rules of http.html as tables: each file in `cases` is one interaction, each case one rule with the requests that show it.

A case: `rule` (what the standard says), `steps`. A step: `do` ('PUT Patient/a'), `body` (or `like`: the body of an earlier step, changed by
`set`), `headers`, `expect`: `status`; `headers` (exact; `~text`: contains; `/`: absent); other keys are dotted paths into the body
('entry.0.response.status'), a value `~text` is contained in it, `/` means absent, `#3` means so many items. `save`: name -> path, for
later use as $name.
"""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fhir_server.context import Reply
from tests.server.rest.calls import Exchange

FILES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))
CASES = [pytest.param(case, id=f"{file.stem}: {case['rule']}") for file in FILES for case in yaml.safe_load(file.read_text("utf-8"))]
ABSENT = object()
pytestmark = pytest.mark.asyncio(loop_scope="module")


def at(value: Any, path: str) -> Any:
    for part in path.split("."):
        if isinstance(value, list) and part.isdigit():
            value = value[int(part)] if int(part) < len(value) else ABSENT
        elif isinstance(value, dict):
            value = value.get(part, ABSENT)
        else:
            return ABSENT
    return value


def check(found: Any, wanted: Any, what: str) -> None:
    if wanted == "/":
        assert found is ABSENT or found is None, what
    elif isinstance(wanted, str) and wanted.startswith("~"):
        assert wanted[1:] in str(found), what
    elif isinstance(wanted, str) and re.fullmatch(r"#\d+", wanted):
        count = 0 if found is ABSENT else len(found)
        assert count == int(wanted[1:]), what
    else:
        assert found == wanted, what


def filled(value: Any, saved: dict[str, str]) -> Any:
    """The value with $names replaced, in all its strings."""
    if isinstance(value, str):
        return re.sub(r"\$(\w+)", lambda match: saved.get(match.group(1), match.group(0)), value)
    if isinstance(value, dict):
        return {filled(name, saved): filled(inner, saved) for name, inner in value.items()}
    return [filled(inner, saved) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("case", CASES)
async def test_rule(rest: Exchange, case: dict[str, Any]) -> None:
    rest = rest.with_settings(**case.get("settings", {}))
    saved: dict[str, str] = {}
    for number, step in enumerate(copy.deepcopy(case["steps"])):
        step = filled(step, saved)
        method, url = step["do"].split(" ", 1) if " " in step["do"] else (step["do"], "")
        headers = {name.lower().replace("-", "_"): str(value) for name, value in step.get("headers", {}).items()}
        body = step["raw"].encode() if "raw" in step else b""
        reply = await rest(method, url, step.get("body"), body=body, media=step.get("media", ""), **headers)
        verify(reply, step.get("expect", {}), f"step {number}: {step['do']} -> {reply.status} {str(reply.res)[:600]}")
        for name, path in step.get("save", {}).items():
            saved[name] = str(at(reply.res, path))


def verify(reply: Reply, expected: dict[str, Any], what: str) -> None:
    for name, wanted in expected.items():
        if name == "status":
            assert reply.status == wanted, what
        elif name == "headers":
            for header, value in wanted.items():
                check(reply.headers.get(header, ABSENT), value, f"{what}: header {header}")
        elif name == "body":
            check(reply.res if reply.res is not None else ABSENT, wanted, what)
        else:
            check(at(reply.res, name), wanted, f"{what}: {name} is {str(at(reply.res, name))[:200]}")
