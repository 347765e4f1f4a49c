"""The YAML cases, through MongoDB."""

from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from conformance.outcome import Refusal
from tests.search.world import ask, context, fill, found

CASES = Path(__file__).parent / "cases"


class Exact(yaml.SafeLoader):
    """Floats as decimals."""


Exact.add_constructor("tag:yaml.org,2002:float", lambda loader, node: Decimal(node.value))


@pytest.mark.parametrize("name", sorted(path.stem for path in CASES.glob("*.yaml")))
async def test_cases(store, name):
    world = yaml.load((CASES / f"{name}.yaml").read_text("utf-8"), Loader=Exact)
    await fill(store, world["resources"])
    ctx = context(store)
    wrong = []
    for case in world["cases"]:
        try:
            bundle = await ask(ctx, case["query"].replace("+", "%2B"))
        except Refusal as refusal:
            if case.get("refused", "\0") not in str(refusal) or refusal.status != 400:
                wrong.append(f"{case['query']}: {refusal}")
            continue
        got = [one.split("/")[1] for one in found(bundle)]
        if "includes" in case and sorted(found(bundle, "include")) != case["includes"]:
            wrong.append(f"{case['query']}: includes {found(bundle, 'include')}")
        expected = case.get("ids")
        if (sorted(got) != sorted(expected)) if case.get("any") and expected is not None else got != expected:
            wrong.append(f"{case['query']}: {got} instead of {expected}")
    assert not wrong, "\n".join(wrong)
