"""The only writer of `conformance/r4/`: official FHIR packages -> compact, pinned tables (facts, no prose), and the definitions themselves
for reading over REST.

    python -m conformance.build EXAMPLES.tgz EXPANSIONS.tgz [--out FOLDER] [--check]

EXAMPLES is npm `hl7.fhir.r4.examples@4.0.1` (every StructureDefinition, SearchParameter, ValueSet, CodeSystem, CompartmentDefinition and
OperationDefinition of R4), EXPANSIONS is npm `hl7.fhir.r4.expansions@4.0.1`. `--check` rebuilds in memory and compares with what is there.
The output is the same bytes for the same input, so that a rebuild is a diff.
"""

import argparse
import gzip
import hashlib
import json
import lzma
import sys
import tarfile
from collections.abc import Iterable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec

Json = dict[str, Any]

OUT = Path(__file__).parent / "r4"
# what a table of facts does not need: prose, narrative, mappings to other standards, publishing data
PROSE = frozenset(
    [
        "text",
        "description",
        "purpose",
        "comment",
        "requirements",
        "definition",
        "mapping",
        "alias",
        "example",
        "meaningWhenMissing",
        "contact",
        "copyright",
        "publisher",
        "xpath",
        "meta",
        "date",
        "useContext",
        "jurisdiction",
        "xpathUsage",
        "documentation",
        "short",
        "label",
        "extension",
    ]
)
VALUES = ("fixed", "pattern", "default", "minValue", "maxValue")  # their content is a value, not a definition
AMBIGUOUS = ("inv-1",)  # one key, several rules: told apart as `inv-1@Task`
DEFINITIONS = ("CodeSystem", "CompartmentDefinition", "ConceptMap", "OperationDefinition", "SearchParameter", "StructureDefinition", "ValueSet")
SYSTEM_TYPE = "http://hl7.org/fhirpath/System."
FHIR_TYPE = "http://hl7.org/fhir/StructureDefinition/structuredefinition-fhir-type"
TYPE_URL = "http://hl7.org/fhir/StructureDefinition/"
BLOCK = 40  # resources in one block of `published/`
MAX_MEMBER = 64 * 1024 * 1024
PROFILED = ("SimpleQuantity", "MoneyQuantity")


def read_package(path: Path) -> dict[str, list[Json]]:
    """Resources of a FHIR package (.tgz) by type, in the order of their file names."""
    found: dict[str, list[Json]] = {}
    with tarfile.open(path) as archive:
        for member in sorted(archive.getmembers(), key=lambda each: each.name):
            if not member.isfile() or not member.name.endswith(".json") or member.size > MAX_MEMBER:
                continue
            stream = archive.extractfile(member)
            res = json.load(stream) if stream else {}
            found.setdefault(res.get("resourceType", ""), []).append(res)
    return found


def build(examples: Path, expansions: Path) -> dict[str, bytes]:
    """File name below `r4/` -> content."""
    package = read_package(examples)
    expanded = read_package(expansions)["ValueSet"]
    structures = package["StructureDefinition"]
    types = [each for each in structures if each.get("derivation") != "constraint" and each["kind"] != "logical"]
    files = {
        "elements.json": _lines(_elements(types)),
        "normative.json": _lines({"types": _normative(types)}),
        "invariants.json": _lines(_invariants(types)),
        "params.json": _lines(_params(package["SearchParameter"])),
        "compartments.json": _lines(_compartments(package["CompartmentDefinition"])),
        "operations.json": _lines(_operations(package["OperationDefinition"])),
        "valuesets.json": _lines(_valuesets(expanded, _bound(structures))),
        "SOURCE.md": _source(examples, expansions, package),
    }
    return files | _definitions(package) | _published(package)


def _published(package: Mapping[str, list[Json]]) -> dict[str, bytes]:
    """The definitions whole but for their narrative, for reading over REST: blocks of BLOCK resources, each an xz stream, and an index of the blocks.

    index.json: kind -> [[offset, length, [ids]]]. Blocks keep a read short (one block is unpacked) and the repository small.
    """
    files: dict[str, bytes] = {}
    index: dict[str, list[Any]] = {}
    for kind in DEFINITIONS:
        rows = sorted(package[kind], key=lambda one: (str(one.get("type", "")) if kind == "StructureDefinition" else "", str(one["id"])))
        blocks = [rows[at : at + BLOCK] for at in range(0, len(rows), BLOCK)]
        streams = [lzma.compress(msgspec.json.encode([_told(each) for each in block]), preset=6) for block in blocks]
        starts = accumulate((len(one) for one in streams), initial=0)
        index[kind] = [[start, len(stream), [each["id"] for each in block]] for start, stream, block in zip(starts, streams, blocks, strict=False)]
        files[f"published/{kind}.xz"] = b"".join(streams)
    return files | {"published/index.json": _lines(index)}


def _told(resource: Json) -> Json:
    return {key: value for key, value in resource.items() if key != "text"}


def _elements(types: Iterable[Json]) -> Json:
    """Type -> [kind, base, abstract, rows]; row: [path below the type, min, max, types, facts]."""
    return {each["type"]: _type(each) for each in sorted(types, key=lambda one: str(one["type"]))}


def _type(structure: Json) -> list[Any]:
    rows = [_row(element, structure["type"]) for element in structure["snapshot"]["element"]]
    base = structure.get("baseDefinition", "").removeprefix(TYPE_URL)
    return [structure["kind"], base, bool(structure.get("abstract")), rows]


def _row(element: Json, rtype: str) -> list[Any]:
    types = element.get("type", [])
    facts: Json = {}
    targets = sorted({url.removeprefix(TYPE_URL) for each in types for url in each.get("targetProfile", ())})
    profiles = sorted({url.removeprefix(TYPE_URL) for each in types for url in each.get("profile", ())})
    facts["targets"] = targets
    facts["profiles"] = profiles
    binding = element.get("binding", {})
    if "valueSet" in binding:
        facts["binding"] = [binding["strength"], binding["valueSet"].split("|")[0]]
    # ele-1 and ext-1 stand on every element and are checked on every element without being listed
    facts["rules"] = [
        _key(rule, rtype)
        for rule in element.get("constraint", ())
        if rule["key"] not in ("ele-1", "ext-1") or element["path"] in ("Element", "Extension")
    ]
    facts["same"] = element.get("contentReference", "").removeprefix("#")
    facts["summary"] = int(element.get("isSummary", False))
    facts["modifier"] = int(element.get("isModifier", False))
    facts["attribute"] = int("xmlAttr" in element.get("representation", ()))
    facts["regex"] = next((ext["valueString"] for each in types for ext in each.get("extension", ()) if ext["url"].endswith("/regex")), "")
    codes = [_type_code(each) for each in types]
    return [element["path"][len(rtype) + 1 :], element["min"], element["max"], codes, {key: value for key, value in facts.items() if value}]


def _normative(types: Iterable[Json]) -> list[str]:
    """Resource types whose standards status is normative."""
    marked = [each["type"] for each in types if each["kind"] == "resource" and _status(each) == "normative"]
    return sorted(marked)


def _status(structure: Json) -> str:
    return next((ext["valueCode"] for ext in structure.get("extension", ()) if ext["url"] == f"{TYPE_URL}structuredefinition-standards-status"), "")


def _type_code(entry: Json) -> str:
    """The FHIR type of an element's type entry; for the System types the one that the fhir-type extension names, if any."""
    code = str(entry["code"])
    if not code.startswith(SYSTEM_TYPE):
        return code
    named = next((ext.get("valueUrl") or ext.get("valueUri") for ext in entry.get("extension", ()) if ext["url"] == FHIR_TYPE), None)
    return str(named) if named else code.removeprefix("http://hl7.org/fhirpath/")


def _invariants(types: Iterable[Json]) -> Json:
    """Key -> [severity, FHIRPath, human]; a key means one rule in all of R4 (checked here)."""
    found: Json = {}
    for structure in types:
        for element in structure["snapshot"]["element"]:
            for rule in element.get("constraint", ()):
                row = [rule["severity"], rule.get("expression", ""), rule["human"]]
                if found.setdefault(_key(rule, structure["type"]), row)[:2] != row[:2]:
                    raise ValueError(f"invariant {rule['key']} has two meanings, the second at {element['path']}")
    return dict(sorted(found.items()))


def _key(rule: Json, rtype: str) -> str:
    return f"{rule['key']}@{rtype}" if rule["key"] in AMBIGUOUS else str(rule["key"])


def _params(params: Iterable[Json]) -> Json:
    """Definition url -> row; published examples and definitions without a base are left out (SOURCE.md lists them)."""
    return {each["url"]: _param(each) for each in sorted(params, key=lambda one: str(one["url"])) if _usable(each)}


def _usable(param: Json) -> bool:
    general = param["code"].startswith("_")
    return "base" in param and (general or "expression" in param) and not param["id"].startswith("example")


def _param(param: Json) -> list[Any]:
    facts: Json = {key: param[key] for key in ("target", "comparator", "modifier", "multipleOr", "multipleAnd") if key in param}
    facts["component"] = [[each["definition"], each["expression"]] for each in param.get("component", ())]
    kept = {key: value for key, value in facts.items() if value not in ([], "")}
    return [param["code"], param["type"], param["base"], param.get("expression", ""), kept]


def _compartments(definitions: Iterable[Json]) -> Json:
    """Compartment -> type -> search parameter codes that place it there."""
    return {
        each["code"]: {row["code"]: row["param"] for row in each["resource"] if row.get("param")}
        for each in sorted(definitions, key=lambda one: str(one["code"]))
        if each["url"].startswith("http://hl7.org/fhir/CompartmentDefinition/") and each["id"] != "example"
    }


def _operations(definitions: Iterable[Json]) -> Json:
    """Definition url -> the OperationDefinition without prose."""
    return {each["url"]: strip(each) for each in sorted(definitions, key=lambda one: str(one["url"])) if each["id"] != "example"}


def _bound(structures: Iterable[Json]) -> set[str]:
    """Value sets that some element of a type or profile binds as required or extensible."""
    elements = [element for each in structures for element in each.get("snapshot", {}).get("element", ())]
    bindings = [element["binding"] for element in elements if "binding" in element]
    return {each["valueSet"].split("|")[0] for each in bindings if each["strength"] in ("required", "extensible") and "valueSet" in each}


def _valuesets(expanded: Iterable[Json], bound: set[str]) -> Json:
    """Value set -> system -> its codes, for the bound ones that R4 publishes in full."""
    found: Json = {}
    for each in sorted(expanded, key=lambda one: str(one["url"])):
        expansion = each.get("expansion", {})
        if each["url"] not in bound or _partial(expansion):
            continue
        systems: dict[str, set[str]] = {}
        _collect(expansion.get("contains", ()), systems)
        found[each["url"]] = {system: sorted(codes) for system, codes in sorted(systems.items())}
    return found


def _partial(expansion: Json) -> bool:
    """True if the published list is not all of it (limited, or of an unclosed set)."""
    flags = {ext["url"].rsplit("/", 1)[-1] for ext in expansion.get("extension", ())}
    return bool(flags & {"valueset-toocostly", "valueset-unclosed"}) or not expansion.get("contains")


def _collect(contains: Iterable[Json], systems: dict[str, set[str]]) -> None:
    for each in contains:
        if "code" in each and not each.get("abstract"):
            systems.setdefault(each.get("system", ""), set()).add(each["code"])
        _collect(each.get("contains", ()), systems)


def strip(value: Any) -> Any:
    """A definition without its prose (PROSE), at every depth; fhir-type and regex extensions are in the tables."""
    if isinstance(value, dict):
        return {key: each if key.startswith(VALUES) else strip(each) for key, each in value.items() if key not in PROSE and not key.startswith("_")}
    return [strip(each) for each in value] if isinstance(value, list) else value


def _definitions(package: Mapping[str, list[Json]]) -> dict[str, bytes]:
    """The definitions without prose by canonical, in blocks of BLOCK, each a gzip stream; index.json: kind -> [[offset, length, [canonicals]]]."""
    files: dict[str, bytes] = {}
    index: dict[str, list[Any]] = {}
    for kind in DEFINITIONS:
        rows: Json = {}
        for each in sorted(package[kind], key=lambda one: (str(one["url"]), str(one["id"]))):
            rows.setdefault(each["url"], _slim(each))
        urls = list(rows)
        blocks = [urls[at : at + BLOCK] for at in range(0, len(urls), BLOCK)]
        streams = [gzip.compress(msgspec.json.encode([rows[url] for url in block]), 9, mtime=0) for block in blocks]
        starts = accumulate((len(one) for one in streams), initial=0)
        index[kind] = [[start, len(stream), block] for start, stream, block in zip(starts, streams, blocks, strict=False)]
        files[f"definitions/{kind}.gz"] = b"".join(streams)
    return files | {"definitions/index.json": _lines(index)}


def _slim(resource: Json) -> Json:
    slim: Json = strip(resource)
    if resource["resourceType"] == "StructureDefinition":
        slim.pop("differential", None)
        if "snapshot" in slim:
            slim["snapshot"] = {"element": [_slim_element(one) for one in slim["snapshot"]["element"]]}
    return slim


def _slim_element(element: Json) -> Json:
    """An element without what each element repeats: ele-1, ext-1, defaults."""
    slim = {key: value for key, value in element.items() if key not in ("isModifierReason") and value is not False}
    rules = [rule for rule in slim.get("constraint", ()) if rule["key"] not in ("ele-1", "ext-1")]
    slim.pop("constraint", None)
    return {**slim, "constraint": rules} if rules else slim


def _lines(table: Mapping[str, Any]) -> bytes:
    """JSON with one row a line: compact, and a rebuild shows as a readable diff."""
    rows = [msgspec.json.encode(key) + b":" + msgspec.json.encode(value) for key, value in table.items()]
    return b"{\n" + b",\n".join(rows) + b"\n}\n"


def _source(examples: Path, expansions: Path, package: Mapping[str, list[Json]]) -> bytes:
    left = sorted(each["id"] for each in package["SearchParameter"] if not _usable(each))
    rows = "\n".join(
        f"| {name} | 4.0.1 | `{_sha(path)}` |" for name, path in (("hl7.fhir.r4.examples", examples), ("hl7.fhir.r4.expansions", expansions))
    )
    return (
        "# Where these tables come from\n\nGenerated by `conformance/build.py`; never edited by hand. `python -m conformance.build A.tgz B.tgz --check` compares.\n\n"
        f"| package (npm) | version | sha256 of the .tgz |\n|---|---|---|\n{rows}\n\n"
        "Left out: prose, narrative, mappings. SearchParameters without a base or an expression, and the published samples: "
        + ", ".join(left)
        + ".\n"
    ).encode()


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(argv: list[str] | None = None) -> int:
    """Write the tables, or with --check compare them; exit code 1 if they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("examples", type=Path)
    parser.add_argument("expansions", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args(argv)
    files = build(args.examples, args.expansions)
    if args.check:
        stale = [name for name, content in files.items() if not (args.out / name).exists() or (args.out / name).read_bytes() != content]
        sys.stdout.write("\n".join(f"{name} differs" for name in stale) or "r4 tables: as built\n")
        return 1 if stale else 0
    for name, content in files.items():
        (args.out / name).parent.mkdir(parents=True, exist_ok=True)
        (args.out / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
