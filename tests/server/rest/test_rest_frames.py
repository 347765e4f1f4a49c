"""No layer that only forwards: at most six frames of ours between the route and the driver on the hot paths (a read, a create)."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from fhir_server.store.mongo.lean import Lean
from tests.server.rest.calls import Exchange

pytestmark = pytest.mark.asyncio(loop_scope="module")
OURS = str(Path(__file__).resolve().parents[3] / "fhir_server")
MOST = 6


def own_frames() -> list[str]:
    """Our functions on the stack, from the route inwards."""
    frame, found = sys._getframe(1), []
    while frame is not None:
        if frame.f_code.co_filename.startswith(OURS):
            found.append(frame.f_code.co_name)
        frame = frame.f_back
    return found[::-1]


WATCHED = ((AsyncDatabase, "command"), (AsyncCollection, "insert_one"), (Lean, "rows"), (Lean, "insert"))


@pytest.mark.parametrize(("method", "url"), [("GET", "Basic/a"), ("POST", "Basic")])
async def test_hot_paths_are_short(rest: Exchange, monkeypatch: pytest.MonkeyPatch, method: str, url: str) -> None:
    body = {"resourceType": "Basic", "id": "a", "code": {"text": "x"}}
    await rest("PUT", "Basic/a", body)
    seen: list[list[str]] = []
    for owner, name in WATCHED:
        monkeypatch.setattr(owner, name, watching(getattr(owner, name), seen))
    reply = await rest(method, url, body if method == "POST" else None)
    assert reply.status in (200, 201)
    assert seen
    assert all(len(frames) <= MOST for frames in seen), seen


def watching(original: Callable[..., Any], seen: list[list[str]]) -> Callable[..., Any]:
    """The driver's function, noting who called it."""

    async def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        frames = own_frames()
        if frames[:1] == ["route"]:
            seen.append(frames)
        return await original(self, *args, **kwargs)

    return watched
