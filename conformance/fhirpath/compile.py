"""Abstract syntax -> closures `Ctx -> list of items`. https://hl7.org/fhirpath/N1/#expressions"""

from typing import Any

from conformance.fhirpath import operators
from conformance.fhirpath import syntax as ast
from conformance.fhirpath.context import Apply, Ctx, Expr, add_values
from conformance.fhirpath.errors import ExecutionProblem, SemanticProblem
from conformance.fhirpath.functions import TABLE
from conformance.fhirpath.model import Model
from conformance.fhirpath.quantity import Quantity
from conformance.fhirpath.typing import type_filter, type_name, type_test
from conformance.fhirpath.values import Node, TypeInfo, single

VARIABLES = {"sct": "http://snomed.info/sct", "loinc": "http://loinc.org", "ucum": "http://unitsofmeasure.org"}
_EMPTY: list[Any] = []


def compile_tree(tree: ast.Node, model: Model) -> Expr:
    """The closure of a syntax tree. Raises SemanticProblem for unknown functions, types and wrong numbers of arguments."""
    match tree:
        case ast.Literal(values):
            constant = list(values)
            return lambda ctx: constant
        case ast.Name(name):
            return _start(name, model)
        case ast.Dot(left, right):
            return _then(compile_tree(left, model), _step(right, model))
        case ast.Call():
            step = _step(tree, model)
            return lambda ctx: step(ctx, ctx.focus)
        case ast.At(left, index):
            return _at(compile_tree(left, model), compile_tree(index, model))
        case ast.Sign(op, operand):
            return operators.sign(op, compile_tree(operand, model))
        case ast.Binary(op, left, right):
            return _binary(op, compile_tree(left, model), compile_tree(right, model))
        case ast.TypeTest(op, left, name):
            make = type_test if op == "is" else type_filter
            return _then(compile_tree(left, model), make(name, model, one=True))
        case ast.Dollar(name):
            return _dollar(name)
        case ast.Variable(name):
            return _variable(name)


def _then(left: Expr, step: Apply) -> Expr:
    return lambda ctx: step(ctx, left(ctx))


def _step(node: ast.Name | ast.Call, model: Model) -> Apply:
    """What follows a dot."""
    if isinstance(node, ast.Name):
        return member(node.name, model)
    if node.name in ("is", "as", "ofType"):
        if len(node.args) != 1:
            raise SemanticProblem(f"{node.name}() takes the name of one type")
        make = type_test if node.name == "is" else type_filter
        return make(type_name(node.args[0]), model, one=node.name != "ofType")
    row = TABLE.get(node.name)
    if row is None:
        raise SemanticProblem(f"there is no function {node.name}()")
    least, most, make_step = row
    if not least <= len(node.args) <= most:
        raise SemanticProblem(f"{node.name}() takes {least} to {most} arguments")
    if node.name == "sort":  # `-key` means descending, also for text
        signs = [isinstance(arg, ast.Sign) and arg.op == "-" for arg in node.args]
        bare = [arg.operand if isinstance(arg, ast.Sign) else arg for arg in node.args]
        return make_step([compile_tree(arg, model) for arg in bare], signs)
    return make_step([compile_tree(arg, model) for arg in node.args])


def member(name: str, model: Model) -> Apply:
    """`.name`: the elements of that name in every item."""
    known: dict[str, Any] = {}

    def run(ctx: Ctx, items: list[Any]) -> list[Any]:
        found: list[Any] = []
        env = ctx.env
        env.spend(len(items))
        for item in items:
            if type(item) is not Node:
                found += _system_member(item, name)
                continue
            holder = item.value if type(item.value) is dict else item.extra
            if not holder:
                continue
            steps = known.get(item.content)
            if steps is None:
                steps = known[item.content] = model.steps(item.content, name)
            for step in steps if len(steps) == 1 else [step for step in steps if step.key in holder or step.under in holder]:
                value = holder.get(step.key)
                extra = holder.get(step.under)
                if extra is None and type(value) is not list and step.type != "Resource" and not env.track:
                    if value is not None:
                        found.append(Node(value, step.type, step.content))
                else:
                    add_values(env, found, holder, step.under, value, step.type, step.content)
        return found

    return run


def _system_member(item: Any, name: str) -> list[Any]:
    if isinstance(item, TypeInfo):
        return [getattr(item, name)] if name in ("name", "namespace") else []
    if isinstance(item, Quantity) and name in ("value", "unit", "code"):
        return [item.value if name == "value" else item.unit]
    return []


def _start(name: str, model: Model) -> Expr:
    """A name that starts a path: the type of the focus (`Patient.name`), or an element of it."""
    step = member(name, model)
    if name not in model.names or not name[0].isupper():
        return lambda ctx: step(ctx, ctx.focus)

    def run(ctx: Ctx) -> list[Any]:
        return [item for item in ctx.focus if type(item) is Node and model.is_a(item.type, name)] or step(ctx, ctx.focus)

    return run


def _at(left: Expr, index: Expr) -> Expr:
    def run(ctx: Ctx) -> list[Any]:
        items = left(ctx)
        place = single(index(ctx), "an index")
        if place is None:
            return []
        if type(place) is not int:
            raise ExecutionProblem("an index must be an integer")
        return items[place : place + 1] if place >= 0 else []

    return run


def _binary(op: str, left: Expr, right: Expr) -> Expr:
    if op in ("and", "or", "xor", "implies"):
        return operators.LOGIC[op](left, right)
    if op == "|":
        return lambda ctx: operators.distinct(ctx.env, left(ctx) + right(ctx))
    return operators.BINARY[op](left, right)


def _dollar(name: str) -> Expr:
    if name == "$this":
        return lambda ctx: ctx.focus
    if name == "$index":
        return lambda ctx: _EMPTY if ctx.index is None else [ctx.index]
    return lambda ctx: ctx.total or _EMPTY


def _variable(name: str) -> Expr:
    if name in ("context", "resource", "rootResource"):
        slot = "root" if name == "rootResource" else name
        return lambda ctx: getattr(ctx.env, slot)
    url = VARIABLES.get(name) or _canonical(name)
    if url:
        constant = [url]
        return lambda ctx: constant

    def run(ctx: Ctx) -> list[Any]:
        found = ctx.env.variables.get(name)
        if found is None:
            raise ExecutionProblem("the expression uses a variable that is not set")
        return found

    return run


def _canonical(name: str) -> str:
    """`%vs-name` and `%ext-name` (https://hl7.org/fhir/R4/fhirpath.html#vars)."""
    if name.startswith("vs-"):
        return f"http://hl7.org/fhir/ValueSet/{name[3:]}"
    return f"http://hl7.org/fhir/StructureDefinition/{name[4:]}" if name.startswith("ext-") else ""
