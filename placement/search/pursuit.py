"""Pursuing one objective: a few solves of the master, and the bound that belongs to them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from placement.errors import Infeasible
from placement.estimate.stage_table import Array
from placement.question.objective import Kind
from placement.question.question import Question
from placement.search.large_pool import LargePool
from placement.search.master import FREE_RENT, Goal, Purchase
from placement.search.small_pool import SmallPool

_MILP_TIME_S = 20.0
_MAX_RATIO_STEPS = 12

Pool = SmallPool | LargePool


@dataclass(frozen=True, slots=True)
class Result:
    purchase: Purchase
    value: float
    bound: float


def pursue(question: Question, pool: Pool, cut: frozenset[int]) -> Result | None:
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
            value = throughput(pool, found[0])
            # The objective subtracts a token rent; what it can hide is given back to the bound.
            rent = FREE_RENT * float(pool.master.prices @ pool.master.node_caps)
            return Result(found[0], value, max(value, found[1] + rent))
        case Kind.VALUE:
            return _most_value(pool, base, best)
        case Kind.COST:
            return _least_cost(question, pool, base, best)


def _most_value(
    pool: Pool, base: Goal, best: Callable[[Goal], tuple[Purchase, float] | None]
) -> Result | None:
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
    return Result(purchase, per_usd, max(per_usd, pool.ratio_ceiling() * 3600.0))


def _least_cost(
    question: Question,
    pool: Pool,
    base: Goal,
    best: Callable[[Goal], tuple[Purchase, float] | None],
) -> Result | None:
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
        seconds = question.startup_s + prompts / throughput(pool, purchase)
        return rent_of(pool, purchase) * seconds / 3600.0

    purchase = cheapest[0]
    for _ in range(_MAX_RATIO_STEPS):
        rate, price = throughput(pool, purchase), rent_of(pool, purchase)
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
    return Result(purchase, value, min(value, least))


def _ratio(pool: Pool, purchase: Purchase) -> float:
    price = rent_of(pool, purchase)
    return throughput(pool, purchase) / price if price > 0 else math.inf


def rent_of(pool: Pool, purchase: Purchase) -> float:
    return float(pool.master.prices @ purchase.nodes)


def throughput(pool: Pool, purchase: Purchase) -> float:
    return float(values_of(pool, purchase) @ purchase.x)


def values_of(pool: Pool, purchase: Purchase) -> Array:
    values = pool.columns_values()
    return values[: len(purchase.x)]


def too_little(question: Question, pool: Pool) -> Infeasible:
    """Why no purchase meets the objective although the model fits."""
    limits = question.constraints
    most = pool.best(Goal(most_nodes=limits.max_nodes), gap=question.gap, time_limit_s=_MILP_TIME_S)
    assert most is not None  # some column exists
    rate = throughput(pool, most[0])
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
