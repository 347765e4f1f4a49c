"""What is remembered of a caller counts no longer than what it was made of: consents, their periods, who belongs where, headers, packages."""

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from fhir_server.context import Admission, Context, Grant
from fhir_server.interactions.access import within
from fhir_server.search import aliases
from fhir_server.security import admission, register
from fhir_server.security.admission import admit, remembered
from fhir_server.security.scopes import rights_of
from fhir_server.security.visible import visible
from fhir_server.store import Stored
from tests.security.test_consent import actor, policy
from tests.server.rest.calls import Exchange
from tests.server.rest.conftest import module_store, rest  # noqa: F401

pytestmark = pytest.mark.asyncio(loop_scope="module")
OBSERVATION = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/p"}}


@pytest_asyncio.fixture(loop_scope="module")
async def full(rest: Exchange) -> Exchange:  # noqa: F811
    opened = rest.with_settings(consent="enforce", consent_seconds=0.05, validation="off")
    assert (await opened("PUT", "Patient/p", {"resourceType": "Patient", "id": "p"})).status < 300
    assert (await opened("PUT", "Observation/o", {**OBSERVATION, "id": "o"})).status < 300
    return opened


def nurse(full: Exchange) -> Grant:
    types = full.ctx.spec.types
    return Grant("nurse", "c", rights_of(["user/*.rs"], types, "", "Practitioner/nurse"), user="Practitioner/nurse")


def clock(seconds: float) -> SimpleNamespace:
    """The `time` of one module, so much later; the event loop's own clock is left alone."""
    return SimpleNamespace(time=lambda: time.time() + seconds, monotonic=lambda: time.monotonic() + seconds)


def known(ctx: Context, grant: Grant, **headers: str) -> Any:
    return remembered(ctx.spec, (ctx.settings, ctx.store, ctx.base), grant, {name.replace("_", "-"): value for name, value in headers.items()})


async def door(full: Exchange, grant: Grant, **headers: str) -> Exchange:
    """As the HTTP door lets a caller in: by what is remembered, else by a fresh look."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    held = known(full.ctx, grant, **headers)
    ctx = replace(full.ctx, grant=grant)
    return Exchange(replace(ctx, admission=held) if held is not None else await admit(ctx, named))


async def held(full: Exchange, grant: Grant) -> Admission:
    """What is remembered right after a look; a slow machine may need several, since it counts for a twentieth of a second only."""
    for _ in range(100):
        looked = (await door(full, grant)).ctx.admission
        found: Admission | None = known(full.ctx, grant)
        if found is not None:
            assert found is looked
            return found
    raise AssertionError("nothing was remembered")


async def status(full: Exchange, grant: Grant, **headers: str) -> int:
    return (await (await door(full, grant, **headers))("GET", "Observation/o")).status


async def test_a_caller_is_looked_up_once_while_nothing_changes(full: Exchange) -> None:
    grant = nurse(full)
    first = await held(full, grant)
    assert await held(full, grant) is first
    time.sleep(0.06)  # the register is older than the setting allows
    assert known(full.ctx, grant) is None
    assert (await door(full, grant)).ctx.admission is first, "looked up again, and found as it was"
    assert known(full.ctx, replace(grant)) is None, "an equal grant of another token is looked up"
    assert known(full.ctx, grant, x_break_glass="unconscious patient") is None
    assert known(full.ctx, grant, x_purpose_of_use="TREAT") is None
    for changed in (replace(full.ctx, base="http://other/fhir"), replace(full.ctx, settings=replace(full.ctx.settings, clearance="R"))):
        assert known(changed, grant) is None


async def test_a_consent_counts_when_its_writer_is_answered(full: Exchange) -> None:
    grant = nurse(full)
    assert [await status(full, grant) for _ in range(3)] == [200, 200, 200]
    for provision, expected in (({"type": "deny"}, 404), ({"type": "permit"}, 200), ({"type": "deny", "actor": actor("Practitioner/nurse")}, 404)):
        assert (await full("PUT", "Consent/c", policy(provision))).status < 300
        assert [await status(full, grant) for _ in range(2)] == [expected, expected]
    assert await status(full, grant, x_break_glass="unconscious in the emergency room") == 200
    assert await status(full, grant) == 404, "the glass is whole again for the next request"
    assert (await full("DELETE", "Consent/c")).status < 300
    assert await status(full, grant) == 200


async def test_periods_are_looked_at_each_minute(full: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    grant = nurse(full)
    assert (await full("PUT", "Consent/c", policy({"type": "deny", "actor": actor("Practitioner/other")}))).status < 300
    await held(full, grant)
    monkeypatch.setattr(admission, "time", clock(seconds=60))
    assert known(full.ctx, grant) is None
    assert (await full("DELETE", "Consent/c")).status < 300


async def test_who_belongs_where_is_looked_up_again(full: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    grant = nurse(full)
    team = {"resourceType": "CareTeam", "id": "team", "participant": [{"member": {"reference": "Practitioner/other"}}]}
    assert (await full("PUT", "CareTeam/team", team)).status < 300
    assert (await full("PUT", "Consent/c", policy({"type": "deny", "actor": actor("CareTeam/team")}))).status < 300
    assert await status(full, grant) == 200
    joined = {**team, "participant": [{"member": {"reference": "Practitioner/nurse"}}]}
    assert (await full("PUT", "CareTeam/team", joined)).status < 300
    for module in (admission, register):
        monkeypatch.setattr(module, "time", clock(seconds=register.BELONGS_SECONDS))
    assert await status(full, grant) == 404
    monkeypatch.undo()
    assert (await full("DELETE", "Consent/c")).status < 300


async def test_a_merge_counts_as_soon_as_it_is_known(full: Exchange) -> None:
    """Patient/p was merged into Patient/q: whose app reads what still refers to p."""
    merges: list[tuple[int, str, str]] = []

    async def read(generation: int) -> list[tuple[int, str, str]]:
        return [one for one in merges if one[0] > generation]

    aliases.attach(full.ctx.store, read)
    grant = Grant("app", "app", rights_of(["patient/*.rs"], full.ctx.spec.types, "q"), patient="q")
    assert await status(full, grant) == 404
    merges.append((1, "Patient/p", "Patient/q"))
    await aliases.settled(full.ctx.store)
    assert await status(full, grant) == 200
    merges.append((2, "Patient/p", ""))
    await aliases.settled(full.ctx.store)
    assert await status(full, grant) == 404


async def test_what_was_compiled_is_the_very_grants_own(full: Exchange) -> None:
    grant = nurse(full)
    staff = await door(full, grant)
    everything = visible(staff.ctx, "Observation", "r")
    other = replace(staff.ctx, grant=Grant("app", "app", rights_of(["patient/*.rs"], full.ctx.spec.types, "q"), patient="q"))
    assert visible(other, "Observation", "r") != everything
    assert (await Exchange(other)("GET", "Observation/o")).status == 404


async def test_it_ends_with_what_the_packages_define(full: Exchange) -> None:
    grant = nurse(full)
    await held(full, grant)
    full.ctx.spec.memo.clear()  # what Spec.adopt does
    assert known(full.ctx, grant) is None


async def test_a_reference_to_this_server_by_its_url_is_one_to_the_patient(full: Exchange) -> None:
    own = Grant("app", "app", rights_of(["patient/*.rs"], full.ctx.spec.types, "p"), patient="p")
    app = await door(full, own)
    clause = visible(app.ctx, "Observation", "r")
    assert full.ctx.base
    absolute = {**OBSERVATION, "id": "a", "subject": {"reference": f"{full.ctx.base}/Patient/p"}}
    foreign = {**OBSERVATION, "id": "a", "subject": {"reference": "http://other.example/fhir/Patient/p"}}
    assert within(app.ctx, clause, Stored("Observation", "a", 1, full.ctx.now, absolute, "POST"))
    assert not within(app.ctx, clause, Stored("Observation", "a", 1, full.ctx.now, foreign, "POST"))
