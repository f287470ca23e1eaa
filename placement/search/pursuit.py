"""Pursuing one objective: a few solves of the master, and the bound that belongs to them."""

import heapq
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
# Spans of throughput that the cheapest plan is looked for in, by kind of pool: each is a solve.
_MOST_SPANS = 48
_MOST_SPANS_LARGE = 6

Pool = SmallPool | LargePool
_Solve = Callable[[Goal], tuple[Purchase, float] | None]


@dataclass(frozen=True, slots=True)
class Result:
    """The purchase, and value and bound in the objective's own unit."""

    purchase: Purchase
    value: float
    bound: float
    others: tuple[Purchase, ...] = ()
    """Purchases that were met on the way and are allowed too."""


def pursue(
    question: Question,
    pool: Pool,
    cut: frozenset[int],
    *,
    gap: float,
    most_pipelines: int | None = None,
) -> Result | None:
    """The best purchase under the question's objective, or None where none is allowed.

    `cut`: groups that some pipeline must do without.
    """
    limits = question.constraints
    base = Goal(
        least_replicas=limits.min_replicas,
        most_replicas=most_pipelines,
        most_nodes=limits.max_nodes,
        spread_groups=cut,
    )

    def best(goal: Goal) -> tuple[Purchase, float] | None:
        return pool.best(goal, gap=gap, time_limit_s=_MILP_TIME_S)

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
            return _most_value(pool, base, best, gap)
        case Kind.COST:
            return _least_cost(question, pool, base, best, gap)


def _most_value(pool: Pool, base: Goal, best: _Solve, gap: float) -> Result | None:
    """Most requests per USD: Dinkelbach's method on throughput - ratio x price."""
    found = best(base)
    if found is None:
        return None
    purchase, others = found[0], [found[0]]
    for _ in range(_MAX_RATIO_STEPS):
        ratio = _ratio(pool, purchase)
        if math.isinf(ratio):
            break
        found = best(replace(base, rent=max(ratio, FREE_RENT)))
        if found is None or _ratio(pool, found[0]) <= ratio * (1 + 1e-9):
            break
        purchase = found[0]
        others.append(purchase)
    ratio = _ratio(pool, purchase)
    bound = _ratio_bound(pool, base, best, ratio, gap)
    return Result(purchase, ratio * 3600.0, max(ratio, bound) * 3600.0, tuple(others))


def _ratio_bound(pool: Pool, base: Goal, best: _Solve, ratio: float, gap: float) -> float:
    """No allowed purchase makes more requests/s per USD/h, where `ratio` is reached.

    At a rent r the most of throughput - r x price is b. A purchase of ratio q and price P has
    (q - r) P <= b, so that q <= r + b / P: no more than r itself where b is not above zero.
    """
    if math.isinf(ratio):
        return ratio
    fractions = pool.ratio_ceiling()
    if fractions <= ratio * (1 + gap / 4):
        return fractions
    least = max(pool.cheapest_column_price(), 1e-12)
    bounds = [fractions]
    for share in (0.25, 0.6, 1.0):
        rent = ratio * (1 + share * gap)
        found = best(replace(base, rent=rent))
        if found is None:
            break
        bounds.append(rent + max(0.0, found[1]) / least)
        if found[1] <= 0:
            break
    return min(bounds)


def _least_cost(
    question: Question, pool: Pool, base: Goal, best: _Solve, gap: float
) -> Result | None:
    """Fewest USD to finish by the deadline.

    Cost is price x (start-up + prompts / throughput). It falls along some fleets and rises along
    others, so that no single price of throughput leads to the best one; `_Spans` looks everywhere.
    """
    assert question.objective.deadline_s is not None
    working_s = question.objective.deadline_s - question.startup_s
    if working_s <= 0:
        return None
    prompts = question.workload.num_prompts
    enough = replace(base, least_throughput=prompts / working_s)
    cheapest = best(replace(enough, throughput_weight=0.0, rent=1.0))
    if cheapest is None:
        return None
    most = best(replace(base, rent=FREE_RENT))
    fastest = enough.least_throughput if most is None else most[1]
    ratio = _most_value(pool, enough, best, gap)
    spans = _Spans(pool, question.startup_s, float(prompts), best, enough)
    spans.offer(cheapest[0])
    if ratio is not None:
        spans.offer(ratio.purchase)
        spans.best_ratio = ratio.bound / 3600.0
    return spans.search(fastest * (1 + 1e-6), -cheapest[1], gap)


@dataclass
class _Spans:
    """Spans of throughput, each with a bound on the cost of every purchase in it.

    In a span from a to b a purchase costs at least p (S + N / b), where p is the least rent of a
    throughput of a, and at least p S + N / q, where q is the best ratio of all. The span with the
    lowest bound is halved until none can be cheaper than the best purchase by more than the gap.
    """

    pool: Pool
    startup_s: float
    prompts: float
    best: _Solve
    enough: Goal
    best_ratio: float = math.inf
    purchase: Purchase | None = None
    others: tuple[Purchase, ...] = ()

    def cost(self, purchase: Purchase) -> float:
        """USD of the steady run."""
        seconds = self.startup_s + self.prompts / throughput(self.pool, purchase)
        return rent_of(self.pool, purchase) * seconds / 3600.0

    def offer(self, purchase: Purchase) -> None:
        """Keep the cheaper purchase."""
        self.others = (*self.others, purchase)
        if self.purchase is None or self.cost(purchase) < self.cost(self.purchase):
            self.purchase = purchase

    def search(self, fastest: float, least_rent: float, gap: float) -> Result:
        """The cheapest purchase from the throughput needed up to the fastest there is."""
        spans = [self._span(self.enough.least_throughput, fastest, least_rent)]
        large = isinstance(self.pool, LargePool)
        for _ in range(_MOST_SPANS_LARGE if large else _MOST_SPANS):
            assert self.purchase is not None
            bound, low, high, rent = spans[0]
            if bound >= self.cost(self.purchase) * (1 - gap):
                break
            heapq.heappop(spans)
            middle = math.sqrt(low * high)
            heapq.heappush(spans, self._span(low, middle, rent))
            goal = replace(self.enough, least_throughput=middle, throughput_weight=0.0, rent=1.0)
            found = self.best(goal)
            if found is not None:
                self.offer(found[0])
                heapq.heappush(spans, self._span(middle, high, max(rent, -found[1])))
        assert self.purchase is not None
        value = self.cost(self.purchase)
        bound = min([value, *(span[0] for span in spans[:1])])
        return Result(self.purchase, value, bound, self.others)

    def _span(self, low: float, high: float, rent: float) -> tuple[float, float, float, float]:
        slow = rent * (self.startup_s + self.prompts / high)
        rich = rent * self.startup_s + self.prompts / self.best_ratio
        return max(slow, rich) / 3600.0, low, high, rent


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
    if most is None:
        return Infeasible(
            f"no pipeline fits on max_nodes {limits.max_nodes}",
            ("a higher max_nodes", "larger nodes"),
        )
    rate = throughput(pool, most[0])
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
        case Kind.BUDGET if _affordable(pool, question, 1) == 0:
            price = float(pool.cheapest_column_price())
            return Infeasible(
                f"no pipeline costs at most {question.objective.usd_per_hour:g} USD/h",
                (f"a budget of at least {price:.2f} USD/h",),
            )
        case _:
            copies = _affordable(pool, question, limits.min_replicas)
            advice = [f"min_replicas of at most {copies}", "more nodes, or a higher max_nodes"]
            if question.objective.usd_per_hour is not None:
                advice.append(f"a budget above {question.objective.usd_per_hour:g} USD/h")
            return Infeasible(
                f"at most {copies} pipelines fit within the limits, and min_replicas asks for "
                f"{limits.min_replicas}",
                tuple(advice),
            )


def _affordable(pool: Pool, question: Question, wanted: int) -> int:
    """Most pipelines within pool, budget and node limit, counted up to those wanted."""
    for copies in range(wanted, 0, -1):
        goal = Goal(
            least_replicas=copies,
            most_nodes=question.constraints.max_nodes,
            budget_usd_per_hour=question.objective.usd_per_hour,
        )
        if pool.best(goal, gap=0.5, time_limit_s=_MILP_TIME_S) is not None:
            return copies
    return 0
