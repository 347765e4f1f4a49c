"""Which conversions give the same for the same text: by the sender's settings alone (PURE), by what the message says of its clock and authorities as well (SENDERLY), data type maps made of both.

What follows from the text is kept from message to message (recall.py).
"""

import re

from mappers.v2.path import steps
from mappers.v2.tables import ELSEWHERE, Row, Tables
from mappers.v2.values import LEAVES

PURE = frozenset({"@concept", "@table_code", "@coding", "@code", "@code_or_sent", "@bound", "@unit", "@alternate", "@untranslated"})
SENDERLY = frozenset({"@authority", "@authority_name"})
# no decimals: what is kept is packed by marshal, which has none
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
_NAME = re.compile(r"\b[A-Z][A-Z0-9]{1,2}\b")
_PLACE = re.compile(r"\b[A-Z][A-Z0-9]{1,2}(?!\w)(?:[-.]\d+)?")
_WORDS = frozenset({"AND", "ARE", "IF", "IN", "IS", "NOT", "OR"})


def follows(tables: Tables, name: str) -> bool:
    """True if a data type map ('xcn[practitioner]') asks nothing of the message around its text and makes no resource beside its own."""
    return all(_row_follows(tables, row, name.partition("[")[0].upper()) for row in tables.maps[name] if row.path != ELSEWHERE)


def settles(row: Row, field: str) -> bool:
    """True if the text of its field ('OBX-11') alone says whether a row does anything: a constant or a code, asked for by nothing but the field."""
    asked = set(_PLACE.findall(_QUOTED.sub("", row.when))) - _WORDS
    if any(name != field for name in asked) or any(step.rtype for step in steps(row.path)) or row.value.startswith("="):
        return False
    return bool(row.value) or row.convert in PURE or row.convert == "code"


def _row_follows(tables: Tables, row: Row, own: str) -> bool:
    asked = set(_NAME.findall(_QUOTED.sub("", row.when))) - _WORDS
    if asked - {own} or row.value.startswith("=") or any(step.rtype for step in steps(row.path)):
        return False
    how = row.convert.removeprefix("^")
    if "[" in how:
        return follows(tables, how.casefold())
    return not how or (how in LEAVES and how != "decimal") or how in PURE or how in SENDERLY or how in _WITHIN
