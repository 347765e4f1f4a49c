"""Loaders: every file of every release format, by synthetic fixtures with valid check digits; loads are atomic and can be repeated."""

import io
import json
import os
import tarfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from terminology import shelf
from terminology.concepts import subsumes
from terminology.digits import mod10
from terminology.load import load
from terminology.load.files import BadRelease
from terminology.operations import call
from terminology.service import Terms, open_terms
from tests.packages import npm_package
from tests.terminology import tinysnomed

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def loinc(number: str) -> str:
    return f"{number}-{mod10(number)}"


A, B, OLD = loinc("100"), loinc("101"), loinc("102")
PART, TOP, LIST, YES, NO, GROUP, ABOVE = (loinc(each) for each in ("LP100", "LP101", "LL100", "LA100", "LA101", "LG100", "LG101"))


def csv(path: Path, header: str, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")


def write_loinc(folder: Path) -> Path:
    root = folder / "Loinc_2.99"
    head = "LOINC_NUM,COMPONENT,PROPERTY,TIME_ASPCT,SYSTEM,SCALE_TYP,METHOD_TYP,CLASS,VersionLastChanged,STATUS,CONSUMER_NAME,CLASSTYPE,SHORTNAME,ORDER_OBS,EXAMPLE_UCUM_UNITS,LONG_COMMON_NAME,DisplayName"
    csv(
        root / "LoincTable" / "Loinc.csv",
        head,
        f'{A},Thing one,MCnc,Pt,Bld,Qn,,CHEM,2.99,ACTIVE,One,1,Thing1 Bld,Both,mg/dL,"Thing one [Mass/volume] in Blood",Thing 1',
        f"{B},Thing two,Find,Pt,^Patient,Nom,,CHEM,2.99,ACTIVE,,1,Thing2,Both,,Thing two,",
        f"{OLD},Thing old,MCnc,Pt,Bld,Qn,,CHEM,2.1,DEPRECATED,,1,Old,Both,,Thing old,",
    )
    extra = root / "AccessoryFiles"
    csv(extra / "PartFile" / "Part.csv", "PartNumber,PartTypeName,PartName,PartDisplayName,Status", f"{PART},COMPONENT,Thing one,Thing one,ACTIVE")
    csv(
        extra / "PartFile" / "LoincPartLink_Primary.csv",
        "LoincNumber,LongCommonName,PartNumber,PartName,PartCodeSystem,PartTypeName,LinkTypeName,Property",
        f"{A},,{PART},,,COMPONENT,Primary,",
    )
    csv(
        extra / "ComponentHierarchyBySystem" / "ComponentHierarchyBySystem.csv",
        "PATH_TO_ROOT,SEQUENCE,IMMEDIATE_PARENT,CODE,CODE_TEXT",
        f",1,,{TOP},Chemistry",
        f"{TOP},2,{TOP},{PART},Thing one",
        f"{TOP}.{PART},3,{PART},{A},Thing one Bld",
    )
    csv(
        extra / "AnswerFile" / "AnswerList.csv",
        "AnswerListId,AnswerListName,AnswerListOID,AnswerStringId,SequenceNumber,DisplayText",
        f"{LIST},Yes or no,1.2,{YES},2,Yes",
        f"{LIST},Yes or no,1.2,{NO},1,No",
    )
    csv(
        extra / "AnswerFile" / "LoincAnswerListLink.csv",
        "LoincNumber,LongCommonName,AnswerListId,AnswerListName,AnswerListLinkType",
        f"{B},,{LIST},,NORMATIVE",
    )
    csv(extra / "GroupFile" / "ParentGroup.csv", "ParentGroupId,ParentGroup,Status", f"{ABOVE},All things,Active")
    csv(extra / "GroupFile" / "Group.csv", "ParentGroupId,GroupId,Group,Archetype,Status", f"{ABOVE},{GROUP},Things,,Active")
    csv(extra / "GroupFile" / "GroupLoincTerms.csv", "Category,GroupId,Archetype,LoincNumber,LongCommonName", f",{GROUP},,{A},", f",{GROUP},,{B},")
    csv(extra / "LinguisticVariants" / "LinguisticVariants.csv", "ID,ISO_LANGUAGE,ISO_COUNTRY,LANGUAGE_NAME,PRODUCER", "15,de,DE,German,x")
    csv(
        extra / "LinguisticVariants" / "deDE15LinguisticVariant.csv",
        "LOINC_NUM,COMPONENT,PROPERTY,TIME_ASPCT,SYSTEM,SCALE_TYP,METHOD_TYP,CLASS,SHORTNAME,LONG_COMMON_NAME,RELATEDNAMES2,LinguisticVariantDisplayName",
        f"{A},Ding eins,,,,,,,,Ding eins im Blut,,",
    )
    csv(root / "LoincTable" / "MapTo.csv", "LOINC,MAP_TO,COMMENT", f"{OLD},{A},")
    return root


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for each in folder.rglob("*"):
            archive.write(each, str(each.relative_to(folder.parent)))
    return path


def expand(terms: Terms, **parameters: Any) -> dict[str, Any]:
    rows = [
        {"name": name, "valueString": value} if not isinstance(value, dict) else {"name": name, "resource": value}
        for name, value in parameters.items()
    ]
    status, answer = call(terms, "ValueSet/$expand", {"resourceType": "Parameters", "parameter": rows}, now=NOW)
    assert status == 200, answer
    return answer["expansion"]


def codes(expansion: dict[str, Any]) -> list[str]:
    """The codes at every level."""
    return [code for each in expansion.get("contains", ()) for code in (each["code"], *codes(each))]


@pytest.mark.parametrize("archive", [False, True])
def test_loinc_every_file(tmp_path: Path, archive: bool) -> None:
    source = write_loinc(tmp_path)
    load("loinc", [zipped(source) if archive else source], tmp_path / "data")
    terms = open_terms(tmp_path / "data")
    system = terms.library.system("http://loinc.org")
    assert system is not None
    assert system.meta.version == "2.99"
    assert terms.check("http://loinc.org", A, "Ding eins im Blut").finding == "ok"
    assert terms.check("http://loinc.org", A.lower(), "thing 1").finding == "ok"
    old = terms.check("http://loinc.org", OLD)
    assert (old.finding, old.replacement) == ("inactive", A)
    assert terms.check("http://loinc.org", loinc("999")).finding == "unknown-code"
    a, top = system.find(A), system.find(TOP)
    assert a is not None
    assert top is not None
    assert subsumes(system, top, a)
    assert {"code": "COMPONENT-part", "valueCode": PART} in list(system.properties(a))
    assert codes(expand(terms, url=f"http://loinc.org/vs/{LIST}")) == [NO, YES]  # in the order of the list, which is not that of the codes
    assert sorted([YES, NO]) == [YES, NO]
    assert expand(terms, url=f"http://loinc.org/vs/{LIST}|2.99")["total"] == 2
    assert (
        call(
            terms,
            "ValueSet/$expand",
            {"resourceType": "Parameters", "parameter": [{"name": "url", "valueUri": f"http://loinc.org/vs/{LIST}|1.0"}]},
            now=NOW,
        )[0]
        == 404
    )
    assert codes(expand(terms, url=f"http://loinc.org/vs/{GROUP}")) == sorted([A, B])
    assert A in json.dumps(expand(terms, url=f"http://loinc.org/vs/{TOP}"))
    assert codes(expand(terms, url="http://loinc.org/vs", filter="ding", displayLanguage="de", count="5")) == [A]
    filtered = {
        "resourceType": "ValueSet",
        "status": "active",
        "compose": {"include": [{"system": "http://loinc.org", "filter": [{"property": "SCALE_TYP", "op": "=", "value": "Nom"}]}]},
    }
    assert codes(expand(terms, valueSet=filtered)) == [B]


TABULAR = """<?xml version="1.0"?><ICD10CM.tabular><version>2024</version><chapter><name>1</name><desc>Certain diseases (A00-B99)</desc>
<section id="A00-A09"><desc>Intestinal things (A00-A09)</desc><diag><name>A00</name><desc>Cholera</desc><diag><name>A00.0</name><desc>Cholera due to one</desc>
<inclusionTerm><note>Classical cholera</note></inclusionTerm></diag></diag></section></chapter></ICD10CM.tabular>"""


def write_icd(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "icd10cm_tabular_2024.xml").write_text(TABULAR, encoding="utf-8")
    rows = [("A00", 0, "Cholera"), ("A000", 1, "Cholera due to one"), ("S0100XA", 1, "Wound, initial encounter"), ("S01", 0, "Wound")]
    lines = [f"{n:05d} {code:<7} {flag} {text:<60} {text}" for n, (code, flag, text) in enumerate(rows, start=1)]
    (folder / "icd10cm_order_2024.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_icd10cm_order_file_and_tabular_list(tmp_path: Path) -> None:
    load("icd10cm", [write_icd(tmp_path / "icd")], tmp_path / "data")
    terms = open_terms(tmp_path / "data")
    url = "http://hl7.org/fhir/sid/icd-10-cm"
    system = terms.library.system(url, "2024")
    assert system is not None
    assert terms.check(url, "A00.0", "classical cholera").finding == "ok"
    assert terms.check(url, "A00.9").finding == "unknown-code"
    numbers = [system.find(code) for code in ("Chapter 1", "A00-A09", "A00", "A00.0", "S01", "S01.00XA")]
    chapter, section, a00, a000, s01, wound = (n for n in numbers if n is not None)
    assert subsumes(system, chapter, a000)
    assert subsumes(system, section, a00)
    assert subsumes(system, s01, wound)
    assert system.abstract(chapter)
    assert not system.abstract(a000)
    assert {"code": "billable", "valueBoolean": True} in list(system.properties(a000))


def write_rxnorm(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)

    def rrf(name: str, *rows: list[str]) -> None:
        (folder / name).write_text("".join("|".join(row) + "|\n" for row in rows), encoding="utf-8")

    def atom(code: str, sab: str, tty: str, text: str, suppress: str = "N") -> list[str]:
        return [code, "ENG", "", "", "", "", "", "1", "", "", "", sab, tty, code, text, "", suppress, ""]

    rrf(
        "RXNCONSO.RRF",
        atom("10", "RXNORM", "IN", "drugol"),
        atom("11", "RXNORM", "SCD", "drugol 5 MG Oral Tablet"),
        atom("11", "RXNORM", "PSN", "drugol tablet"),
        atom("12", "RXNORM", "SCD", "gone 1 MG", "O"),
        atom("10", "MTHSPL", "SU", "DRUGOL"),
    )
    rrf(
        "RXNREL.RRF",
        ["10", "", "CUI", "RO", "11", "", "CUI", "has_ingredient", "1", "", "RXNORM", "RXNORM", "", "", "N", ""],
        ["10", "", "CUI", "RB", "11", "", "CUI", "isa", "2", "", "RXNORM", "RXNORM", "", "", "N", ""],
    )
    rrf("RXNSAT.RRF", ["11", "", "", "1", "AUI", "11", "", "", "NDC", "RXNORM", "00000000001", "N", ""])
    rrf("RXNSTY.RRF", ["11", "T200", "A1", "Clinical Drug", "", ""])
    rrf("RXNSAB.RRF", ["1", "2", "", "RXNORM", "RxNorm", "", "20AA_240101F", *[""] * 18])
    rrf(
        "RXNATOMARCHIVE.RRF",
        ["9", "", "ancient drug", "", "", "", "13", "", "ENG", "", "", "RXNORM", "13", "RXNORM", "SCD", "11"],
        ["8", "", "still there", "", "", "", "11", "", "ENG", "", "", "RXNORM", "11", "RXNORM", "SY", "11"],
        ["7", "", "of another vocabulary", "", "", "", "x", "", "ENG", "", "", "MMSL", "77", "MMSL", "CD", "77"],
    )
    rrf("RXNCUI.RRF", ["13", "20AA_200101F", "20AA_210101F", "1", "11"], ["13", "20AA_200101F", "20AA_210101F", "2", "10"])
    return folder


def test_rxnorm_every_file(tmp_path: Path) -> None:
    load("rxnorm", [write_rxnorm(tmp_path / "rrf")], tmp_path / "data")
    terms = open_terms(tmp_path / "data")
    url = "http://www.nlm.nih.gov/research/umls/rxnorm"
    system = terms.library.system(url)
    assert system is not None
    assert system.meta.version == "20AA_240101F"
    drug, clinical = system.find("10"), system.find("11")
    assert drug is not None
    assert clinical is not None
    assert system.display(clinical) == "drugol 5 MG Oral Tablet"
    assert subsumes(system, drug, clinical)
    assert [terms.check(url, code).finding for code in ("11", "12", "13", "14")] == ["ok", "inactive", "inactive", "unknown-code"]
    assert terms.check(url, "13").text == "the code is inactive; 10 or 11 replaces it"
    assert system.display(system.find("13") or 0) == "ancient drug"
    for prop, value in (("TTY", "SCD"), ("NDC", "00000000001"), ("STY", "Clinical Drug"), ("has_ingredient", "10")):
        assert clinical in system.select(prop, "=", value).tolist()


def test_snomed_editions_side_by_side_and_their_operations(tmp_path: Path) -> None:
    made = tinysnomed.write(tmp_path / "release")
    load("snomed", [tmp_path / "release"], tmp_path / "data")
    terms = open_terms(tmp_path / "data")
    url = "http://snomed.info/sct"
    assert terms.library.versions(url) == ["http://snomed.info/sct/900000000000207008/version/20240101"]
    code, old = made.active[30], made.inactive[0]
    assert terms.check(url, code, f"{made.terms[code]} (thing)").finding == "ok"
    verdict = terms.check(url, old)
    assert (verdict.finding, verdict.replacement) == ("inactive", made.replaced[old])
    rows = [{"name": "system", "valueUri": url}, {"name": "code", "valueCode": code}]
    status, answer = call(terms, "CodeSystem/$lookup", {"resourceType": "Parameters", "parameter": rows}, now=NOW)
    parents = {p["part"][1]["valueCode"] for p in answer["parameter"] if p["name"] == "property" and p["part"][0]["valueCode"] == "parent"}
    assert (status, parents) == (200, set(made.parents[code]))
    assert set(codes(expand(terms, url=f"{url}?fhir_vs=refset/{made.refset}"))) == set(made.members)
    assert expand(terms, url=f"{url}?fhir_vs", count="3")["total"] == len(made.terms)


def test_only_the_snapshot_of_a_release_counts(tmp_path: Path) -> None:
    made = tinysnomed.write(tmp_path / "release")
    code = made.active[30]
    head = ["id", "effectiveTime", "active", "moduleId", "conceptId", "languageCode", "typeId", "term", "caseSignificanceId"]
    row = ["999", "20200101", "1", "900000000000207008", code, "en", "900000000000013009", "superseded wording", "900000000000448009"]
    for name in ("sct2_Description_Full-en_INT_20240101.txt", "sct2_Description_Delta-en_INT_20240101.txt"):
        (tmp_path / "release" / name).write_text("\t".join(head) + "\n" + "\t".join(row) + "\n", encoding="utf-8")
    load("snomed", [tmp_path / "release"], tmp_path / "data")
    system = open_terms(tmp_path / "data").library.system("http://snomed.info/sct")
    assert system is not None
    assert "superseded wording" not in [each.value for each in system.names(system.find(code) or 0)]


def test_a_load_is_taken_up_while_serving_and_can_be_repeated(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    terms = open_terms(folder)
    assert terms.check("http://loinc.org", A).finding == "unknown-system"
    source = write_loinc(tmp_path)
    stop = threading.Event()
    seen: set[str] = set()

    def read() -> None:
        while not stop.is_set():
            terms.stamped[1] = 0.0
            terms.refresh()
            seen.add(terms.check("http://loinc.org", A).finding)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(3):
        load("loinc", [source], folder)
    stop.set()
    reader.join()
    terms.stamped[1] = 0.0
    terms.refresh()
    assert terms.check("http://loinc.org", A).finding == "ok"
    assert seen <= {"ok", "unknown-system"}
    assert [shelf.base(each) for each in shelf.contents(folder)["systems"]] == ["loinc-2.99"]


def test_fhir_resources_and_a_large_code_system(tmp_path: Path) -> None:
    big = {
        "resourceType": "CodeSystem",
        "url": "http://example.org/big",
        "version": "1",
        "status": "active",
        "content": "complete",
        "concept": [{"code": "root", "concept": [{"code": f"c{n}", "display": f"Number {n}"} for n in range(6000)]}],
    }
    values = {
        "resourceType": "ValueSet",
        "url": "http://example.org/vs",
        "status": "active",
        "compose": {"include": [{"system": "http://example.org/big", "filter": [{"property": "concept", "op": "is-a", "value": "root"}]}]},
    }
    mapped = {
        "resourceType": "ConceptMap",
        "url": "http://example.org/map",
        "status": "active",
        "group": [
            {
                "source": "http://example.org/local",
                "target": "http://example.org/big",
                "element": [{"code": "x", "target": [{"code": "c7", "equivalence": "equivalent"}]}],
            }
        ],
    }
    (tmp_path / "bundle.json").write_text(json.dumps({"resourceType": "Bundle", "entry": [{"resource": each} for each in (big, values, mapped)]}))
    load("fhir", [tmp_path / "bundle.json"], tmp_path / "data")
    terms = open_terms(tmp_path / "data")
    assert expand(terms, url="http://example.org/vs", count="2", offset="1")["total"] == 6001
    rows = [{"name": "system", "valueUri": "http://example.org/local"}, {"name": "code", "valueCode": "x"}]
    _, answer = call(terms, "ConceptMap/$translate", {"resourceType": "Parameters", "parameter": rows}, now=NOW)
    assert answer["parameter"][0] == {"name": "result", "valueBoolean": True}
    assert terms.knows("http://example.org/map")


@pytest.mark.slow
def test_tho_from_its_package(tmp_path: Path) -> None:
    load("fhir", [npm_package("hl7.terminology.r4@7.0.1")], tmp_path / "data")
    terms = open_terms(tmp_path / "data")
    assert terms.check("http://terminology.hl7.org/CodeSystem/v3-ActCode", "AMB", "ambulatory").finding == "ok"
    assert len(terms.library.urls("ValueSet")) > 2000


CONCEPTS = "sct2_Concept_Snapshot_INT_20240101.txt"
CONCEPT_HEAD = b"id\teffectiveTime\tactive\tmoduleId\tdefinitionStatusId\n"
RELATIONS = "sct2_Relationship_Snapshot_INT_20240101.txt"
RELATION_HEAD = b"id\teffectiveTime\tactive\tmoduleId\tsourceId\tdestinationId\trelationshipGroup\ttypeId\tcharacteristicTypeId\tmodifierId\n"
LOINC_HEAD = b"LOINC_NUM,COMPONENT,STATUS,LONG_COMMON_NAME\n"
CONSO = b"1||||||||||%b||IN||%b||N|1|\n"


def damaged(inside: str) -> bytes:
    """A zip whose one file does not have the checksum that is told of it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(inside, CONCEPT_HEAD + b"138875005\t20240101\t1\t9\t9\n")
    return packed.getvalue().replace(b"138875005", b"138875006", 1)


@pytest.mark.parametrize(
    ("kind", "name", "data", "told"),
    [
        ("loinc", "x.csv", b"a,b\n", "no Loinc.csv"),
        ("loinc", "Loinc.csv", b"LOINC_NUM,COMPONENT\n1-8,x\n", "column STATUS"),
        ("loinc", "Loinc.csv", LOINC_HEAD, "no term"),
        ("loinc", "Loinc.csv", b"", "column LOINC_NUM"),
        ("loinc", "Loinc.csv", LOINC_HEAD + b"1-8,x\n", "line 2"),
        ("loinc", "Loinc.csv", LOINC_HEAD + b"1-8,x,ACTIVE,x,more\n", "line 2"),
        ("loinc", "Loinc.csv", LOINC_HEAD + b'1-8,"x,ACTIVE,x\n', "line"),
        ("loinc", "Loinc.csv", LOINC_HEAD + b"1-8,\xff,ACTIVE,x\n", "UTF-8"),
        ("loinc", "Loinc.csv", LOINC_HEAD + b"1-8," + b"x" * 200_000 + b",ACTIVE,x\n", "field larger"),
        ("snomed", CONCEPTS, b"id\tactive\n", "header"),
        ("snomed", CONCEPTS, b"", "header"),
        ("snomed", CONCEPTS, CONCEPT_HEAD, "no sct2_Concept"),
        ("snomed", CONCEPTS, CONCEPT_HEAD + b"138875005\t20240101\t1\n", "line 2"),
        ("snomed", CONCEPTS, CONCEPT_HEAD + b"138875005\t20240101\tyes\t9\t9\n", "active"),
        ("snomed", CONCEPTS, CONCEPT_HEAD + b"abc\t20240101\t1\t9\t9\n", "identifier"),
        ("snomed", CONCEPTS, CONCEPT_HEAD + b"138875005\t20240101\t1\t\xe9\t9\n", "UTF-8"),
        ("snomed", RELATIONS, RELATION_HEAD + b"1\t20240101\t1\t9\t1\t2\tx\t3\t4\t5\n", "relationshipGroup"),
        ("snomed", RELATIONS, RELATION_HEAD + b"1\t20240101\t1\t9\t1\t2\t70000\t3\t4\t5\n", "relationshipGroup"),
        (
            "snomed",
            RELATIONS.replace("ship", "shipConcreteValues"),
            RELATION_HEAD.replace(b"destinationId", b"value") + b"1\t2\t1\t9\t1\tx\t0\t3\t4\t5\n",
            "value",
        ),
        ("snomed", "release.zip", b"no zip", "zip"),
        ("snomed", "release.zip", damaged(CONCEPTS), "archive"),
        ("icd10cm", "icd10cm_order_2024.txt", b"hello\n", "line 1"),
        ("icd10cm", "icd10cm_order_2024.txt", b"\xff\n", "UTF-8"),
        ("icd10cm", "icd10cm_order_2024.txt", b"", "no code"),
        ("icd10cm", "icd10cm_tabular_2024.xml", b"<a><b></a>", "tabular"),
        ("icd10cm", "icd10cm_tabular_2024.xml", b"<a/>", "no code"),
        ("rxnorm", "RXNCONSO.RRF", b"1|2|3|\n", "line 1"),
        ("rxnorm", "RXNCONSO.RRF", CONSO % (b"SNOMEDCT_US", b"x"), "no concept"),
        ("rxnorm", "RXNCONSO.RRF", b"", "no concept"),
        ("rxnorm", "RXNCONSO.RRF", CONSO % (b"RXNORM", b"\xff"), "UTF-8"),
        ("fhir", "x.json", b"{", "x.json"),
        ("fhir", "x.tgz", b"nothing", "package"),
        ("fhir", "y.json", b'{"resourceType": "Patient"}', "no CodeSystem"),
        ("fhir", "y.json", b'{"resourceType": "CodeSystem", "url": ["x"]}', "url"),
        ("fhir", "y.json", b'{"resourceType": "CodeSystem", "url": "http://x", "concept": [{"code": "a", "concept": [{}]}]}', "concept"),
        ("fhir", "y.json", b'{"resourceType": "Bundle", "entry": ["x"]}', "entry"),
        ("fhir", "y.xml", b'<CodeSystem xmlns="http://hl7.org/fhir"><nothing/></CodeSystem>', "y.xml"),
    ],
)
def test_a_bad_release_is_refused_by_file_and_leaves_the_shelf_alone(tmp_path: Path, kind: str, name: str, data: bytes, told: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(data)
    with pytest.raises(BadRelease, match=told):
        load(
            kind,
            [tmp_path / "in" / name] if name.endswith((".zip", ".tgz", ".json", ".xml")) and kind != "icd10cm" else [tmp_path / "in"],
            tmp_path / "data",
        )
    assert shelf.contents(tmp_path / "data") == {"systems": [], "resources": []}
    assert not [each.name for each in (tmp_path / "data").iterdir() if each.name != "load.lock"]


def test_resources_in_xml(tmp_path: Path) -> None:
    text = '<CodeSystem xmlns="http://hl7.org/fhir"><url value="http://x.org/cs"/><status value="active"/><content value="complete"/><concept><code value="a"/></concept></CodeSystem>'
    (tmp_path / "CodeSystem-x.xml").write_text(text)
    load("fhir", [tmp_path / "CodeSystem-x.xml"], tmp_path / "data")
    assert open_terms(tmp_path / "data").check("http://x.org/cs", "a").finding == "ok"


def test_what_is_being_read_is_not_written_again(tmp_path: Path) -> None:
    (tmp_path / "CodeSystem-x.json").write_text('{"resourceType": "CodeSystem", "url": "http://x.org/cs", "status": "active", "content": "complete"}')
    (name,) = load("fhir", [tmp_path / "CodeSystem-x.json"], tmp_path / "data")
    files = [tmp_path / "data" / name, (tmp_path / "data" / name).with_suffix(".json")]
    before = [each.stat().st_mtime_ns for each in files]
    assert load("fhir", [tmp_path / "CodeSystem-x.json"], tmp_path / "data") == [name]
    assert [each.stat().st_mtime_ns for each in files] == before
    assert not list((tmp_path / "data").glob("*.new"))


def test_the_same_release_loaded_twice_at_once(tmp_path: Path) -> None:
    source = write_loinc(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        names = list(pool.map(lambda _: load("loinc", [source], tmp_path / "data"), range(4), timeout=60))
    assert len({tuple(each) for each in names}) == 1
    assert open_terms(tmp_path / "data").check("http://loinc.org", A).finding == "ok"
    assert len(list((tmp_path / "data").glob("loinc-*"))) == 1


def test_work_that_another_load_has_just_named_is_no_error(tmp_path: Path) -> None:
    source, data = write_loinc(tmp_path), tmp_path / "data"
    data.mkdir()
    (data / "loinc-2.98.0a1b2c3d.new").symlink_to(data / "gone")  # seen in the folder, not there when looked at
    (name,) = load("loinc", [source], data)
    assert shelf.contents(data)["systems"] == [name]


def test_what_a_killed_load_left_goes_with_a_later_one(tmp_path: Path) -> None:
    source, data = write_loinc(tmp_path), tmp_path / "data"
    for name, age in (("loinc-2.99.0a1b2c3d.new", 7200), ("loinc-2.98.0a1b2c3d.new", 10)):
        (data / name).mkdir(parents=True)
        (data / name / "codes.npy").write_bytes(b"half")
        os.utime(data / name, (time.time() - age,) * 2)
    load("loinc", [source], data)
    assert [each.name for each in data.glob("*.new")] == ["loinc-2.98.0a1b2c3d.new"]  # the younger may be another load at work


def test_a_package_with_hostile_names_writes_nothing_outside(tmp_path: Path) -> None:
    path = tmp_path / "p.tgz"
    with tarfile.open(path, "w:gz") as archive:
        data = json.dumps({"resourceType": "CodeSystem", "url": "http://example.org/x", "status": "active", "content": "complete"}).encode()
        member = tarfile.TarInfo("../../CodeSystem-x.json")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    load("fhir", [path], tmp_path / "data")
    assert not (tmp_path.parent / "CodeSystem-x.json").exists()
    assert open_terms(tmp_path / "data").knows("http://example.org/x")
