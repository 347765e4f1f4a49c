"""Who sent a message: the settings that mapping needs of a configured sender. Built by the feed from its registry, or by hand."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from zoneinfo import ZoneInfo

NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Source:
    """A sender.

    name: its name among the sources (part of local code systems and of entry keys). zone: where its clocks stand, used for times
    without offset when MSH-7 has none. authority: the identifier system (URI) for identifiers without assigning authority, '' to
    leave them without. authorities: namespace id, in upper case -> identifier system (URI), what unifies `HOSP` and `HOSP&1.2.3&ISO`.
    systems: local coding system name, upper case -> URI, before table 0396.
    """

    name: str = ""
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    authority: str = ""
    authorities: Mapping[str, str] = field(default_factory=lambda: NONE)
    systems: Mapping[str, str] = field(default_factory=lambda: NONE)
