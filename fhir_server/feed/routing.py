"""Whose a message is that came over the one MLLP door: the organisation that has its sender among its sources.

A client certificate decides where one of the organisations names it; MSH-3 and MSH-4, which are only what a sender says of itself, decide for the sources that
name neither certificates nor clients. What two organisations claim is nobody's, and so is a batch with messages for several. What none claims is the exchange's
own, as without tenants. DECISIONS.md of `security`, "Tenants".
"""

from collections.abc import Iterable, Mapping

from fhir_server.sources import Registry, sender_of, sends
from mappers.v2 import batch
from mappers.v2.message import parse

OWN = ""  # the exchange itself
Registries = Mapping[str, Registry]


class Astray(Exception):
    """A message that may not be taken by anybody: `reason` is a row of the table of failures."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def whose(registries: Registries, raw: bytes, certificate: str = "") -> str:
    """The name of the organisation that gets these bytes (a message or a batch). registries: name -> its sources, OWN among them. Raises Astray."""
    by_certificate = _only(name for name, one in registries.items() if certificate and any(certificate in each.certificates for each in one.sources))
    if by_certificate is not None:
        return by_certificate
    found = {_by_sender(registries, message) for message in batch.split(raw).messages}
    if len(found) > 1:
        raise Astray("several-tenants")
    return found.pop() if found else OWN


def _by_sender(registries: Registries, raw: bytes) -> str:
    message = parse(raw)
    application, facility = sender_of(message)
    return _only(name for name, one in registries.items() if name != OWN and _claims(one, application, facility)) or OWN


def _claims(registry: Registry, application: str, facility: str) -> bool:
    return any(not one.certificates and not one.clients and sends(one, application, facility) for one in registry.sources)


def _only(names: Iterable[str]) -> str | None:
    """The one name, None if there is none. Raises Astray if there are several."""
    found = list(names)
    if len(found) > 1:
        raise Astray("claimed-twice")
    return found[0] if found else None
