"""Functions on collections: existence, filtering, subsetting, combining, navigation. https://hl7.org/fhirpath/N1/#existence"""

from collections.abc import Callable
from functools import cmp_to_key
from typing import Any

from conformance.fhirpath.context import Apply, Ctx, Env, Expr, children
from conformance.fhirpath.errors import ExecutionProblem
from conformance.fhirpath.operators import answer, distinct
from conformance.fhirpath.temporal import Temporal
from conformance.fhirpath.values import Node, key, less, single, system, truth, type_of

MAX_ITEMS = 100_000


def each(ctx: Ctx, items: list[Any], expr: Expr) -> list[list[Any]]:
    """The value of `expr` for every item, with `$this` and `$index` set."""
    ctx.env.spend(len(items))
    inner = Ctx(ctx.env, items, total=ctx.total)
    found = []
    for place, item in enumerate(items):
        inner.focus, inner.index = [item], place
        found.append(expr(inner))
    return found


def _plain(compute: Callable[[Env, list[Any]], list[Any]]) -> Callable[[list[Expr]], Apply]:
    """A function without arguments."""
    return lambda args: lambda ctx, items: compute(ctx.env, items)


def _where(args: list[Expr]) -> Apply:
    test = args[0]

    def run(ctx: Ctx, items: list[Any]) -> list[Any]:
        return [item for item, answers in zip(items, each(ctx, items, test), strict=True) if truth(answers, "where()")]

    return run


def _exists(args: list[Expr]) -> Apply:
    if not args:
        return lambda ctx, items: answer(bool(items))
    where = _where(args)
    return lambda ctx, items: answer(bool(where(ctx, items)))


def _all(args: list[Expr]) -> Apply:
    return lambda ctx, items: answer(all(truth(answers, "all()") for answers in each(ctx, items, args[0])))


def _select(args: list[Expr]) -> Apply:
    def run(ctx: Ctx, items: list[Any]) -> list[Any]:
        found = [item for answers in each(ctx, items, args[0]) for item in answers]
        ctx.env.spend(len(found))
        return found

    return run


def _repeat(args: list[Expr]) -> Apply:
    def run(ctx: Ctx, items: list[Any]) -> list[Any]:
        seen: set[Any] = set()
        found: list[Any] = []
        queue = items
        while queue:
            fresh = []
            for item in (inner for answers in each(ctx, queue, args[0]) for inner in answers):
                mark = id(item.value) if isinstance(item, Node) and isinstance(item.value, dict) else key(item)
                if mark not in seen:
                    seen.add(mark)
                    fresh.append(item)
            found += fresh
            ctx.env.spend(len(fresh))
            queue = fresh
        return found

    return run


def _aggregate(args: list[Expr]) -> Apply:
    def run(ctx: Ctx, items: list[Any]) -> list[Any]:
        ctx.env.spend(len(items))
        inner = Ctx(ctx.env, items, total=args[1](ctx) if len(args) > 1 else [])
        for place, item in enumerate(items):
            inner.focus, inner.index = [item], place
            inner.total = args[0](inner)
        return inner.total or []

    return run


def _iif(args: list[Expr]) -> Apply:
    def run(ctx: Ctx, items: list[Any]) -> list[Any]:
        if len(items) > 1 and items is not ctx.focus:
            raise ExecutionProblem("iif() needs one item, not several")
        inner = ctx if items is ctx.focus else Ctx(ctx.env, items, ctx.index, ctx.total)
        if truth(args[0](inner), "iif()"):
            return args[1](inner)
        return args[2](inner) if len(args) > 2 else []

    return run


def _booleans(env: Env, items: list[Any], what: str) -> list[bool]:
    found = [system(item) for item in items]
    if any(not isinstance(value, bool) for value in found):
        raise ExecutionProblem(f"{what} needs booleans")
    return found


def _not(env: Env, items: list[Any]) -> list[Any]:
    value = truth(items, "not()")
    return [] if value is None else answer(not value)


def _slice(take: Callable[[list[Any], int], list[Any]], what: str) -> Callable[[list[Expr]], Apply]:
    def make(args: list[Expr]) -> Apply:
        def run(ctx: Ctx, items: list[Any]) -> list[Any]:
            count = single(args[0](ctx), what)
            if count is None:
                return []
            if type(count) is not int:
                raise ExecutionProblem(f"{what} needs an integer")
            return take(items, count)

        return run

    return make


def _with_other(combine: Callable[[Env, list[Any], list[Any]], list[Any]]) -> Callable[[list[Expr]], Apply]:
    """A function of two collections; the argument is evaluated on the outer focus."""
    return lambda args: lambda ctx, items: combine(ctx.env, items, args[0](ctx))


def _intersect(env: Env, items: list[Any], other: list[Any]) -> list[Any]:
    keys = {key(item) for item in other}
    return distinct(env, [item for item in items if key(item) in keys])


def _exclude(env: Env, items: list[Any], other: list[Any]) -> list[Any]:
    keys = {key(item) for item in other}
    return [item for item in items if key(item) not in keys]


def _combine(env: Env, items: list[Any], other: list[Any]) -> list[Any]:
    if len(items) + len(other) > MAX_ITEMS:
        raise ExecutionProblem(f"the expression collects more than {MAX_ITEMS} items")
    env.spend(len(items) + len(other))
    return items + other


def _single(env: Env, items: list[Any]) -> list[Any]:
    if len(items) > 1:
        raise ExecutionProblem("single() found several items")
    return items


def _children(env: Env, items: list[Any]) -> list[Any]:
    return [child for item in items for child in children(env, item)]


def _descendants(env: Env, items: list[Any]) -> list[Any]:
    found: list[Any] = []
    level = _children(env, items)
    while level:
        found += level
        level = _children(env, level)
    return found


def _distinct_functions(count_only: bool) -> Callable[[Env, list[Any]], list[Any]]:
    def run(env: Env, items: list[Any]) -> list[Any]:
        unique = distinct(env, items)
        return answer(len(unique) == len(items)) if count_only else unique

    return run


def _sort(args: list[Expr], signs: list[bool]) -> Apply:
    def run(ctx: Ctx, items: list[Any]) -> list[Any]:
        columns = [[single(values, "sort()") for values in each(ctx, items, arg)] for arg in args] or [[system(item) for item in items]]
        falling = signs or [False]
        ctx.env.spend(len(items) * 20)

        def order(one: int, two: int) -> int:
            for column, down in zip(columns, falling, strict=True):
                left, right = column[one], column[two]
                result = _order(left, right, ctx.env)
                if result:
                    return -result if down else result
            return 0

        return [items[place] for place in sorted(range(len(items)), key=cmp_to_key(order))]

    return run


def _order(left: Any, right: Any, env: Env) -> int:
    if left is None or right is None:
        return (left is None) - (right is None)  # what is empty comes last, and first where the order falls
    return -1 if less(left, right, env.units) else 1 if less(right, left, env.units) else 0


def _trace(args: list[Expr]) -> Apply:
    def run(ctx: Ctx, items: list[Any]) -> list[Any]:
        if ctx.env.trace is not None:
            shown = each(ctx, items, args[1]) if len(args) > 1 else [items]
            ctx.env.trace(str(single(args[0](ctx), "trace()")), sum(len(values) for values in shown))
        return items

    return run


def _subset(env: Env, items: list[Any], other: list[Any]) -> list[Any]:
    return answer({key(item) for item in items} <= {key(item) for item in other})


def _superset(env: Env, items: list[Any], other: list[Any]) -> list[Any]:
    return _subset(env, other, items)


TABLE: dict[str, tuple[int, int, Callable[..., Apply]]] = {
    "empty": (0, 0, _plain(lambda env, items: answer(not items))),
    "exists": (0, 1, _exists),
    "all": (1, 1, _all),
    "allTrue": (0, 0, _plain(lambda env, items: answer(all(_booleans(env, items, "allTrue()"))))),
    "anyTrue": (0, 0, _plain(lambda env, items: answer(any(_booleans(env, items, "anyTrue()"))))),
    "allFalse": (0, 0, _plain(lambda env, items: answer(not any(_booleans(env, items, "allFalse()"))))),
    "anyFalse": (0, 0, _plain(lambda env, items: answer(not all(_booleans(env, items, "anyFalse()"))))),
    "not": (0, 0, _plain(_not)),
    "count": (0, 0, _plain(lambda env, items: [len(items)])),
    "distinct": (0, 0, _plain(_distinct_functions(False))),
    "isDistinct": (0, 0, _plain(_distinct_functions(True))),
    "subsetOf": (1, 1, _with_other(_subset)),
    "supersetOf": (1, 1, _with_other(_superset)),
    "where": (1, 1, _where),
    "select": (1, 1, _select),
    "repeat": (1, 1, _repeat),
    "aggregate": (1, 2, _aggregate),
    "iif": (2, 3, _iif),
    "single": (0, 0, _plain(_single)),
    "first": (0, 0, _plain(lambda env, items: items[:1])),
    "last": (0, 0, _plain(lambda env, items: items[-1:])),
    "tail": (0, 0, _plain(lambda env, items: items[1:])),
    "skip": (1, 1, _slice(lambda items, count: items[max(count, 0) :], "skip()")),
    "take": (1, 1, _slice(lambda items, count: items[: max(count, 0)], "take()")),
    "intersect": (1, 1, _with_other(_intersect)),
    "exclude": (1, 1, _with_other(_exclude)),
    "union": (1, 1, _with_other(lambda env, items, other: distinct(env, _combine(env, items, other)))),
    "combine": (1, 1, _with_other(_combine)),
    "children": (0, 0, _plain(_children)),
    "descendants": (0, 0, _plain(_descendants)),
    "trace": (1, 2, _trace),
    "sort": (0, 9, _sort),
    "type": (0, 0, _plain(lambda env, items: [type_of(item) for item in items])),
    "today": (0, 0, _plain(lambda env, items: [Temporal("date", env.now().parts[:3])])),
    "now": (0, 0, _plain(lambda env, items: [env.now()])),
    "timeOfDay": (0, 0, _plain(lambda env, items: [Temporal("time", (1, 1, 1, *env.now().parts[3:]))])),
}
