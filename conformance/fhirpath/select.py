"""The search subset of FHIRPath as loops over JSON, without nodes: paths, choices, `where`, `as`, `ofType`, `extension`, `resolve() is`, `[n]`, unions.

The type of the root is known when an expression is compiled, and with it the JSON key and the FHIR type of every step; so a selection is a short list of
dictionary look-ups. What lies outside the subset raises Unfit, and the complete engine takes over.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from conformance.fhirpath import syntax as ast
from conformance.fhirpath.model import ABSTRACT_RESOURCES, Model

Root = dict[str, Any]
Move = Callable[[list[Any], Root], list[Any]]
Op = str | Move
"""A step: to a child by its JSON key, or any other."""
Test = Callable[[Any, Root], bool]


class Unfit(Exception):
    """The expression is outside the subset."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One way from the root to values of one FHIR type. rtype: the resource type the root must have, '' for any."""

    rtype: str
    ops: tuple[Op, ...]
    type: str
    content: str


def branches(tree: ast.Node, context: str, model: Model) -> list[Branch]:
    """All branches of an expression that starts at a resource or, if `context` is a type or backbone, at an element of it. Raises Unfit."""
    match tree:
        case ast.Binary("|", left, right):
            return branches(left, context, model) + branches(right, context, model)
        case ast.Name(name):
            return _root(name, context, model)
        case ast.Variable("resource" | "rootResource"):
            raise Unfit
        case ast.Dot(left, ast.Name(name)):
            return [found for branch in branches(left, context, model) for found in _child(branch, name, model)]
        case ast.Dot(left, ast.Call(name, args)):
            return [found for branch in branches(left, context, model) for found in _call(branch, name, args, model)]
        case ast.At(left, ast.Literal((int(place),))):
            return [replace(branch, ops=(*branch.ops, _index(place))) for branch in branches(left, context, model)]
    raise Unfit


def _root(name: str, context: str, model: Model) -> list[Branch]:
    if name in ABSTRACT_RESOURCES:
        return [Branch("", (), name, name)]
    if name in model.spec.types and not context:
        return [Branch(name, (), name, name)]
    if not context:
        raise Unfit
    return _child(Branch("", (), context, context), name, model)


def _child(branch: Branch, name: str, model: Model) -> list[Branch]:
    if branch.type in ABSTRACT_RESOURCES and branch.ops:
        raise Unfit
    found = [Branch(branch.rtype, (*branch.ops, step.key), step.type, step.content) for step in model.steps(branch.content, name)]
    if not found:
        raise Unfit
    return found


def _call(branch: Branch, name: str, args: tuple[ast.Node, ...], model: Model) -> list[Branch]:
    match name, args:
        case (("ofType" | "as"), (ast.Name(type_),)):
            return [branch] if _fits(branch.type, type_, model) else []
        case "extension", (ast.Literal((str(url),)),):
            return [Branch(branch.rtype, (*branch.ops, "extension", _filter(_equals("url", url))), "Extension", "Extension")]
        case "where", (test,):
            return [replace(branch, ops=(*branch.ops, _filter(_test(test, branch, model))))]
    raise Unfit


def _fits(type_: str, wanted: str, model: Model) -> bool:
    return type_ == wanted if wanted in model.spec.primitives else model.is_a(type_, wanted)


def _test(tree: ast.Node, branch: Branch, model: Model) -> Test:
    match tree:
        case ast.Binary("=", ast.Name(name), ast.Literal((str(text),))):
            steps = model.steps(branch.content, name)
            if len(steps) == 1 and steps[0].content == "Element":
                return _equals(name, text)
        case ast.TypeTest("is", ast.Call("resolve", ()), rtype) if rtype in model.spec.types:
            return _refers(rtype)
        case ast.Call("hasExtension", (ast.Literal((str(url),)),)):
            return _has_extension(url)
    raise Unfit


def _get(key: str) -> Move:
    def run(items: list[Any], _: Root) -> list[Any]:
        found: list[Any] = []
        for item in items:
            value = item.get(key) if type(item) is dict else None
            if value is None:
                continue
            if type(value) is list:
                found += value if None not in value else [one for one in value if one is not None]
            else:
                found.append(value)
        return found

    return run


def _index(place: int) -> Op:
    return lambda items, _: items[place : place + 1]


def _filter(test: Test) -> Op:
    return lambda items, root: [item for item in items if test(item, root)]


def _equals(name: str, text: str) -> Test:
    def run(item: Any, _: Root) -> bool:
        value = item.get(name) if type(item) is dict else None
        return value == text or (type(value) is list and value == [text])

    return run


def _has_extension(url: str) -> Test:
    def run(item: Any, _: Root) -> bool:
        rows = item.get("extension") if type(item) is dict else None
        return type(rows) is list and any(type(row) is dict and row.get("url") == url for row in rows)

    return run


def _refers(rtype: str) -> Test:
    """True for a reference to that type: by its text, by `type`, or by the contained resource it names."""
    starts = (rtype + "/", rtype + "?")

    def run(item: Any, root: Root) -> bool:
        text = item.get("reference") if type(item) is dict else item
        if type(text) is str:
            if text.startswith("#"):
                held = root.get("contained")
                return type(held) is list and any(
                    type(res) is dict and res.get("id") == text[1:] and res.get("resourceType") == rtype for res in held
                )
            if text.startswith(starts):
                return True
            parts = text.split("/_history/", 1)[0].rsplit("/", 2)
            if len(parts) == 3 and "?" not in parts[2]:
                return parts[1] == rtype
            if not text.startswith("urn:"):
                return False
        return type(item) is dict and item.get("type") == rtype

    return run


def runner(found: list[Branch], typed: bool) -> Callable[[Root], list[Any]]:
    """The branches as one function of a resource: values, or (value, FHIR type) pairs."""
    if typed:
        return _typed(found)
    if len(found) == 1:
        return _one(found[0])
    if all(_is_child(branch) and branch.rtype == found[0].rtype for branch in found):
        return _children(found[0].rtype, tuple(str(branch.ops[0]) for branch in found))
    each = [_one(branch) for branch in found]

    def run(res: Root) -> list[Any]:
        values: list[Any] = []
        for walk in each:
            values += walk(res)
        return values

    return run


def _one(branch: Branch) -> Callable[[Root], list[Any]]:
    if _is_child(branch):
        return _children(branch.rtype, (str(branch.ops[0]),))
    rtype, ops = branch.rtype, [_get(op) if isinstance(op, str) else op for op in branch.ops]

    def run(res: Root) -> list[Any]:
        if rtype and res.get("resourceType") != rtype:
            return []
        items = [res]
        for op in ops:
            items = op(items, res)
            if not items:
                break
        return items

    return run


def _is_child(branch: Branch) -> bool:
    return len(branch.ops) == 1 and isinstance(branch.ops[0], str)


def _children(rtype: str, keys: tuple[str, ...]) -> Callable[[Root], list[Any]]:
    """The commonest selection of all: children of the root, one or the types of a choice."""

    def run(res: Root) -> list[Any]:
        values: list[Any] = []
        if type(res) is not dict or (rtype and res.get("resourceType") != rtype):
            return values
        for key in keys:
            value = res.get(key)
            if value is None:
                continue
            if type(value) is list:
                values += value if None not in value else [one for one in value if one is not None]
            else:
                values.append(value)
        return values

    return run


def _own_type(res: Any) -> str:
    return str(res.get("resourceType", "Resource")) if type(res) is dict else "Resource"


def _typed(found: list[Branch]) -> Callable[[Root], list[Any]]:
    each = [(_one(branch), branch.type) for branch in found]

    def run(res: Root) -> list[Any]:
        values: list[Any] = []
        for walk, type_ in each:
            items = walk(res)
            if items:
                values += [(item, _own_type(item) if type_ == "Resource" else type_) for item in items]
        return values

    return run
