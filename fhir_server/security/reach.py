"""What belongs to one patient, as a clause: the compartment of R4, what stands beside it, and what everyone may read.

https://hl7.org/fhir/R4/compartmentdefinition-patient.html names the members and the parameters that make them so; `sharing.json` sorts the
types it leaves out (security/DECISIONS.md says why): shared (read by all), beside (a member by these parameters), withheld.
"""

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from conformance.path import search_path
from conformance.spec import Spec
from fhir_server.query.clauses import EVERYTHING, NOTHING, Clause, Index, Keys, both, either, negated
from fhir_server.search.extract import MEMBER
from fhir_server.search.keys import OTHER, compartment, token_clause
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
    return either(both(own, _alone(spec, rtype)), _unassigned(spec, rtype))


def members(spec: Spec, patient: str, rtype: str) -> Clause:
    """The resources of a type that belong to a patient ('Patient/1'), by any of the parameters that make a member."""
    codes = sharing()["beside"].get(rtype)
    if codes is None:
        return compartment(spec, "Patient", patient.removeprefix("Patient/"), rtype)
    fields = schema(spec, rtype).fields
    found = [reference.to(fields[code], (patient,)) for code in codes if code in fields]
    return either(Keys((f"{OTHER}={patient}",)) if OTHER in codes else NOTHING, *found)


def _alone(spec: Spec, rtype: str) -> Clause:
    """Not what this exchange has tagged as being about several patients: one patient is not shown the others' names in its audit trail."""
    tag = sharing()["alone"].get(rtype)
    return negated(token_clause(spec, rtype, "_tag", tag[0], tag[1])) if tag else EVERYTHING


def _unassigned(spec: Spec, rtype: str) -> Clause:
    """Resources of a type that can be a patient's and are nobody's: a ward's monitor, not a pacemaker."""
    if rtype not in sharing()["unassigned"]:
        return NOTHING
    fields = schema(spec, rtype).fields
    return negated(either(*(reference.present(fields[code]) for code in sharing()["beside"][rtype])))


def patients_in(rtype: str, rid: str, index: Index) -> tuple[str, ...]:
    """The patients ('Patient/1') in whose compartments a resource with this index document stands."""
    own = (f"Patient/{rid}",) if rtype == "Patient" else ()
    first = (index["p"],) if str(index.get("p", "")).startswith("Patient/") else ()
    others = (key[len(MEMBER) :] for key in index.get("k", ()) if key.startswith(f"{MEMBER}Patient/"))
    return tuple(dict.fromkeys((*own, *first, *others)))


def patients_of(spec: Spec, res: Mapping[str, Any], base: str) -> tuple[str, ...]:
    """The same from the resource itself, without indexing it."""
    rtype = str(res.get("resourceType"))
    found = [f"Patient/{res['id']}"] if rtype == "Patient" and "id" in res else []
    for evaluate in _members(spec, rtype):
        for value in evaluate(dict(res)):
            found += [ref for ref in reference.targets(value, base) if ref.startswith("Patient/")]
    return tuple(dict.fromkeys(found))


def _members(spec: Spec, rtype: str) -> tuple[Callable[[dict[str, Any]], list[Any]], ...]:
    """The closures of the parameters that make members of a type."""
    memo: dict[str, tuple[Callable[[dict[str, Any]], list[Any]], ...]] = spec.memo.setdefault("security.members", {})
    if rtype not in memo:
        codes = sharing()["beside"].get(rtype) or spec.compartments["Patient"].get(rtype, ())
        fields = schema(spec, rtype).fields if rtype in spec.types else {}
        memo[rtype] = tuple(search_path(fields[code].param.expression, spec=spec) for code in codes if code in fields)
    return memo[rtype]
