"""The index documents of the AuditEvents that this exchange makes: put together from parts that were indexed once.

What the extractor says of an event is what it says of its parts together, so each part is extracted once and kept:
- the event's kind (type, action, outcome, source, this server's own share, the sorts of its entities): a stem (query/stems.py);
- who acts: a stem too where a client acts for itself, as in most of what happens; of a person the keys are the event's own, for persons are many;
- an entity, with a mark in the place of its reference or identifier, which is then filled in.

A test compares the whole with what the extractor says, on events of every kind.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from conformance import codec
from conformance.spec import Spec
from fhir_server.context import Context, Resource
from fhir_server.interactions.indexing import indexed
from fhir_server.query.clauses import Index
from fhir_server.query.stems import HELD, Stem
from fhir_server.search.fold import words
from fhir_server.search.types import reference
from fhir_server.security.audit import RTYPE, kind_of

OF_ONE = frozenset({"id", "recorded", "entity", "agent", "outcomeDesc", "purposeOfEvent"})  # what is not of an event's kind
KINDS, CALLERS, PARTS, ENTITIES = "audit.kinds", "audit.callers", "audit.parts", "audit.entities"  # in Spec.memo
MOST = 2000  # of each
MARK = "zqmarkqz"  # no word of any code, url or path in an event
MILLISECOND = timedelta(milliseconds=1)
Strings = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entity:
    """What the extractor says of one sort of entity. keys, texts: of all; open: around the reference or identifier; worded: its words are texts too."""

    keys: Strings
    texts: Strings
    open: tuple[tuple[str, str], ...]
    worded: bool


def index_of_event(ctx: Context, event: Resource) -> Index:
    """What `index_of` says of an AuditEvent of security/audit.py, with stems."""
    spec, base, agents = ctx.spec, ctx.base, event["agent"]
    keys: dict[str, None] = {}
    texts: dict[str, None] = {}
    sorts: dict[Strings, Entity] = {}
    for entity in event["entity"]:
        _fill(spec, base, entity, sorts, keys, texts)
    stems = [_kind(spec, base, event, sorts)]
    if _for_itself(agents):
        stems.append(_caller(spec, base, [agent for agent in agents if not _is_server(agent)]))
    else:
        _add(keys, texts, _parts(spec, base, {"agent": [agent for agent in agents if not _is_server(agent)]}))
    for name in ("outcomeDesc", "purposeOfEvent"):
        if name in event:
            _add(keys, texts, _parts(spec, base, {name: event[name]}))
    for stem in stems:
        _take(keys, stem.keys)
        _take(texts, stem.texts)
    low = datetime.fromisoformat(event["recorded"])
    index: Index = {HELD: tuple(stems), "k": list(keys), "r": [{"k": "date", "l": low, "h": low + MILLISECOND}]}
    return index | {"t": list(texts)} if texts else index


def _fill(spec: Spec, base: str, entity: Resource, sorts: dict[Strings, Entity], keys: dict[str, None], texts: dict[str, None]) -> None:
    """Add what one entity has of its own, and note its sort: a resource, a query, a patient or the request."""
    what = entity.get("what", {})
    if "reference" in what:
        text = reference.normal(what["reference"], base)
        sort = (entity["type"]["code"], entity["role"]["code"], "reference", text.partition("/")[0])
    else:
        text = what.get("identifier", {}).get("value", "")
        sort = (entity["type"]["code"], entity.get("role", {}).get("code", ""), *what, "")
    known = sorts.get(sort)
    if known is None:
        known = sorts[sort] = _entity(spec, base, entity, sort)
    for before, behind in known.open:
        keys[before + text + behind] = None
    if known.worded:
        for word in words(text):
            texts[f"c~{word}"] = None


def _entity(spec: Spec, base: str, entity: Resource, sort: Strings) -> Entity:
    memo: dict[Any, Entity] = spec.memo.setdefault(ENTITIES, {})
    if (base, sort) not in memo:
        *_, kind = sort
        marked = f"{kind}/{MARK}" if kind else MARK
        what: Resource = {"reference": marked} if kind else {"identifier": {"value": marked}}
        sample = {**entity, "what": what} if "what" in entity else entity
        keys, texts = _extracted(spec, base, {"entity": [sample]})
        split = tuple(key.partition(marked) for key in keys if MARK in key)
        memo[base, sort] = Entity(
            tuple(key for key in keys if MARK not in key),
            tuple(text for text in texts if MARK not in text),
            tuple((before, behind) for before, _, behind in split),
            any(MARK in text for text in texts),
        )
    return memo[base, sort]


def _kind(spec: Spec, base: str, event: Resource, sorts: Mapping[Strings, Entity]) -> Stem:
    """The stem of all that events of a kind have in common."""
    memo: dict[Any, Stem] = spec.memo.setdefault(KINDS, {})
    key = base, kind_of(event), *(sort[:-1] for sort in sorts)
    if key not in memo:
        _bounded(memo)
        part = {name: value for name, value in event.items() if name not in OF_ONE}
        part["agent"] = [agent for agent in event["agent"] if _is_server(agent)]
        keys, texts = (dict.fromkeys(found) for found in _extracted(spec, base, part))
        for entity in sorts.values():
            _add(keys, texts, (entity.keys, entity.texts))
        memo[key] = Stem("kind", tuple(keys), tuple(texts))
    return memo[key]


def _for_itself(agents: Sequence[Resource]) -> bool:
    """True where no person acts: the caller is named as a client, and as a user only by the same name at its issuer."""
    if not any(_is_server(agent) for agent in agents):
        return False  # what happens beside resources: a sign-in, from anywhere
    client = agents[0]["who"]["identifier"]["value"]
    return all(agent["who"].get("identifier", {}).get("value", "").endswith(f"|{client}") for agent in agents[2:])


def _is_server(agent: Resource) -> bool:
    return "display" in agent["who"]


def _caller(spec: Spec, base: str, agents: Sequence[Resource]) -> Stem:
    """The stem of all that a client does from one address."""
    memo: dict[Any, Stem] = spec.memo.setdefault(CALLERS, {})
    key = base, *((agent["who"]["identifier"]["value"], agent["network"]["address"] if "network" in agent else "") for agent in agents)
    if key not in memo:
        _bounded(memo)
        memo[key] = Stem("caller", *_extracted(spec, base, {"agent": agents}))
    return memo[key]


def _parts(spec: Spec, base: str, part: Resource) -> tuple[Strings, Strings]:
    """Keys and texts of these members of an event, remembered."""
    memo: dict[Any, tuple[Strings, Strings]] = spec.memo.setdefault(PARTS, {})
    key = base, codec.encode(part)
    if key not in memo:
        _bounded(memo)
        memo[key] = _extracted(spec, base, part)
    return memo[key]


def _bounded(memo: dict[Any, Any]) -> None:
    if len(memo) >= MOST:
        memo.clear()


def _extracted(spec: Spec, base: str, part: Resource) -> tuple[Strings, Strings]:
    """Keys and texts of these members of an event."""
    index = indexed(spec, base, {"resourceType": RTYPE, **part})
    return tuple(index.get("k", ())), tuple(index.get("t", ()))


def _add(keys: dict[str, None], texts: dict[str, None], found: tuple[Strings, Strings]) -> None:
    keys.update(dict.fromkeys(found[0]))
    texts.update(dict.fromkeys(found[1]))


def _take(values: dict[str, None], held: Iterable[str]) -> None:
    for value in held:
        values.pop(value, None)
