"""JSON Patch (RFC 6902) on a resource: a pure function from (resource, operations) to the new resource. https://hl7.org/fhir/R4/http.html#patch

What is malformed is refused with 400, what cannot be applied (a missing target, a failed test) with 422; each refusal names the operation by its number.
Nothing is changed in place, and nothing is applied unless everything is.
"""

import re
from typing import Any

from conformance.codec import MAX_DEPTH, depth
from conformance.outcome import Refusal, refuse, too_large

MAX_OPERATIONS = 2000
MAX_NODES = 500_000  # values in the result of all copies together: `copy` may double the document each time
_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
_ESCAPES = re.compile(r"~(?![01])")
_NEEDS = {"add": "value", "replace": "value", "test": "value", "move": "from", "copy": "from", "remove": ""}


def json_patch(res: dict[str, Any], operations: Any) -> dict[str, Any]:
    """The patched resource. Raises Refusal 400, 413 or 422; also where the patch would change the resource's type or id.

    Arrays and objects that a `remove` or `move` leaves empty are taken away, because FHIR has none (https://hl7.org/fhir/R4/json.html).
    """
    patched, emptied = _apply(res, operations)
    if not isinstance(patched, dict) or patched.get("resourceType") != res.get("resourceType"):
        raise refuse("business-rule", "a patch may not change the type of a resource", expression="resourceType")
    if "id" in res and patched.get("id") != res["id"]:
        raise refuse("business-rule", "a patch may not change the id of a resource", expression="id")
    return _pruned(patched, {id(holder) for holder in emptied}) or {}


def apply(document: Any, operations: Any) -> Any:
    """The patched document, any JSON value. Raises Refusal as `json_patch` does, without its rules for resources."""
    return _apply(document, operations)[0]


def _apply(document: Any, operations: Any) -> tuple[Any, list[Any]]:
    if not isinstance(operations, list):
        raise refuse("structure", "a JSON Patch must be an array of operations")
    if len(operations) > MAX_OPERATIONS:
        raise too_large(f"a JSON Patch may hold {MAX_OPERATIONS} operations")
    job = _Job(copied(document))
    try:
        for number, operation in enumerate(operations):
            job.run(number, operation)
        check_depth(job.document)
    except RecursionError as error:
        raise too_large("the patch nests the document too deeply") from error
    return job.document, job.emptied


def check_depth(document: Any) -> None:
    """Raises Refusal 413 if a patched document is nested deeper than a body may be."""
    if depth(document) > MAX_DEPTH:
        raise too_large(f"the patch nests the document deeper than {MAX_DEPTH} levels")


def copied(value: Any) -> Any:
    """A copy of a JSON value that shares no dict or list with it."""
    if isinstance(value, dict):
        return {name: copied(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [copied(inner) for inner in value]
    return value


def size(value: Any) -> int:
    """How many JSON values a value consists of."""
    if isinstance(value, dict):
        return 1 + sum(size(inner) for inner in value.values())
    return 1 + sum(size(inner) for inner in value) if isinstance(value, list) else 1


def same(left: Any, right: Any) -> bool:
    """Equality of RFC 6902 section 4.6: numbers by value, never a number with a boolean."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(inner, right[name]) for name, inner in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(same(one, two) for one, two in zip(left, right, strict=True))
    return type(left) is type(right) and left == right if isinstance(left, str) or isinstance(right, str) else left == right


class _Job:
    """One patch at work on its own copy of the document."""

    def __init__(self, document: Any) -> None:
        self.document = document
        self.emptied: list[Any] = []
        self.nodes = 0
        self.number = 0
        self.path = ""

    def run(self, number: int, operation: Any) -> None:
        self.number, self.path = number, ""
        if not isinstance(operation, dict) or operation.get("op") not in _NEEDS:
            raise self.malformed("its 'op' must be one of add, copy, move, remove, replace, test")
        name, needed = str(operation["op"]), _NEEDS[operation["op"]]
        parts = self.pointer(operation, "path")
        self.path = operation["path"]
        if needed and needed not in operation:
            raise self.malformed(f"it lacks '{needed}'")
        if name == "add":
            self.add(parts, copied(operation["value"]))
        elif name == "remove":
            self.remove(parts)
        elif name == "replace":
            self.replace(parts, copied(operation["value"]))
        elif name == "test":
            if not same(self.get(parts), operation["value"]):
                raise self.failed("the test fails")
        else:
            self.transfer(name, self.pointer(operation, "from"), parts)

    def transfer(self, name: str, source: list[str], target: list[str]) -> None:
        """`copy` and `move`."""
        value = self.get(source)
        if name == "copy":
            self.nodes += size(value)
            if self.nodes > MAX_NODES:
                raise too_large(f"operation {self.number} makes the document too large")
            self.add(target, copied(value))
            return
        if target[: len(source)] == source and len(target) > len(source):
            raise self.failed("a value cannot be moved into itself")
        if target != source:
            self.remove(source)
            self.add(target, value)

    def pointer(self, operation: dict[str, Any], key: str) -> list[str]:
        """A JSON Pointer (RFC 6901) as its parts."""
        text = operation.get(key)
        if not isinstance(text, str) or (text and not text.startswith("/")) or _ESCAPES.search(text):
            raise self.malformed(f"its '{key}' is not a JSON Pointer")
        return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]

    def get(self, parts: list[str]) -> Any:
        value = self.document
        for part in parts:
            value = self.inside(value, part)
        return value

    def inside(self, holder: Any, part: str) -> Any:
        if isinstance(holder, dict) and part in holder:
            return holder[part]
        if isinstance(holder, list):
            return holder[self.place(holder, part, len(holder) - 1)]
        raise self.failed("there is nothing at its path")

    def place(self, holder: list[Any], part: str, highest: int) -> int:
        if not _INDEX.fullmatch(part) or int(part) > highest:
            raise self.failed("there is no such place in the array")
        return int(part)

    def add(self, parts: list[str], value: Any) -> None:
        if not parts:
            self.document = value
            return
        holder = self.get(parts[:-1])
        if isinstance(holder, dict):
            holder[parts[-1]] = value
        elif isinstance(holder, list):
            holder.insert(len(holder) if parts[-1] == "-" else self.place(holder, parts[-1], len(holder)), value)
        else:
            raise self.failed("there is no object or array at its path")

    def remove(self, parts: list[str]) -> None:
        if not parts:
            raise self.failed("the whole document cannot be removed")
        holder = self.get(parts[:-1])
        self.inside(holder, parts[-1])
        del holder[parts[-1] if isinstance(holder, dict) else int(parts[-1])]
        if not holder:
            self.emptied.append(holder)

    def replace(self, parts: list[str], value: Any) -> None:
        if not parts:
            self.document = value
            return
        holder = self.get(parts[:-1])
        self.inside(holder, parts[-1])
        holder[parts[-1] if isinstance(holder, dict) else int(parts[-1])] = value

    def malformed(self, why: str) -> Refusal:
        return refuse("structure", f"operation {self.number} of the patch is malformed: {why}")

    def failed(self, why: str) -> Refusal:
        return refuse("business-rule", f"operation {self.number} of the patch cannot be applied at {self.path[:200] or 'the root'}: {why}")


def _pruned(value: Any, emptied: set[int]) -> Any:
    """The value without the holders that the patch emptied, and without those that hold nothing else; None if nothing is left."""
    if isinstance(value, dict):
        kept = {name: inner for name, one in value.items() if (inner := _pruned(one, emptied)) is not None or one is None}
    elif isinstance(value, list):
        kept = [inner for one in value if (inner := _pruned(one, emptied)) is not None or one is None]  # type: ignore[assignment]
    else:
        return value
    return None if not kept and (value or id(value) in emptied) else kept
