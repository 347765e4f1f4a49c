"""The gate's compiler: the element table of a type -> one closure that judges a value of it. Compiled on a type's first use.

A complex type becomes `Check`: it looks each property up in a dict of small closures, so a value costs one lookup and one call, and nothing is
allocated for a place until something is wrong there. https://hl7.org/fhir/R4/json.html says how elements look in JSON.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from conformance.gate import bindings, narrative, references
from conformance.gate.bundle import check_bundle
from conformance.gate.contained import check_contained
from conformance.gate.extensions import check_extension
from conformance.gate.invariants import NATIVE
from conformance.gate.primitives import FORMS, Form
from conformance.gate.report import At, Check, Report, kind, safe_name
compile_invariant: Any = None
from conformance.spec import Element, Rule, Spec

Property = Callable[[Any, dict[str, Any], At, Report], None]
"""Judge one property: (its value, the object it stands in, the place of that object, report)."""
Judge = Callable[[Any, At, Report], None]
"""Judge a value whose own shape was judged before."""

SHAPE_ERRORS = (AttributeError, TypeError, KeyError, IndexError, ValueError)
ANONYMOUS = ("Resource", "BackboneElement", "Element")


@dataclass(slots=True)
class Shape:
    """What the closure of one complex type looks things up in; filled after the closure is made, since types contain each other."""

    properties: dict[str, Property]
    required: tuple[str, ...] = ()
    choices: tuple[tuple[str, frozenset[str]], ...] = ()  # required choice elements: name, its JSON names
    rules: tuple[Judge, ...] = ()


def type_check(spec: Spec, name: str) -> Check:
    """The check of a complex type, resource type or backbone ('Patient', 'Patient.contact', 'HumanName')."""
    table: dict[str, Check] = spec.memo.setdefault("checks", {})
    found = table.get(name)
    if found is None:
        shape = Shape({})
        found = table[name] = _object_check(shape, name in spec.types)
        _fill(spec, name, shape)
    return found


def _object_check(shape: Shape, resource: bool) -> Check:
    """The closure over a shape that is still empty."""
    find = shape.properties.get

    def check(value: Any, parent: At | None, name: str, index: int | None, report: Report) -> None:
        at = (parent, name, index)
        if type(value) is not dict:
            report.error("structure", f"must be an object, not {kind(value)}", at)
            return
        before = len(report.issues)
        for key, each in value.items():
            judge = find(key)
            if judge is not None:
                judge(each, value, at, report)
            else:
                unknown(key, at, report)
        for key in shape.required:
            if key not in value and f"_{key}" not in value:
                report.error("required", "a required element is missing", (at, key, None))
        for key, names in shape.choices:
            if names.isdisjoint(value):
                report.error("required", "a required element is missing", (at, key, None))
        if len(value) < 2 and not resource and (not value or "id" in value):
            report.error("structure", "an element may not be empty", at, "ele-1")
        for rule in shape.rules:
            try:
                rule(value, at, report)
            except SHAPE_ERRORS:
                if len(report.issues) == before:  # nothing wrong was found that could explain it
                    raise

    return check


def unknown(key: str, at: At, report: Report) -> None:
    """A property that the type does not have."""
    if key == "resourceType":
        report.error("structure", "resourceType stands only on resources", at)
    elif key == "fhir_comments":
        report.error("structure", "fhir_comments is not part of R4", at)
    else:
        report.error("structure", f"unknown element {safe_name(key)}", (at, key, None))


def _fill(spec: Spec, name: str, shape: Shape) -> None:
    children = spec.children(name)
    names: dict[str, list[str]] = {}
    for key, (element, code) in spec.properties(name).items():
        names.setdefault(element.name, []).extend((key, f"_{key}"))
        shape.properties.update(_property(spec, element, key, code))
    for element in (each for each in children.values() if each.choice):
        group = frozenset(names[element.name])
        for key in group & shape.properties.keys():
            shape.properties[key] = _exclusive(shape.properties[key], element.name, group)
    shape.required = tuple(each.name for each in children.values() if each.min > 0 and not each.choice)
    shape.choices = tuple((each.name, frozenset(names[each.name])) for each in children.values() if each.min > 0 and each.choice)
    if name in spec.types:
        shape.properties["resourceType"] = _nothing
    own = spec.element(name)
    shape.rules = tuple(_rules(spec, own.rules if own else (), name))


def _nothing(value: Any, holder: dict[str, Any], at: At, report: Report) -> None:
    """resourceType: it chose this check."""


def _exclusive(judge: Property, name: str, group: frozenset[str]) -> Property:
    """A choice element: besides its own judgement, no other type of it may be there."""

    def check(value: Any, holder: dict[str, Any], at: At, report: Report) -> None:
        if len({key.lstrip("_") for key in group & holder.keys()}) > 1:
            text = "only one type of a choice may be there"
            if not any(issue.text == text for issue in report.issues[-2:]):
                report.error("structure", text, (at, name, None))
        judge(value, holder, at, report)

    return check


def _property(spec: Spec, element: Element, key: str, code: str) -> dict[str, Property]:
    """JSON name -> closure for one element of one type: one for a complex type, two (`x`, `_x`) for a primitive."""
    judges = tuple(_judges(spec, element, code))
    if code in FORMS:
        sibling = type_check(spec, "Element")
        if element.max == 1:
            return {key: _primitive(element.name, FORMS[code], judges), f"_{key}": _primitive_sibling(key, element.name, sibling)}
        return {key: _primitives(key, element.name, FORMS[code], judges), f"_{key}": _sibling_list(key, element.name, sibling)}
    if code == "xhtml":
        return {key: _narrative}
    item = _item(spec, element, code, judges)
    return {key: _single(element.name, item) if element.max == 1 else _repeated(element.name, item)}


def _judges(spec: Spec, element: Element, code: str) -> Iterable[Judge]:
    """What is judged of one element beyond its type: bound codes, reference targets, invariants of the element."""
    if element.binding:
        bound = bindings.judge(spec, element.binding[1], element.binding[0], code)
        if bound is not None:
            yield bound
    if code == "Reference":
        yield references.target_judge(spec, element.targets)
    if "SimpleQuantity" in element.profiles and code == "Quantity":
        yield _judge_rule(Rule("sqty-1", "error", "", "The comparator is not used on a SimpleQuantity"), NATIVE["sqty-1"])
    if not element.content or element.content != element.path:  # the rules of a backbone stand in its own check
        yield from _rules(spec, element.rules, element.path)


def _item(spec: Spec, element: Element, code: str, judges: tuple[Judge, ...]) -> Check:
    """The check of one value of a complex element."""
    if code == "Resource":
        return resource_check(spec)
    check = type_check(spec, element.content or code)
    if not judges:
        return check

    def judged(value: Any, at: At | None, name: str, index: int | None, report: Report) -> None:
        check(value, at, name, index, report)
        if type(value) is dict:
            place = (at, name, index)
            for judge in judges:
                judge(value, place, report)

    return judged


def _single(name: str, item: Check) -> Property:
    def check(value: Any, holder: dict[str, Any], at: At, report: Report) -> None:
        item(value, at, name, None, report)

    return check


def _repeated(name: str, item: Check) -> Property:
    def check(value: Any, holder: dict[str, Any], at: At, report: Report) -> None:
        if type(value) is not list:
            report.error("structure", f"must be an array, not {kind(value)}", (at, name, None))
        elif not value:
            report.error("structure", "an array may not be empty", (at, name, None))
        else:
            index = 0
            for each in value:
                item(each, at, name, index, report)
                index += 1

    return check


def _primitive(name: str, form: Form, judges: tuple[Judge, ...]) -> Property:
    good = form.good

    def check(value: Any, holder: dict[str, Any], at: At, report: Report) -> None:
        if not good(value):
            misshapen(value, form, (at, name, None), report)
        else:
            for judge in judges:
                judge(value, (at, name, None), report)

    return check


def misshapen(value: Any, form: Form, at: At, report: Report) -> None:
    """A primitive of the wrong JSON kind (structure) or of the right kind and a wrong form (value)."""
    if value is None:
        report.error("structure", "null stands only in arrays, beside an element of the same position", at)
    elif isinstance(value, dict | list):
        report.error("structure", f"must be one value, not {kind(value)}", at)
    elif isinstance(value, str) and value == "":
        report.error("value", "a value may not be empty", at)
    elif isinstance(value, form.json) and not (form.json is int and isinstance(value, bool)):
        report.error("value", f"must be {form.text}", at)
    else:
        report.error("structure" if isinstance(value, str) else "value", f"must be {form.text}, not {kind(value)}", at)


def _primitives(key: str, name: str, form: Form, judges: tuple[Judge, ...]) -> Property:
    good = form.good

    def check(value: Any, holder: dict[str, Any], at: At, report: Report) -> None:
        if type(value) is not list:
            report.error("structure", f"must be an array, not {kind(value)}", (at, name, None))
            return
        if not value:
            report.error("structure", "an array may not be empty", (at, name, None))
        for index, each in enumerate(value):
            if good(each):
                for judge in judges:
                    judge(each, (at, name, index), report)
            elif each is not None or not _pair(holder.get(f"_{key}"), index):
                misshapen(each, form, (at, name, index), report)

    return check


def _pair(siblings: Any, index: int) -> bool:
    """True if the other array has something at this position."""
    return isinstance(siblings, list) and index < len(siblings) and siblings[index] is not None


def _primitive_sibling(key: str, name: str, item: Check) -> Property:
    def check(value: Any, holder: dict[str, Any], at: At, report: Report) -> None:
        item_of_primitive(value, key in holder, item, (at, name, None), report)

    return check


def item_of_primitive(value: Any, valued: bool, item: Check, at: At, report: Report) -> None:
    """id and extensions of a primitive; an id alone needs a value beside it (ele-1)."""
    if valued and type(value) is dict and len(value) == 1 and isinstance(value.get("id"), str) and value["id"]:
        return
    item(value, at[0], at[1], at[2], report)


def _sibling_list(key: str, name: str, item: Check) -> Property:
    def check(value: Any, holder: dict[str, Any], at: At, report: Report) -> None:
        if type(value) is not list:
            report.error("structure", f"must be an array, not {kind(value)}", (at, name, None))
            return
        values = holder.get(key)
        if isinstance(values, list) and len(values) != len(value):
            report.error("structure", f"{key} and _{key} must have the same length, null where one has nothing", (at, name, None))
        for index, each in enumerate(value):
            if each is not None:
                item_of_primitive(each, _pair(values, index), item, (at, name, index), report)
            elif values is None:
                report.error("structure", "null stands only beside an element of the same position", (at, name, index))

    return check


def _narrative(value: Any, holder: dict[str, Any], at: At, report: Report) -> None:
    for text in narrative.problems(value):
        report.error("invariant" if isinstance(value, str) else "structure", f"the narrative {text}", (at, "div", None), "txt-1")


def resource_check(spec: Spec) -> Check:
    """The check of a resource inside another (contained, Bundle.entry.resource, Parameters.parameter.resource)."""
    types = spec.types

    def check(value: Any, at: At | None, name: str, index: int | None, report: Report) -> None:
        rtype = value.get("resourceType") if type(value) is dict else None
        if type(rtype) is not str or rtype not in types:
            report.error("structure", "must be a resource with the resourceType of R4", (at, name, index))
            return
        outer = report.resource, report.root
        report.resource = value
        if name != "contained":
            report.root = value
        type_check(spec, rtype)(value, at, name, index, report)
        report.resource, report.root = outer

    return check


def _rules(spec: Spec, keys: Iterable[str], name: str) -> Iterable[Judge]:
    """The invariants of a type or element as judges, and those that stand in files of their own."""
    for key in keys:
        rule = spec.rules[key]
        judge = NATIVE.get(key)
        if judge is not None:
            if judge.__name__ != "_always":
                yield _judge_rule(rule, judge)
        elif rule.expression and compile_invariant:
            yield _judge_path(rule)
    if name == "Bundle":
        yield check_bundle
    if name == "Extension":
        yield check_extension(spec)
    if name in spec.types:
        yield _check_contained


def _check_contained(value: Any, at: At, report: Report) -> None:
    if "contained" in value and at[1] != "contained":
        check_contained(value, at, report)


def _judge_rule(rule: Rule, kept: Callable[[Any, Report], bool]) -> Judge:
    key, severity = rule.key.partition("@")[0], rule.severity
    text = f"{key}: {rule.human}"

    def check(value: Any, at: At, report: Report) -> None:
        if not kept(value, report):
            report.add(severity, "invariant", text, at, key)

    return check


def _judge_path(rule: Rule) -> Judge:
    """An invariant by its FHIRPath, compiled when it is first needed."""
    key, severity = rule.key.partition("@")[0], rule.severity
    text = f"{key}: {rule.human}"
    compiled: list[Any] = []

    def check(value: Any, at: At, report: Report) -> None:
        if severity != "error" and not report.warnings:
            return
        if not compiled:
            compiled.append(compile_invariant(rule.expression))
        if not compiled[0](value, report.resource, report.root):
            report.add(severity, "invariant", text, at, key)

    return check
