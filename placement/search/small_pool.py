"""Search of a pool whose columns can all be listed: cheap ceilings first, exact prices on demand.

Only columns that the ceilings leave in question are priced. The relaxation over ceilings bounds
every purchase, because a ceiling is never below the column's value.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from placement.catalogue.offering import SupplyGroup
from placement.estimate.stage_table import Array, StageModel
from placement.search.column_search import coarse_ceilings, priced_columns
from placement.search.master import (
    Goal,
    Master,
    Purchase,
    Relaxation,
    cheapest_price,
    cheapest_shelf_prices,
)
from placement.search.pricing import Counts
from placement.search.supply import Shelf, shelf_use, shelves_of

_ROUNDS = 12
_BATCH = 160
# Columns in the LP to begin with; those that its duals call for join.
_ACTIVE = 400
_MILP_GAP = 1e-4


@dataclass(slots=True)
class SmallPool:
    """The listed columns of one question; prices are filled in as solves ask for them."""

    model: StageModel
    groups: tuple[SupplyGroup, ...]
    counts: Counts
    ceilings: Array
    values: Array
    concurrency: NDArray[np.int64]
    priced: NDArray[np.bool_]
    gpu_use: Array
    shelves: tuple[Shelf, ...]
    tolerance: float
    """How far above its value a priced column's ceiling may lie."""

    @property
    def master(self) -> Master:
        return Master(self.groups, self.shelves, self.gpu_use)

    def _some(self, which: NDArray[np.intp]) -> Master:
        return Master(self.groups, self.shelves, self.gpu_use[which])

    def columns_counts(self) -> Counts:
        return self.counts

    def columns_values(self) -> Array:
        """Attainable values; 0 for columns that no solve has asked for."""
        return self.values

    def columns_concurrency(self) -> NDArray[np.int64]:
        return self.concurrency

    def ratio_ceiling(self) -> float:
        """No purchase makes more requests/s per USD/h: the best column on fractions of nodes."""
        cost = self.gpu_use @ cheapest_shelf_prices(self.groups, self.shelves)
        if (cost <= 0).any():
            return float(np.inf)
        self.price(np.argsort(-self.ceilings / cost)[:_BATCH])
        return float(np.max(self.ceilings / cost))

    def cheapest_column_price(self) -> float:
        """USD/h of the cheapest nodes that carry some column."""
        return cheapest_price(self.groups, self.shelves, self.gpu_use)

    def price(self, which: NDArray[np.intp]) -> None:
        """Price these columns exactly, where that has not been done."""
        todo = which[~self.priced[which]]
        if len(todo) == 0:
            return
        found = priced_columns(
            self.model, self.counts[todo], self.shelves, tolerance=self.tolerance
        )
        self.values[todo] = found.values
        self.ceilings[todo] = np.minimum(self.ceilings[todo], found.ceilings)
        self.concurrency[todo] = found.concurrency
        self.priced[todo] = True

    def settle(self, goal: Goal) -> Relaxation | None:
        """Price until every column that the relaxation over ceilings uses has its price."""
        relaxation = None
        # The duals of cuts are not read back, so that these goals see all columns at once.
        cut = goal.spread_groups or goal.most_replicas is not None
        size = len(self.counts) if cut else _ACTIVE
        active = np.argsort(-self.ceilings / self.gpu_use.sum(axis=1), kind="stable")[:size]
        for _ in range(3 * _ROUNDS):
            relaxation = self._relax(active, goal)
            if relaxation is None and len(active) < len(self.counts):
                active = np.arange(len(self.counts))
                continue
            if relaxation is None:
                return None
            worth = self._reduced(self.ceilings, relaxation, goal)
            order = np.argsort(-worth, kind="stable")
            scale = max(relaxation.objective / max(relaxation.x.sum(), 1e-9), 1e-12)
            outside = np.setdiff1d(np.flatnonzero(worth > 1e-7 * abs(scale)), active)
            if len(outside):
                active = np.union1d(active, order[: 2 * _ACTIVE])
                continue
            open_ones = order[~self.priced[order]][:_BATCH]
            used = np.flatnonzero(relaxation.x > 1e-9)
            close = open_ones[worth[open_ones] > -0.02 * abs(scale)]
            if self.priced[used].all() and len(close) == 0:
                return relaxation
            self.price(np.union1d(used, close))
        # Out of rounds: the bound needs all columns.
        return self._relax(np.arange(len(self.counts)), goal)

    def _relax(self, active: NDArray[np.intp], goal: Goal) -> Relaxation | None:
        """The LP over ceilings of some columns; its `x` is over all."""
        found = self._some(active).relax(self.ceilings[active], goal)
        if found is None:
            return None
        x = np.zeros(len(self.counts))
        x[active] = found.x
        return replace(found, x=x)

    def best(self, goal: Goal, *, gap: float, time_limit_s: float) -> tuple[Purchase, float] | None:
        """The best purchase of priced columns and a bound on every purchase, or None."""
        relaxation = self.settle(goal)
        if relaxation is None:
            return None
        bought = self._first(goal, relaxation, time_limit_s)
        if bought is None:
            return None
        bound = relaxation.objective
        if bound - bought.objective > gap * self._scale(goal, bought):
            bound, bought = self._tighten(goal, relaxation, bought, gap, time_limit_s)
        return bought, max(bound, bought.objective)

    def _scale(self, goal: Goal, bought: Purchase) -> float:
        """What a gap is a share of: the throughput, or the rent where only that counts."""
        if goal.throughput_weight > 0:
            return goal.throughput_weight * float(self.values @ bought.x)
        return goal.rent * float(self.master.prices @ bought.nodes)

    def _first(self, goal: Goal, relaxation: Relaxation, time_limit_s: float) -> Purchase | None:
        """A purchase of priced columns; where they allow none, the most promising others join."""
        order = np.argsort(-self._reduced(self.ceilings, relaxation, goal), kind="stable")
        for batches in (0, 2, 8, len(order)):
            self.price(order[: batches * _BATCH])
            bought = self._buy(self.values, np.flatnonzero(self.priced), goal, time_limit_s)
            if bought is not None or self.priced.all():
                return bought
        return None

    def _tighten(
        self,
        goal: Goal,
        relaxation: Relaxation,
        bought: Purchase,
        gap: float,
        time_limit_s: float,
    ) -> tuple[float, Purchase]:
        """Close the gap: only columns whose reduced cost is within it can be in a better purchase
        (reduced-cost fixing). The integer problem over their ceilings bounds it; the columns that
        its answer takes on credit are priced, and it is solved again."""
        bound = relaxation.objective
        for _ in range(_ROUNDS):
            worth = self._reduced(self.ceilings, relaxation, goal)
            which = np.flatnonzero(worth >= bought.objective - relaxation.objective - 1e-12)
            above = self._buy(self.ceilings, which, goal, time_limit_s)
            if above is None:
                break
            bound = min(bound, above.ceiling)
            close = which[np.argsort(-worth[which], kind="stable")]
            unpriced = close[~self.priced[close]][:_BATCH]
            credit = np.flatnonzero((above.x > 0) & ~self.priced)
            self.price(np.union1d(credit, unpriced))
            better = self._buy(self.values, np.flatnonzero(self.priced), goal, time_limit_s)
            if better is not None and better.objective > bought.objective:
                bought = better
            if bound - bought.objective <= gap * self._scale(goal, bought) or len(credit) == 0:
                break
        return bound, bought

    def _buy(
        self, values: Array, which: NDArray[np.intp], goal: Goal, time_limit_s: float
    ) -> Purchase | None:
        part = which[values[which] > 0]
        if len(part) == 0:
            return None
        found = self._some(part).buy(values[part], goal, gap=_MILP_GAP, time_limit_s=time_limit_s)
        if found is None:
            return None
        x = np.zeros(len(self.counts), dtype=np.int64)
        x[part] = found.x
        return Purchase(found.objective, found.ceiling, x, found.nodes)

    def _reduced(self, values: Array, relaxation: Relaxation, goal: Goal) -> Array:
        weight = goal.throughput_weight + relaxation.throughput_worth
        return weight * values - self.gpu_use @ relaxation.gpu_worth + relaxation.replica_worth


def open_pool(
    model: StageModel, groups: tuple[SupplyGroup, ...], counts: Counts, *, tolerance: float = 0.002
) -> SmallPool:
    """A pool with ceilings for all columns and prices for none."""
    shelves = shelves_of(groups, model.units)
    ceilings = coarse_ceilings(model, counts)
    keep = ceilings > 0
    counts, ceilings = counts[keep], ceilings[keep]
    return SmallPool(
        model=model,
        groups=groups,
        counts=counts,
        ceilings=ceilings,
        values=np.zeros(len(counts)),
        concurrency=np.zeros(len(counts), dtype=np.int64),
        priced=np.zeros(len(counts), dtype=np.bool_),
        gpu_use=shelf_use(counts, model.units, shelves),
        shelves=shelves,
        tolerance=tolerance,
    )
