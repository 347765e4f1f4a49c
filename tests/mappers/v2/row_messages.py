"""Messages that hold what one row of HL7's v2-to-FHIR segment maps asks for: its condition, and a value of its type in its field."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from mappers.v2 import tables
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
    "PRT": [
        {4: "AD^x^HL70443", 5: "1^D^J", 8: "Org"},
        {4: "MTH^x^HL70063", 5: "1^D^J"},
        {4: "AD", 5: "1^D^J", 6: "X^y^L"},
        {4: "AD", 8: "Org"},
        {4: "PP", 5: "1^D^J"},
        {4: "PP", 5: "1^D^J", 6: "X^y^L"},
        {4: "AP", 5: "1^D^J"},
        {4: "OP", 5: "1^D^J"},
        {4: "AP", 10: "D1"},
        {4: "AP"},
        {4: "PP"},
    ],
    "ROL": [{3: "MTH^x^HL70063", 4: "1^D^J"}, {3: "SEL^x^HL70063", 4: "1^D^J"}, {3: "PP", 4: "1^D^J"}, {3: "AT", 4: "1^D^J"}, {3: "AT"}],
    "AIG": [{3: "x", 4: "ROOM"}, {3: "x"}],
    "AIS": [{3: "x", 4: "202401020800", 8: "MIN"}, {3: "x"}],
    "IN3": [{21: "Case Manager"}],
    "IN1": [{2: "P"}, {2: "P", 16: "D^J", 17: "SPO"}],
    "PR1": [{3: "1^x^L", 5: "202401020304", 7: "30"}, {3: "1^x^L"}],
    "TXA": [{2: "CN"}, {2: "CN", 8: "20240102030405"}, {2: "CN", 6: "20240102"}],
    "PV1": [{2: "I"}, {2: "I", 54: "E1"}, {2: "I", 3: "W"}, {}],
    "ORC": [{}, {9: "20240102"}],
    "PID": [{3: "7", 18: "A1"}, {3: "7", 35: "x^y^L"}, {33: "20240102", 34: "NS^1.2.3^ISO"}],
    "OBX": [
        {2: "ST", 3: "3^x^L", 23: "Org"},
        {2: "ST", 3: "3^x^L", 23: "Org", 25: "1^D^J"},
        {2: "ST", 3: "3^x^L", 11: "F"},
        {2: "ED", 3: "3^x^L", 11: "F"},
        {2: "NM", 5: "5"},
    ],
    "RXA": [{3: "20240101", 5: "08^H^CVX"}, {6: "1"}],
    "RXO": [{1: "1^d^L"}, {1: "1^d^L", 3: "9"}, {1: "1^d^L", 5: "TAB"}, {11: "5"}, {18: "5"}, {18: "5", 25: "2"}, {2: "1", 3: "9"}],
    "AL1": [{3: "P"}, {3: "P", 5: "rash"}],
    "IAM": [{3: "P"}, {3: "P", 5: "rash"}, {3: "P", 14: "D^J", 15: "SPO"}],
    "NTE": [{3: "text"}],
    "NK1": [{2: "D^J"}],
    "OBR": [{4: "3^x^L"}, {4: "3^x^L", 15: "BLD"}],
    "TQ1": [{}, {13: "5^min"}, {4: "0800"}, {3: "AC"}, {3: "Q6H^^^^^^^AC"}, {7: "20240101"}, {8: "20240103"}],
    "PD1": [{7: "Y"}],
    "MRG": [{1: "8", 3: "9"}],
    "DG1": [{3: "I10^H^I10C"}, {3: "I10^H^I10C", 21: "D"}],
}


@dataclass(frozen=True, slots=True)
class GuideRow:
    """A row of the guide: map, field number (0: none), data type, condition, target path in our grammar, resource type, code map;

    the segment of the field, the constant ('' if none), whether it is a formula, the R4 type of its element.
    """

    map: str
    field: int
    datatype: str
    when: str
    target: str
    rtype: str
    codes: str
    segment: str
    value: str
    computed: bool
    kind: str


def _wanted(when: str, name: str, own: int, choice: int) -> dict[int, str]:
    """Fields of the segment that make a condition true, as far as its wording says; `own` is the row's, `choice` which of several values."""
    fields: dict[int, str] = {}
    when = re.sub(rf"({name}-\d+) OR {name}-\d+ (?=(IS )?VALUED)", r"\1 ", when)
    for clause in re.split(r"\bAND\b|\bOR\b", when):
        match = re.search(rf"{name}[-.](\d+)(?:\.(\d+))?(.*)", clause)
        if match is None or "NOT" in match[3] or "EMPTY" in match[3]:
            continue
        value = (re.findall(r"\"([^\"]*)\"", match[3]) or [""])[choice]
        if not value and match[2] and int(match[1]) == own:
            continue
        component = int(match[2] or 1)
        if "LENGTH" in match[3]:
            fields[int(match[1])] = "202401020304" if ">" in match[3] or "GREATER" in match[3] else "20240103"
            continue
        if "COUNT" in match[3] or (not value and "." not in clause.split(name)[1][:4]):
            fields.setdefault(-int(match[1]), "")
            continue
        fields[int(match[1])] = "^" * (component - 1) + (value or "20240102")
    return fields


def _unwanted(when: str, name: str) -> set[int]:
    """Fields that must be empty for a condition to be true."""
    found: set[int] = set()
    for match in re.finditer(rf"((?:{name}-\d+(?:\.\d+)?(?: AND | OR | ))+)(?:IS |ARE )?NOT VALUED", when):
        found.update(int(number) for number in re.findall(rf"{name}-(\d+)(?![\d.])", match[1]))
    return found


def _value(row: GuideRow, known: tables.Tables) -> list[str]:
    if row.codes:
        codes = [item["from"] for item in known.codes[row.codes.casefold()].values() if item["code"]]
        return [codes[0] if codes else "X1^Text^L", "X1^Text^HL70277"]
    kind = row.datatype.strip().upper()
    if kind in ("CWE", "CE", "CNE", "IS", "ID", "CF"):
        return ["X1^Text^L", "mg^mg^UCUM", "TX", "Y", "F", "T^Text^HL70277", "NW", "X", "AA", "AU", "AV"]
    if kind == "EI":
        return [VALUES[kind], "(01)00844588003288"]
    return [VALUES.get(kind, "some text"), "5", "5^min", "2^d", "20240101", "202401010800"]


def _component(row: GuideRow, typed: str) -> str:
    """The value with the component that a condition on the data type asks for (`XAD.7 IN ("M", "O")`)."""
    kind = row.datatype.strip().upper()
    match = re.search(rf"\b{kind}\.(\d+) (?:IS|IN|EQUALS) \(?\"(\w+)\"", row.when) if kind else None
    if match is None:
        return typed
    parts = typed.split("^") + [""] * 12
    parts[int(match[1]) - 1] = match[2]
    return "^".join(parts).rstrip("^")


# maps of the guide that are one of ours under another name
_ALIASES = {"NTE[Appointment-Comment]": "NTE[Appointment]", "OBX[Observation-Component]": "OBX[Observation]"}
# segments that must say more for a map to be used at all
_COMPANIONS = {
    "DG1[EpisodeOfCare]": {"PV1": "PV1|1|I|W" + "|" * 51 + "E1^^^NS"},
    "ORC[MedicationAdministration]": {"RXA": "RXA|0|1|20240101||08^H^CVX"},
    "AIS[Appointment]": {"SCH": "SCH|1|2"},
    "MSH[Provenance-Operator]": {"EVN": "EVN|A01|20240101"},
}
_MSH_MAPS = ("Bundle",)


def _structures(known: tables.Tables, name: str) -> Iterator[tuple[Structure, str]]:
    for structure in known.structures.values():
        for (group, segment), rows in structure.rows.items():
            if name == "MSH[Bundle]" or any(made.map == name.casefold() for made in rows):
                yield structure, "" if segment == "MSH" or name.startswith("MSH[") else group


def messages(row: GuideRow, known: tables.Tables) -> Iterator[str]:
    """Messages for a row, the likeliest first."""
    name = row.segment
    minimal = {**MINIMAL, **_COMPANIONS.get(row.map, {})}
    triggers = {"ADT": ["ADT^A01", "ADT^A40", "ADT^A47"], "MDM": ["MDM^T02"], "SIU": ["SIU^S12", "SIU^S15"]}
    for structure, group in _structures(known, _ALIASES.get(row.map, row.map)):
        code = next((event for event, held in known.triggers.items() if held == structure.name), "")
        for event in triggers.get(
            structure.name, [code if "^" in code else f"{code}^{ {'ORU': 'R01', 'VXU': 'V04', 'RDE': 'O11', 'ORM': 'O01'}.get(code, 'Z01') }"]
        ):
            for value, extra, choice in product(_value(row, known), EXTRAS.get(name, [{}]), (0, -1) if "IN (" in row.when else (0,)):
                empty = _unwanted(row.when, name)
                fields = {**extra, **_wanted(row.when, name, row.field, choice), **dict.fromkeys(empty, "")}
                if name == "OBX" and row.field == 5:
                    fields.pop(5, None)
                for other in [number for number in fields if number < 0]:
                    fields.pop(other)
                    fields.setdefault(-other, "20240103" if -other != row.field else "")
                if name == "OBX" and row.field == 6:
                    fields[5] = _by_type(replace(row, field=5), "5")
                if row.map.endswith("-Component]") and row.field != 5:
                    fields[5] = _twice(fields.get(5) or "5")
                if row.field and row.field not in empty and not fields.get(row.field):
                    typed = _component(row, _by_type(row, value))
                    fields[row.field] = _twice(typed) if "COUNT>1" in row.when or (row.map.endswith("-Component]") and row.field == 5) else typed
                text = _text(structure, group, name, fields, event, minimal)
                yield text.replace("|P|2.5.1", "|P|2.8.2", 1) if name == "ORC" and row.datatype == "EIP" else text


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


def _text(structure: Structure, group: str, name: str, fields: dict[int, str], event: str, minimal: dict[str, str]) -> str:
    header = ["MSH", "^~\\&", "A", "B", "C", "D", "20240102", "", event, "1", "P", "2.5.1"]
    lines = [f"EVN|{event[4:]}|20240101"] if event.startswith("ADT") and name != "EVN" else []
    if name == "MSH":
        header += [""] * 20
        for number, value in fields.items():
            header[number - 1] = value if number not in (9, 12) else header[number - 1]
        return "\r".join(["|".join(header), *lines, minimal["PID"], minimal["PV1"]])
    if not fields:
        fields = dict(enumerate(minimal.get(name, name).split("|")[1:], 1))
    segment = "|".join([name, *(fields.get(number, "") for number in range(1, max(fields, default=1) + 1))])
    chain = [group[:at] for at in range(1, len(group) + 1) if at == len(group) or group[at] == "."] if group else []
    if name in ("SCH", "EVN", "MSA"):
        return "\r".join(["|".join(header), *lines, segment, minimal["PID"]])
    if structure.name == "SIU":
        lines.append(minimal["SCH"])
    lines += [minimal["PID"]] if name != "PID" else []
    lines += [minimal["PV1"]] if name in ("PV2", "DG1", "ROL", "PR1", "AL1") else []
    for held in chain:
        openers = [item for item in structure.grammar.groups[held].items if item in structure.grammar.groups[held].openers]
        lines += [minimal[opener] for opener in openers if opener in minimal and opener != name and opener != "PID"]
    if name == "ORC":
        lines = [line for line in lines if not line.startswith(("OBR", "RXA"))]
        return "\r".join(["|".join(header), *lines, segment, minimal["OBR"] if structure.name in ("ORU", "ORDER") else minimal["RXA"]])
    return "\r".join(["|".join(header), *lines, segment])
