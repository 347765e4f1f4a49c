"""`_explain=true`: what a search was understood as, for administrators: clauses, the database's filter, the index used, documents looked at."""

import json
from collections.abc import Sequence
from typing import Any

from conformance.outcome import Issue
from fhir_server.context import Context
from fhir_server.query.clauses import Clause
from fhir_server.store import Sort


async def explained(ctx: Context, scopes: Sequence[tuple[str, Clause, tuple[Sort, ...]]], limit: int) -> list[Issue]:
    """One information issue for each type and fact."""
    issues: list[Issue] = []
    for rtype, clause, sort in scopes:
        answer = await ctx.store.explain(rtype, clause, sort, limit)
        facts = {
            "clause": repr(clause),
            "filter": json.dumps(answer["filter"], default=str),
            "sort": json.dumps(answer["sort"]),
            **summary(answer["plan"]),
        }
        issues += [Issue("information", "informational", f"{rtype} {name}: {value}") for name, value in facts.items()]
    return issues


def summary(plan: dict[str, Any]) -> dict[str, str]:
    """Indexes, stages and counts of an explain answer."""
    stats = plan.get("executionStats", {})
    stages = list(_stages(plan.get("queryPlanner", {}).get("winningPlan", {})))
    return {
        "indexes": ", ".join(dict.fromkeys(name for one in stages if (name := _index(one)))) or "none",
        "stages": " < ".join(one.get("stage", "?") for one in stages),
        "examined": f"{stats.get('totalKeysExamined', 0)} keys, {stats.get('totalDocsExamined', 0)} documents for {stats.get('nReturned', 0)} rows",
    }


def _index(stage: dict[str, Any]) -> str:
    """The index that a stage reads; one id is looked up without a stage that names it."""
    return "_id_" if stage.get("stage") == "IDHACK" else str(stage.get("indexName", ""))


def _stages(plan: dict[str, Any]) -> Any:
    yield plan
    for name in ("inputStage", "outerStage", "innerStage", "queryPlan"):
        if isinstance(plan.get(name), dict):
            yield from _stages(plan[name])
    for one in plan.get("inputStages", ()):
        yield from _stages(one)
