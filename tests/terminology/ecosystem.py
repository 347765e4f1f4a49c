"""Runs the FHIR terminology ecosystem suite (HL7/fhir-tx-ecosystem-ig), in process or over HTTP, with the comparison rules that its guide documents.

The files are R5; an R4 server is given what the published runner would send it, and its answers are read back the same way: the cross-version
extensions of an expansion become the elements of R5. As in that runner, arrays have no order, quotation marks do not count, and content that
the expected answer does not have must not be there.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from terminology.operations import call
from terminology.service import Terms

Json = dict[str, Any]
R5 = "http://hl7.org/fhir/5.0/StructureDefinition/extension-ValueSet.expansion."
OPERATIONS = {
    "expand": "ValueSet/$expand",
    "validate-code": "ValueSet/$validate-code",
    "cs-validate-code": "CodeSystem/$validate-code",
    "lookup": "CodeSystem/$lookup",
    "translate": "ConceptMap/$translate",
    "batch-validate": "ValueSet/$batch-validate-code",
    "subsumes": "CodeSystem/$subsumes",
}
PATTERNS = {
    "$id$": r"[A-Za-z0-9\-.]{1,64}",
    "$uuid$": r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "$instant$": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)",
    "$url$": r"\w+:\S+",
    "$token$": r"\S+",
    "$string$": r"\S(.*\S)?",
    "$date$": r"\d{4}(-\d\d(-\d\d(T\S+)?)?)?",
    "$semver$": r"\d+\.\d+(\.\d+)?.*",
    "$version$": r"4\.0\.1",
    "$$": r"(?s).*",
}


@dataclass(frozen=True)
class Case:
    """One test of the suite."""

    suite: Json
    test: Json

    @property
    def name(self) -> str:
        return f"{self.suite['name']}/{self.test['name']}"


def load(path: Path) -> Json:
    return json.loads(path.read_text(encoding="utf-8-sig"))


def cases(folder: Path, modes: tuple[str, ...] = ("general",)) -> list[Case]:
    """The tests of some modes that an R4 server has to pass."""
    found = []
    for suite in load(folder / "test-cases.json")["suites"]:
        if suite.get("mode", "general") in modes:
            found += [
                Case(suite, test)
                for test in suite["tests"]
                if test.get("mode") in (None, *modes) and not str(test.get("version", "4")).startswith("5")
            ]
    return found


def setup(folder: Path, suite: Json) -> list[Json]:
    """The resources that a suite needs, as an R4 server gets them."""
    return [to_r4(load(folder / name)) for name in suite.get("setup", ())]


Send = Callable[[str, Json, dict[str, str]], tuple[int, Json]]  # (operation, Parameters, headers) -> (status, answer)
TOO_COSTLY = "X-Too-Costly-Threshold"


def within(terms: Terms) -> Send:
    """Calls in process."""

    def send(operation: str, parameters: Json, headers: dict[str, str]) -> tuple[int, Json]:
        limit, accept = int(headers.get(TOO_COSTLY, "10000")), headers.get("Accept-Language", "")
        return call(terms, operation, parameters, now=datetime.now(UTC), accept=accept, limit=limit)

    return send


def over(http: httpx.Client, resources: list[Json]) -> Send:
    """Calls of a running server, with the suite's resources sent along, as the published runner does."""
    rows = [{"name": "tx-resource", "resource": each} for each in resources]

    def send(operation: str, parameters: Json, headers: dict[str, str]) -> tuple[int, Json]:
        body = {**parameters, "parameter": [*parameters["parameter"], *rows]}
        answer = http.post(f"/{operation}", content=json.dumps(body), headers={"Content-Type": "application/fhir+json", **headers})
        return answer.status_code, answer.json()

    return send


def run(folder: Path, case: Case, send: Send) -> str:
    """'' if the case passes, else the first difference."""
    test = case.test
    parameters = load(folder / test["request"])
    if "profile" in test:
        parameters["parameter"] += [each for each in load(folder / test["profile"])["parameter"] if each["name"] != "uuid"]
    header = test.get("header", {})
    headers = {TOO_COSTLY: str(header["value"])} if header.get("name") == "X-TOO-COSTLY-THRESHOLD" else {}
    headers |= {"Accept-Language": test["Accept-Language"]} if test.get("Accept-Language") else {}
    status, answer = send(OPERATIONS[test["operation"]], parameters, headers)
    wanted = test.get("http-code", "2xx")
    if str(status)[0] != wanted[0]:
        return f"status {status}: {json.dumps(answer)[:300]}"
    found = ""
    for name in ("response", "response2"):
        if name in test:
            use_externals(folder, test[name])
            found = compare(load(folder / test[name]), to_r5(answer), test.get("operation", ""))
            if not found:
                return ""
    return found


def least(expected: Any, actual: Any, path: str) -> str:
    """'' if `actual` has at least what `expected` says: how the two statements of the metadata suite are compared."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        missing = next((name for name in expected if name not in actual), "")
        return (
            f"{path}.{missing} is missing" if missing else next(filter(None, (least(v, actual[n], f"{path}.{n}") for n, v in expected.items())), "")
        )
    if isinstance(expected, list) and isinstance(actual, list):
        lacking = [each for each in expected if all(least(each, one, path) for one in actual)]
        return f"{path}: {json.dumps(lacking[0])[:200]} is missing" if lacking else ""
    return compare(expected, actual, path)


def to_r4(res: Json) -> Json:
    """The filter operators that R4 does not have move into an extension, as the published runner sends them."""
    for include in (*res.get("compose", {}).get("include", ()), *res.get("compose", {}).get("exclude", ())):
        for each in include.get("filter", ()):
            if each.get("op") in ("child-of", "descendent-leaf"):
                url = "http://hl7.org/fhir/5.0/StructureDefinition/extension-ValueSet.compose.include.filter.op"
                each["_op"] = {"extension": [{"url": url, "valueCode": each.pop("op")}]}
    return res


def to_r5(value: Any) -> Any:
    """The cross-version extensions of an expansion as elements."""
    if isinstance(value, list):
        return [to_r5(each) for each in value]
    if not isinstance(value, dict):
        return value
    made = {name: to_r5(each) for name, each in value.items() if name != "extension"}
    kept, rows = [], []
    for extension in value.get("extension", ()):
        if extension.get("url", "").startswith(R5):
            parts = {each["url"]: each for each in extension["extension"]}
            row = {}
            for name, part in parts.items():
                kind = next(key for key in part if key.startswith("value"))
                row[kind if name == "value" else name] = part[kind]
            rows.append(row)
        else:
            kept.append(to_r5(extension))
    if rows:
        made["property"] = rows
    return made | ({"extension": kept} if kept else {})


EXTERNAL: dict[str, list[str]] = {}


def use_externals(folder: Path, response: str) -> None:
    """The wordings of the reference server for one response (messages-tx.fhir.org.json)."""
    EXTERNAL.clear()
    for number, text in load(folder / "messages-tx.fhir.org.json").get(response, {}).items():
        EXTERNAL[number] = [squeezed(text)]


def optional(value: Any) -> bool:
    said = value.get("$optional$") if isinstance(value, dict) else None
    return said is True or (isinstance(said, str) and (said.startswith(("!", "warning:", "version:4")) or said in ("tx.fhir.org",)))


def compare(expected: Any, actual: Any, path: str) -> str:
    """'' if `actual` is what the template `expected` says."""
    if isinstance(expected, dict):
        return compare_objects(expected, actual, path) if isinstance(actual, dict) else f"{path}: not an object"
    if isinstance(expected, list):
        return compare_arrays(expected, actual, path) if isinstance(actual, list) else f"{path}: not an array"
    if isinstance(expected, str) and isinstance(actual, str):
        return "" if matches(expected, actual) else f"{path}: expected {expected!r}, is {actual!r}"
    same = expected == actual and isinstance(expected, bool) == isinstance(actual, bool)
    return "" if same else f"{path}: expected {expected!r}, is {actual!r}"


def compare_objects(expected: Json, actual: Json, path: str) -> str:
    free = set(expected.get("$optional-properties$", ()))
    counted = set(expected.get("$count-arrays$", ()))
    names = {name for name in expected if not name.startswith("$")}
    for name, value in actual.items():
        if name not in names:
            if name in free or "*" in free or (name == "location" and "expression" in actual):
                continue  # OperationOutcome.issue.location: the expected files have it or not, with nothing else to tell them apart
            return f"{path}: unexpected {name} = {json.dumps(value)[:200]}"
        if name in counted:
            if len(expected[name]) != len(value):
                return f"{path}.{name}: expected {len(expected[name])} items, are {len(value)}"
            continue
        if name == "compose":
            continue
        found = compare(expected[name], value, f"{path}.{name}")
        if found:
            return found
    missing = [name for name in names if name not in actual and name not in free and "*" not in free and not all_optional(expected[name])]
    return f"{path}: missing {missing} of {json.dumps({n: expected[n] for n in missing})[:300]}" if missing else ""


def all_optional(value: Any) -> bool:
    return (isinstance(value, list) and all(optional(each) for each in value)) or optional(value)


def compare_arrays(expected: list[Any], actual: list[Any], path: str) -> str:
    """Every expected item has a partner, every actual item is expected; order does not count."""
    left = list(actual)
    worst = ""
    for each in sorted(expected, key=optional):
        found = next((one for one in left if not compare(each, one, path)), None)
        if found is not None:
            left.remove(found)
        elif not optional(each):
            near = nearest(each, left)
            worst = worst or (compare(each, near, f"{path}[{label(each)}]") if near is not None else f"{path}: missing {json.dumps(each)[:300]}")
    if worst:
        return worst
    return f"{path}: unexpected {json.dumps(left)[:400]}" if left else ""


def label(value: Any) -> str:
    return str(value.get("name") or value.get("code") or value.get("severity") or "") if isinstance(value, dict) else str(value)


def nearest(wanted: Any, left: list[Any]) -> Any:
    if not isinstance(wanted, dict):
        return None
    for key in ("name", "code"):
        found = [one for one in left if isinstance(one, dict) and key in wanted and one.get(key) == wanted.get(key)]
        if found:
            return found[0]
    return None


def matches(expected: str, actual: str) -> bool:
    if expected in PATTERNS:
        return re.fullmatch(PATTERNS[expected], actual) is not None
    if expected.startswith("$choice:"):
        return actual in expected[8:-1].split("|")
    if expected.startswith("$fragments:"):
        return all(part.lower() in actual.lower() for part in expected[11:-1].split("|"))
    if expected.startswith("$external:"):
        if squeezed(actual) in EXTERNAL.get(expected[1:-1].split(":")[1], ()):
            return True
        parts = expected[1:-1].split(":", 2)
        return len(parts) < 3 or all(part.lower() in actual.lower() for part in parts[2].split("|"))
    return squeezed(expected.replace("$version$", "4.0.1")) == squeezed(actual)


def squeezed(text: str) -> str:
    """The published runner compares strings that differ as if they were base64, so that only these characters count."""
    return re.sub(r"[^A-Za-z0-9+/_=-]", "", text)
