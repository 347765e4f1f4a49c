"""Where a row stands: the segment, the repetition, the components, and the groups around, as conditions and functions see them."""

from mappers.v2.grammar import Group
from mappers.v2.message import NULL, Segment, content
from mappers.v2.run import Draft, Run

DATATYPES = frozenset(
    [
        "AD",
        "AUI",
        "CD",
        "CE",
        "CF",
        "CK",
        "CN",
        "CNE",
        "CNN",
        "CP",
        "CQ",
        "CWE",
        "CX",
        "DLD",
        "DLN",
        "DR",
        "DT",
        "DTM",
        "ED",
        "EI",
        "EIP",
        "FC",
        "FN",
        "FT",
        "HD",
        "ID",
        "IS",
        "JCC",
        "MA",
        "MO",
        "MOC",
        "MSG",
        "NA",
        "NDL",
        "NM",
        "NR",
        "OCD",
        "OG",
        "OSD",
        "PL",
        "PLN",
        "PN",
        "PPN",
        "PT",
        "RI",
        "RP",
        "RPT",
        "SAD",
        "SI",
        "SN",
        "SNM",
        "SPS",
        "ST",
        "TM",
        "TN",
        "TQ",
        "TS",
        "TX",
        "VH",
        "VID",
        "VR",
        "XAD",
        "XCN",
        "XON",
        "XPN",
        "XTN",
    ]
)


_ONCE = frozenset({"MSH", "EVN", "PID", "PV1"})
# Segments whose fields a condition sees before they come. Not all: ORC-2 holds where OBR-2 is empty and OBR-2 where ORC-2 is, and one of them has to begin.
_DETAILS = frozenset({"RXO", "RXE"})


class Scope:
    """An instance of a group: `labels` -> drafts visible from here (its own and its descendants', the latest), `segments` seen in it,

    `inner`: the latest instance of each group within.
    """

    __slots__ = ("counts", "group", "inner", "labels", "makers", "parent", "segments")

    def __init__(self, group: Group, parent: "Scope | None") -> None:
        self.group = group
        self.parent = parent
        self.inner: dict[str, Scope] = {}
        self.labels: dict[str, Draft] = {}
        self.counts: dict[str, int] = {}
        self.makers: dict[str, tuple[str, int]] = {}
        self.segments: dict[str, Segment] = {}

    def publish(self, label: str, draft: Draft) -> None:
        """Make a draft known here and in all groups around."""
        here: Scope | None = self
        while here is not None:
            here.labels[label] = draft
            here.counts[label] = here.counts.get(label, 0) + 1
            here = here.parent

    def only(self, label: str) -> bool:
        """True if the nearest group that knows the label knows one draft of it."""
        here: Scope | None = self
        while here is not None and label not in here.labels:
            here = here.parent
        return here is not None and here.counts.get(label) == 1

    def find(self, label: str) -> Draft | None:
        """The draft of a label, as near as it can be."""
        here: Scope | None = self
        while here is not None:
            found = here.labels.get(label)
            if found is not None:
                return found
            here = here.parent
        return None

    def note(self, segment: Segment) -> None:
        """Remember a segment here and in all groups around."""
        here: Scope | None = self
        while here is not None:
            here.segments[segment.name] = segment
            here = here.parent

    def segment(self, name: str) -> Segment | None:
        """The segment of a name that goes with this place: of the own group where the group has such, else of one around."""
        here: Scope | None = self
        while here is not None:
            if name in here.segments:
                return here.segments[name]
            if name in here.group.direct:
                return None
            here = here.parent
        return None


class At:
    """A Place (see condition.py). `raw` is the repetition of the field at hand, `whole` and `parts` the data type at hand and its components."""

    __slots__ = ("level", "parts", "raw", "run", "scope", "segment", "whole")

    def __init__(self, run: Run, segment: Segment, scope: Scope) -> None:
        self.run = run
        self.segment = segment
        self.scope = scope
        self.raw = ""
        self.whole = ""
        self.parts: list[str] | None = None
        self.level = 0

    def inner(self, whole: str, parts: list[str], level: int) -> "At":
        """The same place, one data type further in."""
        made = At(self.run, self.segment, self.scope)
        made.raw, made.whole, made.parts, made.level = self.raw, whole, parts, level
        return made

    def value(self, name: str, number: int, component: int) -> str:
        """Decoded text of a field, component or subcomponent; without `component` the first one that is there."""
        own = self.segment
        if name == own.name:
            segment: Segment | None = own
        elif name in DATATYPES:
            part = self._part(number)
            return part if part.isalnum() and component < 2 else self._leaf(part, component, self.level + 1)
        else:
            segment = self._other(name)
        if segment is None:
            return ""
        fields = segment.fields
        whole = fields[number] if number < len(fields) else ""
        if not whole:
            return ""
        if whole.isalnum():
            return whole if component < 2 else ""
        if segment is own and number == self.run.field and self.raw:
            raw = self.raw
        else:
            reps = segment.repetitions(number)
            raw = reps[0] if reps else ""
        return self._leaf(raw, component, 0)

    def _other(self, name: str) -> Segment | None:
        found = self.scope.segment(name)
        if found is None and name in _ONCE:
            return self.run.message.nth(name)
        return self._ahead(name) if found is None and name in _DETAILS else found

    def _part(self, number: int) -> str:
        if self.parts is None:
            mark = self.run.marks[0]
            parts = self.raw.split(mark) if mark else [self.raw]
        else:
            parts = self.parts
        return parts[number - 1] if 0 < number <= len(parts) else ""

    def _leaf(self, raw: str, component: int, level: int) -> str:
        if not raw or raw == NULL:
            return ""
        mark = self.run.marks[level] if level < 3 else ""
        parts = raw.split(mark) if mark else [raw]
        if component:
            part = parts[component - 1] if component <= len(parts) else ""
        else:
            part = next((piece for piece in parts if content(piece, self.segment.delimiters)), "")
        below = self.run.marks[level + 1] if level < 2 else ""
        return self.run.text(part.split(below, 1)[0] if below else part)

    def count(self, name: str, number: int) -> int:
        """Repetitions of a field."""
        segment = self.segment if name == self.segment.name else self._other(name)
        return len(segment.repetitions(number)) if segment else 0

    def has_segment(self, name: str) -> bool:
        """True if this group has such a segment, before this one or after it up to the next instance of the group."""
        return self.scope.segment(name) is not None or self._ahead(name) is not None

    def _ahead(self, name: str) -> Segment | None:
        """The segment of a name that comes later in this instance of the group."""
        if name not in self.run.names:
            return None
        group = self.scope.group
        order = [item for item in group.items if isinstance(item, str)]
        here = order.index(self.segment.name) if self.segment.name in order else len(order)
        starts = {opener for opener in group.openers if opener in order[: here + 1]}
        for segment in self.run.message.segments[self.segment.index + 1 :]:
            if segment.name in starts:
                return None
            if segment.name == name:
                return segment
        return None
