"""What an evaluation carries: the fixed surroundings (`Env`, one per call) and the changing focus (`Ctx`)."""

from collections.abc import Callable
from typing import Any

from conformance.fhirpath import temporal
from conformance.fhirpath.errors import ExecutionProblem
from conformance.fhirpath.model import Model
from conformance.fhirpath.quantity import Units
from conformance.fhirpath.temporal import Temporal
from conformance.fhirpath.values import Node

STEPS = 200_000  # items touched by one evaluation; some 0.2 s
MAX_TEXT = 1_000_000  # characters of one text that an expression builds
Resolve = Callable[[str], dict[str, Any] | None]


class Env:
    """Surroundings of one evaluation: the model, `%` variables, services given by the caller, and the budget that is left.

    resolve(reference) -> resource or None; member_of(value, valueset) -> bool or None; conforms(resource, profile) -> bool (raises KeyError for an unknown
    profile); html(text) -> bool; subsumes(code, code) -> bool or None; units: see quantity.Units; trace(name, count of items) is told of `trace()`.
    """

    __slots__ = (
        "conforms",
        "context",
        "html",
        "left",
        "member_of",
        "model",
        "moment",
        "resolve",
        "resource",
        "root",
        "subsumes",
        "trace",
        "track",
        "units",
        "variables",
    )

    def __init__(self, model: Model, services: "Services", steps: int = STEPS) -> None:
        self.model = model
        self.left = steps
        self.moment: Temporal | None = None
        self.context: list[Any] = []
        self.resource: list[Any] = []
        self.root: list[Any] = []
        self.variables: dict[str, list[Any]] = {}
        self.resolve = services.resolve
        self.member_of = services.member_of
        self.conforms = services.conforms
        self.html = services.html
        self.units = services.units
        self.trace = services.trace
        self.subsumes = services.subsumes
        self.track = False

    def spend(self, count: int) -> None:
        """Take so many steps from the budget. Raises ExecutionProblem when it is spent."""
        self.left -= count
        if self.left < 0:
            raise ExecutionProblem("the expression takes too many steps")

    def now(self) -> Temporal:
        """The moment of this evaluation, the same at every call."""
        if self.moment is None:
            self.moment = temporal.now()
        return self.moment


class Services:
    """What the caller may lend to an evaluation; each may be None. See Env."""

    __slots__ = ("conforms", "html", "member_of", "resolve", "subsumes", "trace", "units")

    def __init__(
        self,
        resolve: Resolve | None = None,
        member_of: Callable[[Any, str], bool | None] | None = None,
        conforms: Callable[[Any, str], bool] | None = None,
        html: Callable[[str], bool] | None = None,
        units: Units | None = None,
        trace: Callable[[str, int], None] | None = None,
        subsumes: Callable[[Any, Any], bool | None] | None = None,
    ) -> None:
        self.subsumes = subsumes
        self.resolve, self.member_of, self.conforms, self.html, self.units, self.trace = resolve, member_of, conforms, html, units, trace


class Ctx:
    """The focus: `$this` as a collection of one item (all items at the outermost level), `$index` and `$total`."""

    __slots__ = ("env", "focus", "index", "total")

    def __init__(self, env: Env, focus: list[Any], index: int | None = None, total: list[Any] | None = None) -> None:
        self.env, self.focus, self.index, self.total = env, focus, index, total


Expr = Callable[[Ctx], list[Any]]
Apply = Callable[[Ctx, list[Any]], list[Any]]


def children(env: Env, item: Any) -> list[Any]:
    """All child elements of a node, in the order of the JSON members."""
    if type(item) is not Node:
        return []
    found: list[Any] = []
    holder = item.value if type(item.value) is dict else item.extra
    if not holder:
        return found
    members = env.model.members(item.content)
    for name, value in holder.items():
        step = members.get(name)
        if step is not None:
            add_values(env, found, holder, step.under, value, step.type, step.content)
        elif name[:1] == "_" and name[1:] not in holder and (step := members.get(name[1:])) is not None:
            add_values(env, found, holder, step.under, None, step.type, step.content)
    env.spend(len(found) + 1)
    return found


def add_values(env: Env, found: list[Any], holder: dict[str, Any], under: str, value: Any, type_: str, content: str) -> None:
    """Append the node or nodes of one JSON member and its `_name` companion."""
    extra = holder.get(under)
    if type(value) is list or type(extra) is list:
        values = value if type(value) is list else []
        extras = extra if type(extra) is list else []
        for place in range(max(len(values), len(extras))):
            one = values[place] if place < len(values) else None
            more = extras[place] if place < len(extras) else None
            if one is not None or more is not None:
                found.append(make_node(env, one, type_, content, more))
                if env.track:
                    found[-1].place = (holder, under[1:], place)
    elif value is not None or extra is not None:
        found.append(make_node(env, value, type_, content, extra))
        if env.track:
            found[-1].place = (holder, under[1:], None)


def make_node(env: Env, value: Any, type_: str, content: str, extra: Any = None) -> Node:
    """A node; a resource gets the type it names itself."""
    if type_ == "Resource" and type(value) is dict:
        type_ = content = env.model.root(value, type_)
    return Node(value, type_, content, extra if type(extra) is dict else None)
