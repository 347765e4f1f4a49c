"""Every published parameter of every type can be asked for, and every modifier its type takes; against an empty store each is an empty answer."""

from conformance.outcome import Refusal
from conformance.spec import load_spec
from fhir_server.search.table import MODIFIERS, PREFIXED
from tests.search.world import ask, context, found

SAMPLES = {
    "token": "x",
    "string": "x",
    "date": "2020-01",
    "number": "1.5",
    "quantity": "5.4|http://unitsofmeasure.org|mg",
    "uri": "http://x.org/y",
    "reference": "a",
    "special": "55|12|1|km",
}
MODIFIED = {"missing": "true", "identifier": "urn:x|1", "of-type": "http://t|MR|1"}
NEED_TERMS = ("in", "not-in", "above", "below")
UNASKED = ("_query",)
WHOLES = {  # types whose resources are part of others of the type, by one reference parameter (https://hl7.org/fhir/R4/search.html#recursive)
    "CarePlan",
    "Communication",
    "DeviceDefinition",
    "Encounter",
    "Location",
    "MedicationStatement",
    "Organization",
    "Procedure",
    "ResearchStudy",
    "Specimen",
    "Task",
}
CANONICAL = ("canonical", "uri")
CHOSEN = {("ConceptMap", "source"), ("ConceptMap", "source-uri"), ("ConceptMap", "target"), ("ConceptMap", "target-uri")}
CHOSEN |= {("PlanDefinition", "definition"), ("StructureDefinition", "valueset")}  # canonicals that no plain path names


def suits(spec, rtype, param, modifier):
    """Of modifiers that only some parameters of a type take: the elements, as far as plain paths name them, are what it needs."""
    if modifier in ("above", "below") and param.type == "reference":
        return bool(WHOLES & set(param.targets or WHOLES))
    kinds = {kind for part in param.expression.split(" | ") if (element := spec.element(part)) for kind in element.types}
    if modifier == "of-type":
        return "Identifier" in kinds
    return modifier != "identifier" or not (kinds & set(CANONICAL) or (rtype, param.code) in CHOSEN)


def sample(spec, rtype, param):
    """A well-formed value of a parameter."""
    if param.type != "composite":
        return {"_filter": "_id eq a", "_has": "", "_type": rtype}.get(param.code, SAMPLES[param.type])
    return "$".join(SAMPLES[spec.param_at(url, rtype).type] for url, _ in param.components)


def queries(spec, rtype):
    """(name, value) of each parameter of a type: plain, with each modifier, with each prefix."""
    for code, param in sorted(spec.params(rtype).items()):
        if code in UNASKED or code == "_has":
            continue
        value = sample(spec, rtype, param)
        yield code, value
        if code.startswith("_"):
            continue
        for modifier in MODIFIERS[param.type]:
            if modifier == "[type]" or not suits(spec, rtype, param, modifier):
                continue
            if not (modifier in NEED_TERMS and param.type == "token") and not (modifier == "missing" and param.type == "composite"):
                yield f"{code}:{modifier}", MODIFIED.get(modifier, value)
        if param.type in PREFIXED:
            yield from ((code, prefix + value) for prefix in ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"))


async def test_every_published_parameter_of_all_types(store):
    spec, ctx = load_spec(), context(store)
    asked, wrong = 0, []
    for rtype in sorted(spec.types):
        for name, value in queries(spec, rtype):
            try:
                bundle = await ask(ctx, f"{rtype}?{name}={value.replace('+', '%2B')}&_total=none")
            except Refusal as refusal:
                wrong.append(f"{rtype}?{name}={value}: {refusal}")
            else:
                wrong += [f"{rtype}?{name}={value}: found something"] if found(bundle) else []
            asked += 1
    assert not wrong, f"{len(wrong)} of {asked}:\n" + "\n".join(wrong[:30])
    assert asked > 5000
