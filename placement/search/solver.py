"""The answer to a planning question: which columns, which nodes, and a bound on any answer."""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from placement.catalogue.offering import SupplyGroup, group_offerings
from placement.errors import BadInput
from placement.estimate.roofline_model import RooflineModel, units_of
from placement.estimate.stage_table import Array, StageModel
from placement.question.objective import Constraints, Kind
from placement.question.question import Question
from placement.search.advice import why_infeasible
from placement.search.column_search import Limits, enumerate_counts
from placement.search.large_pool import open_large_pool
from placement.search.master import Goal, Purchase
from placement.search.pricing import Counts
from placement.search.pursuit import (
    Pool,
    Result,
    pursue,
    rent_of,
    throughput,
    too_little,
    values_of,
)
from placement.search.scenarios import choose, read_scenarios, score
from placement.search.small_pool import open_pool
from placement.search.supply import node_worth, nodes_needed

# Columns that the choice over scenarios works with: the closest to the best plan.
_SCENARIO_COLUMNS = 60
# Of the gap that was asked for, what spreading over pools may take; the search gets the rest.
_SPREAD_SHARE = 0.5


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


def solve(question: Question) -> Solution:
    """The best plan. Raises `Infeasible` with advice where there is none."""
    groups = group_offerings(question.offerings)
    model = build_model(question, groups)
    limits = limits_of(question.constraints)
    tolerance = question.gap / 8
    pool = open_search(model, groups, limits, tolerance) if model.units else None
    if pool is None or not _has_columns(pool):
        raise why_infeasible(question.shape, question.workload, groups, model, question.constraints)
    share = _SPREAD_SHARE if question.constraints.spread else 0.0
    result = pursue(question, pool, frozenset(), gap=question.gap * (1 - share))
    if result is None:
        raise too_little(question, pool)
    notes: list[str] = []
    if question.constraints.spread:
        result = _spread(question, groups, pool, result, notes)
    if question.scenarios_file is not None:
        result = _over_scenarios(question, groups, pool, result, notes)
    return _solution(question, groups, model, pool, result, notes)


def _spread(
    question: Question,
    groups: tuple[SupplyGroup, ...],
    pool: Pool,
    best: Result,
    notes: list[str],
) -> Result:
    """A plan of which no single spot pool holds a piece of every pipeline, where that costs little.

    It may cost what the gap leaves: so a plan with `spread` is within the gap too, and more money,
    nodes or time never make it worse by more than that.
    """
    cut = _single_points(groups, pool, best.purchase)
    if not cut:
        return best
    told = ", ".join(groups[g].instance.name for g in sorted(cut))
    share = question.gap * _SPREAD_SHARE
    for _ in range(len(groups)):
        found = pursue(question, pool, cut, gap=share)
        if found is None:
            notes.append(f"spread: every plan depends on {told}; nothing else holds the model")
            return best
        lost = abs(found.value - best.value) / best.value
        if lost > share:
            notes.append(
                f"spread: every pipeline has a piece on {told}, which one pool sells; to do "
                f"without in one of them would cost {lost:.1%}, more than {share:.1%} of the "
                "objective"
            )
            return best
        more = _single_points(groups, pool, found.purchase) - cut
        if not more:
            notes.append(f"spread: one pipeline does without {told} ({lost:.1%} of the objective)")
            return replace(found, bound=best.bound)
        cut |= more
    return best


def _over_scenarios(
    question: Question,
    groups: tuple[SupplyGroup, ...],
    pool: Pool,
    result: Result,
    notes: list[str],
) -> Result:
    """Choose again among the best columns for the mean and the worst of recorded windows."""
    if question.objective.kind is not Kind.THROUGHPUT:
        raise BadInput("plan.scenarios_file goes with the objective throughput only")
    assert question.scenarios_file is not None
    scenarios = read_scenarios(question.scenarios_file, groups)
    values, shelf = values_of(pool, result.purchase), pool.master.gpu_use[: len(result.purchase.x)]
    relaxation = pool.master.relax(pool.columns_values(), Goal())
    worth = relaxation.gpu_worth if relaxation else np.zeros(shelf.shape[1])
    loss = shelf @ worth - values
    use = shelf[:, : len(groups)]
    loss[values <= 0] = np.inf
    loss[result.purchase.x > 0] = -np.inf
    kept = np.argsort(loss, kind="stable")[:_SCENARIO_COLUMNS]
    kept = kept[values[kept] > 0]
    copies = choose(values[kept], use[kept], groups, scenarios, question.risk)
    if copies is None:
        return result
    x = np.zeros(len(values), dtype=np.int64)
    x[kept] = copies.astype(np.int64)
    before = score(values, use, groups, result.purchase.x, scenarios, tail=question.risk.tail)
    after = score(values, use, groups, x, scenarios, tail=question.risk.tail)
    notes.append(
        f"scenarios: mean {after.mean:.3g}, worst {question.risk.tail:.0%} {after.tail_mean:.3g} "
        f"requests/s (the plan for full availability: {before.mean:.3g} and {before.tail_mean:.3g})"
    )
    nodes = _nodes_for(groups, nodes_needed((x @ shelf)[None, :], pool.shelves, len(groups))[0])
    rate = float(values @ x)
    return Result(Purchase(rate, result.bound, x, nodes), rate, result.bound)


def _nodes_for(groups: tuple[SupplyGroup, ...], needed: Array) -> NDArray[np.int64]:
    """Nodes per offering that make up so many of each group, the cheapest first."""
    nodes: list[int] = []
    for group, count in zip(groups, needed, strict=True):
        wanted = math.ceil(float(count))
        for offering in group.offerings:
            nodes.append(min(wanted, offering.max_nodes))
            wanted -= nodes[-1]
    return np.array(nodes, dtype=np.int64)


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


def open_search(
    model: StageModel, groups: tuple[SupplyGroup, ...], limits: Limits, tolerance: float
) -> Pool:
    """A listed pool where the columns can be listed, else one that generates them."""
    counts = enumerate_counts(tuple(model.units), groups, limits)
    if counts is not None:
        return open_pool(model, groups, counts, tolerance=tolerance)
    return open_large_pool(model, groups, limits, tolerance=tolerance)


def _has_columns(pool: Pool) -> bool:
    return len(pool.columns_counts()) > 0


def _single_points(
    groups: tuple[SupplyGroup, ...], pool: Pool, purchase: Purchase
) -> frozenset[int]:
    """Spot groups of one pool that hold a piece of every pipeline, where there are two or more."""
    used = np.flatnonzero(purchase.x)
    if purchase.x.sum() < 2:
        return frozenset()
    use = pool.master.gpu_use[used][:, : len(groups)] > 0
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
    result: Result,
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
    worth = relaxation.gpu_worth if relaxation else np.zeros(len(pool.shelves))
    per_node = node_worth(pool.shelves, worth, len(groups))
    others = np.argsort(-(values - pool.master.gpu_use @ worth), kind="stable")
    runners = (
        [int(i) for i in others if x[i] == 0 and values[i] > 0] if len(x) == len(values) else []
    )
    return Solution(
        model=model,
        groups=groups,
        chosen=chosen,
        nodes=tuple(int(n) for n in result.purchase.nodes),
        requests_per_s=throughput(pool, result.purchase),
        usd_per_hour=rent_of(pool, result.purchase),
        value=result.value,
        bound=result.bound,
        gpu_worth=tuple(
            float(w) / g.instance.gpu_count for w, g in zip(per_node, groups, strict=True)
        ),
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
