"""Slicing: which repetition belongs to which slice, and what each slice then asks. https://hl7.org/fhir/R4/profiling.html#slicing

A discriminator is compiled from what the slice says at its path: a fixed or pattern value, a required binding, a type, a profile, existence.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from conformance.gate.match import Instance, expected, node_at, steps, walk
from conformance.gate.report import At, Check, Report
from conformance.gate.tree import Node, profile_tree
from conformance.spec import Spec

Judge = Callable[[Instance, At, Report], None]
Group = Callable[[Mapping[str, Any], list[Instance], At, str, Report], None]
Test = Callable[[Instance, Report], bool | None]
"""True: belongs to the slice; False: does not; None: cannot be told (a reference that cannot be resolved)."""


BY_URL: Mapping[str, Any] = {"discriminator": [{"type": "value", "path": "url"}], "rules": "open"}
EXTENSIONS = ("extension", "modifierExtension")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the compiler of slices needs: the Spec, the profile's name for texts, the sliced node, the compiler of a node's own
    judgement, and the check of another profile."""

    spec: Spec
    where: str
    node: Node
    compile: Callable[[Node], Judge | None]
    profile: Callable[[str], Check]


@dataclass(frozen=True, slots=True)
class Slice:
    """A compiled slice."""

    name: str
    test: Test
    low: int
    high: int | None
    judge: Judge | None
    inner: Group | None


def slicing_judge(facts: Facts) -> Group | None:
    """The judgement of all repetitions of a sliced element; None if nothing can be told apart (no usable discriminator)."""
    described = [each for each in facts.node.slices.values() if "/" not in each.slice]
    slices = [made for each in described if (made := _slice(facts, each)) is not None]
    slicing = _slicing(facts.node)
    rules = slicing.get("rules", "open") if len(slices) == len(described) else "open"  # one that cannot be told may hold what is left
    return _group(facts.where, slices, rules, bool(slicing.get("ordered"))) if slices else None


def _slicing(node: Node) -> Mapping[str, Any]:
    """How an element is sliced; extensions by their url, even if a differential does not say so (https://hl7.org/fhir/R4/profiling.html#extensions)."""
    found: Mapping[str, Any] | None = node.definition.get("slicing")
    return found or (BY_URL if node.name in EXTENSIONS else {})


def _group(where: str, slices: list[Slice], rules: str, ordered: bool) -> Group:
    def judge(holder: Mapping[str, Any], instances: list[Instance], at: At, name: str, report: Report) -> None:
        members: dict[str, list[Instance]] = {each.name: [] for each in slices}
        untold, last, rest = False, -1, False
        for instance in instances:
            found, unclear = _which(slices, instance, report)
            untold = untold or unclear
            place = (at, name, instance.index)
            if found is None:
                if rules == "closed" and not unclear:
                    report.error("structure", f"{where} allows here only what one of its slices describes", place)
                rest = rest or not unclear
                continue
            if rest and rules == "openAtEnd":
                report.error("structure", f"{where} asks for what its slices describe before anything else", place)
            position = slices.index(found)
            if ordered and position < last:
                report.error("structure", f"{where} asks for another order of its slices", place)
            last = max(last, position)
            members[found.name].append(instance)
            if found.judge is not None:
                found.judge(instance, place, report)
        for each in slices:
            _count(where, each, members[each.name], untold, (at, name, None), report)
            if each.inner is not None and members[each.name]:
                each.inner(holder, members[each.name], at, name, report)

    return judge


def _which(slices: list[Slice], instance: Instance, report: Report) -> tuple[Slice | None, bool]:
    unclear = False
    for each in slices:
        belongs = each.test(instance, report)
        if belongs:
            return each, False
        unclear = unclear or belongs is None
    return None, unclear


def _count(where: str, each: Slice, members: list[Instance], untold: bool, at: At, report: Report) -> None:
    if len(members) < each.low:
        if untold:
            report.add("warning", "incomplete", f"{where}: whether slice {each.name} is there cannot be told without resolving references", at)
        else:
            report.error("required", f"{where} asks for at least {each.low} of slice {each.name}", at)
    if each.high is not None and len(members) > each.high:
        report.error("structure", f"{where} allows at most {each.high} of slice {each.name}", at)


def _slice(facts: Facts, node: Node) -> Slice | None:
    rows = _slicing(facts.node).get("discriminator", ())
    tests = [made for row in rows if (made := _test(facts, node, row)) is not None]
    if not tests:
        tests = [made for made in (_type_slice(facts, node),) if made is not None]
    if not tests:
        return None
    high = node.definition.get("max", "*")
    inner = _reslicing(facts, node)
    return Slice(node.slice, _all(tests), node.definition.get("min", 0), None if high == "*" else int(high), facts.compile(node), inner)


def _reslicing(facts: Facts, node: Node) -> Group | None:
    """Slices of a slice: their names begin with its own and '/'."""
    inner = [each for name, each in facts.node.slices.items() if name.startswith(f"{node.slice}/")] + list(node.slices.values())
    if not inner:
        return None
    definition = {**facts.node.definition, **node.definition}
    named = {
        each.slice.rsplit("/", 1)[-1]: Node(each.name, each.choice, each.slice.rsplit("/", 1)[-1], each.definition, each.children) for each in inner
    }
    return slicing_judge(
        Facts(facts.spec, facts.where, Node(node.name, node.choice, node.slice, definition, node.children, named), facts.compile, facts.profile)
    )


def _all(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]

    def test(instance: Instance, report: Report) -> bool | None:
        told: bool | None = True
        for each in tests:
            found = each(instance, report)
            if found is False:
                return False
            told = told if found else None
        return told

    return test


def _test(facts: Facts, node: Node, row: Mapping[str, str]) -> Test | None:
    path = steps(row["path"])
    make = {"value": _by_value, "pattern": _by_value, "type": _by_type, "exists": _by_existence, "profile": _by_profile}.get(row["type"])
    return make(facts, node, path) if make else None


def _type_slice(facts: Facts, node: Node) -> Test | None:
    """Without a discriminator, slices of a choice are told apart by their type."""
    return _by_type(facts, node, []) if node.choice else None


def _by_value(facts: Facts, node: Node, path: list[str]) -> Test | None:
    said = _said(facts.spec, node, path)
    if said is None:
        return None
    good = expected(said.definition) or _all_expected(said) or _in_value_set(facts.spec, said)
    if good is None:
        return None
    kept = good

    def test(instance: Instance, report: Report) -> bool | None:
        if not path:
            return kept(instance.value)
        values = list(walk(instance.value, path, report))
        if not values and "resolve()" in path:
            return None
        return any(kept(each) for each in values)

    return test


def _said(spec: Spec, node: Node, path: list[str]) -> Node | None:
    """What the slice says at the path: itself, or the profile of its type."""
    for end in range(len(path), -1, -1):  # the type's profile may stand at any step on the way
        found = node_at(node, path[:end])
        if found is None:
            continue
        if end == len(path) and (_tells(found)):
            return found
        for url in (each for row in found.definition.get("type", ()) for each in row.get("profile", ())):
            if spec.definition(url, "StructureDefinition") is not None:
                inner = node_at(profile_tree(spec, url).root, path[end:])
                if inner is not None and _tells(inner):
                    return inner
            elif path[end:] == ["url"]:
                return Node("url", definition={"fixedUri": url.split("|")[0]})
    return None


def _tells(node: Node) -> bool:
    return (
        expected(node.definition) is not None
        or bool(node.definition.get("binding", {}).get("strength") == "required")
        or _all_expected(node) is not None
    )


def _all_expected(node: Node) -> Callable[[Any], bool] | None:
    """A complex element that is told by fixed or pattern values of its children."""
    parts = [(name, made) for name, child in node.children.items() if (made := expected(child.definition) or _all_expected(child)) is not None]
    if not parts:
        return None

    def kept(value: Any) -> bool:
        return isinstance(value, dict) and all(_any(good, value.get(name)) for name, good in parts)

    return kept


def _any(good: Callable[[Any], bool], value: Any) -> bool:
    return any(good(each) for each in value) if isinstance(value, list) else value is not None and good(value)


def _in_value_set(spec: Spec, node: Node) -> Callable[[Any], bool] | None:
    binding = node.definition.get("binding", {})
    codes = spec.codes(binding.get("valueSet", "")) if binding.get("strength") == "required" else None
    if codes is None:
        return None
    flat = frozenset().union(*codes.values())

    def kept(value: Any) -> bool:
        if isinstance(value, str):
            return value in flat
        rows = value.get("coding", [value]) if isinstance(value, dict) else ()
        return any(isinstance(each, dict) and each.get("code") in codes.get(str(each.get("system", "")), ()) for each in rows)

    return kept


def _by_type(facts: Facts, node: Node, path: list[str]) -> Test | None:
    said = node_at(node, [step for step in path if step != "resolve()"]) or node
    rows = said.definition.get("type", ())
    if "resolve()" in path:
        urls = [url for row in rows for url in row.get("targetProfile", ())]
        codes = frozenset(_resource_type(facts.spec, url) for url in urls)
    else:
        profiles = [url for row in rows for url in row.get("profile", ())] if path and path[-1] == "resource" else []
        codes = frozenset([*(str(row.get("code", "")) for row in rows), *(_resource_type(facts.spec, url) for url in profiles)])

    def test(instance: Instance, report: Report) -> bool | None:
        if not path:
            return instance.type in codes
        values = list(walk(instance.value, path, report))
        if not values:
            return _by_reference_text(instance.value, codes) if "resolve()" in path else False
        return any(isinstance(each, dict) and str(each.get("resourceType")) in codes for each in values)

    return test


def _by_reference_text(value: Any, codes: frozenset[str]) -> bool | None:
    """The type that a reference names itself, when it cannot be resolved; None if it names none."""
    text = value.get("reference", "") if isinstance(value, dict) else ""
    parts = str(text).split("/_history/", 1)[0].rsplit("/", 2)
    return parts[-2] in codes if len(parts) > 1 and parts[-2][:1].isupper() else None


def _resource_type(spec: Spec, url: str) -> str:
    found = spec.definition(url, "StructureDefinition")
    return str(found.get("type", "")) if found else ""


def _by_existence(facts: Facts, node: Node, path: list[str]) -> Test | None:
    said = node_at(node, path)
    if said is None:
        return None
    wanted = said.definition.get("max") != "0"
    return lambda instance, report: bool(list(walk(instance.value, path, report))) == wanted


def _by_profile(facts: Facts, node: Node, path: list[str]) -> Test | None:
    said = node_at(node, [step for step in path if step != "resolve()"]) or node
    key = "targetProfile" if "resolve()" in path else "profile"
    urls = [url for row in said.definition.get("type", ()) for url in row.get(key, ())]
    known = [url for url in urls if facts.spec.definition(url, "StructureDefinition") is not None]
    if not known:
        return None
    types = frozenset(_resource_type(facts.spec, url) for url in known)

    def test(instance: Instance, report: Report) -> bool | None:
        values = list(walk(instance.value, path, report)) if path else [instance.value]
        if not values:
            text = _by_reference_text(instance.value, types) if "resolve()" in path else False
            return False if text is False else None
        return any(conforms(facts.profile, url, each, report) for each in values for url in known)

    return test


def conforms(profile: Callable[[str], Check], url: str, value: Any, report: Report) -> bool:
    """True if a value keeps a profile: judged apart, nothing is reported."""
    key = ("conforms", url, id(value))
    if key not in report.memo:
        report.memo[key] = True  # while it is judged: a circle of profiles is no fault
        inner = Report(value if isinstance(value, dict) else report.root, warnings=False, check_code=report.check_code, resolve=report.resolve)
        inner.bundle, inner.memo, inner.services = report.bundle, report.memo, report.services
        profile(url)(value, None, "", None, inner)
        report.memo[key] = not inner.issues
    return bool(report.memo[key])
