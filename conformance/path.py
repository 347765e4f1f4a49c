"""FHIRPath text -> closure: the public door of `conformance/fhirpath`.

https://hl7.org/fhirpath/N1/ and https://hl7.org/fhir/R4/fhirpath.html. Every closure is safe against hostile expressions: text length, nesting, steps, text size
and collection size are limited, and regular expressions run in RE2. Problems are PathProblem (SyntaxProblem, SemanticProblem, ExecutionProblem); their texts
never hold data.

What comes out for an element: its JSON value (dict, text, number, bool); for a primitive that has only extensions nothing. System dates come out as FHIR text,
system quantities as FHIR Quantity.
"""

import logging
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from conformance.fhirpath import select
from conformance.fhirpath.check import check
from conformance.fhirpath.compile import compile_tree
from conformance.fhirpath.context import STEPS, Ctx, Env, Expr, Services, make_node
from conformance.fhirpath.errors import ExecutionProblem, PathProblem, SemanticProblem, SyntaxProblem
from conformance.fhirpath.lenient import lenient
from conformance.fhirpath.model import Model
from conformance.fhirpath.parser import parse
from conformance.fhirpath.quantity import Quantity
from conformance.fhirpath.temporal import Temporal
from conformance.fhirpath.values import Node, truth
from conformance.spec import Spec, load_spec

__all__ = [
    "ExecutionProblem", "Node", "PathProblem", "SemanticProblem", "Services", "SyntaxProblem", "compile_invariant", "compile_items", "compile_path", "model_of",
    "search_path", "search_path_typed",
]  # fmt: skip

LOG = logging.getLogger(__name__)
UCUM = "http://unitsofmeasure.org"
NO_SERVICES = Services()
Items = Callable[..., list[Any]]


def model_of(spec: Spec | None = None) -> Model:
    """The navigation model of a Spec (R4 without packages by default), made once."""
    spec = spec or load_spec()
    found: Model | None = spec.memo.get("fhirpath.model")
    if found is None:
        found = spec.memo["fhirpath.model"] = Model(spec)
    return found


def compile_items(
    text: str, *, spec: Spec | None = None, context: str = "", strict: bool = False, ordered: bool = False, services: Services = NO_SERVICES
) -> Items:
    """The closure `run(element, resource=None, root=None, variables=None, type_='', steps=...)` -> items (Node or system values).

    element: a resource, or an element of type `type_` (default `context`); `track=True` lets the nodes know their place (Node.place); context: the FHIR type the expression is checked against, '' for none;
    strict: also refuse what N1 leaves to the engine; ordered: refuse order-dependent functions on unordered collections.
    Raises SyntaxProblem, SemanticProblem; the closure ExecutionProblem.
    """
    model = model_of(spec)
    try:
        tree = parse(text)
        if context:
            check(tree, context, model, strict=strict, ordered=ordered)
        expr = compile_tree(tree, model)
    except RecursionError as error:
        raise SyntaxProblem("the expression nests too deeply") from error
    return _evaluator(expr, model, context, services)


def _evaluator(expr: Expr, model: Model, context: str, services: Services) -> Items:
    def run(
        element: Any,
        resource: dict[str, Any] | None = None,
        root: dict[str, Any] | None = None,
        variables: Mapping[str, Any] | None = None,
        type_: str = "",
        steps: int = STEPS,
        track: bool = False,
    ) -> list[Any]:
        env = Env(model, services, steps)
        env.track = track
        focus = [element] if isinstance(element, Node) else [_node(env, element, type_ or context)]
        env.context = focus
        env.resource = focus if resource is None or resource is element else [make_node(env, resource, "Resource", "Resource")]
        env.root = env.resource if root is None or root is resource else [make_node(env, root, "Resource", "Resource")]
        if variables:
            env.variables = {name: value if isinstance(value, list) else [value] for name, value in variables.items()}
        try:
            return list(expr(Ctx(env, focus)))  # constants are shared: the caller gets a list of its own
        except RecursionError as error:
            raise ExecutionProblem("the expression nests too deeply") from error

    return run


def _node(env: Env, element: Any, type_: str) -> Node:
    if isinstance(element, dict) and "resourceType" in element and "." not in type_:  # ExampleScenario.instance has an element of that name
        return make_node(env, element, "Resource", "Resource")
    if isinstance(element, dict) and not type_:
        raise ExecutionProblem("the type of the element must be given")
    return Node(element, type_, env.model.content(type_))


def compile_path(text: str, *, spec: Spec | None = None, context: str = "", services: Services = NO_SERVICES) -> Items:
    """Like `compile_items`, but the closure gives JSON values."""
    run = compile_items(text, spec=spec, context=context, services=services)
    return lambda element, *args, **named: [value for item in run(element, *args, **named) if (value := plain(item)) is not None]


def plain(item: Any) -> Any:
    """The JSON value of an item; None for a primitive that has only extensions, and for types."""
    if isinstance(item, Node):
        return item.value
    if isinstance(item, Temporal):
        return item.text()
    if isinstance(item, Quantity):
        return {"value": item.value, "unit": item.unit} | ({} if item.calendar else {"system": UCUM, "code": item.unit})
    return item if isinstance(item, bool | int | Decimal | str) else None


def compile_invariant(text: str, type_: str, *, spec: Spec | None = None, services: Services = NO_SERVICES) -> Callable[..., bool]:
    """A constraint on elements of `type_` (a type, or a backbone path such as 'Patient.contact') as `run(value, resource, root=None, extra=None,
    services=None)` -> bool.

    value: the element's JSON value (None for a primitive with extensions only); resource: the resource it stands in (`%resource`); root: the outermost one
    (`%rootResource`, default resource); extra: the `_name` companion of a primitive; services: lent to this run instead. Empty counts as kept (https://hl7.org/fhir/R4/conformance-rules.html#constraints).
    R4's own lax spellings are understood (see lenient.py). The closure raises ExecutionProblem; one of a text that cannot be compiled (a profile may hold
    anything) raises it always, so that whoever judges a resource reports the rule as not evaluated.
    """
    model = model_of(spec)
    try:
        expr = compile_tree(lenient(parse(text), model), model)
    except (PathProblem, RecursionError) as problem:
        return _unusable(str(problem) if isinstance(problem, PathProblem) else "the expression nests too deeply")
    content, lent = model.content(type_), services

    def run(
        value: Any,
        resource: dict[str, Any],
        root: dict[str, Any] | None = None,
        extra: dict[str, Any] | None = None,
        services: Services | None = None,
    ) -> bool:
        env = Env(model, services or lent)
        held = [make_node(env, resource, "Resource", "Resource")]
        focus = held if value is resource else [make_node(env, value, type_, content, extra)]
        env.context, env.resource = focus, held
        env.root = held if root is None or root is resource else [make_node(env, root, "Resource", "Resource")]
        try:
            return truth(expr(Ctx(env, focus)), "a constraint") is not False
        except RecursionError as error:
            raise ExecutionProblem("the expression nests too deeply") from error

    return run


def _unusable(why: str) -> Callable[..., bool]:
    def run(*_: Any, **__: Any) -> bool:
        raise ExecutionProblem(why)

    return run


def search_path(text: str, *, context: str = "", spec: Spec | None = None) -> Callable[..., list[Any]]:
    """A SearchParameter expression as `run(resource)` -> JSON values (primitives without value left out; no order promised between branches of a union).

    context: for a composite's component expression the type or backbone it starts at ('Observation.component'); then `run(element, resource)`.
    References are never resolved: `resolve() is X` is told from the reference's text, its `type` or the contained resource.
    A resource on which the expression cannot be evaluated (`single()` of two names) has no values, and a warning is logged: a search parameter, which a site may
    add, must not stand in the way of a write. Raises SyntaxProblem, SemanticProblem.
    """
    return _search(text, context, spec or load_spec(), False)


def search_path_typed(text: str, *, context: str = "", spec: Spec | None = None) -> Callable[..., list[tuple[Any, str]]]:
    """Like `search_path`, but (value, FHIR type) pairs: ('2020', 'dateTime'), ({...}, 'Period'); a resource has its own type's name."""
    return _search(text, context, spec or load_spec(), True)


def _search(text: str, context: str, spec: Spec, typed: bool) -> Callable[..., list[Any]]:
    known: dict[tuple[str, str, bool], Callable[..., list[Any]]] = spec.memo.setdefault("fhirpath.search", {})
    found = known.get((text, context, typed))
    if found is None:
        found = known[text, context, typed] = _compile_search(text, context, model_of(spec), typed)
    return found


def _compile_search(text: str, context: str, model: Model, typed: bool) -> Callable[..., list[Any]]:
    try:
        tree = lenient(parse(text), model)
        try:
            fast = select.runner(select.branches(tree, context, model), typed)
        except select.Unfit:
            return _slow_search(text, compile_tree(tree, model), model, context, typed)
    except RecursionError as error:
        raise SyntaxProblem("the expression nests too deeply") from error
    return (lambda element, resource=None: fast(element)) if context else fast


def _slow_search(text: str, expr: Expr, model: Model, context: str, typed: bool) -> Callable[..., list[Any]]:
    evaluate = _evaluator(expr, model, context, NO_SERVICES)

    def run(element: Any, resource: dict[str, Any] | None = None) -> list[Any]:
        try:
            items = evaluate(element, resource)
        except ExecutionProblem as problem:
            LOG.warning("a search expression could not be evaluated: %s: %s", text, problem)
            return []
        if not typed:
            return [value for item in items if (value := plain(item)) is not None]
        return [(value, item.type if isinstance(item, Node) else _system_type(item)) for item in items if (value := plain(item)) is not None]

    return run


def _system_type(item: Any) -> str:
    if isinstance(item, Temporal):
        return item.kind
    for kind, name in ((bool, "boolean"), (int, "integer"), (Decimal, "decimal"), (Quantity, "Quantity")):
        if isinstance(item, kind):
            return name
    return "string"
