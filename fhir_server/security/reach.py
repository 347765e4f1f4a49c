"""What belongs to one patient, as a clause: the compartment of R4, what stands beside it, and what everyone may read.

https://hl7.org/fhir/R4/compartmentdefinition-patient.html names the members and the parameters that make them so; `sharing.json` sorts the
types it leaves out (security/DECISIONS.md says why): shared (read by all), beside (a member by these parameters), withheld.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from conformance.spec import Spec
from fhir_server.query.clauses import EVERYTHING, NOTHING, Clause, Keys, either, negated
from fhir_server.search.keys import OTHER, compartment
from fhir_server.search.schema import schema
from fhir_server.search.types import reference

READING = frozenset("rs")


@cache
def sharing() -> Mapping[str, Any]:
    """The table of types outside the patient compartment."""
    table: Mapping[str, Any] = json.loads((Path(__file__).parent / "sharing.json").read_text("utf-8"))
    return table


def of_patient(spec: Spec, patient: str, rtype: str, action: str) -> Clause:
    """What a caller on behalf of 'Patient/1' may do `action` on: its own data; to read, also what is shared."""
    own = members(spec, patient, rtype)
    if action not in READING:
        return own
    if rtype in sharing()["shared"]:
        return EVERYTHING
    return either(own, _unassigned(spec, rtype))


def members(spec: Spec, patient: str, rtype: str) -> Clause:
    """The resources of a type that belong to a patient ('Patient/1'), by any of the parameters that make a member."""
    codes = sharing()["beside"].get(rtype)
    if codes is None:
        return compartment(spec, "Patient", patient.removeprefix("Patient/"), rtype)
    fields = schema(spec, rtype).fields
    found = [reference.to(fields[code], (patient,)) for code in codes if code in fields]
    return either(Keys((f"{OTHER}={patient}",)) if OTHER in codes else NOTHING, *found)


def _unassigned(spec: Spec, rtype: str) -> Clause:
    """Resources of a type that can be a patient's and are nobody's: a ward's monitor, not a pacemaker."""
    if rtype not in sharing()["unassigned"]:
        return NOTHING
    fields = schema(spec, rtype).fields
    return negated(either(*(reference.present(fields[code]) for code in sharing()["beside"][rtype])))
