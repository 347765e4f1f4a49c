"""Must-support: which elements that a profile marks are absent. Information only. https://hl7.org/fhir/R4/profiling.html#mustsupport"""

from collections.abc import Iterator
from typing import Any

from conformance.gate.report import Report
from conformance.gate.tree import Node, profile_tree
from conformance.outcome import Refusal
from conformance.spec import Spec


def must_support(spec: Spec, url: str, res: dict[str, Any], report: Report) -> None:
    """Add one information issue for each absent element that the profile marks as must-support (slices are not looked at)."""
    try:
        tree = profile_tree(spec, url)
    except Refusal:  # reported where the profile itself was judged
        return
    for path in _absent(tree.root, [res]):
        report.add("information", "informational", f"profile {tree.name}: must-support element is absent", _place(res, path))


def _place(res: dict[str, Any], path: list[str]) -> Any:
    at: Any = (None, str(res["resourceType"]), None)
    for name in path:
        at = (at, name, None)
    return at


def _absent(node: Node, values: list[Any]) -> Iterator[list[str]]:
    for name, child in node.children.items():
        found = [each for value in values if isinstance(value, dict) for each in _values(value, child)]
        if found:
            yield from ([name, *path] for path in _absent(child, found))
        elif child.definition.get("mustSupport"):
            yield [name]


def _values(value: dict[str, Any], node: Node) -> list[Any]:
    keys = [key for key in value if key == node.name or (node.choice and key.startswith(node.name) and key[len(node.name) :][:1].isupper())]
    found = [value[key] for key in keys]
    return [each for one in found for each in (one if isinstance(one, list) else [one])]
