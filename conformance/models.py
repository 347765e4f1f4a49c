"""Typed view of resources for Python callers, through fhir.resources: the only importer of it. https://pypi.org/project/fhir.resources/

fhir.resources has no R4: its R4B models are used. 18 R4 types are missing there (`model_class` refuses them), and some types changed between R4 and R4B.
It is not the gate: it takes codes outside required bindings and numbers in strings, and needs 160 µs and more. What it says is a convenience for callers
who like attributes, and a second opinion in tests (tests/conformance/second_opinion.csv explains every disagreement).
"""

from typing import Any

from fhir.resources.R4B import get_fhir_model_class
from pydantic import ValidationError

from conformance.codec import decode_value

MAX_TOLD = 20


def model_class(rtype: str) -> Any:
    """The model class of a resource type, imported on first use. KeyError if fhir.resources has none for it."""
    try:
        return get_fhir_model_class(rtype)
    except ValueError as error:
        raise KeyError(rtype) from error


def typed(res: dict[str, Any]) -> Any:
    """The resource as a model object (`typed(res).name[0].family`). KeyError for a type without a model, ValueError if the model refuses it."""
    return model_class(str(res["resourceType"])).model_validate(res)


def plain(model: Any) -> dict[str, Any]:
    """The resource of a model object, decimals exact as far as the model kept them."""
    found: dict[str, Any] = decode_value(model.model_dump_json(exclude_none=True, by_alias=True).encode())
    return found


def second_opinion(res: dict[str, Any]) -> list[str]:
    """What fhir.resources finds wrong: 'place: kind of error', without values. KeyError for a type without a model."""
    check = model_class(str(res["resourceType"]))
    try:
        check.model_validate(res)
    except ValidationError as error:
        rows = error.errors(include_url=False, include_input=False, include_context=False)
        return [f"{'.'.join(str(each) for each in row['loc'])}: {row['type']}" for row in rows[:MAX_TOLD]]
    return []
