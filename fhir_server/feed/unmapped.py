"""Codes that no map knows, listed once per source for whoever maps them; what they stand in keeps its coding and text.

They are noted beside the transaction of their message (the first of each kind that a process sees), as documents of the kind `feed`:
{_id: 'unmapped|source|map|system|code', source, map, system, code, text, location, entry}. https://hl7.org/fhir/R4/conceptmap.html
"""

import logging
from collections.abc import Sequence
from typing import Any

from conformance.outcome import Refusal
from fhir_server.feed.ledger import KIND
from fhir_server.store.inbox import Inbox
from mappers.v2.run import Unmapped

LOG = logging.getLogger("fhir.feed")
PREFIX = "unmapped|"
MOST = 10_000  # kinds that one process notes: a sender of ever new codes fills no database
MOST_TEXT = 200


async def note(inbox: Inbox, seen: set[str], source: str, entry: str, codes: Sequence[Unmapped]) -> None:
    """Store those that this process has not seen yet. A failure is logged: the message is stored and answered all the same."""
    new: dict[str, dict[str, Any]] = {}
    for one in codes:
        parts = {"source": source, "map": one.codes, "system": one.system, "code": one.code[:MOST_TEXT]}
        id = PREFIX + "|".join(parts.values())
        if id not in seen and len(seen) + len(new) < MOST:
            new.setdefault(id, {"_id": id, **parts, "text": one.text[:MOST_TEXT], "location": one.location, "entry": entry})
    if not new:
        return
    try:
        await inbox.save(None, KIND, list(new.values()))
    except Refusal:
        LOG.warning("unmapped codes could not be noted", extra={"fields": {"source": source, "entry": entry}})
    else:
        seen.update(new)


async def listed(inbox: Inbox, source: str = "", limit: int = 1000) -> list[dict[str, Any]]:
    """What is to be mapped, by source, map, system and code; `entry` is a message that has the code."""
    rows = await inbox.beginning(None, KIND, f"{PREFIX}{source}|" if source else PREFIX, limit)
    return [{name: value for name, value in row.items() if name != "_id"} for row in rows]
