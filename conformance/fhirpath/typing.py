"""`is`, `as` and `ofType`. https://hl7.org/fhirpath/N1/#types; https://hl7.org/fhir/R4/fhirpath.html#types"""

from typing import Any

from conformance.fhirpath import syntax as ast
from conformance.fhirpath.context import Apply, Ctx
from conformance.fhirpath.errors import ExecutionProblem, SemanticProblem
from conformance.fhirpath.model import SYSTEM, Model
from conformance.fhirpath.values import Node, type_of


def type_name(node: ast.Node) -> str:
    """The type that an argument names: `Quantity`, `FHIR.Quantity`. Raises SemanticProblem for anything else."""
    if isinstance(node, ast.Name):
        return node.name
    if isinstance(node, ast.Dot) and isinstance(node.left, ast.Name) and isinstance(node.right, ast.Name):
        return f"{node.left.name}.{node.right.name}"
    raise SemanticProblem("the argument must be the name of a type")


def _split(name: str, model: Model) -> tuple[str, str]:
    """(namespace, name); the namespace is '' where both may be meant. Raises SemanticProblem for an unknown type."""
    namespace, _, bare = name.rpartition(".")
    if namespace == "System":
        return namespace, bare
    if namespace not in ("", "FHIR"):
        raise SemanticProblem("the namespace of a type is System or FHIR")
    if bare not in model.names and (namespace or bare not in SYSTEM):
        raise SemanticProblem("there is no such type")
    return namespace or ("System" if bare in SYSTEM and bare not in model.names else ""), bare


def _is(item: Any, namespace: str, name: str, model: Model) -> bool:
    if isinstance(item, Node):
        return namespace != "System" and model.is_a(item.type, name)
    return namespace != "FHIR" and type_of(item).name == name


def type_test(name: str, model: Model, *, one: bool = True) -> Apply:
    """`is`: of no item nothing, of several an error."""
    namespace, bare = _split(name, model)

    def run(_: Ctx, items: list[Any]) -> list[Any]:
        if len(items) > 1:
            raise ExecutionProblem("'is' needs one item, not several")
        return [_is(items[0], namespace, bare, model)] if items else []

    return run


def type_filter(name: str, model: Model, *, one: bool) -> Apply:
    """`as` (one item) and `ofType` (any number): items of exactly that primitive, or of that complex type or one that specialises it."""
    namespace, bare = _split(name, model)
    exact = bare in model.spec.primitives

    def run(_: Ctx, items: list[Any]) -> list[Any]:
        if one and len(items) > 1:
            raise ExecutionProblem("'as' needs one item, not several")
        if exact:
            return [item for item in items if isinstance(item, Node) and item.type == bare]
        return [item for item in items if _is(item, namespace, bare, model)]

    return run
