"""Page cursors: what was sealed comes back, nothing else is accepted."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import pytest

from conformance.outcome import Refusal
from fhir_server.context import Context, Grant
from fhir_server.search.cursor import seal, unseal
from fhir_server.settings import Settings


def context(subject: str = "anna", tenant: str = "default", secret: str = "s") -> Context:
    nothing = cast(Any, None)
    return Context(
        request_id="1",
        grant=Grant(subject, "app", ()),
        store=nothing,
        spec=nothing,
        terms=nothing,
        settings=Settings(secret=secret),
        base="http://x/fhir",
        source="app",
        now=datetime.now(UTC),
        tenant=tenant,
    )


POSITION = (datetime(2020, 1, 2, 3, 4, 5, 678000, UTC), Decimal("1.00"), None, "é~1", 7, True)


@pytest.mark.parametrize("secret", ["s", ""])
def test_a_sealed_position_comes_back_with_its_types(secret: str) -> None:
    ctx = context(secret=secret)
    assert unseal(ctx, "Patient?name=x", seal(ctx, "Patient?name=x", POSITION)) == POSITION


@pytest.mark.parametrize(
    ("ctx", "query"),
    [
        (context(), "Patient?name=y"),
        (context(subject="bob"), "Patient?name=x"),
        (context(tenant="other"), "Patient?name=x"),
        (context(secret="t"), "Patient?name=x"),
    ],
)
def test_a_cursor_is_bound_to_query_caller_tenant_and_secret(ctx: Context, query: str) -> None:
    cursor = seal(context(), "Patient?name=x", POSITION)
    with pytest.raises(Refusal) as refused:
        unseal(ctx, query, cursor)
    assert refused.value.status == 400


@pytest.mark.parametrize("cursor", ["", "a", "****", "AAAA", "é", "A" * 500, "-_-_"])
def test_a_cursor_that_we_did_not_make_is_refused(cursor: str) -> None:
    with pytest.raises(Refusal) as refused:
        unseal(context(), "Patient", cursor)
    assert refused.value.status == 400


def test_every_changed_character_is_noticed() -> None:
    ctx = context()
    cursor = seal(ctx, "Patient", ("a", 1))
    for place in range(len(cursor) - 1):  # the last character may carry unused bits
        changed = cursor[:place] + ("A" if cursor[place] != "A" else "B") + cursor[place + 1 :]
        with pytest.raises(Refusal):
            unseal(ctx, "Patient", changed)


def test_a_cursor_refuses_types_it_cannot_restore() -> None:
    with pytest.raises(TypeError):
        seal(context(), "Patient", (replace,))
