"""A small synthetic SNOMED CT release covering every RF2 file that the loader reads, and the same content as plain Python sets."""

import random
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.snomed_synthetic import CORE, FSN, GB, IS_A, ROOT, SYNONYM, US, sctid, words

STRENGTH = sctid(20_000_001)
TOP_ATTRIBUTE = sctid(20_000_002)
REFSET = sctid(20_000_003)
EXTENSION = "11000279109"


@dataclass
class Tiny:
    """The release as sets. relations: code -> (attribute, target or '#number', group)."""

    active: list[str]
    inactive: list[str]
    parents: dict[str, list[str]]
    relations: dict[str, list[tuple[str, str, int]]]
    attributes: list[str]
    terms: dict[str, str]
    members: list[str] = field(default_factory=list)
    defined: set[str] = field(default_factory=set)
    replaced: dict[str, str] = field(default_factory=dict)
    refset: str = REFSET
    strength: str = STRENGTH
    top_attribute: str = TOP_ATTRIBUTE

    def above(self, code: str) -> set[str]:
        found: set[str] = set()
        waiting = list(self.parents.get(code, ()))
        while waiting:
            each = waiting.pop()
            if each not in found:
                found.add(each)
                waiting += self.parents.get(each, ())
        return found

    def below(self, code: str) -> set[str]:
        return {each for each in self.active if code in self.above(each)}

    def children(self, code: str) -> set[str]:
        return {each for each in self.active if code in self.parents.get(each, ())}

    def tops(self, codes: set[str]) -> set[str]:
        return {code for code in codes if not self.above(code) & codes}

    def leaves(self, codes: set[str]) -> set[str]:
        return {code for code in codes if not any(code in self.above(other) for other in codes)}

    def rows(self, code: str) -> list[tuple[str, str, int]]:
        return self.relations.get(code, [])


def make(seed: int = 5, size: int = 160) -> Tiny:
    rng = random.Random(seed)
    attributes = [sctid(20_000_010 + n) for n in range(5)]
    plain = [sctid(10_000_000 + n) for n in range(size)]
    active = [ROOT, IS_A, STRENGTH, TOP_ATTRIBUTE, REFSET, *attributes, *plain]
    parents: dict[str, list[str]] = {each: [ROOT] for each in (IS_A, TOP_ATTRIBUTE, REFSET)}
    parents |= {each: [TOP_ATTRIBUTE] for each in (STRENGTH, *attributes)}
    for n, code in enumerate(plain):
        above = [ROOT, *plain[: max(n, 0)]]
        parents[code] = sorted({rng.choice(above[-25:]) for _ in range(rng.choice([1, 1, 1, 2]))})
    relations: dict[str, list[tuple[str, str, int]]] = {}
    for code in plain:
        rows = [(rng.choice(attributes), rng.choice(plain), group) for group in range(rng.randrange(4)) for _ in range(rng.choice([1, 1, 2]))]
        if rng.random() < 0.3:
            rows.append((STRENGTH, f"#{rng.randrange(1, 9) / 2}", rng.choice([0, 1])))
        relations[code] = sorted(set(rows))
    vocabulary = words(rng, 60)
    terms = {code: " ".join(rng.sample(vocabulary, rng.choice([1, 2, 3]))) for code in active}
    inactive = [sctid(30_000_000 + n) for n in range(12)]
    terms |= {code: f"old {rng.choice(vocabulary)}" for code in inactive}
    tiny = Tiny(active, inactive, parents, relations, attributes, terms)
    tiny.members = sorted(rng.sample(plain, 20))
    tiny.defined = set(rng.sample(plain, 40))
    tiny.replaced = {code: rng.choice(plain[:4]) for code in inactive}
    return tiny


def write(folder: Path, tiny: Tiny | None = None) -> Tiny:
    """Writes the release as RF2: two language reference sets, a text definition, concrete values, associations, a module dependency."""
    tiny = tiny or make()
    core = ["20240101", "1", CORE]
    concepts = [
        [code, "20240101", "1" if code in set(tiny.active) else "0", CORE, "900000000000073002" if code in tiny.defined else "900000000000074008"]
        for code in tiny.terms
    ]
    write_file(folder, "sct2_Concept_Snapshot_INT_20240101.txt", "id effectiveTime active moduleId definitionStatusId", concepts)
    descriptions, language, number = [], [], 5_000_000
    for code, term in tiny.terms.items():
        for kind, text in ((FSN, f"{term} (thing)"), (SYNONYM, term)):
            number += 1
            ident = sctid(number, "01")
            descriptions.append([ident, *core, code, "en", kind, text, "900000000000448009"])
            language += [[f"{ident}-{refset}", *core, refset, ident, "900000000000548007"] for refset in (US, GB)]
    head = "id effectiveTime active moduleId conceptId languageCode typeId term caseSignificanceId"
    write_file(folder, "sct2_Description_Snapshot-en_INT_20240101.txt", head, descriptions)
    definition = [[sctid(6_000_000, "01"), *core, tiny.active[10], "en", "900000000000550004", "What it is.", "900000000000448009"]]
    write_file(folder, "sct2_TextDefinition_Snapshot-en_INT_20240101.txt", head, definition)
    write_file(
        folder,
        "der2_cRefset_LanguageSnapshot-en_INT_20240101.txt",
        "id effectiveTime active moduleId refsetId referencedComponentId acceptabilityId",
        language,
    )
    _relationships(folder, tiny, core)
    members = [[f"m{n}", *core, REFSET, code] for n, code in enumerate(tiny.members)]
    write_file(folder, "der2_Refset_SimpleSnapshot_INT_20240101.txt", "id effectiveTime active moduleId refsetId referencedComponentId", members)
    old = [[f"a{n}", *core, "900000000000526001", code, new] for n, (code, new) in enumerate(tiny.replaced.items())]
    write_file(
        folder,
        "der2_cRefset_AssociationSnapshot_INT_20240101.txt",
        "id effectiveTime active moduleId refsetId referencedComponentId targetComponentId",
        old,
    )
    needs = [["d1", *core, "900000000000534007", "900000000000012004", "20240101", "20240101"]]
    write_file(
        folder,
        "der2_ssRefset_ModuleDependencySnapshot_INT_20240101.txt",
        "id effectiveTime active moduleId refsetId referencedComponentId sourceEffectiveTime targetEffectiveTime",
        needs,
    )
    return tiny


def _relationships(folder: Path, tiny: Tiny, core: list[str]) -> None:
    tail = ["900000000000011006", "900000000000451002"]
    rows, values, number = [], [], 7_000_000
    for code, parents in tiny.parents.items():
        for parent in parents:
            number += 1
            rows.append([sctid(number, "02"), *core, code, parent, "0", IS_A, *tail])
    for code, relations in tiny.relations.items():
        for kind, target, group in relations:
            number += 1
            (values if target[0] == "#" else rows).append([sctid(number, "02"), *core, code, target, str(group), kind, *tail])
    head = "id effectiveTime active moduleId sourceId destinationId relationshipGroup typeId characteristicTypeId modifierId"
    write_file(folder, "sct2_Relationship_Snapshot_INT_20240101.txt", head, rows)
    write_file(folder, "sct2_RelationshipConcreteValues_Snapshot_INT_20240101.txt", head.replace("destinationId", "value"), values)


def write_file(folder: Path, name: str, header: str, rows: list[list[str]]) -> None:
    where = folder / "Snapshot" / ("Terminology" if name.startswith("sct2") else "Refset")
    where.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(header.split()), *("\t".join(row) for row in rows)]
    (where / name).write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")
