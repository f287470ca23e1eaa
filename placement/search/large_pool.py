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
from placement.search.bundle_knapsack import Bundle, cheapest_bundles
from placement.search.column_search import Columns, Limits, priced_columns, stage_options
from placement.search.knapsack import Cell, Found, Layers, cheapest_stages, layers_in, undominated
from placement.search.master import (
    Goal,
    Master,
    Purchase,
    Relaxation,
    cheapest_price,
    cheapest_shelf_prices,
)
from placement.search.pricing import Counts, concurrency_grid
from placement.search.supply import Shelf, shelf_room, shelf_use, shelves_of, unit_costs

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
# Sets of stages of one group up to which the pool's own limits are kept by the knapsack itself.
_MOST_BUNDLES = 160


@dataclass(slots=True)
class LargePool:
    """Columns found so far for one question; each goal may add more."""

    model: StageModel
    groups: tuple[SupplyGroup, ...]
    limits: Limits
    shelves: tuple[Shelf, ...]
    columns: Columns
    bundles: tuple[tuple[Bundle, ...], ...] | None
    """By group: the sets of stages that one pipeline may take, where only certain ones may be."""
    tolerance: float
    _tables: dict[tuple[int, int, int], StageTable] = field(
        default_factory=dict[tuple[int, int, int], StageTable]
    )

    @property
    def master(self) -> Master:
        return Master(self.groups, self.shelves, self.columns.gpu_use)

    def columns_counts(self) -> Counts:
        return self.columns.counts

    def columns_values(self) -> Array:
        return self.columns.values

    def columns_concurrency(self) -> NDArray[np.int64]:
        return self.columns.concurrency

    def ratio_ceiling(self) -> float:
        """No purchase makes more requests/s per USD/h, on fractions of nodes."""
        prices = cheapest_shelf_prices(self.groups, self.shelves)
        if (prices[: len(self.groups)] <= 0).any():
            return math.inf
        cost = unit_costs(self.model.units, self.shelves, prices)
        best = float(np.max(self.columns.values / (self.columns.gpu_use @ prices)))
        scale = max(
            self._cell_scale(cell, cost, 1.0 / best, 0.0) for cell in self._cells(_CELL_RATIO)
        )
        return scale * best

    def cheapest_column_price(self) -> float:
        return cheapest_price(self.groups, self.shelves, self.columns.gpu_use)

    def best(self, goal: Goal, *, gap: float, time_limit_s: float) -> tuple[Purchase, float] | None:
        """The best purchase of generated columns and a bound on every purchase, or None."""
        relaxation = self._generate(goal)
        if relaxation is None:
            return None
        bought = self.master.buy(self.columns.values, goal, gap=gap / 4, time_limit_s=time_limit_s)
        if bought is None:
            return None
        return bought, max(bought.objective, self._ceiling(relaxation, goal))

    def seed(self) -> None:
        """Columns to begin with: of one kind of stage, and the cheapest mixed ones at GPUs of equal
        worth, of the worth of their memory and of their price."""
        counts = np.array(sorted(self._one_kind()), dtype=np.int64)
        self._take(counts.reshape(-1, len(self.model.units)))
        memory = np.array([self.groups[s.group].instance.gpu.memory_bytes for s in self.shelves])
        prices = cheapest_shelf_prices(self.groups, self.shelves)
        for worth in (np.ones(len(self.shelves)), memory, prices):
            first = np.where(np.arange(len(worth)) < len(self.groups), worth, 0.0)
            found: list[Counts] = []
            for cell in self._search(first / max(float(first.max()), 1e-12) + 1e-6, 4.0):
                usable = np.flatnonzero(np.isfinite(cell.cost))
                found += [cell.counts[i] for i in usable[:: max(1, len(usable) // _PICKS)]]
            self._take(self._fresh(found))

    def _one_kind(self) -> set[tuple[int, ...]]:
        """As many equal stages as the pool carries."""
        seeds: set[tuple[int, ...]] = set()
        for i, unit in enumerate(self.model.units):
            group = self.groups[unit.group]
            most = group.max_nodes * (group.instance.gpu_count // unit.tp)
            for count in range(1, min(self.limits.max_stages, most) + 1):
                if self.limits.whole_nodes and count * unit.tp % group.instance.gpu_count:
                    continue
                seeds.add(tuple(count if j == i else 0 for j in range(len(self.model.units))))
        return seeds

    def _take(self, counts: Counts) -> bool:
        """Price columns and keep those that hold the model; whether there was any."""
        if len(counts) == 0:
            return False
        priced = priced_columns(self.model, counts, self.shelves, tolerance=self.tolerance)
        keep = np.flatnonzero(priced.values > 0)
        self.columns = _joined(self.columns, priced.take(keep))
        return len(keep) > 0

    def _generate(self, goal: Goal) -> Relaxation | None:
        relaxation = self.master.relax(self.columns.values, goal)
        if relaxation is None:
            # Too little throughput to be feasible: look for the most first.
            self._generate(Goal(budget_usd_per_hour=goal.budget_usd_per_hour))
            relaxation = self.master.relax(self.columns.values, goal)
            if relaxation is None:
                return None
        for _ in range(_MAX_ROUNDS):
            before = relaxation.objective
            if not self._add(relaxation, goal):
                break
            relaxation = self.master.relax(self.columns.values, goal)
            assert relaxation is not None  # more columns never make it infeasible
            if relaxation.objective - before < abs(before) * _STOP:
                break
        return relaxation

    def _add(self, relaxation: Relaxation, goal: Goal) -> bool:
        """Price the best columns at the present duals; whether any is new and worth having."""
        weight = goal.throughput_weight + relaxation.throughput_worth
        candidates: list[Counts] = []
        for found in self._search(relaxation.gpu_worth, _CELL_RATIO):
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
        return self._take(self._fresh(candidates))

    def _fresh(self, candidates: list[Counts]) -> Counts:
        """Distinct new columns that the pool can carry."""
        known = {tuple(row) for row in self.columns.counts.tolist()}
        distinct = {tuple(int(n) for n in row) for row in candidates} - known
        counts = np.array(sorted(distinct), dtype=np.int64).reshape(-1, len(self.model.units))
        use = shelf_use(counts, self.model.units, self.shelves)
        return counts[np.all(use <= shelf_room(self.groups, self.shelves), axis=1)]

    def _ceiling(self, relaxation: Relaxation, goal: Goal) -> float:
        """Bound on every purchase by scaling the duals until no column beats them."""
        weight = goal.throughput_weight + relaxation.throughput_worth
        room = shelf_room(self.groups, self.shelves)
        first = np.arange(len(room)) < len(self.groups)
        floor = _WORTH_FLOOR * float(relaxation.gpu_worth @ room) / room[first].sum()
        worth = np.maximum(relaxation.gpu_worth, np.where(first, max(floor, 1e-12), 0.0))
        cost = unit_costs(self.model.units, self.shelves, worth)
        scale = 1.0
        for cell in self._cells(_CELL_RATIO):
            scale = max(scale, self._cell_scale(cell, cost, weight, relaxation.replica_worth))
        return self.master.dual_bound(goal, scale * worth, relaxation)

    def _cell_scale(self, cell: Cell, cost: Array, weight: float, bonus: float) -> float:
        """By how much the best column of a cell may beat its GPUs' worth; split while in doubt."""
        layers = self._carried(cell)
        if layers is None:
            return 1.0
        found = self._cheapest(layers, cost, cell, ceiling=True)
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

    def _cheapest(self, layers: Layers, cost: Array, cell: Cell, *, ceiling: bool) -> Found:
        """The cheapest columns of a cell per bottleneck, at this cost of each unit's stage."""
        num_layers = self.model.num_layers
        if self.bundles is None:
            kept = undominated(layers, cost, cell.allowed)
            return cheapest_stages(layers, cost, kept, cell.num_stages, num_layers, ceiling=ceiling)
        allowed = np.isin(np.arange(len(self.model.units)), cell.allowed)
        groups = [[b for b in group if not b.counts[~allowed].any()] for group in self.bundles]
        return cheapest_bundles(layers, cost, groups, cell.num_stages, num_layers, ceiling=ceiling)

    def _cells(self, ratio: float) -> Iterator[Cell]:
        """All stage counts and concurrencies, in cells."""
        for allowed in self._unit_sets(self.model.units):
            for num_stages in range(1, self.limits.max_stages + 1):
                grid = concurrency_grid(num_stages, self.model.max_concurrency, ratio)
                pairs = list(zip(grid[1:], grid, strict=False)) or [(grid[0], grid[0])]
                self.model.prepare(num_stages, [*pairs, *((g, g) for g in grid)])
                for high, low in pairs:
                    yield Cell(num_stages, high, low, _TIME_RATIO, None, allowed, 0)

    def _search(self, worth: Array, ratio: float) -> Iterator[Found]:
        """Cheapest columns over all stage counts, concurrencies and bottlenecks."""
        cost = unit_costs(self.model.units, self.shelves, worth)
        for cell in self._cells(ratio):
            points = (cell.low, cell.high) if cell.low == cell.num_stages else (cell.high,)
            for point in points:
                single = replace(cell, low=point, high=point)
                layers = self._carried(single)
                if layers is not None:
                    yield self._cheapest(layers, cost, single, ceiling=False)

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
    model: StageModel,
    groups: tuple[SupplyGroup, ...],
    limits: Limits,
    *,
    tolerance: float = 0.002,
) -> LargePool:
    """A pool with some columns to begin with."""
    units = model.units
    shelves = shelves_of(groups, units)
    none = np.zeros(0)
    empty = Columns(
        np.zeros((0, len(units)), dtype=np.int64),
        none,
        none,
        np.zeros(0, dtype=np.int64),
        np.zeros((0, len(shelves))),
    )
    bundles = _bundles(units, groups, limits)
    pool = LargePool(model, groups, limits, shelves, empty, bundles, tolerance)
    pool.seed()
    return pool


def _bundles(
    units: Sequence[Unit], groups: tuple[SupplyGroup, ...], limits: Limits
) -> tuple[tuple[Bundle, ...], ...] | None:
    """Sets of stages by group, where nodes go whole or the sets are few; else None."""
    found: list[tuple[Bundle, ...]] = []
    for g, group in enumerate(groups):
        mine = [i for i, unit in enumerate(units) if unit.group == g]
        bundles: list[Bundle] = []
        for option in stage_options([units[i] for i in mine], group, limits):
            if sum(option) > 0:
                counts = np.zeros(len(units), dtype=np.int64)
                counts[mine] = option
                bundles.append(Bundle(counts, int(sum(option))))
            if not limits.whole_nodes and len(bundles) > _MOST_BUNDLES:
                return None
        found.append(tuple(bundles))
    total = sum(len(group) for group in found)
    return tuple(found) if limits.whole_nodes or total <= _MOST_BUNDLES else None


def _joined(one: Columns, two: Columns) -> Columns:
    return Columns(
        np.concatenate([one.counts, two.counts]),
        np.concatenate([one.values, two.values]),
        np.concatenate([one.ceilings, two.ceilings]),
        np.concatenate([one.concurrency, two.concurrency]),
        np.concatenate([one.gpu_use, two.gpu_use]),
    )
