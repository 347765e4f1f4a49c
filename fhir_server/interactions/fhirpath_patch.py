"""FHIRPath Patch: a Parameters resource of operations applied to a resource, as a pure function. https://hl7.org/fhir/R4/fhirpatch.html

What is malformed is refused with 400, what cannot be applied with 422; each refusal names the operation by its number. Objects and lists that a deletion
leaves empty are taken away.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from conformance.outcome import Refusal, refuse, too_large
from conformance.path import Node, PathProblem, compile_items, model_of
from conformance.spec import Spec
from fhir_server.interactions.json_patch import check_depth, copied, size

MAX_OPERATIONS = 2000
MAX_STEPS = 2_000_000  # FHIRPath steps of one patch
MAX_WORK = 5_000_000  # operations times values of the resource: each operation may walk through all of it
_NEEDS = {"add": ("name", "value"), "insert": ("index", "value"), "delete": (), "replace": ("value",), "move": ("source", "destination")}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: its number, type, path, and its other parts as (JSON value, `_` companion, FHIR type)."""

    number: int
    type: str
    path: str
    parts: dict[str, dict[str, Any]]

    def text(self, name: str) -> str:
        """A part that must be text. Raises Refusal 400."""
        part = self.parts[name]
        value = next((part[key] for key in part if key.startswith("value")), None)
        if not isinstance(value, str):
            raise self.malformed(f"its '{name}' must be text")
        return value

    def index(self, name: str) -> int:
        """A part that must be an index. Raises Refusal 400."""
        value = self.parts[name].get("valueInteger")
        if type(value) is not int or value < 0:
            raise self.malformed(f"its '{name}' must be an integer, not below 0")
        return value

    def malformed(self, why: str) -> Refusal:
        """400: the operation itself is wrong."""
        return refuse("structure", f"operation {self.number} of the patch is malformed: {why}")

    def failed(self, why: str) -> Refusal:
        """422: the operation does not fit the resource. The path is told where it holds no quoted text, which could be a patient's."""
        where = self.path[:200] if "'" not in self.path else "its path"
        return refuse("business-rule", f"operation {self.number} of the patch cannot be applied at {where}: {why}")


def fhirpath_patch(res: dict[str, Any], patch: dict[str, Any], spec: Spec) -> dict[str, Any]:
    """The patched resource. Raises Refusal 400, 413 or 422; also where the patch would change the resource's id."""
    operations = read(patch)
    if len(operations) * size(res) > MAX_WORK:
        raise too_large("the patch has too many operations for a resource of this size")
    patched: dict[str, Any] = copied(res)
    steps = MAX_STEPS // max(len(operations), 1)
    try:
        for operation in operations:
            _APPLY[operation.type](_Target(operation, patched, spec, steps))
        check_depth(patched)
    except RecursionError as error:
        raise too_large("the patch nests the resource too deeply") from error
    if "id" in res and patched.get("id") != res["id"]:
        raise refuse("business-rule", "a patch may not change the id of a resource", expression="id")
    return patched


def read(patch: dict[str, Any]) -> list[Operation]:
    """The operations of a Parameters resource. Raises Refusal 400 or 413."""
    rows = patch.get("parameter", [])
    if patch.get("resourceType") != "Parameters" or not isinstance(rows, list):
        raise refuse("structure", "a FHIRPath Patch must be a Parameters resource")
    if len(rows) > MAX_OPERATIONS:
        raise too_large(f"a FHIRPath Patch may hold {MAX_OPERATIONS} operations")
    return [_operation(number, row) for number, row in enumerate(rows)]


def _operation(number: int, row: Any) -> Operation:
    blank = Operation(number, "", "", {})
    if not isinstance(row, dict) or row.get("name") != "operation" or not isinstance(row.get("part"), list):
        raise blank.malformed("it must be a parameter 'operation' with parts")
    parts: dict[str, dict[str, Any]] = {}
    for part in row["part"]:
        if not isinstance(part, dict) or not isinstance(part.get("name"), str) or part["name"] in parts:
            raise blank.malformed("each part must have a name of its own")
        parts[part["name"]] = part
    found = Operation(number, "", "", parts)
    if "type" not in parts or "path" not in parts or found.text("type") not in _NEEDS:
        raise blank.malformed("it needs a path and a type: add, insert, delete, replace or move")
    lacking = [name for name in _NEEDS[found.text("type")] if name not in parts]
    if lacking:
        raise blank.malformed(f"it lacks '{lacking[0]}'")
    return Operation(number, found.text("type"), found.text("path"), parts)


@dataclass(frozen=True, slots=True)
class _Target:
    """An operation and the resource it works on."""

    operation: Operation
    res: dict[str, Any]
    spec: Spec
    steps: int

    def nodes(self, path: str) -> list[Node]:
        """The elements that a path selects. Raises Refusal 400 or 422."""
        try:
            items = compile_items(path, spec=self.spec, context=str(self.res.get("resourceType", "")))(self.res, steps=self.steps, track=True)
        except PathProblem as problem:
            raise self.operation.malformed(f"its path cannot be used: {problem}") from problem
        if any(not isinstance(item, Node) for item in items):
            raise self.operation.failed("the path selects something that is not an element of the resource")
        return items

    def one(self) -> Node:
        """The only element that the path selects. Raises Refusal 422 for none and several."""
        nodes = self.nodes(self.operation.path)
        if len(nodes) != 1:
            raise self.operation.failed("the path selects no element" if not nodes else "the path selects several elements")
        return nodes[0]

    def place(self, node: Node) -> tuple[dict[str, Any], str, int | None]:
        """Where an element stands. Raises Refusal 422 for the resource itself and for elements of other resources."""
        found = getattr(node, "place", None)
        if found is None:
            raise self.operation.failed("the resource as a whole cannot be patched")
        return found  # type: ignore[no-any-return]

    def holder(self, node: Node) -> dict[str, Any]:
        """The dict into which children of this element go; made for a primitive that has no companion yet."""
        if isinstance(node.value, dict):
            return node.value
        holder, key, index = self.place(node)
        if node.extra is None:
            _set(holder, "_" + key, index, {}, len(holder[key]) if index is not None else 0)
        companion = holder["_" + key]
        return companion if index is None else companion[index]  # type: ignore[no-any-return]

    def value(self, content: str, name: str) -> tuple[str, Any, Any]:
        """(JSON key, value, companion) of the operation's value for the element `name` of a type. Raises Refusal."""
        return _value(self, self.operation.parts["value"], content, name)


def _value(target: _Target, part: dict[str, Any], content: str, name: str) -> tuple[str, Any, Any]:
    model = model_of(target.spec)
    steps = model.steps(content, name) or tuple(step for step in (model.members(content).get(name),) if step)
    if not steps:
        raise target.operation.failed("the element there has no child of that name")
    key = next((key for key in part if key.startswith(("value", "_value"))), None)
    if isinstance(part.get("resource"), dict):
        return steps[0].key, copied(part["resource"]), None
    if key is None:
        return steps[0].key, _anonymous(target, part, steps[0].content), None
    bare = key.lstrip("_")
    if len(steps) == 1:
        chosen = steps[0]
    else:
        wanted = name + bare.removeprefix("value")
        chosen = next((step for step in steps if step.key == wanted), None) or _refuse_type(target)
    return chosen.key, copied(part.get(bare)), copied(part.get("_" + bare))


def _refuse_type(target: _Target) -> Any:
    raise target.operation.failed("the element does not allow a value of that type")


def _anonymous(target: _Target, part: dict[str, Any], content: str) -> dict[str, Any]:
    """A backbone element from nested parts: each part names a child and holds its value or parts of its own."""
    rows = part.get("part")
    if not isinstance(rows, list) or not rows:
        raise target.operation.malformed("its 'value' holds neither a value nor parts")
    made: dict[str, Any] = {}
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("name"), str):
            raise target.operation.malformed("each part must have a name")
        key, value, extra = _value(target, row, content, row["name"])
        _append(target, made, content, key, value, extra)
    return made


def _repeats(target: _Target, content: str, key: str) -> bool:
    return target.spec.properties(content)[key][0].max != 1


def _append(target: _Target, holder: dict[str, Any], content: str, key: str, value: Any, extra: Any) -> None:
    """Put a value at the end of a list element, or into a single one that is not there yet."""
    if _repeats(target, content, key):
        _insert(holder, key, len(holder.get(key) or holder.get("_" + key) or ()), value, extra)
        return
    name = target.spec.properties(content)[key][0].name
    others = {step.key for step in model_of(target.spec).steps(content, name)}
    if any(other in holder or "_" + other in holder for other in others):
        raise target.operation.failed("the element is there already and cannot repeat; use replace")
    _set(holder, key, None, value, 0)
    _set(holder, "_" + key, None, extra, 0)


def _insert(holder: dict[str, Any], key: str, index: int, value: Any, extra: Any) -> None:
    """Insert into a list and its companion list, which are kept at the same length where both exist."""
    length = max(len(holder.get(key) or ()), len(holder.get("_" + key) or ()))
    for name, new in ((key, value), ("_" + key, extra)):
        if name in holder or new is not None:
            row = holder.setdefault(name, [])
            row += [None] * (length - len(row))
            row.insert(index, new)


def _set(holder: dict[str, Any], key: str, index: int | None, value: Any, length: int) -> None:
    """Set or (with None) take away a member or a place of a list."""
    if index is None:
        if value is None:
            holder.pop(key, None)
        else:
            holder[key] = value
    elif key in holder or value is not None:
        row = holder.setdefault(key, [])
        row += [None] * (max(length, index + 1) - len(row))
        row[index] = value
        if all(inner is None for inner in row):
            del holder[key]


def _add(target: _Target) -> None:
    node = target.one()
    key, value, extra = target.value(node.content, target.operation.text("name"))
    _append(target, target.holder(node), node.content, key, value, extra)


def _delete(target: _Target) -> None:
    nodes = target.nodes(target.operation.path)
    if len(nodes) > 1:
        raise target.operation.failed("the path selects several elements")
    if nodes:
        holder, key, index = target.place(nodes[0])
        _remove(holder, key, index)
        _prune(target.res, holder)


def _remove(holder: dict[str, Any], key: str, index: int | None) -> None:
    for name in (key, "_" + key):
        row = holder.get(name)
        if index is None:
            holder.pop(name, None)
        elif isinstance(row, list) and index < len(row):
            del row[index]
            if all(inner is None for inner in row):
                del holder[name]


def _prune(value: Any, emptied: dict[str, Any]) -> bool:
    """Take `emptied` out of the tree if it holds nothing any more, and then what holds nothing else. True if `value` is empty now."""
    if isinstance(value, dict):
        gone = [name for name, inner in value.items() if isinstance(inner, dict | list) and _prune(inner, emptied)]
        for name in gone:
            del value[name]
        return not value and (bool(gone) or value is emptied)
    kept = [inner for inner in value if not (isinstance(inner, dict | list) and _prune(inner, emptied))]
    changed = len(kept) != len(value)
    value[:] = kept
    return changed and not kept


def _replace(target: _Target) -> None:
    node = target.one()
    holder, key, index = target.place(node)
    parent, name = _parent(target, holder, key)
    new_key, value, extra = target.value(parent, name)
    if index is None:
        _remove(holder, key, None)
        holder.update({} if value is None else {new_key: value})
        holder.update({} if extra is None else {"_" + new_key: extra})
        return
    length = len(holder.get(key) or holder.get("_" + key) or ())
    _set(holder, key, index, value, length)
    _set(holder, "_" + key, index, extra, length)


def _parent(target: _Target, holder: dict[str, Any], key: str) -> tuple[str, str]:
    """(type or backbone of a holder, element name of its JSON key), found by walking down from the root."""
    model = model_of(target.spec)

    def walk(value: dict[str, Any], content: str) -> str:
        if value is holder:
            return content
        for name, inner in value.items():
            step = model.members(content).get(name.removeprefix("_"))
            if step is not None:
                for one in inner if isinstance(inner, list) else [inner]:
                    if isinstance(one, dict):
                        below = model.root(one, step.type) if step.type == "Resource" else step.content
                        found = walk(one, below)
                        if found:
                            return found
        return ""

    content = walk(target.res, str(target.res["resourceType"]))
    return content, target.spec.properties(content)[key][0].name


def _list(target: _Target) -> tuple[dict[str, Any], str, str, int]:
    """(holder, its type, element name, length) of the list that the path selects; the list may be empty if the path is `parent.name`. Raises Refusal."""
    nodes = target.nodes(target.operation.path)
    if nodes:
        holder, key, index = target.place(nodes[0])
        if index is None or any(target.place(node)[0] is not holder or target.place(node)[1] != key for node in nodes):
            raise target.operation.failed("the path does not select one list")
        if len(nodes) != max(len(holder.get(key) or ()), len(holder.get("_" + key) or ())):
            raise target.operation.failed("the path selects only a part of a list")
        return holder, *_parent(target, holder, key), len(nodes)
    left, dot, name = target.operation.path.rpartition(".")
    parents = target.nodes(left) if dot and name.isidentifier() else []
    if len(parents) != 1 or not model_of(target.spec).steps(parents[0].content, name):
        raise target.operation.failed("the path selects no list")
    return target.holder(parents[0]), parents[0].content, name, 0


def _insert_operation(target: _Target) -> None:
    holder, content, name, length = _list(target)
    index = target.operation.index("index")
    key, value, extra = target.value(content, name)
    if not _repeats(target, content, key):
        raise target.operation.failed("the element there is not a list")
    if index > length:
        raise target.operation.failed("the index is beyond the end of the list")
    _insert(holder, key, index, value, extra)


def _move(target: _Target) -> None:
    holder, _, name, length = _list(target)
    source, destination = target.operation.index("source"), target.operation.index("destination")
    if source >= length or destination >= length:
        raise target.operation.failed("an index is beyond the end of the list")
    for key in (name, "_" + name):
        row = holder.get(key)
        if isinstance(row, list):
            row += [None] * (length - len(row))
            row.insert(destination, row.pop(source))


_APPLY: dict[str, Callable[[_Target], None]] = {"add": _add, "insert": _insert_operation, "delete": _delete, "replace": _replace, "move": _move}
