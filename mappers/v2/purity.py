"""Which conversions give the same for the same text: by the sender's settings alone (PURE), by what the message says of its clock and authorities as well (SENDERLY), data type maps made of both.

What follows from the text is kept from message to message (recall.py).
"""

import re

from mappers.v2.path import steps
from mappers.v2.tables import ELSEWHERE, Row, Tables
from mappers.v2.values import LEAVES

PURE = frozenset({"@concept", "@table_code", "@coding", "@code", "@code_or_sent", "@bound", "@unit", "@alternate", "@untranslated"})
SENDERLY = frozenset({"@authority", "@authority_name"})
# what a data type map may call beside these: its own components are all that they look at
_WITHIN = frozenset(
    {
        "@cnn_system",
        "@coding_system",
        "@default_authority",
        "@degree",
        "@ei_system",
        "@hd_scope",
        "@identifier",
        "@source_table",
        "@text",
        "@universal",
        "@whole_name",
    }
)
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_PLACE = re.compile(r"\b([A-Z][A-Z0-9]{1,2})(?!\w)(?:[-.](\d+))?")
_WORDS = frozenset({"AND", "ARE", "IF", "IN", "IS", "NOT", "OR"})


def follows(tables: Tables, name: str) -> bool:
    """True if a data type map ('xcn[practitioner]') asks nothing of the message around its text and makes no resource beside its own."""
    return all(_row_follows(tables, row, name.partition("[")[0].upper()) for row in tables.maps[name] if row.path != ELSEWHERE)


def settles(row: Row, segment: str) -> bool:
    """True if the text of its field alone says whether a row of a segment ('OBX') does anything: a constant or a code, asked for by nothing but the field."""
    if _reaches_out(row) or _asked(row) - {(segment, str(row.field))}:
        return False
    return bool(row.value) or row.convert in PURE or row.convert == "code"


def _row_follows(tables: Tables, row: Row, own: str) -> bool:
    if _reaches_out(row) or any(name != own for name, _ in _asked(row)):
        return False
    how = row.convert.removeprefix("^")
    if "[" in how:
        return follows(tables, how.casefold())
    if how == "decimal":  # what is kept is packed by marshal, which has none
        return False
    return not how or how in LEAVES or how in PURE or how in SENDERLY or how in _WITHIN


def _asked(row: Row) -> set[tuple[str, str]]:
    """What the condition of a row asks: names of segments or data types, with the number of the field or component ('' for a whole segment)."""
    return {place for place in _PLACE.findall(_QUOTED.sub("", row.when)) if place[0] not in _WORDS}


def _reaches_out(row: Row) -> bool:
    """True if a row reads other fields for its value, or makes a resource."""
    return row.value.startswith("=") or any(step.rtype for step in steps(row.path))
