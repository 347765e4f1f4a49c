"""The organisations that one exchange serves apart from each other: their names, their own settings, and whether they are let in.

Kept in the exchange's own database (`fhir`); what belongs to an organisation is in a database of its own. DECISIONS.md, "Tenants".
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from fhir_server.context import DEFAULT
from fhir_server.settings import Settings, of_tenant
from fhir_server.store.records import Document, Kind, Records

TENANTS = Kind("tenants")
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


@dataclass(frozen=True, slots=True)
class Tenant:
    """One organisation. name: in paths and of its database; title: for people; values: settings of its own by variable."""

    name: str
    title: str = ""
    values: Mapping[str, str] = field(default_factory=dict, hash=False)
    disabled: bool = False

    @property
    def database(self) -> str:
        """The name of its database."""
        return f"fhir-{self.name}"

    @property
    def prefix(self) -> str:
        """What its paths begin with."""
        return f"/t/{self.name}"

    def settings(self, exchange: Settings) -> Settings:
        """Its settings. Raises ValueError naming what is wrong."""
        return of_tenant(exchange, self.name, self.values)


async def add(records: Records, tenant: Tenant) -> None:
    """Register an organisation; its database is made when a worker first opens it. Raises ValueError for a name that is malformed or taken."""
    if not NAME.fullmatch(tenant.name) or tenant.name == DEFAULT:
        raise ValueError(f"a tenant's name begins with a letter and has up to 31 small letters, digits and '-'; it is not '{DEFAULT}'")
    await records.prepare((TENANTS,))
    row = {"title": tenant.title, "values": dict(tenant.values), "disabled": tenant.disabled}
    if not await records.insert(TENANTS, tenant.name, row):
        raise ValueError(f"tenant {tenant.name}: this name is taken")


async def listed(records: Records) -> list[Tenant]:
    """All tenants by name, disabled ones too."""
    return [_tenant(row) for row in await records.find(TENANTS, limit=0)]


async def get(records: Records, name: str) -> Tenant | None:
    """One tenant, disabled or not."""
    row = await records.get(TENANTS, name)
    return None if row is None else _tenant(row)


async def let_in(records: Records, name: str, *, disabled: bool) -> bool:
    """Shut a tenant out of every worker within seconds, or let it in again; False if there is none."""
    return await records.change(TENANTS, name, {"disabled": disabled}) is not None


async def give(records: Records, name: str, values: Mapping[str, str]) -> bool:
    """Replace the settings of its own; False if there is none."""
    return await records.change(TENANTS, name, {"values": dict(values)}) is not None


async def forget(records: Records, name: str) -> bool:
    """Remove the registration; False if there is none."""
    return await records.remove(TENANTS, name) is not None


def _tenant(row: Document) -> Tenant:
    return Tenant(row["_id"], row["title"], row["values"], row["disabled"])
