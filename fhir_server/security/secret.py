"""The exchange's own secret, which signs page cursors: kept in the data directory, readable by its owner only, made on first start."""

import os
import secrets
from pathlib import Path

NAME = "secret"


def kept_secret(folder: Path) -> str:
    """The secret of this data directory. Two processes that make it at once agree: the file appears whole or not at all."""
    path = folder / NAME
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        fresh = folder / f"{NAME}.{os.getpid()}"
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as out:
            out.write(secrets.token_urlsafe(48))
        try:
            os.link(fresh, path)
        except FileExistsError:
            return path.read_text(encoding="ascii")
        finally:
            fresh.unlink()
        return path.read_text(encoding="ascii")
