"""FHIR's additional functions. https://hl7.org/fhir/R4/fhirpath.html#functions"""

from collections.abc import Callable
from typing import Any

from conformance.fhirpath.context import Apply, Ctx, Env, Expr, children, make_node
from conformance.fhirpath.errors import ExecutionProblem
from conformance.fhirpath.operators import answer
from conformance.fhirpath.strings import subject
from conformance.fhirpath.values import Node, single


def _extension(args: list[Expr]) -> Apply:
    def run(ctx: Ctx, items: list[Any]) -> list[Any]:
        url = subject(args[0](ctx), "extension()")
        if url is None:
            return []
        found = []
        for item in items:
            holder = (item.value if isinstance(item.value, dict) else item.extra) if isinstance(item, Node) else None
            rows = holder.get("extension") if holder else None
            for place, row in enumerate(rows if isinstance(rows, list) else ()):
                if isinstance(row, dict) and row.get("url") == url:
                    found.append(Node(row, "Extension", "Extension"))
                    if ctx.env.track and holder:
                        found[-1].place = (holder, "extension", place)
        ctx.env.spend(len(items) + len(found))
        return found

    return run


def _has_extension(args: list[Expr]) -> Apply:
    find = _extension(args)
    return lambda ctx, items: answer(bool(find(ctx, items)))


def _has_value(args: list[Expr]) -> Apply:
    def run(ctx: Ctx, items: list[Any]) -> list[Any]:
        if len(items) != 1:
            return answer(False)
        item = items[0]
        return answer(not isinstance(item, Node) or (item.value is not None and not isinstance(item.value, dict)))

    return run


def _get_value(args: list[Expr]) -> Apply:
    has = _has_value(args)
    return lambda ctx, items: [single(items, "getValue()")] if has(ctx, items) == [True] else []


def _resolve(args: list[Expr]) -> Apply:
    def run(ctx: Ctx, items: list[Any]) -> list[Any]:
        ctx.env.spend(len(items) * 10)
        found = []
        for item in items:
            reference = _reference(item)
            res = _target(ctx.env, reference) if reference else None
            if res is not None:
                found.append(make_node(ctx.env, res, "Resource", "Resource"))
        return found

    return run


def _reference(item: Any) -> str | None:
    value = item.value if isinstance(item, Node) else item
    if isinstance(value, dict):
        value = value.get("reference")
    return value if isinstance(value, str) else None


def _target(env: Env, reference: str) -> dict[str, Any] | None:
    """A contained resource by '#id', an entry of the same bundle by fullUrl, otherwise what the caller's `resolve` finds."""
    root = env.root[0].value if env.root and isinstance(env.root[0], Node) else {}
    if reference.startswith("#"):
        held = [root] if reference == "#" else root.get("contained", ())
        return next((res for res in held if isinstance(res, dict) and (reference == "#" or res.get("id") == reference[1:])), None)
    if root.get("resourceType") == "Bundle" and (found := _entry(root, reference)) is not None:
        return found
    return env.resolve(reference) if env.resolve is not None else None


def _entry(bundle: dict[str, Any], reference: str) -> dict[str, Any] | None:
    """The entry of a bundle that a reference means: by fullUrl, or by the end of it for a relative one (https://hl7.org/fhir/R4/bundle.html#references)."""
    end = "/" + reference.split("/_history/", 1)[0]
    relative = "://" not in reference and not reference.startswith("urn:")
    for entry in bundle.get("entry", ()):
        full = entry.get("fullUrl") if isinstance(entry, dict) else None
        if isinstance(full, str) and (full == reference or (relative and full.endswith(end))) and isinstance(entry.get("resource"), dict):
            return entry["resource"]  # type: ignore[no-any-return]
    return None


def _subsumption(swap: bool) -> Callable[[list[Expr]], Apply]:
    """`subsumes(code)` and `subsumedBy(code)`: both codes as JSON go to the caller's service."""
    name = "subsumedBy()" if swap else "subsumes()"

    def make(args: list[Expr]) -> Apply:
        def run(ctx: Ctx, items: list[Any]) -> list[Any]:
            other = args[0](ctx)
            if len(items) != 1 or len(other) != 1:
                return []
            if ctx.env.subsumes is None:
                raise ExecutionProblem(f"{name} needs a terminology service")
            one, two = (item.value if isinstance(item, Node) else item for item in (items[0], other[0]))
            return answer(ctx.env.subsumes(two, one) if swap else ctx.env.subsumes(one, two))

        return run

    return make


def _member_of(args: list[Expr]) -> Apply:
    def run(ctx: Ctx, items: list[Any]) -> list[Any]:
        url = subject(args[0](ctx), "memberOf()")
        if len(items) != 1 or url is None:
            return []
        if ctx.env.member_of is None:
            raise ExecutionProblem("memberOf() needs a terminology service")
        item = items[0]
        return answer(ctx.env.member_of(item.value if isinstance(item, Node) else item, url))

    return run


def _conforms(args: list[Expr]) -> Apply:
    def run(ctx: Ctx, items: list[Any]) -> list[Any]:
        url = subject(args[0](ctx), "conformsTo()")
        if not items or url is None:
            return []
        item = items[0]
        if len(items) > 1 or not isinstance(item, Node):
            raise ExecutionProblem("conformsTo() needs one element")
        prefix = "http://hl7.org/fhir/StructureDefinition/"
        if url.startswith(prefix) and url[len(prefix) :] in ctx.env.model.names and not ctx.env.model.is_a(item.type, url[len(prefix) :]):
            return answer(False)
        if ctx.env.conforms is not None:
            try:
                return answer(ctx.env.conforms(item.value, url))
            except KeyError as error:
                raise ExecutionProblem("conformsTo() names a profile that is not known") from error
        if url.startswith(prefix) and url[len(prefix) :] in ctx.env.model.names:
            return answer(True)
        raise ExecutionProblem("conformsTo() names a profile that is not known")

    return run


def _html_checks(args: list[Expr]) -> Apply:
    def run(ctx: Ctx, items: list[Any]) -> list[Any]:
        if ctx.env.html is None or len(items) != 1:
            return answer(True)
        value = single(items, "htmlChecks()")
        return answer(isinstance(value, str) and ctx.env.html(value))

    return run


def _check_modifiers(args: list[Expr]) -> Apply:
    def run(ctx: Ctx, items: list[Any]) -> list[Any]:
        allowed = {subject(arg(ctx), "checkModifiers()") for arg in args}
        for item in items:
            for child in children(ctx.env, item):
                if (
                    child.type == "Extension"
                    and isinstance(item.value, dict)
                    and child.value in item.value.get("modifierExtension", ())
                    and child.value.get("url") not in allowed
                ):
                    raise ExecutionProblem("checkModifiers() found a modifier extension that is not allowed")
        return items

    return run


TABLE: dict[str, tuple[int, int, Callable[..., Apply]]] = {
    "extension": (1, 1, _extension),
    "hasExtension": (1, 1, _has_extension),  # not of the standard, but R4 publishes a search parameter that uses it
    "hasValue": (0, 0, _has_value),
    "getValue": (0, 0, _get_value),
    "resolve": (0, 0, _resolve),
    "memberOf": (1, 1, _member_of),
    "subsumes": (1, 1, _subsumption(False)),
    "subsumedBy": (1, 1, _subsumption(True)),
    "conformsTo": (1, 1, _conforms),
    "htmlChecks": (0, 0, _html_checks),
    "htmlChecks2": (0, 0, _html_checks),
    "checkModifiers": (0, 20, _check_modifiers),
}
