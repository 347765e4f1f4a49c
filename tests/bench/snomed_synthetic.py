"""A synthetic SNOMED CT release in RF2 of any size: valid SCTIDs, a polyhierarchy, relationships, descriptions, reference sets. No real content.

`python -m tests.bench.snomed_synthetic FOLDER [--active 370000 --inactive 150000]`
"""

import argparse
import random
from pathlib import Path
from typing import TextIO

from terminology.digits import verhoeff

CORE, MODEL = "900000000000207008", "900000000000012004"
ROOT, IS_A = "138875005", "116680003"
FSN, SYNONYM = "900000000000003001", "900000000000013009"
US, GB = "900000000000509007", "900000000000508004"
SYLLABLES = [
    "ba",
    "be",
    "bi",
    "bo",
    "ca",
    "ce",
    "ci",
    "co",
    "da",
    "de",
    "di",
    "do",
    "fa",
    "fe",
    "fi",
    "fo",
    "ga",
    "ge",
    "go",
    "la",
    "le",
    "li",
    "lo",
    "ma",
    "me",
    "mi",
    "mo",
    "na",
    "ne",
    "ni",
    "no",
    "pa",
    "pe",
    "pi",
    "po",
    "ra",
    "re",
    "ri",
    "ro",
    "sa",
    "se",
    "si",
    "so",
    "ta",
    "te",
    "ti",
    "to",
]
ATTRIBUTES = 60


def sctid(number: int, partition: str = "00") -> str:
    """A well-formed identifier."""
    body = f"{number}{partition}"
    return body + str(verhoeff(body))


def words(rng: random.Random, count: int) -> list[str]:
    """Distinct invented words."""
    made: dict[str, None] = {}
    while len(made) < count:
        made["".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 4)))] = None
    return list(made)


def generate(folder: Path, active: int = 370_000, inactive: int = 150_000, descriptions: float = 3.3, seed: int = 7) -> Path:
    """Writes the snapshot below `folder` and returns it."""
    rng = random.Random(seed)
    terminology, refset = folder / "Snapshot" / "Terminology", folder / "Snapshot" / "Refset"
    terminology.mkdir(parents=True, exist_ok=True)
    refset.mkdir(parents=True, exist_ok=True)
    codes = [ROOT, IS_A, *(sctid(10_000_000 + n) for n in range(active + inactive))]
    live = codes[: active + 2]
    _concepts(terminology, codes, len(live))
    _descriptions(terminology, refset, codes, rng, descriptions)
    _relationships(terminology, live, rng)
    _refsets(refset, codes, len(live), rng)
    return folder


def _open(folder: Path, name: str, header: str) -> TextIO:
    out = (folder / name).open("w", encoding="utf-8", newline="")
    out.write(header.replace(" ", "\t") + "\r\n")
    return out


def _concepts(folder: Path, codes: list[str], live: int) -> None:
    with _open(folder, "sct2_Concept_Snapshot_INT_20240101.txt", "id effectiveTime active moduleId definitionStatusId") as out:
        for n, code in enumerate(codes):
            status = "900000000000073002" if n % 4 == 0 else "900000000000074008"
            out.write(f"{code}\t20240101\t{1 if n < live else 0}\t{CORE}\t{status}\r\n")


def _descriptions(folder: Path, refset: Path, codes: list[str], rng: random.Random, per: float) -> None:
    vocabulary = words(rng, 40_000)
    number = 100_000
    header = "id effectiveTime active moduleId conceptId languageCode typeId term caseSignificanceId"
    with (
        _open(folder, "sct2_Description_Snapshot-en_INT_20240101.txt", header) as out,
        _open(
            refset,
            "der2_cRefset_LanguageSnapshot-en_INT_20240101.txt",
            "id effectiveTime active moduleId refsetId referencedComponentId acceptabilityId",
        ) as lang,
    ):
        for place, code in enumerate(codes):
            base = " ".join(vocabulary[min(int(rng.expovariate(1 / 4000)), len(vocabulary) - 1)] for _ in range(rng.randint(2, 5)))
            count = max(2, round(rng.gauss(per, 0.8)))
            for which in range(count):
                term = f"{base} (thing)" if which == 0 else base if which == 1 else f"{base} {rng.choice(vocabulary)}"
                number += 1
                ident = sctid(number, "01")
                out.write(f"{ident}\t20240101\t1\t{CORE}\t{code}\ten\t{FSN if which == 0 else SYNONYM}\t{term}\t900000000000448009\r\n")
                if which < 2:
                    for dialect in (US, GB):
                        lang.write(f"{place}-{which}-{dialect[-4]}\t20240101\t1\t{CORE}\t{dialect}\t{ident}\t900000000000548007\r\n")


def _relationships(folder: Path, live: list[str], rng: random.Random) -> None:
    header = "id effectiveTime active moduleId sourceId destinationId relationshipGroup typeId characteristicTypeId modifierId"
    inferred, some = "900000000000011006", "900000000000451002"
    attributes = live[2 : 2 + ATTRIBUTES]
    number = 100_000
    with _open(folder, "sct2_Relationship_Snapshot_INT_20240101.txt", header) as out:

        def write(source: str, target: str, kind: str, group: int) -> None:
            nonlocal number
            number += 1
            out.write(f"{sctid(number, '02')}\t20240101\t1\t{CORE}\t{source}\t{target}\t{group}\t{kind}\t{inferred}\t{some}\r\n")

        above: list[int] = [0]
        children: list[list[int]] = [[] for _ in live]
        for n in range(1, len(live)):
            first = _parent(n, rng)
            above.append(first)
            children[first].append(n)
            kin = children[above[first]]
            parents = {first, *(rng.choice(kin) for _ in range((rng.random() < 0.45) + (rng.random() < 0.12)) if first)} - {n}
            for parent in sorted(parents):
                write(live[n], live[parent], IS_A, 0)
            for group in range(rng.choice((0, 1, 1, 2))):
                for attribute in rng.sample(attributes, rng.choice((1, 1, 2))):
                    write(live[n], rng.choice(live), attribute, group)


def _parent(n: int, rng: random.Random) -> int:
    """A parent among the earlier concepts: a bushy tree of some 15 levels."""
    return max(0, int(n * rng.betavariate(2.2, 2.6)) if n > 20 else rng.randrange(max(n, 1)))


def _refsets(folder: Path, codes: list[str], live: int, rng: random.Random) -> None:
    with _open(folder, "der2_Refset_SimpleSnapshot_INT_20240101.txt", "id effectiveTime active moduleId refsetId referencedComponentId") as out:
        for n, code in enumerate(rng.sample(codes[:live], min(5_000, live))):
            out.write(f"s{n}\t20240101\t1\t{CORE}\t{codes[70]}\t{code}\r\n")
    name, header = (
        "der2_cRefset_AssociationSnapshot_INT_20240101.txt",
        "id effectiveTime active moduleId refsetId referencedComponentId targetComponentId",
    )
    with _open(folder, name, header) as out:
        for n, code in enumerate(codes[live:]):
            out.write(f"a{n}\t20240101\t1\t{CORE}\t900000000000526001\t{code}\t{codes[rng.randrange(live)]}\r\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--active", type=int, default=370_000)
    parser.add_argument("--inactive", type=int, default=150_000)
    asked = parser.parse_args()
    print(generate(asked.folder, asked.active, asked.inactive))
