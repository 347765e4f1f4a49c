"""Things of a patient whose identifier is none but beside the patient, told apart by further numbers of their segment (`apart.csv`). Pure.

Many senders count allergies (IAM-7), problems (PRB-4) and goals (GOL-4) anew for each patient: under such a number alone everybody's first allergy would be
listed in one document, which grows with every patient, and each would look like a number that was used for another patient before.

IN1-2 names a plan, not the patient's contract with it: two policies of one plan are two Coverages. IN1-36 is the policy's own number, IN1-49 the
number of the insured; the first of them that both sides have said decides, so that a corrected member number of a policy stays with it, and a message
that says neither is about the policy that is known. HL7 v2.8 6.5.6.36 and 6.5.6.49
"""

import csv
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mappers.v2.message import Segment

Numbers = Mapping[str, str]  # field -> number: {'36': 'POL9'}
NULL = '""'


def _table() -> Mapping[str, tuple[str, tuple[str, ...]]]:
    with Path(__file__).with_name("apart.csv").open(encoding="utf-8") as file:
        return MappingProxyType({row["rtype"]: (row["segment"], tuple(row["fields"].split())) for row in csv.DictReader(file)})


TABLE = _table()


def told(rtype: str, segment: Segment | None) -> Numbers:
    """The numbers that a segment says of a thing of this type."""
    name, fields = TABLE.get(rtype, ("", ()))
    if segment is None or segment.name != name:
        return {}
    found = {field: segment.get(f"{field}(1).1").strip() for field in fields}
    return {field: value for field, value in found.items() if value and value != NULL}


def without_numbers(keys: Sequence[str], numbers: Numbers) -> tuple[str, ...]:
    """The keys of what is shared (the plan); all, if there are no others."""
    own = set(numbers.values())
    return tuple(key for key in keys if key.rpartition("|")[2] not in own) or tuple(keys)


def chosen(rtype: str, rows: Sequence[Mapping[str, Any]], numbers: Numbers, taken: Collection[str]) -> str:
    """The reference of the row (`told`: what was said of it so far) that the numbers mean, '' for none; `taken`: what they cannot mean."""
    ranked = [(_rank(rtype, row.get("told") or {}, numbers), row["ref"]) for row in rows if row["ref"] not in taken]
    best = max((rank for rank, _ in ranked if rank is not None), default=None)
    return next((str(ref) for rank, ref in ranked if rank is not None and rank == best), "")


def _rank(rtype: str, known: Mapping[str, str], said: Numbers) -> int | None:
    """How many numbers agree, None where the decisive one does not."""
    both = [field for field in TABLE[rtype][1] if field in known and field in said]
    if both and known[both[0]] != said[both[0]]:
        return None
    return sum(known[field] == said[field] for field in both)
