"""One generated message per row of HL7's v2-to-FHIR segment maps: does the value land where the row says?

The guide's target is read by build.py into our path grammar, checked against R4; a message is made that satisfies the row's condition and
gives its field a value of its type; the element chain of the path must then be there in a resource of the map's type.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from mappers.v2 import build, convert, message, path, tables
from mappers.v2.guide import CONDITIONS
from mappers.v2.tables import Structure

VALUES = {
    "CX": "7^^^A&1.2.3&ISO^MR", "XPN": "Doe^John", "XAD": "1 St^^Town^ST^123^USA^H", "XTN": "5551234^PRN^PH", "XCN": "1^Doe^John^^^^^^NS", "XON": "Org^L^^^^NS^XX^^^77",
    "PL": "W^R^B^F", "HD": "NS^1.2.3^ISO", "EI": "E1^NS^1.2.4^ISO", "EIP": "P&NS^F&NS", "DTM": "20240102030405", "TS": "20240102030405", "DT": "20240102", "NM": "5", "SI": "1",
    "DR": "20240101^20240102", "CQ": "5^mg", "NDL": "1&Doe&John", "DLN": "D1^ST^20300101", "PLN": "P1^NPI", "DLD": "HOME", "TQ": "1^Q6H^^20240101^20240102^R", "RPT": "Q6H", "RI": "Q6H^0800",
    "SN": ">^5", "MO": "5^USD", "CP": "5&USD", "SPS": "BLD^^x", "OG": "1^2^3^4", "PT": "P", "MSG": "ADT^A01^ADT_A01", "VID": "2.5", "JCC": "J", "AUI": "A1", "TM": "0800", "STRING": "text",
}  # fmt: skip
MINIMAL = {
    "PID": "PID|1||7^^^A^MR||Doe^J", "PV1": "PV1|1|I|W", "ORC": "ORC|RE", "OBR": "OBR|1|||3^x^L", "OBX": "OBX|1|ST|3^x^L||v||||||F", "TXA": "TXA|1|CN", "SCH": "SCH|1|2", "RGS": "RGS|1",
    "FT1": "FT1|1", "RXA": "RXA|0|1|20240101||08^H^CVX", "SPM": "SPM|1|S1", "EVN": "EVN|A01|20240101", "DG1": "DG1|1||I10^H^I10C", "IN1": "IN1|1|P", "PR1": "PR1|1||1^x^L", "RXE": "RXE|||1^d^L",
    "RXO": "RXO|1^d^L", "NK1": "NK1|1|D^J", "AIS": "AIS|1||x", "AIG": "AIG|1||x", "AIL": "AIL|1||W", "AIP": "AIP|1||1^A", "PRB": "PRB|AD|2024|1^x^L", "RXD": "RXD|1|1^d^L", "RXG": "RXG|1||||", "STF": "STF|1", "MFE": "MFE|MAD", "PD1": "PD1|||||||Y", "MRG": "MRG|8||9", "AL1": "AL1|1||P", "IAM": "IAM|1||P",
}  # fmt: skip
# what message tables ask of a segment beyond the row itself, in variants
EXTRAS: dict[str, list[dict[int, str]]] = {
    "PRT": [{4: "PP", 5: "1^D^J"}, {4: "AP", 5: "1^D^J"}, {4: "OP", 5: "1^D^J"}, {4: "AP", 10: "D1"}, {4: "AP"}, {4: "PP"}],
    "ROL": [{3: "PP", 4: "1^D^J"}, {3: "AT", 4: "1^D^J"}, {3: "AT"}],
    "PV1": [{2: "I"}, {2: "I", 3: "W"}, {}],
    "ORC": [{}, {9: "20240102"}],
    "PID": [{3: "7", 18: "A1"}, {33: "20240102", 34: "NS^1.2.3^ISO"}],
    "OBX": [
        {2: "ST", 3: "3^x^L", 23: "Org"},
        {2: "ST", 3: "3^x^L", 23: "Org", 25: "1^D^J"},
        {2: "ST", 3: "3^x^L", 11: "F"},
        {2: "ED", 3: "3^x^L", 11: "F"},
        {2: "NM", 5: "5"},
    ],
    "IN1": [{2: "P"}, {2: "P", 16: "D^J", 17: "SPO"}],
    "RXA": [{3: "20240101", 5: "08^H^CVX"}, {6: "1"}],
    "RXO": [{1: "1^d^L"}, {1: "1^d^L", 3: "9"}, {1: "1^d^L", 5: "TAB"}, {11: "5"}, {18: "5"}, {18: "5", 25: "2"}, {2: "1", 3: "9"}],
    "AL1": [{3: "P"}, {3: "P", 5: "rash"}],
    "IAM": [{3: "P"}, {3: "P", 5: "rash"}, {3: "P", 14: "D^J", 15: "SPO"}],
    "NTE": [{3: "text"}],
    "NK1": [{2: "D^J"}],
    "OBR": [{4: "3^x^L"}, {4: "3^x^L", 15: "BLD"}],
    "TQ1": [{}, {13: "5^min"}, {4: "0800"}, {3: "AC"}],
    "PD1": [{7: "Y"}],
    "MRG": [{1: "8", 3: "9"}],
    "DG1": [{3: "I10^H^I10C"}, {3: "I10^H^I10C", 21: "D"}],
}


@dataclass(frozen=True, slots=True)
class GuideRow:
    """A row of the guide: map, field number (0: none), data type, condition, target path in our grammar, resource type."""

    map: str
    field: int
    datatype: str
    when: str
    target: str
    rtype: str
    codes: str


def guide_rows(folder: Path, archive: Path) -> Iterator[GuideRow]:
    """The rows of the guide whose target R4 has and whose condition can be read."""
    elements = build.Elements(archive)
    for file in sorted(folder.glob("segments/*.csv")):
        match = re.search(r"R4_ (\w+)\[([\w-]+)\]", file.name)
        if match is None:
            continue
        cells = list(build._cells(file))
        urls = build._urls(cells)
        for row in cells:
            text, _, _ = build._fixed_path(row[9]).partition("=")
            if not text or text == "$this" or re.search(r"extension(\[\d+\])?\.ur[li]$", text) or row[16].startswith(("/", "#")):
                continue
            try:
                target = build.Target(elements, match[2].split("-")[0], text, urls)
                number = re.search(r"[-.](\d+)", row[1])
                when = CONDITIONS.get(row[6], row[6])
                path.steps(target.path)
            except ValueError:
                continue
            yield GuideRow(
                f"{match[1]}[{match[2]}]",
                int(number[1]) if number else 0,
                row[3],
                when,
                target.path,
                match[2].split("-")[0],
                build._code_map(row[15]),
            )


def _wanted(when: str, name: str) -> dict[int, str]:
    """Fields of the segment that make a condition true, as far as its wording says."""
    fields: dict[int, str] = {}
    for clause in re.split(r"\bAND\b|\bOR\b", when):
        match = re.search(rf"{name}[-.](\d+)(?:\.(\d+))?(.*)", clause)
        if match is None or "NOT" in match[3]:
            continue
        value = (re.findall(r"\"([^\"]*)\"", match[3]) or [""])[-1]
        component = int(match[2] or 1)
        if "COUNT" in match[3] or (not value and "." not in clause.split(name)[1][:4]):
            fields.setdefault(-int(match[1]), "")
            continue
        fields[int(match[1])] = "^" * (component - 1) + (value or "20240102")
    return fields


def _value(row: GuideRow, known: tables.Tables) -> list[str]:
    if row.codes:
        codes = [item["from"] for item in known.codes[row.codes.casefold()].values() if item["code"]]
        return [codes[0] if codes else "X1^Text^L", "X1^Text^HL70277"]
    kind = row.datatype.strip().upper()
    if kind in ("CWE", "CE", "CNE", "IS", "ID", "CF"):
        return ["X1^Text^L", "Y", "F", "T^Text^HL70277", "NW", "X", "AA", "AU", "AV"]
    return [VALUES.get(kind, "some text"), "5", "5^min", "20240101"]


# maps of the guide that are one of ours under another name
_ALIASES = {
    "OBX[Observation-Component]": "OBX[Observation]",
    "PRT[Patient-GeneralPractitioner-Practitioner]": "PRT[Patient-GeneralPractitioner-PractitionerRole]",
}


def _structures(known: tables.Tables, name: str) -> Iterator[tuple[Structure, str]]:
    for structure in known.structures.values():
        for (group, segment), rows in structure.rows.items():
            if any(made.map == name.casefold() for made in rows) and segment != "MSH":
                yield structure, group
            elif any(made.map == name.casefold() for made in rows):
                yield structure, ""


def _messages(row: GuideRow, known: tables.Tables) -> Iterator[str]:
    name = row.map.split("[")[0]
    triggers = {"ADT": ["ADT^A01", "ADT^A40", "ADT^A47"], "MDM": ["MDM^T02"], "SIU": ["SIU^S12", "SIU^S15"]}
    for structure, group in _structures(known, _ALIASES.get(row.map, row.map)):
        code = next((event for event, held in known.triggers.items() if held == structure.name), "")
        for event in triggers.get(
            structure.name, [code if "^" in code else f"{code}^{ {'ORU': 'R01', 'VXU': 'V04', 'RDE': 'O11', 'ORM': 'O01'}.get(code, 'Z01') }"]
        ):
            for value, extra in product(_value(row, known), EXTRAS.get(name, [{}])):
                fields = {**extra, **_wanted(row.when, name)}
                for other in [number for number in fields if number < 0]:
                    fields.pop(other)
                    fields.setdefault(-other, "20240103" if -other != row.field else "")
                if name == "OBX" and row.field == 6:
                    fields[5] = _by_type(replace(row, field=5), "5")
                if row.map.endswith("-Component]") and row.field != 5:
                    fields[5] = _twice(fields.get(5) or "5")
                if row.field and not fields.get(row.field):
                    typed = _by_type(row, value)
                    fields[row.field] = _twice(typed) if "COUNT>1" in row.when or (row.map.endswith("-Component]") and row.field == 5) else typed
                yield _text(structure, group, name, fields, event)


def _twice(text: str) -> str:
    return f"{text}~{text}"


_BY_TYPE = {
    "NM": "5",
    "DR": "20240101^20240102",
    "NR": "1^2",
    "TM": "0800",
    "NA": "1^2",
    "CF": "A^B^L",
    "CNE": "A^B^L",
    "CE": "A^B^L",
    "CWE": "A^B^L",
    "IS": "A",
    "DTM": "20240102",
    "VR": "a",
    "ED": "^AP^PDF^Base64^JVBERi0=",
    "RP": "http://x/y^^AP^PDF",
}


def _by_type(row: GuideRow, value: str) -> str:
    """A value of the type that the condition names in OBX-2."""
    match = re.search(r'OBX-2 (?:EQUALS|IN) \(?"(\w+)"', row.when)
    if not row.map.startswith("OBX") or row.field != 5 or match is None:
        return value
    if match[1] == "SN":
        mark = re.search(r'OBX-5.3 (?:EQUALS|IN) \(?"(.)"', row.when)
        return f"^1^{mark[1]}^2" if mark else ("<>^1" if '5.1  EQUALS "<>"' in row.when or '5.1 EQUALS "<>"' in row.when else ">^1")
    return _BY_TYPE.get(match[1], "some text")


def _text(structure: Structure, group: str, name: str, fields: dict[int, str], event: str) -> str:
    header = ["MSH", "^~\\&", "A", "B", "C", "D", "20240102", "", event, "1", "P", "2.5.1"]
    lines = [f"EVN|{event[4:]}|20240101"] if event.startswith("ADT") and name != "EVN" else []
    if name == "MSH":
        header += [""] * 20
        for number, value in fields.items():
            header[number - 1] = value if number not in (9, 12) else header[number - 1]
        return "\r".join(["|".join(header), *lines, MINIMAL["PID"], MINIMAL["PV1"]])
    if not fields:
        fields = dict(enumerate(MINIMAL.get(name, name).split("|")[1:], 1))
    segment = "|".join([name, *(fields.get(number, "") for number in range(1, max(fields, default=1) + 1))])
    chain = [group[:at] for at in range(1, len(group) + 1) if at == len(group) or group[at] == "."] if group else []
    if name in ("SCH", "EVN", "MSA"):
        return "\r".join(["|".join(header), *lines, segment, MINIMAL["PID"]])
    if structure.name == "SIU":
        lines.append(MINIMAL["SCH"])
    lines += [MINIMAL["PID"]] if name != "PID" else []
    lines += [MINIMAL["PV1"]] if name in ("PV2", "DG1", "ROL", "PR1", "AL1") else []
    for held in chain:
        openers = [item for item in structure.grammar.groups[held].items if item in structure.grammar.groups[held].openers]
        lines += [MINIMAL[opener] for opener in openers if opener in MINIMAL and opener != name and opener != "PID"]
    if name == "ORC":
        lines = [line for line in lines if not line.startswith("OBR")]
        return "\r".join(["|".join(header), *lines, segment, MINIMAL["OBR"] if structure.name in ("ORU", "ORDER") else MINIMAL["RXA"]])
    return "\r".join(["|".join(header), *lines, segment])


def lands(row: GuideRow, known: tables.Tables) -> bool:
    """True if in one of the generated messages the element chain of the row is there."""
    steps = path.steps(row.target)
    for text in _messages(row, known):
        bundle = convert.convert(message.parse(text.encode()), known).bundle
        by_url = {entry["fullUrl"]: entry["resource"] for entry in bundle.get("entry", [])}
        if any(_chain(res, steps, by_url) for res in by_url.values() if res["resourceType"] == row.rtype):
            return True
    return False


def _chain(node: Any, steps: tuple[path.Step, ...], by_url: dict[str, Any]) -> bool:
    if not steps:
        return node not in ({}, [], None)
    step, rest = steps[0], steps[1:]
    found = node.get(step.name) if isinstance(node, dict) else None
    if found is None:
        return False
    for member in found if isinstance(found, list) else [found]:
        if step.url and member.get("url") != step.url:
            continue
        if step.rtype:
            other = by_url.get(member.get("reference", "")) if isinstance(member, dict) else None
            if other is not None and other["resourceType"] == step.rtype and _chain(other, rest, by_url):
                return True
        elif _chain(member, rest, by_url):
            return True
    return False


def deviations() -> dict[tuple[str, str], str]:
    """(map, field or '*') -> why our tables say otherwise than the guide."""
    path_of = Path(__file__).parent / "guide_deviations.csv"
    return {(row["map"], row["field"]): row["reason"] for row in tables.rows_of(path_of)}
