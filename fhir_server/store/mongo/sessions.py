"""Sessions that a dead process left: their transactions hold locks until ended."""

import logging
import os
import socket
from functools import lru_cache
from pathlib import Path
from typing import Any

from pymongo.errors import OperationFailure

from fhir_server.store.mongo.client import Client
from fhir_server.store.mongo.document import Document

log = logging.getLogger("fhir.store.sessions")


@lru_cache(1)
def machine() -> str:
    """This machine's (container's) process table, by name: host, boot and process namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    space = Path("/proc/self/ns/pid")
    return "/".join(
        [
            socket.gethostname(),
            boot.read_text(encoding="ascii").strip() if boot.exists() else "",
            str(space.readlink()) if space.is_symlink() else "",
        ]
    )


def is_dead(row: Document) -> bool:
    """True if the process of a writer's document ran on this machine and certainly does not any more."""
    if row.get("host") != machine():
        return False
    try:
        os.kill(row["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


async def end_sessions(client: Client, writer: str) -> int:
    """End the sessions of a process by its client's name; their transactions are rolled back at once. How many there were."""
    stages: list[dict[str, Any]] = [
        {"$currentOp": {"allUsers": True, "idleSessions": True}},
        {"$match": {"appName": writer, "lsid": {"$exists": True}}},
        {"$project": {"lsid": 1}},
    ]
    try:
        rows = await (await client.admin.aggregate(stages)).to_list()
        ids = {bytes(row["lsid"]["id"]): {"id": row["lsid"]["id"]} for row in rows}
        if ids:
            await client.admin.command("killSessions", list(ids.values()))
    except OperationFailure as error:  # an external server whose user lacks inprog or killAnySession: the transaction's lifetime ends them
        log.warning("sessions of a dead process could not be ended", extra={"fields": {"code": error.code}})
        return 0
    return len(ids)
