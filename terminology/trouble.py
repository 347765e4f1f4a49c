"""What can be wrong with a terminology request, as data: one row per kind of trouble, and the OperationOutcome issue each becomes.

The codes are those of the terminology ecosystem (http://hl7.org/fhir/tools/CodeSystem/tx-issue-type); the message ids and wordings follow the
reference servers, because clients (the HL7 validator, IG tooling) read them. https://hl7.org/fhir/R4/operationoutcome.html
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from conformance.outcome import STATUS

TX_ISSUE_TYPE = "http://hl7.org/fhir/tools/CodeSystem/tx-issue-type"
MESSAGE_ID = "http://hl7.org/fhir/StructureDefinition/operationoutcome-message-id"


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of trouble.csv. said: 'y' if the text also goes into the answer's message."""

    key: str
    message_id: str
    severity: str
    code: str
    tx: str
    said: str
    text: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """One problem found: place is a FHIRPath ('Coding.code'), '' for none; system: the unknown 'url|version' behind it, '' if it is none."""

    kind: Kind
    text: str
    place: str = ""
    severity: str = ""
    system: str = ""

    @property
    def level(self) -> str:
        """error | warning | information."""
        return self.severity or self.kind.severity

    def issue(self) -> dict[str, Any]:
        """As OperationOutcome.issue."""
        made: dict[str, Any] = {}
        if self.kind.message_id:
            made["extension"] = [{"url": MESSAGE_ID, "valueString": self.kind.message_id}]
        made |= {"severity": self.level, "code": self.kind.code}
        details: dict[str, Any] = {"coding": [{"system": TX_ISSUE_TYPE, "code": self.kind.tx}]} if self.kind.tx else {}
        made["details"] = details | {"text": self.text}
        if self.place:
            made["location"] = [self.place]
            made["expression"] = [self.place]
        return made


@dataclass(slots=True, eq=False)
class Stop(Exception):
    """The request cannot be answered: HTTP status and what is wrong."""

    status: int
    troubles: tuple[Trouble, ...]

    def __str__(self) -> str:
        return "; ".join(trouble.text for trouble in self.troubles)

    def outcome(self) -> dict[str, Any]:
        """The OperationOutcome."""
        return outcome(self.troubles)


def outcome(troubles: Iterable[Trouble]) -> dict[str, Any]:
    """The OperationOutcome of some troubles."""
    return {"resourceType": "OperationOutcome", "issue": [trouble.issue() for trouble in troubles]}


@cache
def kinds() -> Mapping[str, Kind]:
    """The rows of trouble.csv by key."""
    with (Path(__file__).parent / "trouble.csv").open(encoding="utf-8", newline="") as lines:
        return {row["key"]: Kind(**row) for row in csv.DictReader(lines)}


def trouble(key: str, place: str = "", *, severity: str = "", system_: str = "", **values: Any) -> Trouble:
    """A Trouble of the kind `key`, its text filled with `values`."""
    kind = kinds()[key]
    return Trouble(kind, kind.text.format(**values), place, severity, system_)


def stop(key: str, place: str = "", *, status: int = 0, **values: Any) -> Stop:
    """The refusal of a request for one reason."""
    found = trouble(key, place, **values)
    return Stop(status or max(STATUS.get(found.kind.code, 422), 400), (found,))
