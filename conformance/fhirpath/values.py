"""Items of a collection: FHIR elements (`Node`) and system values (bool, int, Decimal, str, Temporal, Quantity, TypeInfo)."""

from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

from conformance.codec import text_of
from conformance.fhirpath import temporal
from conformance.fhirpath.errors import ExecutionProblem
from conformance.fhirpath.model import TEMPORAL
from conformance.fhirpath.quantity import Quantity, Units, canonical, pair
from conformance.fhirpath.temporal import Temporal

QUANTITIES = frozenset(("Quantity", "Age", "Distance", "Duration", "Count", "Money", "SimpleQuantity", "MoneyQuantity"))
UCUM = "http://unitsofmeasure.org"
_WIDE = Context(prec=130)


class Node:
    """An element of a resource.

    value: the JSON value (dict, text, number, bool), None where a primitive has only extensions; type: FHIR type ('Patient.contact' for a backbone);
    content: what the model calls its children; extra: the `_name` companion of a primitive, or None.
    """

    __slots__ = ("content", "extra", "place", "type", "value")

    place: tuple[dict[str, Any], str, int | None]
    """Where the element stands: (holder, JSON key, index in its list or None). Only set where Env.track asks for it, and not for roots."""

    def __init__(self, value: Any, type_: str, content: str, extra: dict[str, Any] | None = None) -> None:
        self.value, self.type, self.content, self.extra = value, type_, content, extra


@dataclass(frozen=True, slots=True)
class TypeInfo:
    """What `type()` gives: namespace (System or FHIR) and name."""

    namespace: str
    name: str


def system(item: Any) -> Any:
    """The system value of an item; None for a primitive without value; a complex element as it is."""
    if type(item) is not Node:
        return item
    value, type_ = item.value, item.type
    if type(value) is dict:
        return quantity(value) or item if type_ in QUANTITIES else item
    if type_ in TEMPORAL and type(value) is str:
        return temporal.read(TEMPORAL[type_], value) or value
    if type_ == "decimal" and type(value) is int:
        return Decimal(value)
    return value


def quantity(value: dict[str, Any]) -> Quantity | None:
    """A FHIR Quantity as system Quantity, None without a number. A code outside UCUM only compares with itself."""
    number = value.get("value")
    if isinstance(number, bool) or not isinstance(number, int | Decimal) or value.get("comparator"):
        return None
    code = value.get("code") or value.get("unit") or "1"
    unit = code if value.get("system") in (None, UCUM) else f"{value['system']}|{code}"
    return Quantity(Decimal(number), unit)


def single(items: list[Any], what: str) -> Any:
    """The system value of the only item, None for none (or a primitive without value). Raises ExecutionProblem for several."""
    if not items:
        return None
    if len(items) > 1:
        raise ExecutionProblem(f"{what} needs one item, not several")
    return system(items[0])


def truth(items: list[Any], what: str) -> bool | None:
    """Boolean of a collection (https://hl7.org/fhirpath/N1/#singleton-evaluation-of-collections): one item that is no boolean counts as true."""
    if not items:
        return None
    if len(items) > 1:
        raise ExecutionProblem(f"{what} needs one boolean, not several items")
    item = items[0]
    value = item.value if type(item) is Node else item
    return value if isinstance(value, bool) else None if value is None else True


def text(item: Any) -> str | None:
    """`toString()` of an item; None for a complex element."""
    value = system(item)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return text_of(value) if isinstance(item, Node) else format(value, "f")
    if isinstance(value, int | str):
        return str(value)
    if isinstance(value, Temporal | Quantity):
        return item.value if isinstance(item, Node) and isinstance(item.value, str) else value.text()
    return None


def key(item: Any) -> Any:
    """A hashable that is equal for items that `=` calls equal: what distinct, union, intersect and `in` compare."""
    value = system(item)
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, int | Decimal):
        return ("number", Fraction(value) if isinstance(value, Decimal) and -64 < value.adjusted() < 64 else value)
    if isinstance(value, Temporal):
        return (value.kind == "time", value.precision, value.offset is None, value.span[0])
    if isinstance(value, Quantity):
        row = canonical(value) if value.calendar_unit() not in ("year", "month") else None
        return ("quantity", *row) if row else ("quantity", value.value, value.unit)
    if isinstance(value, Node):
        return (value.type, _frozen(value.value), _frozen(value.extra))
    return value


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return frozenset((name, _frozen(inner)) for name, inner in value.items())
    if isinstance(value, list):
        return tuple(_frozen(inner) for inner in value)
    return ("bool", value) if isinstance(value, bool) else value


def equal_items(left: Any, right: Any, units: Units | None) -> bool | None:
    """`=` of two items; None where it cannot be told."""
    one, two = system(left), system(right)
    if one is None or two is None:
        return None
    if isinstance(one, bool) or isinstance(two, bool):
        return one is two
    if isinstance(one, Temporal) or isinstance(two, Temporal):
        return _equal_temporal(one, two)
    if isinstance(one, Quantity) or isinstance(two, Quantity):
        return _equal_quantity(one, two, units)
    if isinstance(one, Node) and isinstance(two, Node):
        return bool(one.value == two.value and one.extra == two.extra)
    return bool(one == two) if not isinstance(one, Node) and not isinstance(two, Node) else False


def _equal_temporal(one: Any, two: Any) -> bool | None:
    if isinstance(one, str):
        one = temporal.read(two.kind, one)
    if isinstance(two, str):
        two = temporal.read(one.kind, two) if one else None
    if not isinstance(one, Temporal) or not isinstance(two, Temporal):
        return False
    return temporal.equal(one, two)


def _equal_quantity(one: Any, two: Any, units: Units | None) -> bool | None:
    one, two = as_quantity(one), as_quantity(two)
    if one is None or two is None:
        return False
    both = pair(one, two, units)
    return None if both is None else both[0] == both[1]


def as_quantity(value: Any) -> Quantity | None:
    """A number as quantity of unit 1, a quantity as it is, None for others."""
    if isinstance(value, Quantity):
        return value
    return Quantity(Decimal(value), "1") if isinstance(value, int | Decimal) and not isinstance(value, bool) else None


def equal(left: list[Any], right: list[Any], units: Units | None) -> bool | None:
    """`=` of two collections: same length, same order; None if one is empty or an item leaves it open."""
    if not left or not right:
        return None
    if len(left) != len(right):
        return False
    answers = [equal_items(one, two, units) for one, two in zip(left, right, strict=True)]
    return False if False in answers else None if None in answers else True


def equivalent_items(left: Any, right: Any, units: Units | None) -> bool:
    """`~` of two items: text without case and blanks, decimals to the lesser precision, dates of the same precision."""
    one, two = system(left), system(right)
    if isinstance(one, str) and isinstance(two, str):
        return " ".join(one.casefold().split()) == " ".join(two.casefold().split())
    if isinstance(one, bool) or isinstance(two, bool):
        return one is two
    if isinstance(one, int | Decimal) and isinstance(two, int | Decimal):
        return _equivalent_numbers(Decimal(one), Decimal(two))
    if isinstance(one, Temporal) and isinstance(two, Temporal):
        return temporal.equal(one, two) is True
    if isinstance(one, Quantity) or isinstance(two, Quantity):
        return _equivalent_quantities(as_quantity(one), as_quantity(two), units)
    if isinstance(one, Node) and isinstance(two, Node):
        return _equivalent_json(one.value, two.value)
    return False


def _equivalent_numbers(one: Decimal, two: Decimal) -> bool:
    places = max(int(one.as_tuple().exponent), int(two.as_tuple().exponent))
    if places < -60 or max(one.adjusted(), two.adjusted()) - places > 60:
        return one == two
    step = Decimal(1).scaleb(places)
    return one == two or _WIDE.quantize(one, step) == _WIDE.quantize(two, step)


def _equivalent_quantities(one: Quantity | None, two: Quantity | None, units: Units | None) -> bool:
    if one is None or two is None:
        return False
    both = pair(Quantity(one.value, one.ucum()), Quantity(two.value, two.ucum()), units)  # equivalent: a month is 'mo'
    if both is None:
        return False
    scale = [
        Fraction(1, 2) * Fraction(10) ** int(each.value.as_tuple().exponent) * (ratio or 1)
        for each, ratio in ((one, _ratio(one, both[0])), (two, _ratio(two, both[1])))
    ]
    return both[0] == both[1] or abs(both[0] - both[1]) < max(scale)


def _ratio(amount: Quantity, converted: Fraction) -> Fraction:
    return converted / Fraction(amount.value) if amount.value else Fraction(1)


def _equivalent_json(one: Any, two: Any) -> bool:
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() - {"id"} == two.keys() - {"id"} and all(_equivalent_json(one[name], two[name]) for name in one if name != "id")
    if isinstance(one, list) and isinstance(two, list):
        rest = list(two)
        for item in one:
            found = next((place for place, other in enumerate(rest) if _equivalent_json(item, other)), None)
            if found is None:
                return False
            del rest[found]
        return not rest
    return equivalent_items(one, two, None)


def equivalent(left: list[Any], right: list[Any], units: Units | None) -> bool:
    """`~` of two collections, in any order."""
    if len(left) != len(right):
        return False
    rest = list(right)
    for item in left:
        found = next((place for place, other in enumerate(rest) if equivalent_items(item, other, units)), None)
        if found is None:
            return False
        del rest[found]
    return True


def less(left: Any, right: Any, units: Units | None) -> bool | None:
    """`<` of two system values; None where it cannot be told. Raises ExecutionProblem for values that have no order."""
    if isinstance(left, bool) or isinstance(right, bool):
        raise ExecutionProblem("booleans have no order")
    if isinstance(left, int | Decimal) and isinstance(right, int | Decimal):
        return left < right
    if isinstance(left, str) and isinstance(right, str):
        return left < right
    if isinstance(left, Temporal) and isinstance(right, Temporal):
        return temporal.less(left, right)
    if isinstance(left, Quantity) or isinstance(right, Quantity):
        one, two = as_quantity(left), as_quantity(right)
        if one is not None and two is not None:
            both = pair(one, two, units)
            return None if both is None else both[0] < both[1]
    raise ExecutionProblem("values of different types cannot be compared")


def type_of(item: Any) -> TypeInfo:
    """`type()` of an item."""
    if isinstance(item, Node):
        return TypeInfo("FHIR", "BackboneElement" if "." in item.type else item.type or "Element")
    for kind, name in ((bool, "Boolean"), (int, "Integer"), (Decimal, "Decimal"), (str, "String"), (Quantity, "Quantity")):
        if isinstance(item, kind):
            return TypeInfo("System", name)
    return TypeInfo("System", item.type_name if isinstance(item, Temporal) else "TypeInfo")
