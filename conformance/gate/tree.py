"""A StructureDefinition as a tree of constrained elements: from its snapshot, or from its base and its differential.

https://hl7.org/fhir/R4/profiling.html. A node is one ElementDefinition; its slices hang below it. Only what differs from R4 matters to the compiler, so a
missing child simply means 'as in R4', and a differential can be laid over its base's tree without writing a snapshot out.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from conformance.outcome import Refusal, refuse
from conformance.spec import Spec

Json = dict[str, Any]

MAX_BASES = 20
ABSTRACT_KEYS = ("slicing", "sliceName", "id", "min", "mustSupport")  # what a slice does not take over from the element it slices


@dataclass(slots=True)
class Node:
    """One element of a profile. name: JSON name without [x]; definition: its ElementDefinition ({} where it is as in R4)."""

    name: str
    choice: bool = False
    slice: str = ""
    definition: Json = field(default_factory=dict)
    children: dict[str, "Node"] = field(default_factory=dict)
    slices: dict[str, "Node"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tree:
    """A profile: its canonical url, name, the type it constrains, whether it is a profile of a resource, and its root node."""

    url: str
    name: str
    type: str
    root: Node
    definition: Json


def profile_tree(spec: Spec, url: str) -> Tree:
    """The tree of the StructureDefinition with this canonical. Raises Refusal 422 if it, or a base of it, is unknown or of no type of R4."""
    trees: dict[str, Tree] = spec.memo.setdefault("trees", {})
    if url not in trees:
        trees[url] = _read(spec, url, 0)
    return trees[url]


def _read(spec: Spec, url: str, depth: int) -> Tree:
    structure = spec.definition(url, "StructureDefinition")
    if structure is None:
        raise _unknown(f"the profile {url} is not known")
    if depth > MAX_BASES:
        raise _unknown(f"the profile {url} has too many bases, or is its own")
    return tree_of(spec, structure, depth)


def tree_of(spec: Spec, structure: Json, depth: int = 0) -> Tree:
    """The tree of a StructureDefinition. Raises Refusal 422 if a base of it is unknown, or it is on no type of R4."""
    url = structure.get("url")
    rtype = str(structure.get("type", ""))
    if structure.get("kind") == "logical" or not spec.children(rtype):
        raise _unknown(f"the profile {url} is on {rtype or 'nothing'}, which is not a type of R4")
    snapshot = structure.get("snapshot", {}).get("element")
    if snapshot:
        root = Node(rtype)
        elements = snapshot
    elif structure.get("derivation") == "specialization":
        root, elements = Node(rtype), ()
    else:
        root = _base(spec, structure, depth)
        elements = structure.get("differential", {}).get("element", ())
    for element in elements:
        _lay(spec, root, element)
    return Tree(str(url), str(structure.get("name", url)), rtype, root, structure)


def _base(spec: Spec, structure: Json, depth: int) -> Node:
    base = structure.get("baseDefinition")
    if not base:
        raise _unknown(f"the profile {structure.get('url')} has neither a snapshot nor a base")
    if base == f"http://hl7.org/fhir/StructureDefinition/{structure.get('type')}":
        return Node(str(structure["type"]))
    return copy.deepcopy(_read(spec, base, depth + 1).root)


def _unknown(text: str) -> Refusal:
    return refuse("not-supported", text, status=422)


def _lay(spec: Spec, root: Node, element: Json) -> None:
    """Put one ElementDefinition into the tree, over what stands there."""
    node, content = root, root.name
    for name, slices in _segments(element):
        node, content = _child(spec, node, content, name)
        for each in slices:
            node = _slice(node, each)
    kept = dict(node.definition)
    rules = [*kept.get("constraint", ()), *element.get("constraint", ())]
    node.definition = {**kept, **element, **({"constraint": rules} if rules else {})}


def _segments(element: Json) -> Iterable[tuple[str, tuple[str, ...]]]:
    """(name, slice names from outer to inner) below the root, from the element's id, else from its path and sliceName."""
    identity = element.get("id") or element["path"] + (f":{element['sliceName']}" if "sliceName" in element else "")
    for segment in identity.split(".")[1:]:
        name, _, sliced = segment.partition(":")
        parts = sliced.split("/") if sliced else []
        yield name, tuple("/".join(parts[: at + 1]) for at in range(len(parts)))


def _child(spec: Spec, node: Node, content: str, name: str) -> tuple[Node, str]:
    """The child of this name, made if it is not there yet, and the type to look for its own children in.

    'valueQuantity' is short for the slice of value[x] of that type (https://hl7.org/fhir/R4/profiling.html#slicing).
    """
    bare = name.removesuffix("[x]")
    element = spec.children(content).get(bare)
    if element is None and name in spec.properties(content):
        element, code = spec.properties(content)[name]
        choice, _ = _child(spec, node, content, f"{element.name}[x]")
        found = _slice(choice, name)
        found.definition = {**found.definition, "type": [{"code": code}]}
        return found, code
    found = node.children.setdefault(bare, Node(bare, choice=name.endswith("[x]")))
    if element is None:
        return found, ""
    codes = [str(row.get("code", "")) for row in found.definition.get("type", ())] or list(element.types)
    return found, element.content or (codes[0] if len(codes) == 1 else "")


def _slice(node: Node, name: str) -> Node:
    found = node.slices.get(name)
    if found is None:
        taken = {key: value for key, value in node.definition.items() if key not in ABSTRACT_KEYS and key != "constraint"}
        found = node.slices[name] = Node(node.name, node.choice, name, {**taken, "min": 0})
    return found
