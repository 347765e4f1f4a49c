"""Security labels (`meta.security`) -> what they keep from a caller, as a clause. https://hl7.org/fhir/R4/security-labels.html

Confidentiality is an order (U < L < M < N < R < V): a caller is shown what is labelled no higher than its clearance. A sensitivity tag (HIV, PSY,
...) counts like R, unless the caller is cleared for that tag. An unlabelled resource counts as N. The codes stand in labels.json.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from conformance.spec import Spec
from fhir_server.query.clauses import NOTHING, Clause
from fhir_server.search.schema import schema
from fhir_server.search.types import token

CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"


@dataclass(frozen=True, slots=True)
class Clearance:
    """How much a caller is shown: up to which confidentiality, which sensitivity tags besides, and whether it is the patient (or family)."""

    level: str
    tags: frozenset[str] = frozenset()
    lay: bool = False


@cache
def table() -> Mapping[str, Any]:
    """The label codes and their order."""
    found: Mapping[str, Any] = json.loads((Path(__file__).parent / "labels.json").read_text("utf-8"))
    return found


def clearance(default: str, words: frozenset[str], *, lay: bool) -> Clearance:
    """The default, raised by what a token is cleared for: confidentiality codes and sensitivity tags."""
    order = table()["confidentiality"]
    levels = [word for word in (*words, default) if word in order]
    return Clearance(max(levels, key=order.index), words & set(table()["sensitivity"]), lay)


def above(spec: Spec, rtype: str, cleared: Clearance) -> Clause:
    """The resources of a type that are labelled beyond this clearance."""
    order = table()["confidentiality"]
    place = order.index(cleared.level)
    codes = [(CONFIDENTIALITY, code) for code in order[place + 1 :]]
    if place < order.index(table()["sensitive_as"]):
        codes += [(ACT_CODE, code) for code in table()["sensitivity"] if code not in cleared.tags]
    if cleared.lay:
        codes += [(ACT_CODE, code) for code in table()["not_for_patients"]]
    return token.codes_clause(schema(spec, rtype).fields["_security"], codes) if codes else NOTHING
