"""Numbers with units (NM + OBX-6, CQ, SN, MO, CP) -> Quantity, Ratio, Range, Money. Decimals keep their digits.

A unit gets a UCUM code only where `to_ucum` or the sender's own statement (CWE.3 `UCUM`) makes it one; the unit's text always
stays. https://hl7.org/fhir/R4/datatypes.html#Quantity
"""

import re
from decimal import Decimal

from mappers.v2.codings import split, system_of
from mappers.v2.place import At
from mappers.v2.run import Element, Run
from mappers.v2.values import number

UCUM = "http://unitsofmeasure.org"
_COMPARED = re.compile(r"(<=|>=|<|>|=)?\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))$")
_COMPARATORS = ("<", "<=", ">=", ">")


def unit(run: Run, raw: str, place: At, level: int) -> Element | None:
    """@unit: CWE of a unit -> unit, system, code of a Quantity."""
    return units(run, raw, level) or None


def units(run: Run, raw: str, level: int) -> Element:
    """unit, system and code of a unit field; empty if it is empty. Cached per message: the same few units come again and again."""
    if not raw:
        return {}
    key = ("unit", raw)
    found: tuple[Element, bool] | None = run.cache.get(key)
    if found is None:
        parts = split(run, raw, level)
        made = _units(run, parts)
        shown = {*made.values(), parts[2], parts[5]}
        found = run.cache[key] = made, any(part and part not in shown for part in parts)
    run.unsaid = run.unsaid or found[1]
    return dict(found[0])


def _units(run: Run, parts: list[str]) -> Element:
    value, text, name = parts[0], parts[1], parts[2]
    shown = text or value
    if not shown:
        return {}
    made: Element = {"unit": shown}
    system = system_of(run, name) if name else ""
    ucum = _ucum(run, parts, system)
    if ucum:
        made.update(system=UCUM, code=ucum)
    elif value and system and system != UCUM and not system.startswith("urn:id:"):
        made.update(system=system, code=value)
    return made


def _ucum(run: Run, parts: list[str], system: str) -> str | None:
    """The UCUM code: of the coding that says it is UCUM, else of a unit text that can only mean one."""
    if run.to_ucum is None:
        return parts[0] if system == UCUM else (parts[3] if parts[5] and system_of(run, parts[5]) == UCUM else None)
    if parts[5] and system_of(run, parts[5]) == UCUM and parts[3]:
        found = run.to_ucum(parts[3])
        if found:
            return found
    return next((found for found in (run.to_ucum(text) for text in (parts[0], parts[1]) if text) if found), None)


def compared(text: str) -> tuple[str, Decimal] | None:
    """('<', 5) of '<5'; ('', 5) of '5'; None if the text is no number with or without comparator."""
    match = _COMPARED.match(text.strip())
    if match is None:
        return None
    found = number(match[2])
    return None if found is None else (match[1] if match[1] in _COMPARATORS else "", found)


def of_cq(run: Run, raw: str, place: At, level: int) -> Element | None:
    """@quantity: CQ (amount ^ unit)."""
    mark = run.marks[level] if level < 3 else ""
    amount, _, rest = raw.partition(mark) if mark else (raw, "", "")
    found = compared(run.text(amount))
    made: Element = {}
    if found:
        made["value"] = found[1]
        if found[0]:
            made["comparator"] = found[0]
    elif run.text(amount):
        run.warn("102", "not a number")
    made.update(units(run, rest.split(mark, 1)[0] if level == 0 else rest, level + 1) if rest else {})
    if level == 0 and mark and rest.partition(mark)[2].strip(mark):
        run.unsaid = True
    return made if "value" in made else None


def of_amount(run: Run, raw: str, place: At, level: int) -> Element | None:
    """@amount: NM alone -> Quantity.value (and comparator)."""
    found = compared(run.text(raw.split(run.marks[0], 1)[0]))
    if found is None:
        return None
    run.unsaid = any(raw.split(run.marks[0])[1:])
    return {"value": found[1], **({"comparator": found[0]} if found[0] else {})}


def money(run: Run, raw: str, place: At, level: int) -> Element | None:
    """@money: MO or CP -> Money (amount, currency where it is ISO 4217's form)."""
    mark, sub, _ = run.marks
    parts = raw.split(mark)
    inner = parts[0].split(sub) if sub else [parts[0]]
    amount = run.text(inner[0])
    value = number(amount)
    if value is None:
        return None
    currency = run.text(inner[1] if len(inner) > 1 else parts[1] if len(parts) > 1 else "").upper()
    made: Element = {"value": value}
    if re.fullmatch(r"[A-Z]{3}", currency):
        made["currency"] = currency
    run.unsaid = bool(currency and "currency" not in made) or any(parts[2 if len(inner) < 2 else 1 :]) or any(inner[2:])
    return made


def of_sn(run: Run, raw: str, place: At, level: int) -> Element | None:
    """@comparator_quantity: SN without a second number -> Quantity."""
    parts = split(run, raw, level)
    found = number(parts[1])
    if found is None:
        return None
    return {**({"comparator": parts[0]} if parts[0] in _COMPARATORS else {}), "value": found}
