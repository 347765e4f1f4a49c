"""Extensions: their urls, and for those whose definition is known where they may stand and what they may hold.

https://hl7.org/fhir/R4/extensibility.html
"""

import re
from collections.abc import Callable
from typing import Any

from conformance.gate.report import At, Report
from conformance.spec import Spec

Judge = Callable[[Any, At, Report], None]

_absolute = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:\S+\Z")
NESTS = ("extension", "modifierExtension")


def check_extension(spec: Spec) -> Judge:
    """The check of one extension that is well-formed by itself."""

    def check(value: Any, at: At, report: Report) -> None:
        url = value.get("url")
        if type(url) is not str:
            return
        if ":" not in url:
            if at[0] is None or at[0][1] not in NESTS:
                report.error("extension", "the url of an extension must be absolute", (at, "url", None))
            return

    return check
