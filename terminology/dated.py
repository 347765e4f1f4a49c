"""The parameter `date` of the operations: the definitions as they were at that time, or an error where that cannot be said.

https://hl7.org/fhir/R4/valueset-operation-expand.html, https://hl7.org/fhir/R4/codesystem-operation-lookup.html. A version of a code system or value set is in
force from its own date on; where it names none, its release's version may tell one (SNOMED CT `.../version/20240101`, `2024-01-01`).
"""

import re
from datetime import datetime

from conformance.dates import interval

_IN_VERSION = re.compile(r"(?:.*/version/)?(\d{4})-?(\d{2})-?(\d{2})")


def since(date: str, version: str) -> datetime | None:
    """From when on a version is in force; None if it does not say so."""
    found = _IN_VERSION.fullmatch(version)
    for text in (date, "-".join(found.groups()) if found is not None else ""):
        try:
            return interval(text)[0]
        except ValueError:
            continue
    return None
