"""The structure of a message as a tree of groups, and where each segment of a real message belongs in it.

Tolerant: a segment goes to the nearest place that its structure allows from here on, else to the nearest group that knows it at
all, else nowhere (None). Groups repeat: a segment that opens its group (marked in the table, the first one by default) starts a
new instance when it comes again. Steps are cached per (group, position, segment name).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Group:
    """A group: `items` in order are segment names and groups, `place` its own among those of `parent`; `openers` the segments that start a new instance; `direct` those that stand in no group within."""

    name: str
    parent: "Group | None"
    place: int = 0
    items: "list[str | Group]" = field(default_factory=list)
    openers: set[str] = field(default_factory=set)
    direct: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Move:
    """How to reach a segment's place: close `close` instances, open these groups, stand at `position` of the last one.

    `expected` is False where the structure does not allow the segment there.
    """

    close: int
    opened: tuple[Group, ...]
    position: int
    expected: bool


class Grammar:
    """A structure: `root`, and `move` to ask where the next segment belongs."""

    def __init__(self, rows: Iterable[tuple[str, str]]) -> None:
        """rows: (group path 'A.B', segment name or '*NAME' for one that opens its group, '+NAME' for one that may stand here again) in message order."""
        self.root = Group("", None)
        self.groups: dict[str, Group] = {"": self.root}
        for path, name in rows:
            self._add(self._group(path), name)
        for group in self.groups.values():
            if not group.openers and group is not self.root:
                group.openers = _openers(group)
        self._cache: dict[tuple[str, int, str], Move | None] = {}

    def _group(self, path: str) -> Group:
        found = self.groups.get(path)
        if found is None:
            parent = self._group(path.rpartition(".")[0])
            found = self.groups[path] = Group(path, parent, len(parent.items))
            parent.items.append(found)
        return found

    def _add(self, group: Group, name: str) -> None:
        plain = name.lstrip("*+")
        if name.startswith("*"):
            group.openers.add(plain)
        again = bool(group.items) and isinstance(group.items[-1], Group) and plain not in _after_last_group(group)
        if name.startswith("+") or again or plain not in group.direct:
            group.items.append(plain)
            group.direct.add(plain)

    def move(self, group: Group, position: int, name: str) -> Move | None:
        """Where segment `name` belongs when the last one stood at `position` (-1: none yet) of `group`; None: nowhere."""
        key = (group.name, position, name)
        found = self._cache.get(key)
        if found is None and key not in self._cache:
            found = self._cache[key] = _forward(group, position, name) or _anywhere(group, name)
        return found


def _after_last_group(group: Group) -> set[str]:
    out: set[str] = set()
    for item in reversed(group.items):
        if isinstance(item, Group):
            break
        out.add(item)
    return out


def _openers(group: Group) -> set[str]:
    head = group.items[0] if group.items else ""
    return {head} if isinstance(head, str) else _openers(head)


def _forward(group: Group, position: int, name: str) -> Move | None:
    """The nearest allowed place from here on: in this group, as its next instance, or further up.

    A group that was left is entered again only by a segment that opens it: an NK1 behind PV1 belongs to the patient at hand, it is no second one.
    """
    here: Group | None = group
    left: Group | None = None
    close = 0
    while here is not None:
        seen = {item for item in here.items[: position + 1] if isinstance(item, str)}
        again = name in here.openers and name in seen
        if not again:
            start = max(position, 0) + (left is not None and name not in left.openers)
            found = _ahead(here, start, name)
            if found is not None:
                return Move(close, found[0], found[1], True)
        if again and here.parent is not None:
            return Move(close + 1, (here,), here.items.index(name), True)
        parent, left = here.parent, here
        position = parent.items.index(here) if parent is not None else 0
        here, close = parent, close + 1
    return None


def _ahead(group: Group, start: int, name: str) -> tuple[tuple[Group, ...], int] | None:
    """(groups to open, position in the last) of `name` in the items of a group from `start` on."""
    for place in range(start, len(group.items)):
        item = group.items[place]
        if item == name:
            return (), place
        if isinstance(item, Group):
            inner = _ahead(item, 0, name)
            if inner is not None:
                return (item, *inner[0]), inner[1]
    return None


def _anywhere(group: Group, name: str) -> Move | None:
    """The nearest group upwards that has the segment at all."""
    here: Group | None = group
    close = 0
    while here is not None:
        found = _ahead(here, 0, name)
        if found is not None:
            return Move(close, found[0], found[1], False)
        here, close = here.parent, close + 1
    return None
