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
from conformance.gate.invariants import NATIVE, elsewhere
from conformance.gate.primitives import FORMS, MAX_STRING, Form, printable
from conformance.gate.report import At, Check, Report, kind, safe_name
from conformance.gate.rules import Native, judge_path, judge_rule, native
from conformance.spec import Element, Rule, Spec

Property = Callable[[Any, dict[str, Any], At, Report], None]
"""Judge one property: (its value, the object it stands in, the place of that object, report)."""
Judge = Callable[[Any, At, Report], None]
"""Judge a value whose own shape was judged before."""

SHAPE_ERRORS = (AttributeError, TypeError, KeyError, IndexError, ValueError)
ANONYMOUS = ("Resource", "BackboneElement", "Element")


Entry = tuple[Any, Callable[[Any], Any], Property]
"""A property: a value of exactly this Python type that the quick test accepts is good; all others are given to the Property."""


@dataclass(slots=True)
class Shape:
    """What the closure of one complex type looks things up in; filled after the closure is made, since types contain each other."""

    properties: dict[str, Entry]
    required: tuple[str, ...] = ()
    choices: tuple[tuple[str, frozenset[str]], ...] = ()  # required choice elements: name, its JSON names
    natives: tuple[Native, ...] = ()
    judges: tuple[Judge, ...] = ()


def type_check(spec: Spec, name: str) -> Check:
    """The check of a complex type, resource type or backbone ('Patient', 'Patient.contact', 'HumanName')."""
    table: dict[str, Check] = spec.memo.setdefault("checks", {})
    found = table.get(name)
    if found is None:
        shape = Shape({})
        _needs(spec, name, shape)
        ruled = shape.required or shape.choices or shape.natives or shape.judges
        found = table[name] = _ruled_check(shape, name in spec.types) if ruled else _plain_check(shape)
        _fill(spec, name, shape)
    return found


def _plain_check(shape: Shape) -> Check:
    """The closure over a type without required elements and rules."""
    find, text = shape.properties.get, printable

    def check(value: Any, parent: At | None, name: str, index: int | None, report: Report) -> None:
        at = (parent, name, index)
        if type(value) is not dict:
            report.error("structure", f"must be an object, not {kind(value)}", at)
            return
        for key, each in value.items():
            entry = find(key)
            if entry is None:
                unknown(key, at, report)
                continue
            expected, quick, judge = entry
            if type(each) is not expected or not each or not quick(each) or (quick is text and len(each) > MAX_STRING):
                judge(each, value, at, report)
        if len(value) < 2 and (not value or "id" in value):
            report.error("structure", "an element may not be empty", at, "ele-1")

    return check


def _ruled_check(shape: Shape, resource: bool) -> Check:
    """The closure over any other type: the same loop (a call saved on each element of it), what must be there, and the rules."""
    find, required, choices, natives, judges = shape.properties.get, shape.required, shape.choices, shape.natives, shape.judges
    text = printable

    def check(value: Any, parent: At | None, name: str, index: int | None, report: Report) -> None:
        at = (parent, name, index)
        if type(value) is not dict:
            report.error("structure", f"must be an object, not {kind(value)}", at)
            return
        before = len(report.issues)
        for key, each in value.items():
            entry = find(key)
            if entry is None:
                unknown(key, at, report)
                continue
            expected, quick, judge = entry
            if type(each) is not expected or not each or not quick(each) or (quick is text and len(each) > MAX_STRING):
                judge(each, value, at, report)
        for key in required:
            if key not in value and f"_{key}" not in value:
                report.error("required", "a required element is missing", (at, key, None))
        for key, names in choices:
            if names.isdisjoint(value):
                report.error("required", "a required element is missing", (at, key, None))
        if len(value) < 2 and not resource and (not value or "id" in value):
            report.error("structure", "an element may not be empty", at, "ele-1")
        for kept, fault in natives:
            try:
                if not kept(value, report):
                    fault(at, report)
            except SHAPE_ERRORS:
                if len(report.issues) == before:  # nothing wrong was found that could explain it
                    raise
        if judges:
            _guarded(judges, value, at, report, before)

    return check


def unknown(key: str, at: At, report: Report) -> None:
    """A property that the type does not have."""
    if key == "resourceType":
        report.error("structure", "resourceType stands only on resources", at)
    elif key == "fhir_comments":
        report.error("structure", "fhir_comments is not part of R4", at)
    else:
        report.error("structure", f"unknown element {safe_name(key)}", (at, key, None))


def _needs(spec: Spec, name: str, shape: Shape) -> None:
    """What must be there, and the rules of the type."""
    children = spec.children(name).values()
    shape.required = tuple(each.name for each in children if each.min > 0 and not each.choice)
    shape.choices = tuple((each.name, _group(each)) for each in children if each.min > 0 and each.choice)
    own = spec.element(name)
    keys = own.rules if own else ()
    shape.natives = tuple(native(spec.rules[key], NATIVE[key]) for key in keys if NATIVE.get(key) not in (None, elsewhere))
    shape.judges = tuple(_rules(spec, [key for key in keys if key not in NATIVE], name, name))


def _group(element: Element) -> frozenset[str]:
    """Every JSON name that a choice element may have."""
    names = [element.name + code[0].upper() + code[1:] for code in element.types]
    return frozenset([*names, *(f"_{name}" for name in names)])


def _fill(spec: Spec, name: str, shape: Shape) -> None:
    for key, (element, code) in spec.properties(name).items():
        entries = _shared_entries(spec, element, key, code)
        if element.choice:
            others = _group(element) - {key, f"_{key}"}
            entries = {each: (None, bool, _exclusive(entry[2], element.name, others)) for each, entry in entries.items()}
        shape.properties.update(entries)
    if name in spec.types:
        shape.properties["resourceType"] = (str, len, _nothing)


def _shared_entries(spec: Spec, element: Element, key: str, code: str) -> dict[str, Entry]:
    """The entries of an element, made once for all elements of which R4 says the same (`id`, `extension`, `text` ... of every type)."""
    made: dict[Any, dict[str, Entry]] = spec.memo.setdefault("entries", {})
    own = element.content == element.path
    same = (key, element.name, code, element.max == 1, element.content, element.targets, element.binding, element.rules, element.profiles, own)
    if same not in made:
        made[same] = _entries(spec, element, key, code)
    return made[same]


def _nothing(value: Any, holder: dict[str, Any], at: At, report: Report) -> None:
    """resourceType: it chose this check."""


def _exclusive(judge: Property, name: str, others: frozenset[str]) -> Property:
    """A choice element: besides its own judgement, no other type of it may be there."""
    disjoint = others.isdisjoint

    def check(value: Any, holder: dict[str, Any], at: At, report: Report) -> None:
        if not disjoint(holder):
            text = "only one type of a choice may be there"
            if not any(issue.text == text for issue in report.issues[-2:]):
                report.error("structure", text, (at, name, None))
        judge(value, holder, at, report)

    return check


def _entries(spec: Spec, element: Element, key: str, code: str) -> dict[str, Entry]:
    """JSON name -> entry for one element of one type: one for a complex type, two (`x`, `_x`) for a primitive."""
    judges = tuple(_judges(spec, element, code))
    if code in FORMS:
        sibling = type_check(spec, "Element")
        form = FORMS[code]
        if element.max == 1:
            quick = _quick(spec, element, code, judges)
            beside: Property = _primitive_sibling(key, element.name, sibling)
            return {key: (form.json if quick else None, quick or bool, _primitive(element.name, form, judges)), f"_{key}": (None, bool, beside)}
        return {
            key: (None, bool, _primitives(key, element.name, form, judges)),
            f"_{key}": (None, bool, _sibling_list(key, element.name, sibling)),
        }
    if code == "xhtml":
        return {key: (None, bool, _narrative)}
    check = resource_check(spec) if code == "Resource" else type_check(spec, element.content or code)
    return {key: (None, bool, (_single if element.max == 1 else _repeated)(element.name, check, judges))}


def _quick(spec: Spec, element: Element, code: str, judges: tuple[Judge, ...]) -> Callable[[Any], Any] | None:
    """The quick test of a primitive: its form; of a bound code membership; None where other rules stand on the element."""
    if not judges:
        return FORMS[code].quick
    known = bindings.known_codes(spec, element.binding, code)
    return known.__contains__ if known and len(judges) == 1 else None


def _judges(spec: Spec, element: Element, code: str) -> Iterable[Judge]:
    """What is judged of one element beyond its type: bound codes, reference targets, invariants of the element."""
    if element.binding:
        bound = bindings.judge(spec, element.binding[1], element.binding[0], code)
        if bound is not None:
            yield bound
    if code == "Reference":
        yield references.target_judge(spec, element.targets)
    if "SimpleQuantity" in element.profiles and code == "Quantity":
        yield judge_rule(Rule("sqty-1", "error", "", "The comparator is not used on a SimpleQuantity"), NATIVE["sqty-1"])
    if not element.content or element.content != element.path:  # the rules of a backbone stand in its own check
        yield from _rules(spec, element.rules, element.path, element.content or code)


def _single(name: str, check: Check, judges: tuple[Judge, ...]) -> Property:
    def plain(value: Any, holder: dict[str, Any], at: At, report: Report) -> None:
        check(value, at, name, None, report)

    def judged(value: Any, holder: dict[str, Any], at: At, report: Report) -> None:
        before = len(report.issues)
        check(value, at, name, None, report)
        if type(value) is dict:
            _guarded(judges, value, (at, name, None), report, before)

    return judged if judges else plain


def _guarded(judges: tuple[Judge, ...], value: Any, at: At, report: Report, before: int) -> None:
    """Run rules over a value; where one trips over a shape that was already reported, the report stands for it."""
    for judge in judges:
        try:
            judge(value, at, report)
        except SHAPE_ERRORS:
            if len(report.issues) == before:  # nothing wrong was found that could explain it
                raise


def _repeated(name: str, check: Check, judges: tuple[Judge, ...]) -> Property:
    def plain(value: Any, holder: dict[str, Any], at: At, report: Report) -> None:
        if type(value) is not list or not value:
            no_array(value, (at, name, None), report)
            return
        index = 0
        for each in value:
            check(each, at, name, index, report)
            index += 1  # noqa: SIM113  # quicker than enumerate here, measured

    def judged(value: Any, holder: dict[str, Any], at: At, report: Report) -> None:
        if type(value) is not list or not value:
            no_array(value, (at, name, None), report)
            return
        for index, each in enumerate(value):
            before = len(report.issues)
            check(each, at, name, index, report)
            if type(each) is dict:
                _guarded(judges, each, (at, name, index), report, before)

    return judged if judges else plain


def no_array(value: Any, at: At, report: Report) -> None:
    """A repeating element that is no array, or an empty one."""
    text = "an array may not be empty" if isinstance(value, list) else f"must be an array, not {kind(value)}"
    report.error("structure", text, at)


def _primitive(name: str, form: Form, judges: tuple[Judge, ...]) -> Property:
    good = form.good

    def judged(value: Any, holder: dict[str, Any], at: At, report: Report) -> None:
        if not good(value):
            misshapen(value, form, (at, name, None), report)
        else:
            for judge in judges:
                judge(value, (at, name, None), report)

    return judged


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
    good, expected, quick = form.good, form.json, form.quick

    def check(value: Any, holder: dict[str, Any], at: At, report: Report) -> None:
        if type(value) is not list:
            report.error("structure", f"must be an array, not {kind(value)}", (at, name, None))
            return
        if not value:
            report.error("structure", "an array may not be empty", (at, name, None))
        for index, each in enumerate(value):
            if (type(each) is expected and each and quick(each) and (type(each) is not str or len(each) <= MAX_STRING)) or good(each):
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


def _rules(spec: Spec, keys: Iterable[str], name: str, type_: str) -> Iterable[Judge]:
    """The invariants of a type or element as judges, and those that stand in files of their own."""
    for key in keys:
        rule = spec.rules[key]
        judge = NATIVE.get(key)
        if judge is not None:
            if judge is not elsewhere:
                yield judge_rule(rule, judge)
        elif rule.expression:
            yield judge_path(spec, rule, type_)
    if name == "Bundle":
        yield check_bundle
    if name == "Extension":
        yield check_extension(spec)
    if name in spec.types:
        yield _check_contained


def _check_contained(value: Any, at: At, report: Report) -> None:
    if "contained" in value and at[1] != "contained":
        check_contained(value, at, report)
