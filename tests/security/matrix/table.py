"""The decision tables, read as they were written: who may do what (actors.csv), and what each interaction then answers (interactions.csv)."""

import csv
from dataclasses import dataclass
from pathlib import Path

from tests.security.matrix.world import Instance

HERE = Path(__file__).parent
CLASSES = (frozenset({"own", "own-lab", "other", "other-lab", "unassigned"}), frozenset({"shared"}), frozenset({"withheld"}))


@dataclass(frozen=True)
class Actor:
    """A row of actors.csv. letters: by relation."""

    name: str
    scopes: tuple[str, ...]
    patient: str
    user: str
    types: str
    letters: dict[str, str]

    def may(self, instance: Instance) -> str:
        """The letters this actor has on a resource."""
        return self.letters[instance.relation] if self.types in ("*", instance.rtype) else ""

    def ever(self, instance: Instance) -> str:
        """The letters this actor has on any resource of that type: without, the type itself is refused."""
        if self.types not in ("*", instance.rtype):
            return ""
        (kind,) = (one for one in CLASSES if instance.relation in one)
        return "".join(self.letters[relation] for relation in kind if relation != "unassigned" or instance.rtype == "Device")


@dataclass(frozen=True)
class Row:
    """A row of interactions.csv: what is answered if it is allowed, if the resource may only be seen, if it is hidden, if the type is refused."""

    name: str
    needs: str
    answers: dict[str, str]


def actors() -> list[Actor]:
    """actors.csv"""
    with (HERE / "actors.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    keys = [relation for kind in CLASSES for relation in kind]
    return [
        Actor(row["actor"], tuple(row["scopes"].split()), row["patient"], row["user"], row["types"], {key: row[key] for key in keys}) for row in rows
    ]


def rows() -> dict[str, Row]:
    """interactions.csv"""
    with (HERE / "interactions.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    return {
        row["interaction"]: Row(row["interaction"], row["needs"], {key: row[key] for key in ("allowed", "seen", "hidden", "denied")}) for row in found
    }


def verdict(actor: Actor, row: Row, instance: Instance) -> str:
    """Which column of the row applies."""
    needs, may = set(row.needs), set(actor.may(instance))
    if not needs <= set(actor.ever(instance)):
        return "denied"
    if needs <= may:
        return "allowed"
    return "seen" if may & set("rs") else "hidden"
