"""Where in a resource a rule was broken, and the list of what was found. Paths cost nothing until something is wrong."""

import re
from collections.abc import Callable
from typing import Any

from conformance.outcome import Issue

At = tuple[Any, str, int | None]
"""A place: (the place of the parent or None, element name without type, index or None); read from the leaf to the root."""

Check = Callable[[Any, At | None, str, int | None, "Report"], None]
"""Judge one value: (value, place of its parent, element name, index or None, report)."""

MAX_ISSUES = 1000
UNRESOLVED = "unresolved"  # in `memo`: how many references FHIRPath could not resolve
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")


class Report:
    """What one validation has found so far, and the resources that its rules speak of.

    resource: the resource that holds the element being judged (%resource); root: the outermost one (Bundle, or the container of a contained
    resource: %rootResource); warnings: whether issues below error are wanted at all. Once MAX_ISSUES stand there, no more are
    added; the second half of them is kept for errors. services: what is lent to FHIRPath (gate/services.py), None for R4's own rules.
    """

    __slots__ = ("bundle", "check_code", "issues", "memo", "resolve", "resource", "root", "services", "warnings")

    def __init__(self, root: dict[str, Any], *, warnings: bool = True, check_code: Any = None, resolve: Any = None) -> None:
        self.root: dict[str, Any] = root
        self.resource: dict[str, Any] = root
        self.bundle: dict[str, Any] | None = root if root.get("resourceType") == "Bundle" else None
        self.issues: list[Issue] = []
        self.warnings = warnings
        self.check_code = check_code
        self.resolve = resolve
        self.memo: dict[Any, Any] = {}
        self.services: Any = None

    def error(self, code: str, text: str, at: At | None, details: str = "") -> None:
        """Add an error at a place."""
        self.add("error", code, text, at, details)

    def add(self, severity: str, code: str, text: str, at: At | None, details: str = "") -> None:
        """Add an issue at a place."""
        error = severity in ("error", "fatal")
        if len(self.issues) < (MAX_ISSUES if error else MAX_ISSUES // 2) and (error or self.warnings):
            self.issues.append(Issue(severity, code, text, expression(at), details))


def expression(at: At | None) -> str:
    """FHIRPath of a place: 'Patient.name[0].given[1]'; a name that could carry data is left out."""
    parts: list[str] = []
    while at is not None:
        at, name, index = at
        parts.append(safe_name(name) if index is None else f"{safe_name(name)}[{index}]")
    return ".".join(reversed(parts))


def safe_name(name: str) -> str:
    """An element name as sent, or a stand-in if it is not shaped like one (it could be anything, a patient's data too)."""
    return name if _NAME.match(name) else "(unreadable name)"


def kind(value: Any) -> str:
    """The JSON kind of a value, for texts."""
    if isinstance(value, bool):
        return "a boolean"
    names = {str: "a string", dict: "an object", list: "an array", type(None): "null"}
    return names.get(type(value), "a number")
