"""ECL against a brute-force oracle: random constraints over a synthetic release, each made together with the plain-set computation of its meaning."""

import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from terminology import constraint, described, reach
from terminology.ecl import BadConstraint, parse
from terminology.index import IndexedSystem, open_index
from terminology.load.rf2 import load_snomed
from tests.bench.snomed_synthetic import CORE, GB, ROOT, SYNONYM, US, sctid
from tests.terminology import tinysnomed
from tests.terminology.tinysnomed import Tiny, write_file

CASES = 240


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tiny, IndexedSystem]:
    folder = tmp_path_factory.mktemp("snomed")
    made = tinysnomed.write(folder / "release")
    return made, open_index(load_snomed([folder / "release"], folder / "index"))


def found(system: IndexedSystem, text: str) -> set[str]:
    return {system.code(int(n)) for n in constraint.select(system, text)}


class Maker:
    """Makes (text, codes) pairs; the codes come from loops over plain sets, never from arrays."""

    def __init__(self, tiny: Tiny, seed: int) -> None:
        self.t, self.rng = tiny, random.Random(seed)

    def concept(self) -> str:
        codes = self.t.active
        return codes[min(self.rng.randrange(len(codes)), self.rng.randrange(len(codes)))]  # nearer the top, so that there is something below

    def simple(self) -> tuple[str, set[str]]:
        t, code = self.t, self.concept()
        rows: list[tuple[str, set[str]]] = [
            (code, {code}),
            (f"{code} |Some term|", {code}),
            (f"<{code}", t.below(code)),
            (f"<< {code}", t.below(code) | {code}),
            (f">{code}", t.above(code)),
            (f">>{code}", t.above(code) | {code}),
            (f"<!{code}", t.children(code)),
            (f"<<!{code}", t.children(code) | {code}),
            (f">!{code}", set(t.parents.get(code, ()))),
            (f">>!{code}", set(t.parents.get(code, ())) | {code}),
            (f"^{t.refset}", set(t.members)),
            (f"<< ^ {t.refset}", {d for m in t.members for d in t.below(m) | {m}}),
            ("*", set(t.active)),
            (f"!!> (<<{code})", t.tops(t.below(code) | {code})),
            (f"!!< (<<{code})", t.leaves(t.below(code) | {code})),
        ]
        return self.rng.choice(rows)

    def operand(self) -> tuple[str, set[str]]:
        if self.rng.random() < 0.75:
            return self.simple()
        text, codes = self.compound()
        return f"({text})", codes

    def compound(self) -> tuple[str, set[str]]:
        (left, a), (right, b) = self.operand(), self.operand()
        word = self.rng.choice(["AND", "OR", "MINUS", ",", "and"])
        meaning: dict[str, set[str]] = {"AND": a & b, ",": a & b, "and": a & b, "OR": a | b, "MINUS": a - b}
        return f"{left} {word} {right}", meaning[word]

    def attribute(self) -> tuple[str, Callable[[list[tuple[str, str, int]]], int], int, int | None]:
        """(text, how many of some rows match, low, high)."""
        rng, t = self.rng, self.t
        kind = rng.choice(t.attributes)
        name, kinds = rng.choice(
            [(kind, {kind}), ("*", set(t.attributes) | {t.strength}), (f"<<{t.top_attribute}", set(t.attributes) | {t.strength})]
        )
        low, high = rng.choice([(1, None), (1, None), (0, 0), (0, 1), (1, 1), (2, None), (1, 2)])
        head = "" if (low, high) == (1, None) else f"[{low}..{'*' if high is None else high}] "
        if rng.random() < 0.2:
            number, sign = Decimal(rng.randrange(1, 9)) / 2, rng.choice(["=", ">", "<=", "!="])
            test = constraint.COMPARE[sign]
            text = f"{head}{t.strength} {sign} #{number}"
            return text, lambda rows: sum(k == t.strength and v[:1] == "#" and test(Decimal(v[1:]), number) for k, v, _ in rows), low, high
        value, codes = self.operand()
        equal = rng.random() < 0.8
        text = f"{head}{name} {'=' if equal else '!='} {value}"
        return text, lambda rows: sum(k in kinds and v[:1] != "#" and (v in codes) == equal for k, v, _ in rows), low, high

    def refined(self) -> tuple[str, set[str]]:
        base, codes = self.operand()
        text, test = self.refinement()
        return f"{base} : {text}", {code for code in codes if test(self.t.rows(code))}

    def refinement(self) -> tuple[str, Callable[[list[tuple[str, str, int]]], bool]]:
        rng = self.rng
        if rng.random() < 0.35:
            return self.grouped()
        text, count, low, high = self.attribute()

        def one(rows: list[tuple[str, str, int]]) -> bool:
            return low <= count(rows) and (high is None or count(rows) <= high)

        if rng.random() < 0.4:
            other, test = self.refinement() if rng.random() < 0.5 else self.grouped()
            if " OR " in other or ", " in other:
                other = f"({other})"
            if rng.random() < 0.5:
                return f"{text}, {other}", lambda rows: one(rows) and test(rows)
            return f"{text} OR {other}", lambda rows: one(rows) or test(rows)
        return text, one

    def grouped(self) -> tuple[str, Callable[[list[tuple[str, str, int]]], bool]]:
        made = [self.attribute() for _ in range(self.rng.choice([1, 2]))]
        low, high = self.rng.choice([(1, None), (1, None), (0, 0), (2, None), (1, 1)])
        head = "" if (low, high) == (1, None) else f"[{low}..{'*' if high is None else high}] "

        def test(rows: list[tuple[str, str, int]]) -> bool:
            groups = sorted({group for _, _, group in rows if group})
            fine = 0
            for group in groups:
                inside = [row for row in rows if row[2] == group]
                fine += all(a <= count(inside) and (b is None or count(inside) <= b) for _, count, a, b in made)
            return low <= fine and (high is None or fine <= high)

        return f"{head}{{ {', '.join(text for text, _, _, _ in made)} }}", test

    def reverse(self) -> tuple[str, set[str]]:
        kind = self.rng.choice(self.t.attributes)
        value, codes = self.operand()
        targets = {v for code in codes for k, v, _ in self.t.rows(code) if k == kind}
        return f"* : R {kind} = {value}", targets & set(self.t.active)

    def dotted(self) -> tuple[str, set[str]]:
        kind = self.rng.choice(self.t.attributes)
        base, codes = self.operand()
        return f"{base} . {kind}", {v for code in codes for k, v, _ in self.t.rows(code) if k == kind}

    def case(self) -> tuple[str, set[str]]:
        return self.rng.choice([self.simple, self.compound, self.compound, self.refined, self.refined, self.refined, self.reverse, self.dotted])()


def test_random_constraints_mean_what_plain_sets_say(tiny: tuple[Tiny, IndexedSystem]) -> None:
    made, system = tiny
    maker = Maker(made, 20240101)
    seen: dict[str, set[str]] = {}
    while len(seen) < CASES:
        text, codes = maker.case()
        seen[text] = codes
    wrong = {text: (sorted(found(system, text) ^ codes)) for text, codes in seen.items() if found(system, text) != codes}
    assert wrong == {}
    assert sum(bool(codes) for codes in seen.values()) > CASES / 2


def test_large_sets_are_gone_through_in_pieces(tiny: tuple[Tiny, IndexedSystem], monkeypatch: pytest.MonkeyPatch) -> None:
    made, system = tiny
    monkeypatch.setattr(reach, "AT_ONCE", 3)
    top = made.active[12]
    below = made.below(top)
    chosen = f"<<{top}"
    for operator, expected in (
        ("<<", below | {top}),
        ("<", {code for code in below if made.above(code) & (below | {top})}),
        (">>", {above for code in below | {top} for above in made.above(code)} | below | {top}),
        ("!!>", {top}),
        ("!!<", made.leaves(below | {top})),
        ("<!", {child for code in below | {top} for child in made.children(code)}),
    ):
        assert {system.code(int(n)) for n in constraint.evaluate(system, parse(f"{operator} ({chosen})"))} == expected, operator


def test_what_would_take_too_long_is_refused(tiny: tuple[Tiny, IndexedSystem], monkeypatch: pytest.MonkeyPatch) -> None:
    _, system = tiny
    monkeypatch.setattr(reach, "MOST", 20_000)
    assert found(system, "<< (> (138875005 OR 116680003))")
    with pytest.raises(BadConstraint, match="too many"):
        found(system, " OR ".join(["(<< (*))"] * 200))
    monkeypatch.setattr(described, "MOST_TEXTS", 10)
    with pytest.raises(BadConstraint, match="compared with"):
        found(system, '* {{ term = wild:"*" }}')


def test_term_filters(tiny: tuple[Tiny, IndexedSystem]) -> None:
    made, system = tiny
    code = made.active[30]
    word = made.terms[code].split()[0]
    with_word = {c for c in made.active if any(part.startswith(word[:4]) for part in made.terms[c].split())}
    assert found(system, f'* {{{{ term = "{word[:4]}" }}}}') == with_word
    assert found(system, f'* {{{{ term = wild:"{word[:3]}*", type = syn }}}}') == {c for c in made.active if made.terms[c].startswith(word[:3])}
    assert found(system, f'* {{{{ term = exact:"{made.terms[code]}" }}}}') == {c for c in made.active if made.terms[c] == made.terms[code]}
    assert found(system, '* {{ term = "thing", type = fsn, language = en }}') == set(made.active)
    assert found(system, '* {{ term = "thing", type = syn }}') == set()


def test_concept_filters_and_history(tiny: tuple[Tiny, IndexedSystem]) -> None:
    made, system = tiny
    assert found(system, "* {{ C active = 0 }}") == set(made.inactive)
    assert found(system, "* {{ C definitionStatus = defined }}") == made.defined
    assert found(system, "* {{ C definitionStatus = primitive }}") == set(made.active) - made.defined
    old, new = next(iter(made.replaced.items()))
    assert found(system, f"{new} {{{{ + HISTORY-MOD }}}}") == {new} | {o for o, n in made.replaced.items() if n == new}
    assert old not in found(system, f"{new} {{{{ + HISTORY-MIN }}}}")


HEAD = "id effectiveTime active moduleId conceptId languageCode typeId term caseSignificanceId"
FAVOUR = "id effectiveTime active moduleId refsetId referencedComponentId acceptabilityId"
SWEDISH, PREFERRED, ACCEPTABLE = "46011000052107", "900000000000548007", "900000000000549004"


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tiny, IndexedSystem]:
    """Two concepts more are told apart by who prefers and who accepts their words."""
    folder = tmp_path_factory.mktemp("dialects")
    made = tinysnomed.write(folder / "release")
    core = ["20240201", "1", CORE]
    a, b = made.active[20], made.active[21]
    words = (
        (a, "en", "hue shared", {US: PREFERRED, GB: ACCEPTABLE}),
        (a, "en", "hue british", {GB: PREFERRED}),
        (a, "sv", "hue svensk", {SWEDISH: PREFERRED}),
        (b, "en", "hue american", {US: ACCEPTABLE}),
        (b, "en", "hue nobody", {}),
    )
    rows, favour = [], []
    for number, (code, language, text, sets) in enumerate(words):
        ident = sctid(8_000_000 + number, "01")
        rows.append([ident, *core, code, language, SYNONYM, text, "900000000000448009"])
        favour += [[f"{ident}-{refset}", *core, refset, ident, how] for refset, how in sets.items()]
    write_file(folder / "release", "sct2_Description_Snapshot-xx_INT_20240201.txt", HEAD, rows)
    write_file(folder / "release", "der2_cRefset_LanguageSnapshot-xx_INT_20240201.txt", FAVOUR, favour)
    return made, open_index(load_snomed([folder / "release"], folder / "index"))


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        ('term = "hue"', "ab"),
        ('term = "hue", dialect = en-us', "ab"),
        ('term = "hue", dialect = en-gb', "a"),
        ('term = "hue", dialect = en-us (prefer)', "a"),
        ('term = "hue", dialect = en-us (accept)', "b"),
        ('term = "hue", dialect = EN-GB (preferred), language = en', "a"),
        ('term = "shared", dialect = en-gb (prefer)', ""),
        ('term = "shared", dialect = en-gb (acceptable), dialect = en-us (prefer)', "a"),
        ('term = "hue", dialect = (en-gb en-us) (accept)', "ab"),
        ('term = "hue", dialect = (en-gb (prefer) en-us) (accept)', "ab"),
        ('term = "british", dialect = (en-gb (accept) en-us)', ""),
        ('term = "hue", dialectId = 46011000052107', "a"),
        ('term = "hue", dialectId = 46011000052107 |Swedish| (900000000000549004 |Acceptable|)', ""),
        ('term = "hue", dialectId = (46011000052107 900000000000508004) (prefer accept)', "a"),
        ('term = "hue", dialect = sv-se, language = sv', "a"),
        ('term = "nobody", dialect != en-us', "b"),
        ('term = "american", dialect != en-us', ""),
        ('term = "hue", language = (sv)', "a"),
        ('term = "hue", language != sv', "ab"),
        ('term = "hue", active = 1', "ab"),
        ('term = wild:"hue *ish"', "a"),
        ('term = (wild:"*nobody" "svensk")', "ab"),
        ('term != "hue", term = "nobody"', ""),
        ('D term = "hue", typeId = 900000000000013009', "ab"),
        ('D term = "hue", typeId = (900000000000013009 900000000000003001)', "ab"),
        ('D term = "hue", type = fsn', ""),
    ],
)
def test_description_filters(spoken: tuple[Tiny, IndexedSystem], criteria: str, expected: str) -> None:
    made, system = spoken
    codes = {"a": made.active[20], "b": made.active[21]}
    assert found(system, f"* {{{{ {criteria} }}}}") == {codes[each] for each in expected}


MAPS = sctid(8_100_000)
MAP_HEAD = "id effectiveTime active moduleId refsetId referencedComponentId mapGroup mapPriority mapRule mapTarget correlationId"


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tiny, IndexedSystem]:
    """A map reference set: every fifth concept to a code, twice with another priority; one row inactive, one about a description."""
    folder = tmp_path_factory.mktemp("maps")
    made = tinysnomed.write(folder / "release")
    write_file(
        folder / "release",
        "sct2_Concept_Snapshot_XX_20240201.txt",
        "id effectiveTime active moduleId definitionStatusId",
        [[MAPS, "20240201", "1", CORE, "900000000000074008"]],
    )
    rows = []
    for number, code in enumerate(made.active[10:60:5]):
        for priority in (1, 2):
            time, target = ("20240201" if number % 2 else "20230801"), f"J{40 + number}.{priority}"
            rows.append([f"x{number}{priority}", time, "1", CORE, MAPS, code, "1", str(priority), "TRUE", target, made.active[number]])
    rows.append(["y", "20240201", "0", CORE, MAPS, made.active[11], "1", "1", "TRUE", "Z99", made.active[0]])
    rows.append(["z", "20240201", "1", CORE, MAPS, sctid(5_000_001, "01"), "1", "1", "TRUE", "Z98", made.active[0]])
    write_file(folder / "release", "der2_iissscRefset_MapSnapshot_XX_20240201.txt", MAP_HEAD, rows)
    return made, open_index(load_snomed([folder / "release"], folder / "index"))


def test_members_by_their_rows(mapped: tuple[Tiny, IndexedSystem]) -> None:
    made, system = mapped
    codes = made.active[10:60:5]
    cases: list[tuple[str, set[str]]] = [
        (f"^ {MAPS}", set(codes)),
        (f'^ {MAPS} {{{{ M mapTarget = "J41.1" }}}}', {codes[1]}),
        (f'^ {MAPS} {{{{ M mapTarget = wild:"J4?.1" }}}}', set()),
        (f'^ {MAPS} {{{{ M mapTarget = wild:"J4*.1" }}}}', set(codes)),
        (f'^ {MAPS} {{{{ M mapTarget = ("J40.1" exact:"J43.2"), mapGroup = #1 }}}}', {codes[0], codes[3]}),
        (f'^ {MAPS} {{{{ M mapTarget = "J41.1", mapPriority = #2 }}}}', set()),
        (f"^ {MAPS} {{{{ M mapPriority > #1 }}}}", set(codes)),
        (f"^ {MAPS} {{{{ M mapPriority >= #3 }}}}", set()),
        (f"^ {MAPS} {{{{ M correlationId = {made.active[2]} |Said| }}}}", {codes[2]}),
        (f"^ {MAPS} {{{{ M correlationId = ({made.active[2]} {made.active[3]}) }}}}", {codes[2], codes[3]}),
        (
            f"^ {MAPS} {{{{ M correlationId != (<< {made.active[0]}) }}}}",
            {c for n, c in enumerate(codes) if made.active[n] not in made.below(ROOT) | {ROOT}},
        ),
        (f'^ {MAPS} {{{{ M effectiveTime = "20240201" }}}}', set(codes[1::2])),
        (f'^ {MAPS} {{{{ M effectiveTime < "20240101", active = 1 }}}}', set(codes[::2])),
        (f"^ {MAPS} {{{{ M moduleId = {CORE} }}}}", set(codes)),
        (f"^ {MAPS} {{{{ M moduleId = {MAPS} }}}}", set()),
        (f"^ {MAPS} {{{{ M referencedComponentId = << {codes[4]} }}}}", {c for c in codes if codes[4] in {c, *made.above(c)}}),
        (f'^ {MAPS} {{{{ M colour = "red" }}}}', set()),
        (f'<< ^ {MAPS} {{{{ M mapTarget = "J41.1" }}}}', made.below(codes[1]) | {codes[1]}),
        (f"^ [referencedComponentId] {MAPS}", set(codes)),
        (f"^ [correlationId] {MAPS}", set(made.active[:10])),
        (f'^ [correlationId] {MAPS} {{{{ M mapTarget = "J41.1" }}}}', {made.active[1]}),
        ("^ [targetComponentId] 900000000000526001", set(made.replaced.values()) if system.find("900000000000526001") is not None else set()),
        (f'^ {MAPS} {{{{ M mapTarget = "J41.1" }}}} {{{{ C active = 1 }}}}', {codes[1]}),
    ]
    for text, expected in cases:
        assert found(system, text) == expected, text


@pytest.mark.parametrize("criterion", ["active = 0", 'mapTarget > "J"', 'effectiveTime = "yesterday"', "mapPriority = #x"])
def test_member_filters_that_cannot_be_answered_are_refused(mapped: tuple[Tiny, IndexedSystem], criterion: str) -> None:
    with pytest.raises(BadConstraint):
        found(mapped[1], f"^ {MAPS} {{{{ M {criterion} }}}}")


def test_text_definitions_are_found_where_their_type_is_asked_for(tiny: tuple[Tiny, IndexedSystem]) -> None:
    made, system = tiny
    assert found(system, '* {{ term = wild:"what it*", type = def }}') == {made.active[10]}
    assert found(system, "* {{ typeId = 900000000000550004 }}") == {made.active[10]}
    assert found(system, '* {{ term = wild:"what it*" }}') == set()


def test_effective_times(spoken: tuple[Tiny, IndexedSystem]) -> None:
    made, system = spoken
    everything = set(made.active)
    for text, expected in (
        ('= "20240101"', everything),
        ('!= "20240101"', set()),
        ('>= "20240101"', everything),
        ('> "20240101"', set()),
        ('= ("20230101" "20240101")', everything),
        ("< 20250101", everything),
    ):
        assert found(system, f"* {{{{ C effectiveTime {text} }}}}") == expected, text
    assert found(system, "* {{ C active = (0 1) }}") == everything | set(made.inactive)


@pytest.mark.parametrize(
    "criteria",
    ["active = 0", "active != 1", "active = maybe", "dialect = klingon", 'C effectiveTime = "yesterday"', "dialect = en-gb (hated)", "dialect = ()"],
)
def test_filters_that_cannot_be_answered_are_refused(spoken: tuple[Tiny, IndexedSystem], criteria: str) -> None:
    with pytest.raises(BadConstraint):
        found(spoken[1], f"* {{{{ {criteria} }}}}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<",
        "abc",
        "< 404684003 AND",
        "404684003 AND 138875005 OR 71388002",
        "<404684003 : ",
        "<404684003 : 363698007",
        "<404684003 : { 363698007 = * ",
        "(" * 80 + "138875005" + ")" * 80,
        "^ [targetComponentId, mapTarget] 900000000000526001",
        "^ [*] 900000000000526001",
        "[targetComponentId] 900000000000526001",
        '* {{ M mapTarget = "J45" }}',
        "^ 900000000000526001 {{ M mapTarget }}",
        "^ 900000000000526001 {{ M mapTarget = true }}",
        '* {{ colour = "red" }}',
        "138875005 ) ",
        "x" * 10_001,
    ],
)
def test_what_is_not_supported_is_refused(text: str) -> None:
    with pytest.raises(BadConstraint):
        parse(text)


def test_ecl_in_a_value_set(tiny: tuple[Tiny, IndexedSystem], tmp_path: Path) -> None:
    made, system = tiny
    from datetime import UTC, datetime

    from terminology.library import Library
    from terminology.operations import call
    from terminology.service import Terms, open_terms

    base = open_terms()
    terms = Terms([Library(systems={system.meta.url: (system,)}, base=base.library)], base.policy)
    top = made.active[3]
    for url in (f"http://snomed.info/sct?fhir_vs=ecl/%3C%3C{top}", f"http://snomed.info/sct?fhir_vs=isa/{top}"):
        status, answer = call(
            terms, "ValueSet/$expand", {"resourceType": "Parameters", "parameter": [{"name": "url", "valueUri": url}]}, now=datetime.now(UTC)
        )
        assert status == 200
        assert answer["expansion"]["total"] == len(made.below(top) | {top})
    status, answer = call(
        terms,
        "ValueSet/$expand",
        {"resourceType": "Parameters", "parameter": [{"name": "url", "valueUri": "http://snomed.info/sct?fhir_vs=ecl/%3C%3C"}]},
        now=datetime.now(UTC),
    )
    assert status == 422
    assert answer["issue"][0]["code"] == "not-supported"
