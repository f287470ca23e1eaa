"""Random small pools under every objective, against the enumeration of all their plans."""

import random
from dataclasses import replace

import pytest

from placement.answer.plan_builder import build
from placement.catalogue.constants import load_constants
from placement.catalogue.hardware import InstanceType, load_catalogue
from placement.catalogue.model_config import shape_from_config
from placement.catalogue.offering import Market, Offering
from placement.errors import Infeasible
from placement.question.objective import Constraints, Kind, Objective
from placement.question.question import Question
from placement.question.workload import LengthPair, workload_of
from placement.search.solver import solve
from tests.placement.search.enumeration import Enumeration

ENGINES = ("vllm", "vllm-2024", "vllm-2024-rocm", "vllm-0.8-v0", "trtllm-1.0")


def model(layers: int, kv_heads: int):
    """Layers of some 6 GB: a card of 24 GB holds two or three, one of 48 GB six."""
    return shape_from_config(
        {
            "num_hidden_layers": layers,
            "hidden_size": 16384,
            "num_attention_heads": 128,
            "num_key_value_heads": kv_heads,
            "intermediate_size": 53248,
            "vocab_size": 32000,
        },
        name="heavy",
    )


def node(gpu: str, gpu_count: int) -> InstanceType:
    """A node of the catalogue's card with any number of them."""
    like = {"L4": "g6.xlarge", "A10G": "g5.xlarge", "L40S": "g6e.xlarge"}[gpu]
    return replace(load_catalogue().instance(like), name=f"{gpu}-x{gpu_count}", gpu_count=gpu_count)


def question(seed: int) -> Question:
    """A random question that can be enumerated: up to ten GPUs in up to three offerings."""
    rng = random.Random(seed)
    offerings: list[Offering] = []
    gpus = 0
    for _ in range(rng.randint(1, 3)):
        count = rng.choice((1, 1, 2, 3, 4, 6))
        most = max(1, min(3, (10 - gpus) // count))
        if gpus + count > 10:
            continue
        nodes = rng.randint(1, most)
        gpus += nodes * count
        card = rng.choice(("L4", "A10G", "L40S"))
        spot = rng.random() < 0.5
        offerings.append(
            Offering(
                node(card, count),
                Market.SPOT if spot else Market.ON_DEMAND,
                rng.choice("ab"),
                round(count * rng.uniform(0.3, 2.0), 3),
                nodes,
                rng.choice((0.05, 1.0)) if spot else 0.0,
            )
        )
    limits = Constraints(
        max_stages=rng.choice((1, 2, 3)),
        uniform_tp=rng.random() < 0.2,
        whole_nodes=rng.random() < 0.25,
        min_replicas=rng.choice((1, 1, 1, 2)),
        max_nodes=rng.choice((None, None, 2, 3)),
        max_sequences=rng.choice((4, 9, 14)),
        allowed_tp=rng.choice((None, None, None, (1, 2), (2, 4))),
        spread=rng.random() < 0.3,
    )
    asked = Question(
        shape=model(rng.choice((3, 5)), rng.choice((8, 128))),
        workload=workload_of(
            [LengthPair(rng.choice((100, 763)), rng.choice((16, 232)))],
            num_prompts=rng.choice((100, 5000)),
            max_context=2048,
        ),
        offerings=tuple(offerings),
        objective=Objective(Kind.THROUGHPUT),
        constants=load_constants(),
        engine=rng.choice(ENGINES),
        constraints=limits,
        gap=rng.choice((0.005, 0.02)),
        startup_s=rng.choice((0.0, 200.0, 2000.0)),
    )
    return replace(asked, objective=objective(rng, asked))


def objective(rng: random.Random, asked: Question) -> Objective:
    """One of the four kinds, with a budget or deadline that binds more often than not."""
    kind = rng.choice(list(Kind))
    if kind is Kind.BUDGET:
        rent = sum(o.usd_per_hour * o.max_nodes for o in asked.offerings)
        return Objective(kind, usd_per_hour=rent * rng.uniform(0.2, 1.1))
    if kind is Kind.COST:
        rates = Enumeration(asked).purchases().values()
        seconds = asked.startup_s + asked.workload.num_prompts / max(rates, default=1.0)
        return Objective(kind, deadline_s=seconds * rng.choice((0.9, 1.05, 1.5, 3.0, 20.0)))
    return Objective(kind)


def check(asked: Question) -> None:
    """Value within the gap that was asked for, bound on the right side, every constraint kept."""
    expected = Enumeration(asked).best()
    if expected is None:
        with pytest.raises(Infeasible):
            solve(asked)
        return
    found = solve(asked)
    if asked.objective.kind is Kind.COST:
        assert expected * (1 - 1e-6) <= found.value <= expected * (1 + asked.gap)
        assert found.bound <= expected * (1 + 1e-6)
    else:
        assert expected * (1 + 1e-6) >= found.value >= expected * (1 - asked.gap)
        assert found.bound >= expected * (1 - 1e-6)
    assert found.gap <= asked.gap * 1.05 + 1e-6
    keeps_constraints(asked, build(asked, found).plan)


def keeps_constraints(asked: Question, plan) -> None:
    limits = asked.constraints
    assert len(plan.pipelines) >= limits.min_replicas
    assert len(plan.nodes) <= (limits.max_nodes or 1 << 30)
    for offering in asked.offerings:
        mine = [
            n
            for n in plan.nodes
            if (n.instance_type, n.zone, n.market)
            == (offering.instance.name, offering.zone, offering.market.value)
        ]
        alike = [
            o
            for o in asked.offerings
            if (o.instance.name, o.zone, o.market)
            == (offering.instance.name, offering.zone, offering.market)
        ]
        assert len(mine) <= sum(o.max_nodes for o in alike)
    if asked.objective.kind is Kind.BUDGET:
        assert (
            sum(n.usd_per_hour for n in plan.nodes) <= (asked.objective.usd_per_hour or 0.0) + 1e-9
        )
    of_node: dict[str, set[str]] = {}
    for pipeline in plan.pipelines:
        assert len(pipeline.stages) <= limits.max_stages
        assert pipeline.uniform_tp or not limits.uniform_tp
        for stage in pipeline.stages:
            assert limits.allowed_tp is None or stage.tp in limits.allowed_tp
            of_node.setdefault(stage.slot, set()).add(pipeline.name)
    if limits.whole_nodes:
        assert all(len(pipelines) == 1 for pipelines in of_node.values())
        taken = sum(stage.tp for pipeline in plan.pipelines for stage in pipeline.stages)
        assert taken == sum(n.gpu_count for n in plan.nodes)


@pytest.mark.parametrize("seed", range(20))
def test_the_plan_is_within_the_gap_of_the_best_of_all_plans(seed: int) -> None:
    check(question(seed))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20, 220))
def test_200_more_pools(seed: int) -> None:
    check(question(seed))


def check_generated(asked: Question, monkeypatch: pytest.MonkeyPatch) -> float | None:
    """The route of large pools on a small one: bound and constraints; what it leaves over."""
    monkeypatch.setattr("placement.search.column_search.MAX_ENUMERATED", 0)
    expected = Enumeration(asked).best()
    if expected is None:
        with pytest.raises(Infeasible):
            solve(asked)
        return None
    found = solve(asked)
    sign = -1.0 if asked.objective.kind is Kind.COST else 1.0
    assert sign * (found.bound - expected) >= -1e-6 * expected
    assert sign * (found.value - expected) <= 1e-6 * expected
    keeps_constraints(asked, build(asked, found).plan)
    return sign * (expected - found.value) / expected


@pytest.mark.parametrize("seed", range(8))
def test_generated_columns_keep_bound_and_constraints(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_generated(question(seed), monkeypatch)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20, 220))
def test_200_more_pools_by_generated_columns(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    check_generated(question(seed), monkeypatch)
