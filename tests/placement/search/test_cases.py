"""Questions that were answered wrongly once: `tests/placement/cases`."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from placement.answer.plan_builder import answer
from placement.catalogue.offering import Offering
from placement.question.objective import Constraints, Kind, Objective
from placement.question.planning_input import PlanningInput, make_question
from placement.question.question import Question
from placement.search.solver import solve

CASES = Path(__file__).parents[1] / "cases"
Ask = Callable[..., Question]
Offer = Callable[..., Offering]


def question(name: str) -> Question:
    raw = yaml.safe_load((CASES / f"{name}.yaml").read_text(encoding="utf-8"))
    plan = PlanningInput.model_validate(raw["plan"])
    return make_question(plan, raw["model"]["path"], folder=CASES)


def test_the_cheapest_plan_is_not_dearer_than_the_fastest_of_any_budget() -> None:
    """Cost looks at every throughput: 2.05 USD was planned where 1.57 USD were possible."""
    asked = question("cost32")
    found = solve(asked)
    assert found.value <= 1.571 * (1 + asked.gap)
    assert found.gap <= asked.gap
    for budget in (4.0, 9.0):
        objective = Objective(Kind.BUDGET, usd_per_hour=budget)
        other = solve(replace(asked, objective=objective))
        seconds = asked.startup_s + asked.workload.num_prompts / other.requests_per_s
        assert found.value <= other.usd_per_hour * seconds / 3600.0 * (1 + asked.gap)


@pytest.mark.soak
def test_a_model_that_only_a_mix_of_nodes_holds_is_planned() -> None:
    """405B on one node of each of five types: every pipeline is mixed."""
    found = solve(question("nat405"))
    assert found.requests_per_s >= 0.652
    assert found.gap <= 0.05


def test_more_budget_is_never_worse() -> None:
    """With `spread`: what it may cost stays within the gap."""
    rates = [solve(question(name)).requests_per_s for name in ("s9", "s10")]
    assert rates[1] >= rates[0] * (1 - 1e-9)


@pytest.mark.soak
def test_json_is_all_that_is_printed() -> None:
    """The solver writes lines of its own with printf for this question."""
    asked = subprocess.run(
        [sys.executable, "-m", "flows", "plan", str(CASES / "cost1.yaml"), "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert json.loads(asked.stdout)["model"] == "Llama-3.1-70B-Instruct"


@pytest.mark.parametrize("generated", [False, True])
def test_whole_nodes_are_not_shared(
    generated: bool, ask: Ask, offer: Offer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the route of large pools too: each node serves one pipeline, with all its GPUs."""
    if generated:
        monkeypatch.setattr("placement.search.column_search.MAX_ENUMERATED", 0)
    limits = Constraints(max_stages=4, whole_nodes=True, max_sequences=64)
    found = answer(ask([offer("g6.12xlarge", 2), offer("g5.12xlarge", 1)], constraints=limits))
    of_node: dict[str, set[str]] = {}
    for pipeline in found.plan.pipelines:
        for stage in pipeline.stages:
            of_node.setdefault(stage.slot, set()).add(pipeline.name)
    assert all(len(pipelines) == 1 for pipelines in of_node.values())
