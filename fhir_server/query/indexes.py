"""The database indexes of every type's collection, as data (docs/search.md says which query uses which).

`HOT` (hot.json) names the types whose resources are about at most one patient, each with the date parameter that sorts them ('' if it has
none): facts of R4's elements (the patient and the date are single-valued), kept as a table so that the store needs no Spec.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

UNIVERSAL = (
    "#"  # a key of every resource of a HOT type: "all of this patient's", "all of these dates" are then scans of one key, in the order of the date
)
WIDE = "!w"  # a key of a HOT resource whose date is wider than a day (search/types/date.py)
HOT: Mapping[str, str] = MappingProxyType(json.loads((Path(__file__).parent / "hot.json").read_text("utf-8")))
BULK = frozenset(HOT) | {"Patient", "AuditEvent"}
"""The types of which there are many, and none of which the exchange itself searches to judge or index another: a bulk load that has the database for
itself may leave their indexes to its end."""

Field = tuple[str, int | str]


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """One index: name, fields with direction (1, -1, '2dsphere'), sparse: only documents that have the field."""

    name: str
    fields: tuple[Field, ...]
    sparse: bool = False


PATIENT_KEY_DATE = IndexSpec("p_k_d", (("p", 1), ("k", 1), ("d", -1)))
KEY_DATE = IndexSpec("k_d", (("k", 1), ("d", -1)))
KEY_ID = IndexSpec("k_id", (("k", 1), ("_id", 1)))
RANGES = IndexSpec("r", (("r.k", 1), ("r.l", 1), ("r.h", 1)))
TEXTS = IndexSpec("t", (("t", 1),))
STAMPS = IndexSpec("at", (("at", -1), ("_id", 1)))
CONTAINED = IndexSpec("c", (("c.f", 1), ("c.k", 1)), sparse=True)
POSITIONS = IndexSpec("g", (("g", "2dsphere"),), sparse=True)


def indexes(rtype: str) -> tuple[IndexSpec, ...]:
    """The indexes of a resource type's collection, besides that on `_id`."""
    keys = (PATIENT_KEY_DATE, KEY_DATE) if rtype in HOT else (KEY_ID,)
    places = (POSITIONS,) if rtype == "Location" else ()
    return (*keys, RANGES, TEXTS, STAMPS, CONTAINED, *places)
