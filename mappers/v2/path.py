"""Target paths of mapping rows, text -> closure that writes a value.

  family                     an element that occurs once
  name[1].given[1]           a list: a slot; rows that name the same slot write to the same list member
  extension{url}.valueCode   the extension with that url; `_birthDate.extension{url}` one on a primitive
  individual(Practitioner)   a Reference to a new resource; what follows stands in that resource
  $this                      the element that the table is applied to
  comment+                   a text: joined to the one that stands there already

Slots live in a dict that is made per segment: a repetition of a field drops the slots that only this field uses, so that it
starts a new list member. Writing a dict where a dict stands merges it; a list is appended; a primitive replaces.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mappers.v2.run import Draft, Element, Run

Slots = dict[str, Any]
Writer = Callable[[Run, Element, Slots, Any], None]
Into = Callable[[Run, Element, Slots], Element]
_STEP = re.compile(
    r"(?P<name>_?[A-Za-z][A-Za-z0-9]*|\$this|\$value)(?:\[(?P<slot>\w+)\])?(?:\{(?P<url>[^}]*)\})?(?:\((?P<rtype>[A-Z]\w+)\))?(?P<joined>\+$)?(?:\.|$)"
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step: element name, slot ('' if it occurs once), extension url, type of a new resource; `key` the path up to here."""

    name: str
    slot: str
    url: str
    rtype: str
    key: str
    joined: bool = False


def steps(text: str) -> tuple[Step, ...]:
    """The steps of a path; raises ValueError where it does not parse."""
    found, at = [], 0
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            raise ValueError(f"path not understood at {text[at:]!r}: {text}")
        at = match.end()
        found.append(Step(match["name"], match["slot"] or "", match["url"] or "", match["rtype"] or "", text[:at].rstrip("."), bool(match["joined"])))
    if not found:
        raise ValueError("an empty path")
    return tuple(found)


def slots_of(text: str) -> tuple[str, ...]:
    """Keys of the list members that a path makes, outermost first."""
    return tuple(step.key for step in steps(text) if step.slot or step.url)


def writer(text: str) -> Writer:
    """A closure (run, root, slots, value) that writes at the path; the commonest shapes of paths have closures of their own."""
    *before, last = steps(text)
    end = _end(last)
    if not before:
        return end
    walk = [_into(step) for step in before]
    if len(walk) == 1 and _is_plain(last):
        return _into_plain(walk[0], last.name, end)
    if len(walk) == 2:
        return _into_two(walk[0], walk[1], end)

    def write(run: Run, root: Element, slots: Slots, value: Any) -> None:
        node = root
        for into in walk:
            node = into(run, node, slots)
        end(run, node, slots, value)

    return write


def plain(text: str) -> str:
    """The element's name where a path is no more than that, '' else."""
    first, *more = steps(text)
    return "" if more or not _is_plain(first) else first.name


def _is_plain(step: Step) -> bool:
    return not (step.slot or step.url or step.rtype or step.joined or step.name == "$this")


def _into_plain(into: Into, name: str, end: Writer) -> Writer:
    def write(run: Run, root: Element, slots: Slots, value: Any) -> None:
        node = into(run, root, slots)
        if type(value) is dict and name in node:
            end(run, node, slots, value)
        else:
            node[name] = value

    return write


def _into_two(outer: Into, inner: Into, end: Writer) -> Writer:
    def write(run: Run, root: Element, slots: Slots, value: Any) -> None:
        end(run, inner(run, outer(run, root, slots), slots), slots, value)

    return write


def _into(step: Step) -> Into:
    name, rtype = step.name, step.rtype
    if name == "$this":
        return lambda run, node, slots: node
    if rtype:
        return lambda run, node, slots: _resource(run, node, slots, step)
    if step.slot or step.url:
        return _member(step)

    def single(run: Run, node: Element, slots: Slots) -> Element:
        found: Element | None = node.get(name)
        if found is None:
            found = node[name] = {}
        return found

    return single


def _member(step: Step) -> Into:
    name, key, url = step.name, step.key, step.url

    def member(run: Run, node: Element, slots: Slots) -> Element:
        found: Element | None = slots.get(key)
        if found is None:
            found = slots[key] = {"url": url} if url else {}
            node.setdefault(name, []).append(found)
        return found

    return member


def _resource(run: Run, node: Element, slots: Slots, step: Step) -> Element:
    draft: Draft | None = slots.get(step.key)
    if draft is None:
        draft = run.keep(run.draft(step.rtype))
        draft.shared = True
        slots[step.key] = draft
        _link(run, node, slots, step, draft)
    return draft.res


def _link(run: Run, node: Element, slots: Slots, step: Step, draft: Draft) -> None:
    """Refer to a draft; the Reference itself is the slot of the path without the new resource (`performer[1].extension`)."""
    reference = run.refer(draft)
    if step.slot:
        node.setdefault(step.name, []).append(reference)
        slots[step.key.rpartition("(")[0]] = reference
    else:
        node[step.name] = reference


def _end(step: Step) -> Writer:
    if step.name == "$this":
        return lambda run, node, slots, value: merge(node, value)
    if step.rtype:
        return _end_resource(step)
    if step.slot or step.url:
        return _end_member(step)
    name = step.name
    if step.joined:
        return lambda run, node, slots, value: node.update({name: f"{node[name]}\n{value}" if name in node else value})

    def single(run: Run, node: Element, slots: Slots, value: Any) -> None:
        found = node.get(name)
        if found is not None and type(value) is dict and type(found) is dict:
            merge(found, value)
        else:
            node[name] = value

    return single


def _end_resource(step: Step) -> Writer:
    def write(run: Run, node: Element, slots: Slots, value: Any) -> None:
        draft = slots.get(step.key)
        if draft is None:
            draft = slots[step.key] = _interned(run, step.rtype, value)
            _link(run, node, slots, step, draft)
        else:
            merge(draft.res, value)

    return write


def _interned(run: Run, rtype: str, value: Element) -> Draft:
    """The draft that already came from this very value in this message, or a new one; values are cached by the data type maps."""
    key = (rtype, id(value))
    found = run.interned.get(key)
    if found is not None and found[0] is value:
        return found[1]
    draft = run.keep(run.draft(rtype, value))
    draft.shared = True
    run.interned[key] = (value, draft)
    return draft


def _end_member(step: Step) -> Writer:
    name, key = step.name, step.key

    def write(run: Run, node: Element, slots: Slots, value: Any) -> None:
        found = slots.get(key)
        if type(value) is list:
            node.setdefault(name, []).extend(value)
        elif type(value) is not dict:
            node.setdefault(name, []).append(value)
        elif found is not None:
            merge(found, value)
        else:
            member = {"url": step.url, **value} if step.url else dict(value)
            node.setdefault(name, []).append(member)
            slots[key] = member

    return write


def merge(into: Element, value: Element) -> None:
    """Merge an element into another: dicts deeply, lists appended, primitives replaced."""
    for name, new in value.items():
        old = into.get(name)
        if type(old) is dict and type(new) is dict:
            merge(old, new)
        elif type(old) is list and type(new) is list:
            old.extend(new)
        else:
            into[name] = new


def clone(value: Element) -> Element:
    """A copy of an element whose only nested part is a list of Codings, or that has none."""
    made = value.copy()
    coding = made.get("coding")
    if coding is not None:
        made["coding"] = [coding[0].copy()] if len(coding) == 1 else [item.copy() for item in coding]
    return made
