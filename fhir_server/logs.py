"""JSON logs without patient data: one line per event, ids and statuses only, never a query value, a body or a resource.

Access lines are buffered and written every 100 ms, because a write per request costs more than the rest of the door.
"""

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

FLUSH_SECONDS = 0.1
_encode = msgspec.json.Encoder().encode
Access = Callable[..., None]


class JsonFormatter(logging.Formatter):
    """A log record as one JSON object; an exception is named by its type and place, its text may hold data and is left out."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0]:
            line["error"] = record.exc_info[0].__name__
            line["at"] = _places(record.exc_info[2])
        return _encode(line).decode()


def _places(traceback: Any) -> list[str]:
    places = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        places.append(f"{code.co_filename}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return places[-8:]


def configure(level: str, stream: TextIO = sys.stderr) -> None:
    """JSON lines on `stream` for the whole process; libraries from WARNING."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("fhir").setLevel(level)


def access_log(stream: TextIO = sys.stderr) -> Access:
    """A function that notes one request; lines reach `stream` within FLUSH_SECONDS."""
    lines: list[bytes] = []

    def flush() -> None:
        text = b"\n".join(lines).decode() + "\n"
        lines.clear()
        stream.write(text)
        stream.flush()

    def note(**fields: Any) -> None:
        if not lines:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, flush)
        lines.append(_encode({"time": time.time(), **fields}))

    return note
