"""What several segments say of one order's dosage is one Dosage: the amount (RXO, RXE), the timing (TQ1, ORC-7, RXE-1), the route (RXR).

Only what is said several times makes several: a second TQ1 is a second Dosage with the same amount and route. Members of a list each have to be followed,
so that an amount, a timing and a route in three members would be three orders. HL7 v2.8 4A.4.4; https://hl7.org/fhir/R4/dosage.html
"""

from copy import deepcopy

from mappers.v2.run import Draft, Element, Run

LISTS = frozenset({"doseAndRate", "additionalInstruction", "extension"})  # they hold what both say


def unite(run: Run, draft: Draft, res: Element) -> None:
    """Let the dosages of a resource be as many as the segment that says most of them."""
    sent = res.get("dosageInstruction", ())
    if len(sent) > 1:
        res["dosageInstruction"] = united(sent)


def united(sent: list[Element]) -> list[Element]:
    """Dosages that exclude each other are alternatives of one kind; each further one stands with the first of the other kinds."""
    kinds: list[list[Element]] = []
    for dosage in sent:
        kind = next((one for one in kinds if any(_exclude(dosage, other) for other in one)), None)
        if kind is None:
            kinds.append([dosage])
        elif dosage not in kind:
            kind.append(dosage)
    firsts = [kind[0] for kind in kinds]
    made = [_joined(firsts)]
    for place, kind in enumerate(kinds):
        made += [_joined([*firsts[:place], further, *firsts[place + 1 :]]) for further in kind[1:]]
    return made


def _exclude(one: Element, other: Element) -> bool:
    return not LISTS.issuperset(one.keys() & other.keys())


def _joined(parts: list[Element]) -> Element:
    made: Element = {}
    for name, value in ((name, deepcopy(value)) for part in parts for name, value in part.items()):
        if name in LISTS and name in made:
            made[name] = [*made[name], *(member for member in value if member not in made[name])]
        else:
            made[name] = value
    return made
