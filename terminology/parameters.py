"""A Parameters resource (or the query of a GET) as arguments by name. https://hl7.org/fhir/R4/operations.html#request"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from terminology.trouble import stop

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Arguments:
    """rows: name -> parameters of that name, in order."""

    rows: Mapping[str, Sequence[Json]]

    def all(self, name: str) -> list[Any]:
        """Every value of a parameter."""
        return [_value(row) for row in self.rows.get(name, ())]

    def one(self, *names: str) -> Any:
        """The first value of the first of these parameters that is there, None if none is."""
        for name in names:
            rows = self.rows.get(name)
            if rows:
                return _value(rows[0])
        return None

    def text(self, *names: str) -> str:
        """A text ('' if absent). Raises Stop for anything else."""
        value = self.one(*names)
        return "" if value is None else _text(" or ".join(names), value)

    def texts(self, name: str) -> list[str]:
        """Every text of a name. Raises Stop for anything else."""
        return [_text(name, each) for each in self.all(name)]

    def structures(self, name: str, rtype: str = "") -> list[Json]:
        """Every data type or resource of a name. Raises Stop for anything else, or a resource of another type than `rtype`."""
        return [_structure(name, each, rtype) for each in self.all(name)]

    def structure(self, *names: str, rtype: str = "") -> Json | None:
        """The data type or resource of the first of these names that is there, None if none is. Raises Stop for anything else."""
        name = next((each for each in names if self.rows.get(each)), "")
        return self.structures(name, rtype)[0] if name else None

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean; 'true' and 'false' are read too. Raises Stop for anything else."""
        value = self.one(name)
        if value is None:
            return default
        if value in (True, "true"):
            return True
        if value in (False, "false"):
            return False
        raise stop("bad-parameter", name=name, reason="it is not true or false", status=400)

    def number(self, name: str) -> int | None:
        """A whole number of at least 0. Raises Stop for anything else."""
        value = self.one(name)
        if value is None:
            return None
        try:
            made = int(str(value))
        except ValueError as bad:
            raise stop("bad-parameter", name=name, reason="it is not a whole number", status=400) from bad
        if made < 0:
            raise stop("bad-parameter", name=name, reason="it is negative", status=400)
        return made

    def need(self, *names: str) -> str:
        """A text that must be there. Raises Stop."""
        value = self.text(*names)
        if not value:
            raise stop("missing-parameter", name=" or ".join(names), status=400)
        return value

    def parts(self, name: str) -> list["Arguments"]:
        """The part lists of every parameter of a name."""
        return [read_rows(row.get("part", ())) for row in self.rows.get(name, ())]


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise stop("bad-parameter", name=name, reason="it is not a text (a code, uri, string or dateTime)", status=400)
    return value


def _structure(name: str, value: Any, rtype: str) -> Json:
    if not isinstance(value, dict):
        raise stop("bad-parameter", name=name, reason="it is not a data type with elements, or a resource", status=400)
    if rtype and value.get("resourceType") != rtype:
        raise stop("bad-parameter", name=name, reason=f"it is not a {rtype}", status=400)
    return value


def _value(row: Json) -> Any:
    for name, value in row.items():
        if name.startswith("value") or name == "resource":
            return value
    return None


def read_rows(rows: Iterable[Json]) -> Arguments:
    """The arguments of Parameters.parameter."""
    found: dict[str, list[Json]] = {}
    for row in rows:
        found.setdefault(str(row.get("name", "")), []).append(row)
    return Arguments(found)


def read(parameters: Json | None) -> Arguments:
    """The arguments of a Parameters resource; raises Stop if it is another resource."""
    if parameters is None:
        return Arguments({})
    if parameters.get("resourceType") != "Parameters":
        raise stop("bad-parameter", name="body", reason="it is not a Parameters resource", status=400)
    return read_rows(parameters.get("parameter", ()))


def from_query(pairs: Iterable[tuple[str, str]]) -> Json:
    """The Parameters of a GET: every value a string; `system|version` of a coding parameter is `system|code`."""
    rows: list[Json] = []
    for name, value in pairs:
        if name in ("coding", "codingA", "codingB"):
            system, _, code = value.rpartition("|")
            rows.append({"name": name, "valueCoding": {"system": system, "code": code}})
        elif not name.startswith("_"):
            rows.append({"name": name, "valueString": value})
    return {"resourceType": "Parameters", "parameter": rows}


def to_pairs(parameters: Json, behind: Sequence[tuple[str, str]] = (), *, codings: bool = False) -> list[tuple[str, str]] | None:
    """Parameters that hold plain texts alone as (name, value) pairs, and pairs behind them; None for any other.

    codings: a Coding that is no more than a system and a code counts as these two (where the answer does not tell places in it).
    """
    pairs: list[tuple[str, str]] = []
    rows = parameters.get("parameter") if parameters.get("resourceType") == "Parameters" else None
    for row in rows if isinstance(rows, list) else (None,):
        if not isinstance(row, dict) or len(row) != 2:
            return None
        name, value = row.get("name"), _value(row)
        if codings and name == "coding" and isinstance(value, dict) and value.keys() == {"system", "code"}:
            pairs += value.items()
        elif isinstance(name, str):
            pairs.append((name, value))
    return [*pairs, *behind] if all(type(value) is str for _, value in pairs) else None


def made(*rows: tuple[str, str, Any]) -> Json:
    """Parameters of (name, value name, value); a None value is left out."""
    return {"resourceType": "Parameters", "parameter": [{"name": name, kind: value} for name, kind, value in rows if value is not None]}
