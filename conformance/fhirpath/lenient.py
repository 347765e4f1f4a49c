"""R4's own expressions as R4 means them. The published invariants and search parameters were written for laxer engines than N1 describes:
`as` filters collections, and `Boolean` or `DateTime` after `is` and `as` mean FHIR's `boolean` and `dateTime`."""

from dataclasses import replace

from conformance.fhirpath import syntax as ast
from conformance.fhirpath.model import SYSTEM, Model


def lenient(tree: ast.Node, model: Model) -> ast.Node:
    """The same tree with `as` read as `ofType`, and bare system type names as FHIR's."""
    match tree:
        case ast.Dot(left, right):
            step = lenient(right, model)
            assert isinstance(step, ast.Name | ast.Call)
            return ast.Dot(lenient(left, model), step)
        case ast.Call(name, (ast.Name(type_),)) if name in ("is", "as", "ofType"):
            return ast.Call("is" if name == "is" else "ofType", (ast.Name(_fhir(type_, model)),))
        case ast.Call(name, args):
            return ast.Call("ofType" if name == "as" else name, tuple(lenient(arg, model) for arg in args))
        case ast.At(left, index):
            return ast.At(lenient(left, model), lenient(index, model))
        case ast.Sign(op, operand):
            return ast.Sign(op, lenient(operand, model))
        case ast.Binary(op, left, right):
            return ast.Binary(op, lenient(left, model), lenient(right, model))
        case ast.TypeTest("as", left, type_):
            return ast.Dot(lenient(left, model), ast.Call("ofType", (ast.Name(_fhir(type_, model)),)))
        case ast.TypeTest(_, left, type_):
            return replace(tree, left=lenient(left, model), type=_fhir(type_, model))
    return tree


def _fhir(name: str, model: Model) -> str:
    lower = name[:1].lower() + name[1:]
    return lower if name in SYSTEM and name not in model.names and lower in model.names else name
