"""ValueSet $expand: an evaluated value set as ValueSet.expansion, paged, filtered, nested, in the languages asked for.

https://hl7.org/fhir/R4/valueset-operation-expand.html. What R5 adds to an expansion (property) goes into the cross-version extensions of R4.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from terminology import wording
from terminology.concepts import STANDARDS_STATUS, Json, System, contains
from terminology.language import Designation, Languages, best
from terminology.library import Supplement
from terminology.sets import shared, united, without
from terminology.trouble import stop
from terminology.unitsystem import UnitSystem
from terminology.valueset import Segment, Selection, canonical, expansion_parameters, narrow, without_inactive

R5 = "http://hl7.org/fhir/5.0/StructureDefinition/extension-ValueSet.expansion."
PROPERTY_HEAD, PROPERTY_ROW = f"{R5}property", f"{R5}contains.property"
DEFAULT_LIMIT = 10_000
UNCLOSED = "http://hl7.org/fhir/StructureDefinition/valueset-unclosed"
HEADER = frozenset({"resourceType", "id", "contained", "language", "url", "identifier", "version", "name", "title", "status", "experimental", "date"})
NAMESPACE = uuid.UUID("5b0b8c50-3f6f-4f0e-9a33-6f1f0a6f6a55")


@dataclass(frozen=True, slots=True)
class Wishes:
    """The parameters of $expand that shape the answer. echo: (name, value name, value) to repeat in expansion.parameter; limit: codes before too-costly."""

    text: str = ""
    count: int | None = None
    offset: int | None = None
    active_only: bool = False
    flat: bool = False
    designations: bool = False
    wanted: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()
    languages: Languages = field(default_factory=Languages)
    not_abstract: bool = False
    definition: bool = False
    limit: int = DEFAULT_LIMIT
    echo: tuple[tuple[str, str, Any], ...] = ()


@dataclass(slots=True)
class Page:
    """What writing the rows of one answer needs: the wishes, the supplements, several versions of one system, property codes met."""

    wishes: Wishes
    supplements: Sequence[Supplement]
    versioned: frozenset[str]
    over: dict[int, list[Supplement]] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)

    def laid_over(self, system: System) -> list[Supplement]:
        """The supplements of a system version."""
        found = self.over.get(id(system))
        if found is None:
            found = self.over[id(system)] = wording.applicable(system, self.supplements)
        return found


def expand(value_set: Json, selection: Selection, wishes: Wishes, now: datetime) -> Json:
    """The ValueSet with its expansion. Raises Stop if it is too large to give whole."""
    segments = [shaped for each in selection.segments if len((shaped := shape(each, wishes)).numbers)]
    total = sum(len(each.numbers) for each in segments)
    if any(len(each.numbers) == each.system.size and isinstance(each.system, UnitSystem) for each in segments):
        raise stop("too-costly", url=canonical(value_set), limit=wishes.limit, status=422)  # a grammar has no end
    paged = wishes.count is not None or wishes.offset is not None
    if total > wishes.limit and (wishes.count is None or wishes.count > wishes.limit):
        raise stop("too-costly", url=canonical(value_set), limit=wishes.limit, status=422)
    page = Page(wishes, list(selection.used.supplements.values()), frozenset(url for url, named in selection.used.named.items() if len(named) > 1))
    start = wishes.offset or 0
    end = total if wishes.count is None else start + wishes.count
    rows = flat_rows(segments, page, start, end) if paged or wishes.flat else nested_rows(segments, page)
    expansion: Json = {"identifier": f"urn:uuid:{uuid.uuid4()}", "timestamp": now.isoformat(timespec="milliseconds"), "total": total}
    if wishes.offset is not None:
        expansion["offset"] = wishes.offset
    expansion["parameter"] = parameters(value_set, selection, wishes)
    contains_rows = list(rows)
    heads = unclosed(selection) + [{"url": PROPERTY_HEAD, "extension": _head(code, uri)} for code, uri in page.heads.items()]
    if heads:
        expansion = {"extension": heads, **expansion}
    if contains_rows:
        expansion["contains"] = contains_rows
    shown = {name: value for name, value in value_set.items() if name in HEADER or (wishes.definition and name not in ("text", "expansion"))}
    return {**shown, "expansion": expansion}


def known_extensions(designation: Json) -> Json:
    """The designation with those of its extensions that a reader of an expansion knows."""
    if "extension" not in designation:
        return designation
    kept = [each for each in designation["extension"] if each.get("url") in wording.KEPT or each.get("url") == STANDARDS_STATUS]
    rest = {name: value for name, value in designation.items() if name != "extension"}
    return {"extension": kept, **rest} if kept else rest


def unclosed(selection: Selection) -> list[Json]:
    """The marks of an expansion that rests on a fragment (https://hl7.org/fhir/R4/extension-valueset-unclosed.html)."""
    found = [system.meta.url for system in selection.used.systems.values() if system.meta.content == "fragment"]
    if not found:
        return []
    reason = f"This extension is based on a fragment of the code system {', '.join(found)}"
    return [{"url": UNCLOSED, "valueBoolean": True}, {"url": f"{UNCLOSED}-reason", "valueString": reason}]


def _head(code: str, uri: str) -> list[Json]:
    return [{"url": "code", "valueCode": code}] + ([{"url": "uri", "valueUri": uri}] if uri else [])


def shape(segment: Segment, wishes: Wishes) -> Segment:
    """The concepts of a segment that the wishes leave: active ones, those that match the text, selectable ones."""
    if wishes.active_only:
        segment = without_inactive(segment)
    if wishes.text:
        found = segment.system.search(wishes.text)
        found = united(found, np.array([n for n, row in segment.rows.items() if _worded(row, wishes.text)], np.int32))
        segment = narrow(segment, shared(segment.numbers, found))
    if wishes.not_abstract:
        segment = narrow(segment, without(segment.numbers, segment.system.abstracts()))
    return segment


def _worded(row: Json, text: str) -> bool:
    return text.casefold() in str(row.get("display", "")).casefold()


def flat_rows(segments: Sequence[Segment], page: Page, start: int, end: int) -> Iterator[Json]:
    """The rows start .. end of all segments, one after the other."""
    at = 0
    for segment in segments:
        size = len(segment.numbers)
        if at + size > start and at < end:
            numbers = segment.order or segment.numbers
            for n in numbers[max(start - at, 0) : end - at]:
                yield row(segment, int(n), page)
        at += size


def nested_rows(segments: Sequence[Segment], page: Page) -> Iterator[Json]:
    """All rows; those of a hierarchy stand inside the row above them."""
    for segment in segments:
        tree = segment.nested and (bool(segment.system.meta.hierarchy) or not segment.plain) and not (page.wishes.text and segment.plain)
        if not tree:
            yield from flat_rows([segment], page, 0, len(segment.numbers))
        else:
            yield from _tree(segment, page)


def _tree(segment: Segment, page: Page) -> list[Json]:
    tops: list[Json] = []
    made = {int(n): row(segment, int(n), page) for n in segment.numbers}
    for n, each in made.items():
        above = next((made[int(p)] for p in segment.system.parents(n) if contains(segment.numbers, int(p)) and int(p) != n), None)
        if above is None or _cyclic(segment, n):
            tops.append(each)
        else:
            above.setdefault("contains", []).append(each)
    return tops


def _cyclic(segment: Segment, n: int) -> bool:
    return contains(segment.system.ancestors(n), n)


def row(segment: Segment, n: int, page: Page) -> Json:
    """One ValueSet.expansion.contains."""
    system, wishes = segment.system, page.wishes
    worded = segment.rows.get(n)
    over = page.laid_over(system)
    known = wording.names(system, n, worded, over)
    extensions = wording.extensions(system, n, worded, over)
    made: Json = {"system": system.meta.url}
    kept = [each for each in extensions if each.get("url") in wording.KEPT]
    kept += [each for each in (worded or {}).get("extension", ()) if each.get("url") == STANDARDS_STATUS]
    shown = properties_of(system, n, page, extensions, over)
    if kept or shown:
        made["extension"] = kept + [{"url": PROPERTY_ROW, "extension": each} for each in shown]
    if system.abstract(n):
        made["abstract"] = True
    if system.inactive(n):
        made["inactive"] = True
    if system.meta.url in page.versioned:
        made["version"] = system.meta.version
    made["code"] = system.code(n)
    chosen = best(wishes.languages, known)
    if chosen is not None:
        made["display"] = chosen.value
    if wishes.designations:
        listed = [known_extensions(each.fhir()) for each in shown_designations(known, chosen, wishes)]
        if listed:
            made["designation"] = listed
    return made


def shown_designations(known: Sequence[Designation], chosen: Designation | None, wishes: Wishes) -> list[Designation]:
    """All names but the one shown as display, narrowed to the designations asked for."""
    rest = [each for each in known if each is not chosen]
    if not wishes.wanted:
        return rest
    return [each for each in rest if any(_asked(each, token) for token in wishes.wanted)]


def _asked(one: Designation, token: str) -> bool:
    """`designation` parameter: a language, `urn:ietf:bcp:47|lang`, or the system|code of a use."""
    system, bar, code = token.rpartition("|")
    if not bar or system == "urn:ietf:bcp:47":
        return one.language.lower() == code.lower()
    use = one.use or {}
    return bool(use.get("system", "") == system and use.get("code", "") == code)


def properties_of(system: System, n: int, page: Page, extensions: Sequence[Json], over: Sequence[Supplement]) -> list[list[Json]]:
    """The parts of each contains.property: those asked for, and order, label, weight and status where the concept has them."""
    found: dict[str, tuple[str, Any]] = dict(wording.extension_properties(extensions))
    status = system.status(n)
    if status and status != "active":
        found["status"] = ("valueCode", status)
    rows: list[tuple[str, str, Any]] = [(code, name, value) for code, (name, value) in found.items()]
    asked = page.wishes.properties
    if "definition" in asked and system.definition(n):
        rows.append(("definition", "valueString", system.definition(n)))
    if asked:
        for each in wording.properties(system, n, over):
            code = each.get("code", "")
            if (code in asked or "*" in asked) and code not in found:
                rows += [(code, name, value) for name, value in each.items() if name.startswith("value")]
    for code, _, _ in rows:
        if code not in page.heads:
            page.heads[code] = wording.uri_of(code, system, over)
    return [[{"url": "code", "valueCode": code}, {"url": "value", name: value}] for code, name, value in rows]


def parameters(value_set: Json, selection: Selection, wishes: Wishes) -> list[Json]:
    """ValueSet.expansion.parameter: what was asked, and what was used."""
    rows: list[Json] = [{"name": name, kind: value} for name, kind, value in wishes.echo]
    rows += [{"name": name, "valueUri": value} for name, value in selection.used.parameters]
    for name, system in selection.used.systems.items():
        rows.append({"name": "used-codesystem", "valueUri": name})
        if system.meta.content in ("fragment", "example"):
            rows.append({"name": f"used-{system.meta.content}", "valueUri": name})
        rows += warnings(f"CodeSystem/{name}", name, system.meta.status, system.meta.standards, system.meta.experimental)
    for name, res in selection.used.value_sets.items():
        rows.append({"name": "used-valueset", "valueUri": name})
        standards = next((e.get("valueCode", "") for e in res.get("extension", ()) if e.get("url") == STANDARDS_STATUS), "")
        rows += warnings("ValueSet", name, res.get("status", ""), standards, bool(res.get("experimental")))
    if selection.used.merged:
        rows.append({"name": "versionsMatch", "valueBoolean": True})
    own = next((e.get("valueCode", "") for e in value_set.get("extension", ()) if e.get("url") == STANDARDS_STATUS), "")
    rows += warnings("ValueSet", canonical(value_set), "", own, False)
    rows += [{"name": "used-supplement", "valueUri": name} for name in selection.used.supplements]
    return rows


def warnings(kind: str, name: str, status: str, standards: str, experimental: bool) -> list[Json]:
    """warning-deprecated, warning-withdrawn, warning-retired, warning-draft, warning-experimental."""
    if standards in ("deprecated", "withdrawn"):
        said = standards
    elif status in ("retired", "draft"):
        said = status
    elif experimental:
        said = "experimental"
    else:
        return []
    return [{"name": f"warning-{said}", "valueUri": name}]


def definition_echo(value_set: Json, given: Iterable[str]) -> dict[str, Any]:
    """Parameters that the definition itself sets and the request does not."""
    return {name: value for name, value in expansion_parameters(value_set).items() if name not in set(given)}
