"""Static types of an expression: element names and types that cannot be are refused before anything is evaluated.

https://hl7.org/fhirpath/N1/#type-safety-and-strict-evaluation. Where a type cannot be told (descendants(), variables, resources in resources), nothing is refused.
"""

from dataclasses import dataclass

from conformance.fhirpath import syntax as ast
from conformance.fhirpath.errors import SemanticProblem
from conformance.fhirpath.model import ABSTRACT_RESOURCES, SYSTEM, Model
from conformance.fhirpath.typing import type_name

_SAME = frozenset(("where", "first", "last", "tail", "skip", "take", "single", "distinct", "trace", "exclude", "intersect", "sort", "checkModifiers"))
_LAMBDA = frozenset(("where", "all", "exists", "select", "repeat", "aggregate", "iif", "trace", "sort"))
_ORDERED = frozenset(("first", "last", "tail", "skip", "take"))


@dataclass(frozen=True, slots=True)
class Kind:
    """What an expression gives. types: (FHIR type, content) pairs, None if unknown; ordered: False after children()."""

    types: frozenset[tuple[str, str]] | None
    ordered: bool = True


UNKNOWN = Kind(None)


def check(tree: ast.Node, context: str, model: Model, *, strict: bool, ordered: bool) -> Kind:
    """The kind of the expression evaluated on an element of type `context`. Raises SemanticProblem."""
    return _Checker(model, strict, ordered).infer(tree, _kind(context, model))


def _kind(type_: str, model: Model) -> Kind:
    return UNKNOWN if type_ in ABSTRACT_RESOURCES else Kind(frozenset([(type_, model.content(type_))]))


@dataclass(frozen=True, slots=True)
class _Checker:
    model: Model
    strict: bool
    ordered: bool

    def infer(self, tree: ast.Node, focus: Kind) -> Kind:
        match tree:
            case ast.Name(name):
                return self.start(name, focus)
            case ast.Dot(left, ast.Name(name)):
                return self.child(self.infer(left, focus), name)
            case ast.Dot(left, ast.Call(name, args)):
                return self.call(self.infer(left, focus), name, args, focus)
            case ast.Call(name, args):
                return self.call(focus, name, args, focus)
            case ast.At(left, index):
                self.infer(index, focus)
                return self.in_order(self.infer(left, focus), "an index")
            case ast.Sign(_, operand):
                self.infer(operand, focus)
            case ast.Binary(op, left, right):
                one, two = self.infer(left, focus), self.infer(right, focus)
                if op == "|" and one.types is not None and two.types is not None:
                    return Kind(one.types | two.types, one.ordered and two.ordered)
            case ast.TypeTest("as", left, name):
                return self.narrow(self.infer(left, focus), name)
            case ast.Dollar("$this"):
                return focus
        return UNKNOWN

    def start(self, name: str, focus: Kind) -> Kind:
        if focus.types is not None and name in self.model.names and name[0].isupper():
            matching = frozenset(row for row in focus.types if self.model.is_a(row[0], name) or self.model.is_a(name, row[0]))
            if matching:
                return Kind(matching)
        return self.child(focus, name)

    def child(self, kind: Kind, name: str) -> Kind:
        if kind.types is None or not kind.types:
            return UNKNOWN
        steps = [step for _, content in kind.types for step in self.model.steps(content, name)]
        if not steps:
            if all(content in self.model.names or "." in content for _, content in kind.types):
                raise SemanticProblem("the expression names an element that its type does not have")
            return UNKNOWN
        if any(step.type in ABSTRACT_RESOURCES for step in steps):
            return UNKNOWN
        return Kind(frozenset((step.type, step.content) for step in steps), kind.ordered)

    def call(self, kind: Kind, name: str, args: tuple[ast.Node, ...], focus: Kind) -> Kind:
        if name in ("as", "ofType", "is") and len(args) == 1:
            return UNKNOWN if name == "is" else self.narrow(kind, type_name(args[0]))
        kinds = [self.infer(arg, kind if name in _LAMBDA else focus) for arg in args]
        if (
            name == "iif"
            and self.strict
            and args
            and isinstance(args[0], ast.Literal)
            and not all(isinstance(value, bool) for value in args[0].values)
        ):
            raise SemanticProblem("the criterion of iif() must be a boolean")
        if name in ("children", "descendants"):
            return Kind(None, ordered=False)
        if name in _ORDERED:
            return self.in_order(kind, f"{name}()")
        if name in _SAME:
            return kind
        if name == "select":
            return kinds[0]
        return Kind(frozenset([("Extension", "Extension")])) if name == "extension" else UNKNOWN

    def narrow(self, kind: Kind, name: str) -> Kind:
        bare = name.rpartition(".")[2]
        if bare in SYSTEM and bare not in self.model.names:
            return UNKNOWN
        return _kind(bare, self.model) if bare in self.model.names else UNKNOWN

    def in_order(self, kind: Kind, what: str) -> Kind:
        if self.ordered and not kind.ordered:
            raise SemanticProblem(f"{what} depends on an order that the collection does not have")
        return kind
