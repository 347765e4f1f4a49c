"""SMART scopes -> rights. https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html

Understood: `LEVEL/TYPE.ACTIONS` with LEVEL patient, user or system; TYPE a resource type or `*`; ACTIONS in the v2 form (a subset of `cruds`, in
that order; behind it, optionally, `?` and search parameters that limit it) or the v1 form (`read`, `write`, `*`). A scope that is not of
this form, that names a type this server does not know, or whose context is missing (`patient/` without a patient, `user/` without a fhirUser)
grants nothing. What a criterion means is compiled by `visible`, where one that the type does not have grants nothing.
"""

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl

from fhir_server.context import Right

SCOPE = re.compile(r"(patient|user|system)/(\*|[A-Z][A-Za-z]+)\.(?:(read|write|\*)|(c?r?u?d?s?)(?:\?(.+))?)")
V1 = {"read": "rs", "write": "cud", "*": "cruds"}
CLEARED = re.compile(r"exchange/clearance\.([A-Z]{1,10})")
MAX_SCOPES, MAX_CRITERIA = 200, 20
ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


def rights_of(scopes: Iterable[str], types: frozenset[str], patient: str = "", user: str = "") -> tuple[Right, ...]:
    """The rights that these scopes give to a token whose patient in context is `patient` (an id) and whose fhirUser is `user` (a reference)."""
    who = {"patient": f"Patient/{patient}" if ID.fullmatch(patient) else "", "user": user, "system": "*"}
    found = (right_of(scope, types, who) for scope in tuple(scopes)[:MAX_SCOPES])
    return tuple(dict.fromkeys(right for right in found if right is not None))


def right_of(scope: str, types: frozenset[str], who: dict[str, str]) -> Right | None:
    """The right of one scope, None if it gives none. who: by level, for whom ('' if the token has no such context)."""
    if cleared := CLEARED.fullmatch(scope):
        return Right("", frozenset(), None, "clearance", cleared.group(1))
    match = SCOPE.fullmatch(scope)
    if match is None:
        return None
    level, rtype, old, actions, query = match.groups()
    letters = V1[old] if old else actions
    criteria = _criteria(query) if query else ()
    if not letters or not who[level] or criteria is None or not (rtype == "*" or rtype in types):
        return None
    return Right(rtype, frozenset(letters), None, level, "" if level == "system" else who[level], criteria)


def _criteria(query: str) -> tuple[tuple[str, str], ...] | None:
    """The pairs behind the question mark; None where that is no query of names with values."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MAX_CRITERIA)
    except ValueError:
        return None
    return tuple(pairs) if all(name and value for name, value in pairs) else None
