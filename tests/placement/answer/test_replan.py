"""A changed market: what goes on, what is replaced, and when it does not pay."""

from collections.abc import Callable

import pytest

from placement.answer.plan_builder import answer
from placement.answer.replan import replan_answer
from placement.catalogue.offering import Offering
from placement.errors import Infeasible
from placement.question.question import Question

Ask = Callable[..., Question]
Offer = Callable[..., Offering]


def test_nothing_lost_is_the_same_plan(ask: Ask, offer: Offer) -> None:
    question = ask([offer("g6e.xlarge", 2), offer("g6.12xlarge", 1)], model="Qwen3-32B")
    first = answer(question).plan
    again = replan_answer(question, first, horizon_s=3600.0).plan
    assert again.version == first.version
    assert again.nodes == first.nodes
    assert {p.stages for p in again.pipelines} == {p.stages for p in first.pipelines}
    assert "still the best" in again.notes[-1]


def test_a_lost_node_leaves_the_other_pipelines(ask: Ask, offer: Offer) -> None:
    """Three single-node pipelines, one node gone: the other two go on as they are."""
    first = answer(ask([offer("g6e.xlarge", 3)])).plan
    second = replan_answer(ask([offer("g6e.xlarge", 2)]), first, horizon_s=3600.0).plan
    assert len(second.pipelines) == 2
    assert second.version == 2


def test_a_small_gain_does_not_pay_for_the_switch(ask: Ask, offer: Offer) -> None:
    """One further node while a two-node pipeline runs: minutes of horizon refuse, a day accepts."""
    first = answer(ask([offer("g6e.xlarge", 2)], model="Qwen3-32B")).plan
    richer = ask([offer("g6e.xlarge", 3)], model="Qwen3-32B")
    soon = replan_answer(richer, first, horizon_s=240.0).plan
    late = replan_answer(richer, first, horizon_s=86400.0).plan
    assert "refused" in soon.notes[-1]
    assert len(soon.nodes) == 2
    assert "accepted" in late.notes[-1]
    assert late.predicted.requests_per_s.p50 > soon.predicted.requests_per_s.p50


def test_all_gone_is_infeasible_or_new(ask: Ask, offer: Offer) -> None:
    first = answer(ask([offer("g6e.xlarge", 2)], model="Qwen3-32B")).plan
    fresh = replan_answer(ask([offer("g6.12xlarge", 2)], model="Qwen3-32B"), first, horizon_s=60.0)
    assert "nothing of the old plan" in fresh.plan.notes[-1]
    with pytest.raises(Infeasible):
        replan_answer(ask([offer("g6.xlarge", 1)], model="Qwen3-32B"), first, horizon_s=60.0)
