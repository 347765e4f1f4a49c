"""SMART scopes -> rights. https://hl7.org/fhir/smart-app-launch/scopes-and-launch-context.html

Understood here: `system/TYPE.ACTIONS` in the v2 form (a subset of `cruds`, in that order) and the v1 form (`read`, `write`, `*`).
A scope this server does not understand grants nothing.
"""

import re
from collections.abc import Iterable

from fhir_server.context import Right

SCOPE = re.compile(r"system/(\*|[A-Z][A-Za-z]+)\.(read|write|\*|c?r?u?d?s?)")
V1 = {"read": "rs", "write": "cud", "*": "cruds"}


def rights_of(scopes: Iterable[str], types: frozenset[str]) -> tuple[Right, ...]:
    """The rights that these scopes give; a type outside `types` and an unknown scope give none."""
    rights = []
    for scope in scopes:
        match = SCOPE.fullmatch(scope)
        if match is None:
            continue
        rtype, actions = match.groups()
        if actions and (rtype == "*" or rtype in types):
            rights.append(Right(rtype, frozenset(V1.get(actions, actions))))
    return tuple(rights)
