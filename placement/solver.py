"""The answer to a planning question: which columns, which nodes, and a bound on any answer."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from placement.advice import why_infeasible
from placement.column_search import Limits, enumerate_counts
from placement.constants import Constants
from placement.errors import Infeasible
from placement.interruption import InterruptionCost
from placement.large_pool import LargePool, open_large_pool
from placement.master import FREE_RENT, Goal, Purchase
from placement.model_shape import ModelShape
from placement.objective import Constraints, Kind, Objective
from placement.offering import Offering, SupplyGroup, group_offerings
from placement.pricing import Counts
from placement.roofline_model import RooflineModel, units_of
from placement.small_pool import SmallPool, open_pool
from placement.stage_table import Array, StageModel
from placement.workload import Workload

# A certificate of 2 % is far inside the estimator's own error; closing it further buys nothing.
DEFAULT_GAP = 0.02
_MILP_TIME_S = 20.0
_MAX_RATIO_STEPS = 12
_NO_CONSTRAINTS = Constraints()
_USUAL_INTERRUPTION = InterruptionCost()


@dataclass(frozen=True, slots=True)
class Question:
    """Everything that a plan depends on."""

    shape: ModelShape
    workload: Workload
    offerings: tuple[Offering, ...]
    objective: Objective
    constants: Constants
    engine: str
    constraints: Constraints = _NO_CONSTRAINTS
    interruption: InterruptionCost = _USUAL_INTERRUPTION
    startup_s: float = 200.0
    """From launch to the first token: ShuntServe measured 194 s for a first start."""
    gap: float = DEFAULT_GAP


@dataclass(frozen=True, slots=True)
class Chosen:
    """Copies of one column: stages by unit, concurrency, and requests/s of one copy."""

    counts: tuple[int, ...]
    copies: int
    concurrency: int
    value: float


@dataclass(frozen=True, slots=True)
class Solution:
    """The best purchase found. `value` and `bound` are in the objective's own unit."""

    model: RooflineModel
    groups: tuple[SupplyGroup, ...]
    chosen: tuple[Chosen, ...]
    nodes: tuple[int, ...]
    """Per offering, in the order of groups and their offerings."""
    requests_per_s: float
    usd_per_hour: float
    value: float
    bound: float
    gpu_worth: tuple[float, ...]
    """Requests/s that one more GPU of each group would bring, from the relaxation."""
    notes: tuple[str, ...]
    runners_up: tuple[Chosen, ...]

    @property
    def gap(self) -> float:
        scale = max(abs(self.value), 1e-12)
        return abs(self.bound - self.value) / scale


Pool = SmallPool | LargePool


def solve(question: Question) -> Solution:
    """The best plan. Raises `Infeasible` with advice where there is none."""
    groups = group_offerings(question.offerings)
    model = build_model(question, groups)
    pool = open_search(model, groups, limits_of(question.constraints)) if model.units else None
    if pool is None or not _has_columns(pool):
        raise why_infeasible(question.shape, question.workload, groups, model, question.constraints)
    result = _pursue(question, pool, frozenset())
    if result is None:
        raise _too_little(question, pool)
    notes: list[str] = []
    cut = _single_points(groups, pool, result.purchase)
    if question.constraints.spread and cut:
        spread = _pursue(question, pool, cut)
        names = ", ".join(groups[g].instance.name for g in sorted(cut))
        if spread is not None:
            lost = 1.0 - _throughput(pool, spread.purchase) / _throughput(pool, result.purchase)
            notes.append(f"spread: one pipeline does without {names} ({lost:.1%} of throughput)")
            result = spread
        else:
            notes.append(f"spread: every plan depends on {names}; nothing else holds the model")
    return _solution(question, groups, model, pool, result, notes)


def build_model(question: Question, groups: tuple[SupplyGroup, ...]) -> RooflineModel:
    """The calibrated estimator of this question's stages."""
    units = units_of(groups, question.shape, allowed_tp=question.constraints.allowed_tp)
    return RooflineModel(
        question.shape,
        question.workload,
        groups,
        question.constants,
        question.constants.engine(question.engine),
        units,
        question.constraints.max_sequences,
        question.interruption,
    )


def limits_of(constraints: Constraints) -> Limits:
    return Limits(constraints.max_stages, constraints.uniform_tp, constraints.whole_nodes)


def open_search(model: StageModel, groups: tuple[SupplyGroup, ...], limits: Limits) -> Pool:
    """A listed pool where the columns can be listed, else one that generates them."""
    counts = enumerate_counts(tuple(model.units), groups, limits)
    if counts is not None:
        return open_pool(model, groups, counts)
    return open_large_pool(model, groups, limits)


@dataclass(frozen=True, slots=True)
class _Result:
    purchase: Purchase
    value: float
    bound: float


def _pursue(question: Question, pool: Pool, cut: frozenset[int]) -> _Result | None:
    """The best purchase under the question's objective, or None where none is allowed."""
    limits = question.constraints
    base = Goal(least_replicas=limits.min_replicas, most_nodes=limits.max_nodes, spread_groups=cut)

    def best(goal: Goal) -> tuple[Purchase, float] | None:
        return pool.best(goal, gap=question.gap, time_limit_s=_MILP_TIME_S)

    match question.objective.kind:
        case Kind.THROUGHPUT | Kind.BUDGET:
            goal = replace(base, budget_usd_per_hour=question.objective.usd_per_hour)
            found = best(goal)
            if found is None:
                return None
            value = _throughput(pool, found[0])
            # The objective subtracts a token rent; what it can hide is given back to the bound.
            rent = FREE_RENT * float(pool.master.prices @ pool.master.node_caps)
            return _Result(found[0], value, max(value, found[1] + rent))
        case Kind.VALUE:
            return _most_value(pool, base, best)
        case Kind.COST:
            return _least_cost(question, pool, base, best)


def _most_value(
    pool: Pool, base: Goal, best: Callable[[Goal], tuple[Purchase, float] | None]
) -> _Result | None:
    """Most requests per USD: Dinkelbach's method on throughput - ratio x price."""
    found = best(base)
    if found is None:
        return None
    purchase = found[0]
    for _ in range(_MAX_RATIO_STEPS):
        ratio = _ratio(pool, purchase)
        if math.isinf(ratio):
            break
        found = best(replace(base, rent=max(ratio, FREE_RENT)))
        if found is None or _ratio(pool, found[0]) <= ratio * (1 + 1e-9):
            break
        purchase = found[0]
    per_usd = _ratio(pool, purchase) * 3600.0
    return _Result(purchase, per_usd, max(per_usd, pool.ratio_ceiling() * 3600.0))


def _least_cost(
    question: Question,
    pool: Pool,
    base: Goal,
    best: Callable[[Goal], tuple[Purchase, float] | None],
) -> _Result | None:
    """Fewest USD to finish by the deadline.

    Cost is price x (start-up + prompts / throughput). Candidates: the cheapest fleet that is fast
    enough, the one with most requests per USD that is fast enough, then steps along the cost's
    gradient from the better of them.
    """
    assert question.objective.deadline_s is not None
    prompts = question.workload.num_prompts
    working_s = question.objective.deadline_s - question.startup_s
    if working_s <= 0:
        return None
    enough = replace(base, least_throughput=prompts / working_s)
    cheapest = best(replace(enough, throughput_weight=0.0, rent=1.0))
    if cheapest is None:
        return None

    def cost(purchase: Purchase) -> float:
        seconds = question.startup_s + prompts / _throughput(pool, purchase)
        return _price(pool, purchase) * seconds / 3600.0

    purchase = cheapest[0]
    for _ in range(_MAX_RATIO_STEPS):
        rate, price = _throughput(pool, purchase), _price(pool, purchase)
        # d(cost) = (start-up + N/T) dP - P N/T^2 dT, scaled to a weight of one on throughput.
        slope = price * prompts / rate**2
        rent = (question.startup_s + prompts / rate) / slope if slope > 0 else FREE_RENT
        found = best(replace(enough, rent=max(rent, FREE_RENT)))
        if found is None or cost(found[0]) >= cost(purchase) * (1 - 1e-9):
            break
        purchase = found[0]
    value = cost(purchase)
    per_usd_hour = pool.ratio_ceiling()
    # Fewest USD/h at the needed rate, and fewest USD per prompt, at the best ratio there is.
    least = (question.startup_s * enough.least_throughput + prompts) / per_usd_hour / 3600.0
    return _Result(purchase, value, min(value, least))


def _ratio(pool: Pool, purchase: Purchase) -> float:
    price = _price(pool, purchase)
    return _throughput(pool, purchase) / price if price > 0 else math.inf


def _price(pool: Pool, purchase: Purchase) -> float:
    return float(pool.master.prices @ purchase.nodes)


def _throughput(pool: Pool, purchase: Purchase) -> float:
    return float(_values(pool, purchase) @ purchase.x)


def _values(pool: Pool, purchase: Purchase) -> Array:
    values = pool.columns_values()
    return values[: len(purchase.x)]


def _has_columns(pool: Pool) -> bool:
    return len(pool.columns_counts()) > 0


def _single_points(
    groups: tuple[SupplyGroup, ...], pool: Pool, purchase: Purchase
) -> frozenset[int]:
    """Spot groups of one pool that hold a piece of every pipeline, where there are two or more."""
    used = np.flatnonzero(purchase.x)
    if purchase.x.sum() < 2:
        return frozenset()
    use = pool.master.gpu_use[used] > 0
    return frozenset(
        g
        for g, group in enumerate(groups)
        if use[:, g].all() and group.interruptions_per_hour > 0 and len(group.offerings) == 1
    )


def _solution(
    question: Question,
    groups: tuple[SupplyGroup, ...],
    model: RooflineModel,
    pool: Pool,
    result: _Result,
    notes: list[str],
) -> Solution:
    counts, values = pool.columns_counts(), pool.columns_values()
    concurrency = pool.columns_concurrency()
    x = result.purchase.x
    chosen = tuple(
        _chosen(counts, values, concurrency, int(i), int(x[i])) for i in np.flatnonzero(x)
    )
    goal = Goal(least_replicas=question.constraints.min_replicas)
    relaxation = pool.master.relax(values, goal)
    worth = relaxation.gpu_worth if relaxation else np.zeros(len(groups))
    others = np.argsort(-(values - pool.master.gpu_use @ worth), kind="stable")
    runners = (
        [int(i) for i in others if x[i] == 0 and values[i] > 0] if len(x) == len(values) else []
    )
    return Solution(
        model=model,
        groups=groups,
        chosen=chosen,
        nodes=tuple(int(n) for n in result.purchase.nodes),
        requests_per_s=_throughput(pool, result.purchase),
        usd_per_hour=_price(pool, result.purchase),
        value=result.value,
        bound=result.bound,
        gpu_worth=tuple(float(v) for v in worth),
        notes=tuple(notes),
        runners_up=tuple(_chosen(counts, values, concurrency, i, 0) for i in runners[:3]),
    )


def _chosen(
    counts: Counts, values: Array, concurrency: NDArray[np.int64], index: int, copies: int
) -> Chosen:
    return Chosen(
        tuple(int(n) for n in counts[index]),
        copies,
        int(concurrency[index]),
        float(values[index]),
    )


def _too_little(question: Question, pool: Pool) -> Infeasible:
    """Why no purchase meets the objective although the model fits."""
    limits = question.constraints
    most = pool.best(Goal(most_nodes=limits.max_nodes), gap=question.gap, time_limit_s=_MILP_TIME_S)
    assert most is not None  # some column exists
    rate = _throughput(pool, most[0])
    copies = int(most[0].x.sum())
    match question.objective.kind:
        case Kind.COST:
            needed = question.workload.num_prompts / max(rate, 1e-12) + question.startup_s
            wanted = question.objective.deadline_s or 0.0
            return Infeasible(
                f"deadline of {wanted / 3600:.2f} h cannot be met: the whole pool makes "
                f"{rate:.3f} requests/s",
                (
                    f"a deadline of at least {needed / 3600:.2f} h",
                    f"about {needed / max(wanted, 1.0):.1f} times the nodes",
                    "fewer prompts, shorter outputs or a smaller model",
                ),
            )
        case Kind.BUDGET:
            price = float(pool.cheapest_column_price())
            return Infeasible(
                f"no pipeline costs at most {question.objective.usd_per_hour:g} USD/h",
                (f"a budget of at least {price:.2f} USD/h",),
            )
        case _:
            return Infeasible(
                f"the pool carries {copies} pipelines, not the {limits.min_replicas} asked for",
                (f"min_replicas of at most {copies}", "more nodes, or a higher max_nodes"),
            )
