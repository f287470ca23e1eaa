"""Search of a pool with too many columns to list: column generation with a certified ceiling.

Given what a GPU of each group is worth (duals of the master), the best new column is found by a
knapsack over layers: for k stages, concurrency G and bottleneck T, each kind of stage carries a
known number of layers, and the cheapest k stages that carry the whole model are wanted. Dynamic
programming over (stages, layers) finds them for all T of a grid at once, with the first and the
last stage placed last, because they carry the embedding and the head.

With optimistic tables the same search bounds every column: if none is worth more than (1 + e) times
the GPUs that it takes, then (1 + e) x the worth of the pool bounds every purchase.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from placement.catalogue.offering import SupplyGroup
from placement.estimate.stage_table import Array, StageModel, StageTable, Unit
from placement.search.column_search import Columns, Limits, priced_columns
from placement.search.knapsack import Cell, Found, Layers, cheapest_stages, layers_in, undominated
from placement.search.master import (
    Goal,
    Master,
    Purchase,
    Relaxation,
    cheapest_gpu_prices,
    cheapest_price,
    gpu_use_of,
)
from placement.search.pricing import Counts, concurrency_grid

_CELL_RATIO = 1.5
_TIME_RATIO = 1.08
_CEILING_SLACK = 0.01
_MAX_DEPTH = 6
_MAX_ROUNDS = 30
_PICKS = 5
_STOP = 0.0007
# Floor of a GPU's worth as a share of the mean: a group that the relaxation leaves over has no
# worth, and no multiple of nothing would cover the columns that use it.
_WORTH_FLOOR = 0.004


@dataclass(slots=True)
class LargePool:
    """Columns found so far for one question; each goal may add more."""

    model: StageModel
    groups: tuple[SupplyGroup, ...]
    limits: Limits
    columns: Columns
    _tables: dict[tuple[int, int, int], StageTable] = field(
        default_factory=dict[tuple[int, int, int], StageTable]
    )

    @property
    def master(self) -> Master:
        return Master(self.groups, self.columns.gpu_use)

    def columns_counts(self) -> Counts:
        return self.columns.counts

    def columns_values(self) -> Array:
        return self.columns.values

    def columns_concurrency(self) -> NDArray[np.int64]:
        return self.columns.concurrency

    def ratio_ceiling(self) -> float:
        """No purchase makes more requests/s per USD/h, on fractions of nodes."""
        prices = cheapest_gpu_prices(self.groups)
        if (prices <= 0).any():
            return math.inf
        cost = np.array([u.tp * prices[u.group] for u in self.model.units])
        best = float(np.max(self.columns.values / (self.columns.gpu_use @ prices)))
        scale = max(
            self._cell_scale(cell, cost, 1.0 / best, 0.0) for cell in self._cells(_CELL_RATIO)
        )
        return best * scale

    def cheapest_column_price(self) -> float:
        return cheapest_price(self.groups, self.columns.gpu_use)

    def best(self, goal: Goal, *, gap: float, time_limit_s: float) -> tuple[Purchase, float] | None:
        """The best purchase of generated columns and a bound on every purchase, or None."""
        relaxation = self._generate(goal)
        if relaxation is None:
            return None
        bought = self.master.buy(self.columns.values, goal, gap=gap / 4, time_limit_s=time_limit_s)
        if bought is None:
            return None
        return bought, max(bought.objective, self._ceiling(relaxation, goal))

    def _generate(self, goal: Goal) -> Relaxation | None:
        relaxation = self.master.relax(self.columns.values, goal)
        if relaxation is None:
            # Too little throughput to be feasible: look for the most first.
            self._generate(Goal())
            relaxation = self.master.relax(self.columns.values, goal)
            if relaxation is None:
                return None
        for _ in range(_MAX_ROUNDS):
            before = relaxation.objective
            if not self._add(relaxation, goal):
                break
            relaxation = self.master.relax(self.columns.values, goal)
            assert relaxation is not None  # more columns never make it infeasible
            if relaxation.objective < before * (1 + _STOP):
                break
        return relaxation

    def _add(self, relaxation: Relaxation, goal: Goal) -> bool:
        """Price the best columns at the present duals; whether any is new and worth having."""
        weight = goal.throughput_weight + relaxation.throughput_worth
        candidates: list[Counts] = []
        for found in self._search(relaxation.gpu_worth):
            gain = weight / found.times - found.cost + relaxation.replica_worth
            ratio = weight / found.times / np.maximum(found.cost, 1e-12)
            usable = np.isfinite(found.cost)
            if not usable.any():
                continue
            # The best of every part of the grid: one column per cell converges slowly.
            picks = {int(np.argmax(np.where(usable, ratio, -np.inf)))}
            for part in np.array_split(np.arange(len(gain)), _PICKS):
                picks.add(int(part[np.argmax(np.where(usable, gain, -np.inf)[part])]))
            candidates += [found.counts[i] for i in picks if gain[i] > 1e-9]
        fresh = self._fresh(candidates)
        if len(fresh) == 0:
            return False
        priced = priced_columns(self.model, fresh, len(self.groups))
        keep = np.flatnonzero(priced.values > 0)
        self.columns = _joined(self.columns, priced.take(keep))
        return len(keep) > 0

    def _fresh(self, candidates: list[Counts]) -> Counts:
        """Distinct new columns that the pool can carry."""
        known = {tuple(row) for row in self.columns.counts.tolist()}
        distinct = {tuple(int(n) for n in row) for row in candidates} - known
        counts = np.array(sorted(distinct), dtype=np.int64).reshape(-1, len(self.model.units))
        use = gpu_use_of(counts, self.model.units, len(self.groups))
        pool = np.array([group.max_gpus for group in self.groups])
        return counts[np.all(use <= pool, axis=1)]

    def _ceiling(self, relaxation: Relaxation, goal: Goal) -> float:
        """Bound on every purchase by scaling the duals until no column beats them."""
        weight = goal.throughput_weight + relaxation.throughput_worth
        pool = np.array([float(group.max_gpus) for group in self.groups])
        floor = _WORTH_FLOOR * relaxation.objective / pool.sum()
        worth = np.maximum(relaxation.gpu_worth, floor)
        cost = np.array([unit.tp * worth[unit.group] for unit in self.model.units])
        scale = 1.0
        for cell in self._cells(_CELL_RATIO):
            scale = max(scale, self._cell_scale(cell, cost, weight, relaxation.replica_worth))
        return scale * relaxation.objective + scale * float((worth - relaxation.gpu_worth) @ pool)

    def _cell_scale(self, cell: Cell, cost: Array, weight: float, bonus: float) -> float:
        """By how much the best column of a cell may beat its GPUs' worth; split while in doubt."""
        layers = self._carried(cell)
        if layers is None:
            return 1.0
        kept = undominated(layers, cost, cell.allowed)
        found = cheapest_stages(
            layers, cost, kept, cell.num_stages, self.model.num_layers, ceiling=True
        )
        # A column whose bottleneck is in (times[i-1], times[i]] carries no more than at times[i]
        # and is worth no more than at times[i-1].
        value = weight / np.concatenate([found.times[:1] / cell.time_ratio, found.times[:-1]])
        ratio = np.where(np.isfinite(found.cost), (value + bonus) / found.cost, 0.0)
        worst = float(ratio.max(initial=0.0))
        doubtful = np.flatnonzero(ratio > 1.0 + _CEILING_SLACK)
        if len(doubtful) == 0 or cell.depth >= _MAX_DEPTH:
            return max(1.0, worst)
        low, high = float(found.times[doubtful[0]]), float(found.times[doubtful[-1]])
        parts = cell.split(low / cell.time_ratio, high)
        return max(
            1.0 + _CEILING_SLACK, *(self._cell_scale(part, cost, weight, bonus) for part in parts)
        )

    def _carried(self, cell: Cell) -> Layers | None:
        table = self._table(cell.num_stages, cell.high, cell.low)
        return layers_in(table, self.model.num_layers, cell)

    def _cells(self, ratio: float) -> Iterator[Cell]:
        """All stage counts and concurrencies, in cells."""
        for allowed in self._unit_sets(self.model.units):
            for num_stages in range(1, self.limits.max_stages + 1):
                grid = concurrency_grid(num_stages, self.model.max_concurrency, ratio)
                pairs = list(zip(grid[1:], grid, strict=False)) or [(grid[0], grid[0])]
                for high, low in pairs:
                    yield Cell(num_stages, high, low, _TIME_RATIO, None, allowed, 0)

    def _search(self, worth: Array) -> Iterator[Found]:
        """Cheapest columns over all stage counts, concurrencies and bottlenecks."""
        cost = np.array([unit.tp * worth[unit.group] for unit in self.model.units])
        for cell in self._cells(_CELL_RATIO):
            for point in {cell.low, cell.high}:
                layers = self._carried(replace(cell, low=point, high=point))
                if layers is None:
                    continue
                kept = undominated(layers, cost, cell.allowed)
                yield cheapest_stages(
                    layers, cost, kept, cell.num_stages, self.model.num_layers, ceiling=False
                )

    def _table(self, num_stages: int, high: int, low: int) -> StageTable:
        key = (num_stages, high, low)
        if key not in self._tables:
            self._tables[key] = self.model.table(num_stages, high, low)
        return self._tables[key]

    def _unit_sets(self, units: Sequence[Unit]) -> list[NDArray[np.intp]]:
        """Units that may stand in one pipeline: all of them, or one set for each TP degree."""
        if not self.limits.uniform_tp:
            return [np.arange(len(units))]
        tps = np.array([unit.tp for unit in units])
        return [np.flatnonzero(tps == tp) for tp in np.unique(tps)]


def open_large_pool(
    model: StageModel, groups: tuple[SupplyGroup, ...], limits: Limits
) -> LargePool:
    """A pool with one column to begin with per kind of stage: as many equal ones as it takes."""
    units = model.units
    seeds: set[tuple[int, ...]] = set()
    for i, unit in enumerate(units):
        most = min(limits.max_stages, groups[unit.group].max_gpus // unit.tp)
        for count in range(1, most + 1):
            seeds.add(tuple(count if j == i else 0 for j in range(len(units))))
    counts = np.array(sorted(seeds), dtype=np.int64).reshape(-1, len(units))
    columns = priced_columns(model, counts, len(groups))
    return LargePool(model, groups, limits, columns.take(np.flatnonzero(columns.values > 0)))


def _joined(one: Columns, two: Columns) -> Columns:
    return Columns(
        np.concatenate([one.counts, two.counts]),
        np.concatenate([one.values, two.values]),
        np.concatenate([one.ceilings, two.ceilings]),
        np.concatenate([one.concurrency, two.concurrency]),
        np.concatenate([one.gpu_use, two.gpu_use]),
    )
