"""The search against brute force, and against answers that are known by hand."""

import itertools
from collections.abc import Callable, Iterator
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from placement.answer.plan_builder import answer
from placement.catalogue.model_config import shape_from_config
from placement.catalogue.offering import Offering, group_offerings
from placement.errors import Infeasible
from placement.estimate.roofline_model import RooflineModel
from placement.estimate.stage_time import StageRole
from placement.question.objective import Constraints, Kind, Objective
from placement.question.question import Question
from placement.search.column_search import Limits
from placement.search.large_pool import open_large_pool
from placement.search.master import Goal
from placement.search.solver import build_model, solve

Ask = Callable[..., Question]
Offer = Callable[..., Offering]

# Five layers of 6.4 GB: an L4 or A10G (24 GB) holds two of them, an L40S (48 GB) five.
HEAVY = shape_from_config(
    {
        "num_hidden_layers": 5,
        "hidden_size": 16384,
        "num_attention_heads": 128,
        "num_key_value_heads": 8,
        "intermediate_size": 53248,
        "vocab_size": 32000,
    },
    name="heavy",
)


def brute_force(question: Question) -> float:
    """Most requests/s by trying every packing of every pipeline, written without the search."""
    groups = group_offerings(question.offerings)
    model = build_model(question, groups)
    pool = tuple(group.max_gpus for group in groups)

    @cache
    def best(left: tuple[int, ...]) -> float:
        most = 0.0
        for column, use in columns:
            rest = tuple(a - b for a, b in zip(left, use, strict=True))
            if min(rest) >= 0:
                most = max(most, values[column] + best(rest))
        return most

    columns: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    values: dict[tuple[int, ...], float] = {}
    limit = question.constraints.max_stages
    for counts in itertools.product(range(limit + 1), repeat=len(model.units)):
        if not 0 < sum(counts) <= limit:
            continue
        use = [0] * len(groups)
        for n, unit in zip(counts, model.units, strict=True):
            use[unit.group] += n * unit.tp
        if all(u <= p for u, p in zip(use, pool, strict=True)):
            value = _column_by_force(model, counts)
            if value > 0:
                columns.append((counts, tuple(use)))
                values[counts] = value
    return best(pool)


def _column_by_force(model: RooflineModel, counts: tuple[int, ...]) -> float:
    units = [u for u, n in enumerate(counts) for _ in range(n)]
    best = 0.0
    for order in set(itertools.permutations(units)):
        for layers in _splits(model.num_layers, len(units)):
            for concurrency in range(len(units), model.max_concurrency + 1):
                best = max(best, _pipeline(model, order, layers, concurrency))
    return best


def _splits(layers: int, parts: int) -> Iterator[tuple[int, ...]]:
    for cut in itertools.combinations(range(1, layers), parts - 1):
        edges = (0, *cut, layers)
        yield tuple(b - a for a, b in itertools.pairwise(edges))


def _pipeline(
    model: RooflineModel, order: tuple[int, ...], layers: tuple[int, ...], concurrency: int
) -> float:
    slowest = 0.0
    for i, (unit, count) in enumerate(zip(order, layers, strict=True)):
        first, last = i == 0, i == len(order) - 1
        caps = model.table(len(order), concurrency, concurrency).caps
        cap = caps.only if first and last else caps.first if first else caps.last if last else None
        if count > (caps.middle if cap is None else cap)[unit]:
            return 0.0
        role = StageRole(count, model.units[unit].tp, first=first, last=last)
        time = model.seconds_per_request(unit, role, num_stages=len(order), concurrency=concurrency)
        slowest = max(slowest, time.total)
    return 1.0 / slowest


POOLS = st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 2)).filter(any)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pool=POOLS, output=st.sampled_from([16, 200]), max_stages=st.sampled_from([2, 4]))
def test_the_search_finds_what_brute_force_finds(
    pool: tuple[int, int, int], output: int, max_stages: int, ask: Ask, offer: Offer
) -> None:
    """On every small pool: value equal to brute force, bound not below it, gap small."""
    names = ("g6.xlarge", "g5.12xlarge", "g6e.xlarge")
    offers = [offer(name, n) for name, n in zip(names, pool, strict=True) if n]
    question = ask(
        offers,
        output=output,
        constraints=Constraints(max_stages=max_stages, max_sequences=6),
        gap=1e-6,
    )
    question = _with_heavy(question)
    expected = brute_force(question)
    if expected == 0:
        with pytest.raises(Infeasible):
            solve(question)
        return
    found = solve(question)
    assert found.requests_per_s == pytest.approx(expected, rel=1e-5)
    assert found.bound >= expected * (1 - 1e-6)


def _with_heavy(question: Question) -> Question:
    return Question(
        shape=HEAVY,
        workload=question.workload,
        offerings=question.offerings,
        objective=question.objective,
        constants=question.constants,
        engine=question.engine,
        constraints=question.constraints,
        gap=question.gap,
    )


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    pool=st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 4)).filter(any),
    model=st.sampled_from(["Qwen3-8B", "Qwen3-32B", "Qwen3-30B-A3B"]),
)
def test_a_plan_keeps_every_limit(
    pool: tuple[int, int, int], model: str, ask: Ask, offer: Offer
) -> None:
    """Memory, pool, contiguous layers (the Plan itself checks seats), and the bound."""
    names = ("g5.xlarge", "g6.12xlarge", "g6e.xlarge")
    offers = [offer(name, n) for name, n in zip(names, pool, strict=True) if n]
    try:
        found = answer(ask(offers, model=model, gap=0.02))
    except Infeasible:
        return
    for offering in offers:
        bought = sum(n.instance_type == offering.instance.name for n in found.plan.nodes)
        assert bought <= offering.max_nodes
    share = found.solution.model.engine.kv_memory_share
    for pipeline in found.pipelines:
        assert all(stage.memory_share <= share + 1e-9 for stage in pipeline.stages)
    assert found.plan.certificate.bound >= found.plan.certificate.value * (1 - 1e-9)
    assert sum(p.goodput_per_s for p in found.pipelines) == pytest.approx(
        found.solution.requests_per_s, rel=1e-4
    )


def test_equal_nodes_become_equal_replicas(ask: Ask, offer: Offer) -> None:
    """Qwen3-8B (16 GB) fits an L40S with room for cache, hops only cost: four nodes, four
    single-stage pipelines of all 36 layers."""
    found = answer(ask([offer("g6e.xlarge", 4)]))
    assert [len(p.stages) for p in found.plan.pipelines] == [1, 1, 1, 1]
    assert found.plan.certificate.gap < 0.02


def test_a_model_that_needs_two_nodes_gets_two(ask: Ask, offer: Offer) -> None:
    """Qwen3-32B has 65.5 GB of weights, an L40S 48 GB: two nodes, one pipeline, about half each."""
    found = answer(ask([offer("g6e.xlarge", 2)], model="Qwen3-32B"))
    (pipeline,) = found.plan.pipelines
    assert sorted(s.num_layers for s in pipeline.stages) == [32, 32]


def test_the_cheaper_of_two_equal_pools_is_bought(ask: Ask, offer: Offer) -> None:
    """Fewest dollars, and one node is fast enough: it comes from the pool that costs less."""
    dear = offer("g6e.xlarge", 3, 2.0, market="spot", zone="a", rate=0.0)
    cheap = offer("g6e.xlarge", 3, 1.0, market="spot", zone="b", rate=0.0)
    objective = Objective(Kind.COST, deadline_s=24 * 3600.0)
    found = answer(ask([dear, cheap], objective=objective, num_prompts=1000))
    assert [n.zone for n in found.plan.nodes] == ["b"]


def test_a_budget_is_never_exceeded(ask: Ask, offer: Offer) -> None:
    """Nodes of 1.861 USD/h and 6 USD/h to spend: three of them."""
    offers = [offer("g6e.xlarge", 8)]
    found = answer(ask(offers, objective=Objective(Kind.BUDGET, usd_per_hour=6.0)))
    assert len(found.plan.nodes) == 3
    with pytest.raises(Infeasible, match="at most 1 USD/h") as raised:
        solve(ask(offers, objective=Objective(Kind.BUDGET, usd_per_hour=1.0)))
    assert "1.86" in raised.value.advice[0]


def test_the_deadline_decides_how_many_nodes(ask: Ask, offer: Offer) -> None:
    """With the throughput r of one node, N = 10 r h prompts need 3 nodes for 4 hours of work."""
    offers = [offer("g6e.xlarge", 8)]
    single = solve(ask([offer("g6e.xlarge", 1)])).requests_per_s
    prompts = int(10 * 3600 * single)
    deadline = Objective(Kind.COST, deadline_s=4 * 3600 + 200.0, confidence=0.5)
    found = answer(ask(offers, objective=deadline, num_prompts=prompts))
    assert len(found.plan.nodes) == 3
    with pytest.raises(Infeasible, match="deadline") as raised:
        solve(ask(offers, objective=Objective(Kind.COST, deadline_s=3600.0), num_prompts=prompts))
    assert "deadline of at least" in raised.value.advice[0]


def test_most_prompts_per_dollar_takes_the_best_ratio(ask: Ask, offer: Offer) -> None:
    """The same node at 1 and at 5 USD/h: only the former is bought."""
    offers = [
        offer("g6e.xlarge", 2, 5.0, zone="a"),
        offer("g6e.xlarge", 2, 1.0, zone="b"),
    ]
    found = solve(ask(offers, objective=Objective(Kind.VALUE)))
    assert found.nodes[1] == 0
    assert found.nodes[0] > 0
    assert found.value == pytest.approx(found.requests_per_s / found.usd_per_hour * 3600)
    assert found.gap < 0.05


def test_stock_vllm_gets_one_tp_per_pipeline(ask: Ask, offer: Offer) -> None:
    offers = [offer("g6.12xlarge", 1), offer("g6e.xlarge", 3)]
    limits = Constraints(max_stages=6, uniform_tp=True, max_sequences=256)
    found = answer(ask(offers, model="Qwen3-32B", constraints=limits, gap=0.01))
    assert all(p.uniform_tp for p in found.plan.pipelines)


def test_a_model_that_fits_nowhere_says_what_would_help(ask: Ask, offer: Offer) -> None:
    with pytest.raises(Infeasible, match="fits nowhere") as raised:
        solve(ask([offer("g5.xlarge", 2)], model="Llama-3.1-70B-Instruct"))
    advice = " ".join(raised.value.advice)
    assert "nodes of g5.xlarge" in advice
    assert "int4 weights" in advice


def test_no_spot_pool_holds_a_piece_of_every_pipeline(ask: Ask, offer: Offer) -> None:
    """Two kinds of spot node, each able to hold the model: with `spread`, no kind is in all."""
    offers = [
        offer("g6e.xlarge", 3, 0.9, market="spot"),
        offer("g5.12xlarge", 1, 2.4, market="spot"),
    ]
    found = answer(ask(offers, model="Qwen3-8B", gap=0.01))
    for kind in ("g6e.xlarge", "g5.12xlarge"):
        assert not all(
            any(stage.slot.startswith(kind) for stage in pipeline.stages)
            for pipeline in found.plan.pipelines
        )


def test_interruptions_lower_the_goodput(ask: Ask, offer: Offer) -> None:
    calm = solve(ask([offer("g6e.xlarge", 1, 1.0, market="spot", rate=0.0)]))
    stormy = solve(ask([offer("g6e.xlarge", 1, 1.0, market="spot", rate=10.0)]))
    assert stormy.requests_per_s < 0.95 * calm.requests_per_s


def test_the_same_question_has_the_same_answer(ask: Ask, offer: Offer) -> None:
    question = ask([offer("g6.12xlarge", 1), offer("g6e.xlarge", 2)], model="Qwen3-32B")
    assert answer(question).plan == answer(question).plan


def test_generated_columns_come_close_to_listed_ones(ask: Ask, offer: Offer) -> None:
    """The large-pool search, on a pool that can also be listed: within 3 %, under its own bound."""
    question = ask([offer("g6.12xlarge", 3), offer("g6e.xlarge", 6)], model="Qwen3-32B", gap=0.01)
    listed = solve(question)
    groups = group_offerings(question.offerings)
    model = build_model(question, groups)
    pool = open_large_pool(model, groups, Limits(4, False, False))
    found = pool.best(Goal(), gap=0.01, time_limit_s=10)
    assert found is not None
    purchase, bound = found
    value = float(pool.columns_values() @ purchase.x)
    assert value >= 0.97 * listed.requests_per_s
    assert bound >= listed.requests_per_s * (1 - 1e-9)
