"""The index documents of the AuditEvents that this exchange makes: put together from parts that were indexed once.

An event is a frame (who, how, what kind of action), a time and its entities; events differ mostly in the last two. What the extractor says of a
frame is kept; of an entity it is kept with marks in the places of the reference or identifier, which are then filled in. A tenth of what
extracting each event costs; a test compares both on events of every kind.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from conformance import codec
from conformance.spec import Spec
from fhir_server.context import Context, Resource
from fhir_server.interactions.indexing import indexed
from fhir_server.query.clauses import Index
from fhir_server.search.fold import words
from fhir_server.search.types import reference
from fhir_server.security.audit import RTYPE

VARYING = frozenset({"id", "recorded", "entity"})
FRAMES, ENTITIES, MOST_FRAMES = "audit.frames", "audit.entities", 2000
MARK = "zqmarkqz"  # no word of any code, url or path in an event
MILLISECOND = timedelta(milliseconds=1)
Keys = tuple[str, ...]
Fill = Callable[[str], tuple[Keys, Keys]]  # reference or identifier -> (keys, texts)


def index_of_event(ctx: Context, event: Resource) -> Index:
    """What `index_of` says of an AuditEvent of security/audit.py."""
    frame_keys, frame_texts = _frame(ctx.spec, ctx.base, event)
    keys, texts = dict.fromkeys(frame_keys), dict.fromkeys(frame_texts)
    for entity in event["entity"]:
        more, said = _entity(ctx.spec, ctx.base, entity)
        keys.update(dict.fromkeys(more))
        texts.update(dict.fromkeys(said))
    low = datetime.fromisoformat(event["recorded"])
    return {"k": list(keys), "r": [{"k": "date", "l": low, "h": low + MILLISECOND}], **({"t": list(texts)} if texts else {})}


def _frame(spec: Spec, base: str, event: Resource) -> tuple[Keys, Keys]:
    """Keys and texts of all but the time and the entities."""
    memo: dict[tuple[str, bytes], tuple[Keys, Keys]] = spec.memo.setdefault(FRAMES, {})
    frame = {name: value for name, value in event.items() if name not in VARYING}
    key = base, codec.encode(frame)
    if key not in memo:
        if len(memo) >= MOST_FRAMES:
            memo.clear()
        memo[key] = _parts(spec, base, frame)
    return memo[key]


def _entity(spec: Spec, base: str, entity: Mapping[str, Any]) -> tuple[Keys, Keys]:
    """Keys and texts of one entity: a resource, a query, a patient or the request."""
    memo: dict[tuple[str, ...], Fill] = spec.memo.setdefault(ENTITIES, {})
    what = entity.get("what", {})
    text = reference.normal(what["reference"], base) if "reference" in what else what.get("identifier", {}).get("value", "")
    kind, slash, _ = text.partition("/") if "reference" in what else ("", "", "")
    key = (base, entity["type"]["system"], entity["type"]["code"], entity.get("role", {}).get("code", ""), kind, *what)
    if key not in memo:
        memo[key] = _fill(spec, base, entity, f"{kind}{slash}{MARK}")
    return memo[key](text)


def _fill(spec: Spec, base: str, entity: Mapping[str, Any], marked: str) -> Fill:
    what = entity.get("what", {})
    sample = {**entity, "what": {"reference": marked} if "reference" in what else {"identifier": {"value": marked}}} if what else entity
    keys, texts = _parts(spec, base, {"resourceType": RTYPE, "entity": [sample]})
    fixed, open_keys = tuple(key for key in keys if MARK not in key), tuple(key for key in keys if MARK in key)
    said = any(MARK in text for text in texts)
    fixed_texts = tuple(text for text in texts if MARK not in text)

    def fill(text: str) -> tuple[Keys, Keys]:
        filled = tuple(key.replace(marked, text) for key in open_keys)
        return (*fixed, *filled), (*fixed_texts, *(f"c~{word}" for word in words(text))) if said else fixed_texts

    return fill


def _parts(spec: Spec, base: str, res: Resource) -> tuple[Keys, Keys]:
    index = indexed(spec, base, res)
    return tuple(index.get("k", ())), tuple(index.get("t", ()))
