"""The stored resources of the matrix: every way to belong to a patient, for two patients; what everyone shares; what nobody gets."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fhir_server.security.reach import sharing

HERE = Path(__file__).parent
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
PATIENTS = ("mine", "theirs")


@dataclass(frozen=True)
class Instance:
    """One stored resource. relation: 'own', 'other', 'shared', 'unassigned', 'withheld', with '-lab' for laboratory results; owner: its patient."""

    rtype: str
    rid: str
    relation: str
    owner: str
    content: str

    def res(self, rid: str = "") -> dict[str, Any]:
        """The resource; its tag tells it in any answer."""
        return {"resourceType": self.rtype, "id": rid or self.rid, "meta": {"tag": [{"code": f"tag-{self.rid}"}]}, **json.loads(self.content)}


def member_rows() -> list[tuple[str, str, str]]:
    """(type, parameter, element) of members.txt."""
    lines = (HERE / "members.txt").read_text("utf-8").splitlines()
    return [(kind, code, element) for kind, code, element in (line.split(" ", 2) for line in lines if not line.startswith("#"))]


def instances() -> list[Instance]:
    """All of them."""
    return [*_patients(), *_members(), *_observations(), *_others()]


def _patients() -> Iterator[Instance]:
    for owner, relation in zip(PATIENTS, ("own", "other")):
        yield Instance("Patient", owner, relation, owner, json.dumps({"name": [{"family": f"Family-{owner}"}], "gender": "other"}))


def _members() -> Iterator[Instance]:
    for number, (rtype, _, element) in enumerate(member_rows()):
        for owner, relation in zip(PATIENTS, ("own", "other")):
            yield Instance(rtype, f"{rtype}-{number}-{owner}", relation, owner, element.replace("@", reference(owner)))


def reference(owner: str) -> str:
    """A Reference to a patient, as JSON."""
    return json.dumps({"reference": f"Patient/{owner}"})


def _observations() -> Iterator[Instance]:
    """Laboratory results, and results that belong to both patients."""
    for owner, relation in zip(PATIENTS, ("own", "other")):
        lab = {
            "category": [{"coding": [{"system": CATEGORY, "code": "laboratory"}]}],
            "subject": {"reference": f"Patient/{owner}"},
            "status": "final",
        }
        yield Instance("Observation", f"lab-{owner}", f"{relation}-lab", owner, json.dumps(lab))
    both = {"subject": {"reference": "Patient/theirs"}, "performer": [{"reference": "Patient/mine"}]}
    yield Instance("Observation", "of-both", "own", "mine", json.dumps(both))


def _others() -> Iterator[Instance]:
    for rtype in sharing()["shared"]:
        yield Instance(rtype, f"{rtype}-shared"[:60], "shared", "", "{}")
    for rtype in sharing()["withheld"]:
        if rtype not in ("Parameters", "OperationOutcome"):
            yield Instance(rtype, f"{rtype}-withheld", "withheld", "", "{}")
    yield Instance("Device", "Device-ward", "unassigned", "", '{"status": "active"}')
    yield Instance("Binary", "Binary-loose", "other", "", '{"contentType": "text/plain"}')
    yield Instance("Task", "Task-nobody", "other", "", '{"status": "draft"}')
