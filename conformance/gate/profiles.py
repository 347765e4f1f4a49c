"""Profiles: a tree of constrained elements -> one closure that judges what R4 itself does not. https://hl7.org/fhir/R4/profiling.html

The base gate has judged the value already; a profile's closure looks only at elements that the profile constrains further than R4, so a profile that
repeats all of R4 in its snapshot costs only what it adds.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from conformance.gate import bindings
from conformance.gate.limits import Beyond, limits
from conformance.gate.match import Instance, expected
from conformance.gate.references import named_target
from conformance.gate.report import At, Check, Report
from conformance.gate.rules import judge_path
from conformance.gate.slicing import Facts, slicing_judge
from conformance.gate.tree import Node, Tree, profile_tree
from conformance.outcome import Refusal, refuse
from conformance.spec import Element, Rule, Spec

CORE = "http://hl7.org/fhir/StructureDefinition/"
EVERYWHERE = ("ele-1", "ext-1")
MISSHAPEN = (AttributeError, TypeError, LookupError, ValueError)  # what compiling meets in a definition that does not conform to R4
Judge = Callable[[Instance, At, Report], None]
"""Judge one repetition of an element at its place."""
Group = Callable[[Mapping[str, Any], list[Instance], At, str, Report], None]
"""Judge all repetitions of an element: (the object they stand in, they, its place, element name, report)."""


def profile_check(spec: Spec, url: str) -> Check:
    """The check of a profile (canonical, '|version' allowed) on a value of its type. Raises Refusal 422 for a profile that cannot be used."""
    checks: dict[str, Check] = spec.memo.setdefault("profiles", {})
    found = checks.get(url)
    if found is None:
        holder: list[Check] = []
        checks[url] = lambda *args: holder[0](*args)  # profiles may lead back to themselves
        try:
            holder.append(compiled(spec, profile_tree(spec, url)))
        except Refusal:
            del checks[url]
            raise
        except MISSHAPEN as error:
            del checks[url]
            raise refuse(
                "structure", f"the profile {url} cannot be read: an element of it has a shape that R4 does not give it", status=422
            ) from error
        found = checks[url] = holder[0]
    return found


def compiled(spec: Spec, tree: Tree) -> Check:
    """The check of a tree. Raises Refusal 422 for what cannot be used, an error of MISSHAPEN for what was never judged by the gate."""
    return _Compiler(spec, tree).root()


@dataclass(frozen=True, slots=True)
class _Compiler:
    """Compiles one profile. `where` stands in texts."""

    spec: Spec
    tree: Tree

    @property
    def where(self) -> str:
        return f"profile {self.tree.name}"

    def _other(self, url: str) -> Check:
        return profile_check(self.spec, url)

    def root(self) -> Check:
        """The check of the whole profile."""
        judge = self.value(self.tree.root, self.tree.type, (self.tree.type,))
        rtype = self.tree.type
        where = self.where

        def check(value: Any, parent: At | None, name: str, index: int | None, report: Report) -> None:
            at = (parent, name, index)
            if isinstance(value, dict) and rtype != value.get("resourceType", rtype):
                report.error("structure", f"{where} is for {rtype}", at)
            elif judge is not None:
                judge(Instance(value, None, rtype, index), at, report)

        return check

    def value(self, node: Node, content: str, types: tuple[str, ...]) -> Judge | None:
        """The judgement of one repetition: types, fixed or pattern, binding, constraints, profiles of the type, and its children."""
        definition = node.definition
        judges = [
            *self._types(definition, types),
            *self._value(definition),
            *self._binding(definition),
            *self._rules(definition, content),
            *self._type_profiles(definition),
            *self._children(node, content),
        ]
        if not judges:
            return None
        if len(judges) == 1:
            return judges[0]

        def judge(instance: Instance, at: At, report: Report) -> None:
            for each in judges:
                each(instance, at, report)

        return judge

    def _types(self, definition: Mapping[str, Any], base: tuple[str, ...]) -> Iterator[Judge]:
        rows = definition.get("type", ())
        codes = frozenset(_code(row) for row in rows)
        where = self.where
        if len(base) > 1 and codes and not codes.issuperset(base):
            listed = ", ".join(sorted(codes))

            def of_type(instance: Instance, at: At, report: Report) -> None:
                if instance.type not in codes:
                    report.error("structure", f"{where} allows here only {listed}", at)

            yield of_type
        targets = frozenset(_target_type(self.spec, url) for row in rows for url in row.get("targetProfile", ()) if row.get("code") == "Reference")
        if targets and not targets & {"Resource", "DomainResource", ""}:
            yield self._targets(targets)

    def _targets(self, targets: frozenset[str]) -> Judge:
        listed, where = ", ".join(sorted(targets)), self.where
        types = self.spec.types

        def judge(instance: Instance, at: At, report: Report) -> None:
            found = named_target(instance.value, report) if isinstance(instance.value, dict) else None
            if found in types and found not in targets:
                report.error("structure", f"{where} allows here only a reference to {listed}", at)

        return judge

    def _value(self, definition: Mapping[str, Any]) -> Iterator[Judge]:
        good, where = expected(dict(definition)), self.where
        if good is not None:
            kept = good

            def same(instance: Instance, at: At, report: Report) -> None:
                if instance.value is not None and not kept(instance.value):
                    report.error("value", f"{where} asks for another value here", at)

            yield same
        longest = definition.get("maxLength")
        if longest is not None:

            def length(instance: Instance, at: At, report: Report) -> None:
                if isinstance(instance.value, str) and len(instance.value) > longest:
                    report.error("too-long", f"{where} allows at most {longest} characters", at)

            yield length
        yield from self._limits(definition)

    def _limits(self, definition: Mapping[str, Any]) -> Iterator[Judge]:
        where = self.where
        for beyond in limits(definition):

            def judge(instance: Instance, at: At, report: Report, beyond: Beyond = beyond) -> None:
                if instance.value is not None and beyond(instance.value):
                    report.error("value", f"{where} sets a limit that this value is beyond", at)

            yield judge

    def _binding(self, definition: Mapping[str, Any]) -> Iterator[Judge]:
        binding = definition.get("binding", {})
        strength, valueset = binding.get("strength"), binding.get("valueSet", "")
        base = _base_element(self.spec, definition)
        known = base.binding if base is not None else None
        if strength not in ("required", "extensible") or not valueset or known == (strength, valueset.split("|")[0]):
            return
        by_type = {code: bindings.judge(self.spec, valueset, strength, code) for code in bindings.MAKERS}

        def judge(instance: Instance, at: At, report: Report) -> None:
            bound = by_type.get(instance.type)
            if bound is not None and instance.value is not None:
                bound(instance.value, at, report)

        yield judge

    def _rules(self, definition: Mapping[str, Any], content: str) -> Iterator[Judge]:
        base = _base_element(self.spec, definition)
        held = set(base.rules if base is not None else ()) | set(EVERYWHERE)
        own = self.spec.element(content)
        held |= set(own.rules if own is not None else ())
        seen: set[str] = set()
        for row in definition.get("constraint", ()):
            if row["key"] in held or row["key"] in seen or not row.get("expression"):
                continue
            seen.add(row["key"])
            yield _rule_judge(self.spec, Rule(row["key"], row["severity"], row["expression"], row.get("human", "")), content)

    def _type_profiles(self, definition: Mapping[str, Any]) -> Iterator[Judge]:
        """An element whose type is narrowed to profiles conforms to one of them."""
        rows = {_code(row): [url for url in row.get("profile", ()) if not url.startswith(CORE) or url.removeprefix(CORE) not in self.spec.datatypes]
                for row in definition.get("type", ())}  # fmt: skip
        for code, urls in rows.items():
            usable = [url for url in urls if self.spec.definition(url, "StructureDefinition") is not None]
            if not usable:
                continue
            checks = [_late(self.spec, url) for url in usable]

            def judge(instance: Instance, at: At, report: Report, code: str = code, checks: list[Any] = checks) -> None:
                if instance.type == code or code == "Resource":
                    _one_of(checks, instance, at, report)

            yield judge

    def _children(self, node: Node, content: str) -> Iterator[Judge]:
        groups = [group for child in node.children.values() for group in self._group(child, content)]
        if not groups:
            return
        gathers = [(child_name, _gatherer(self.spec, content, child_name), group) for child_name, group in groups]

        def judge(instance: Instance, at: At, report: Report) -> None:
            holder = instance.value if isinstance(instance.value, dict) else instance.extra
            if isinstance(holder, dict):
                for name, gather, group in gathers:
                    group(holder, gather(holder), at, name, report)

        yield judge

    def _group(self, node: Node, parent: str) -> Iterator[tuple[str, Group]]:
        """The judgement of all repetitions of one child, unless the profile says of it only what R4 says."""
        element = self.spec.children(parent).get(node.name)
        if element is None:
            return
        content = element.content or (element.types[0] if len(element.types) == 1 else _only_type(node, element))
        each = self.value(node, content, element.types)
        facts = Facts(
            self.spec,
            self.where,
            node,
            lambda one: self.value(one, _only_type(one, element) if element.choice else content, element.types),
            self._other,
        )
        sliced = slicing_judge(facts) if node.slices else None
        low, high = _cardinality(node, element)
        if each is None and sliced is None and low is None and high is None:
            return
        yield node.name, _grouped(self.where, element, each, sliced, low, high)


def _grouped(where: str, element: Element, each: Judge | None, sliced: Group | None, low: int | None, high: int | None) -> Group:
    """low, high: the profile's own limits, None where they are R4's."""
    repeats = element.max != 1

    def judge(holder: Mapping[str, Any], instances: list[Instance], at: At, name: str, report: Report) -> None:
        if not instances and low is None and sliced is None:
            return
        if low is not None and len(instances) < low:
            report.error("required", f"{where} asks for at least {low}", (at, name, None))
        if high is not None and len(instances) > high:
            text = f"{where} allows at most {high}" if high else f"{where} does not allow this element"
            report.error("structure", text, (at, name, None))
        if each is not None:
            for instance in instances:
                each(instance, (at, name, instance.index if repeats else None), report)
        if sliced is not None:
            sliced(holder, instances, at, name, report)

    return judge


def _cardinality(node: Node, element: Element) -> tuple[int | None, int | None]:
    low = node.definition.get("min")
    high = node.definition.get("max")
    limit = int(high) if high is not None and high != "*" else None
    return low if low is not None and low > element.min else None, limit if limit != element.max else None


def _only_type(node: Node, element: Element) -> str:
    """The type of a choice that a profile narrows to one, else the element's own path (of no type)."""
    codes = [_code(row) for row in node.definition.get("type", ())]
    return codes[0] if len(codes) == 1 else element.types[0] if len(element.types) == 1 else ""


def _gatherer(spec: Spec, content: str, name: str) -> Callable[[Mapping[str, Any]], list[Instance]]:
    """`object -> repetitions` of one element by its name without [x]."""
    names = [(key, code) for key, (element, code) in spec.properties(content).items() if element.name == name]
    element = spec.children(content)[name]
    code = element.content or names[0][1]
    if len(names) == 1:
        return partial(_primitives if code in spec.primitives else _complexes, name, code)
    types = {mark + key: (key, type_, type_ in spec.primitives) for key, type_ in names for mark in ("", "_")}

    def gather(holder: Mapping[str, Any]) -> list[Instance]:
        for each in holder:
            found = types.get(each)
            if found is not None:
                return (_primitives if found[2] else _complexes)(found[0], found[1], holder)
        return []

    return gather


def _complexes(key: str, code: str, holder: Mapping[str, Any]) -> list[Instance]:
    """The repetitions of an element of a complex type."""
    value = holder.get(key)
    if value is None:
        return []
    if type(value) is list:
        return [Instance(each, None, code, at) for at, each in enumerate(value)]
    return [Instance(value, None, code, None)]


def _primitives(key: str, code: str, holder: Mapping[str, Any]) -> list[Instance]:
    """The repetitions of an element of a primitive type, each with what `_key` says of it."""
    value, extra = holder.get(key), holder.get(f"_{key}")
    if value is None and extra is None:
        return []
    if not isinstance(value, list) and not isinstance(extra, list):
        return [Instance(value, extra, code, None)]
    values = value if isinstance(value, list) else []
    extras = extra if isinstance(extra, list) else []
    rows = range(max(len(values), len(extras)))
    return [Instance(values[at] if at < len(values) else None, extras[at] if at < len(extras) else None, code, at) for at in rows]


def _rule_judge(spec: Spec, rule: Rule, content: str) -> Judge:
    """An invariant of the profile; on a choice it is compiled for each type that comes."""
    by_type: dict[str, Callable[[Any, At, Report], None]] = {}

    def judge(instance: Instance, at: At, report: Report) -> None:
        name = content or instance.type
        if name not in by_type:
            by_type[name] = judge_path(spec, rule, name)
        by_type[name](instance.value, at, report)

    return judge


def _late(spec: Spec, url: str) -> Check:
    """The check of a profile that is compiled when it is first met."""

    def check(value: Any, parent: At | None, name: str, index: int | None, report: Report) -> None:
        profile_check(spec, url)(value, parent, name, index, report)

    return check


def _one_of(checks: Iterable[Check], instance: Instance, at: At, report: Report) -> None:
    """One of the profiles is kept; if none is, the issues of the first are reported."""
    first: list[Any] | None = None
    before = len(report.issues)
    for check in checks:
        check(instance.value, at[0], at[1], at[2], report)
        found = report.issues[before:]
        del report.issues[before:]
        if not any(issue.severity == "error" for issue in found):
            report.issues.extend(found)
            return
        first = found if first is None else first
    report.issues.extend(first or ())


def _base_element(spec: Spec, definition: Mapping[str, Any]) -> Element | None:
    path = definition.get("base", {}).get("path") or definition.get("path", "")
    return spec.element(path)


def _code(row: Mapping[str, Any]) -> str:
    return str(row.get("code", "")).removeprefix("http://hl7.org/fhirpath/")


def _target_type(spec: Spec, url: str) -> str:
    """The resource type of a target profile; '' if it is not known."""
    bare = url.split("|")[0]
    name = bare.removeprefix(CORE)
    if name in spec.types or name in ("Resource", "DomainResource"):
        return name
    found = spec.definition(url, "StructureDefinition")
    return str(found.get("type", "")) if found else ""
