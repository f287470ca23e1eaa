"""Finding the columns: all of them where the pool is small, by duals where it is large.

Both ways end with the same thing: a set of columns with attainable values, a ceiling on what any
purchase can reach, and the LP's worth of a GPU of each group.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from placement.catalogue.offering import SupplyGroup
from placement.estimate.stage_table import Array, StageModel, Unit
from placement.search.pricing import Counts, concurrency_grid, price, price_ceiling
from placement.search.supply import Shelf, shelf_use

MAX_ENUMERATED = 40_000
_COARSE = 1.8
_COARSE_BISECTIONS = 12


@dataclass(frozen=True, slots=True)
class Limits:
    """Which pipelines may be built."""

    max_stages: int
    uniform_tp: bool
    whole_nodes: bool
    """A pipeline takes all GPUs of each of its nodes."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns with attainable value (after interruptions), its concurrency, and a ceiling."""

    counts: Counts
    values: Array
    ceilings: Array
    concurrency: NDArray[np.int64]
    gpu_use: Array

    def take(self, which: NDArray[np.intp]) -> "Columns":
        return Columns(
            self.counts[which],
            self.values[which],
            self.ceilings[which],
            self.concurrency[which],
            self.gpu_use[which],
        )


def enumerate_counts(
    units: tuple[Unit, ...], groups: tuple[SupplyGroup, ...], limits: Limits
) -> Counts | None:
    """Every multiset of stages inside the pool, or None where there are too many to list."""
    per_group: list[list[tuple[int, ...]]] = []
    for g, group in enumerate(groups):
        mine = [unit for unit in units if unit.group == g]
        options = list(stage_options(mine, group, limits))
        per_group.append(options)
        if len(options) > MAX_ENUMERATED:
            return None
    rows: list[tuple[int, ...]] = [()]
    for options in per_group:
        if len(rows) * len(options) > 20 * MAX_ENUMERATED:
            return None
        rows = [
            row + option
            for row, option in itertools.product(rows, options)
            if sum(row) + sum(option) <= limits.max_stages
        ]
        if len(rows) > MAX_ENUMERATED:
            return None
    counts = np.array([row for row in rows if sum(row) > 0], dtype=np.int64)
    if limits.uniform_tp and len(counts):
        counts = counts[_uniform(counts, units)]
    return counts.reshape(-1, len(units))


def stage_options(
    units: list[Unit], group: SupplyGroup, limits: Limits
) -> Iterator[tuple[int, ...]]:
    """Counts of one group's units, in the order of `units`, that its GPUs can carry."""
    gpus, per_node = group.max_gpus, group.instance.gpu_count
    ranges = [range(min(limits.max_stages, gpus // unit.tp) + 1) for unit in units]
    for option in itertools.product(*ranges):
        used = sum(n * unit.tp for n, unit in zip(option, units, strict=True))
        if limits.whole_nodes and used % per_node:
            continue
        nodes = used // per_node if limits.whole_nodes else group.max_nodes
        if sum(option) > limits.max_stages or not _fits(option, units, per_node, nodes):
            continue
        yield option


def _fits(option: tuple[int, ...], units: Sequence[Unit], per_node: int, nodes: int) -> bool:
    """Whether so many nodes carry these stages: see `supply.py`."""
    for unit in units:
        larger = sum(n * u.tp for n, u in zip(option, units, strict=True) if u.tp >= unit.tp)
        if larger > nodes * (per_node // unit.tp * unit.tp):
            return False
    return True


def _uniform(counts: Counts, units: tuple[Unit, ...]) -> NDArray[np.bool_]:
    tps = np.array([unit.tp for unit in units])
    high = np.max(np.where(counts > 0, tps, 0), axis=1)
    low = np.min(np.where(counts > 0, tps, 1 << 20), axis=1)
    return high == low


def coarse_ceilings(model: StageModel, counts: Counts) -> Array:
    """A quick ceiling on each column's value."""
    ceilings = np.zeros(len(counts))
    for num_stages, rows in _by_stages(counts):
        grid = concurrency_grid(num_stages, model.max_concurrency, _COARSE)
        ceilings[rows] = price_ceiling(
            model, counts[rows], grid, num_stages=num_stages, bisections=_COARSE_BISECTIONS
        )
    return ceilings * model.value_factor(counts)


def priced_columns(
    model: StageModel, counts: Counts, shelves: Sequence[Shelf], *, tolerance: float
) -> Columns:
    """Attainable values, and ceilings that lie at most `tolerance` above them."""
    values, ceilings = np.zeros(len(counts)), np.zeros(len(counts))
    concurrency = np.zeros(len(counts), dtype=np.int64)
    for num_stages, rows in _by_stages(counts):
        found = price(model, counts[rows], num_stages=num_stages, tolerance=tolerance)
        values[rows], concurrency[rows] = found.throughput, found.concurrency
        ceilings[rows] = found.ceiling
    factor = model.value_factor(counts)
    return Columns(
        counts,
        values * factor,
        ceilings * factor,
        concurrency,
        shelf_use(counts, model.units, shelves),
    )


def _by_stages(counts: Counts) -> Iterator[tuple[int, NDArray[np.intp]]]:
    stages = counts.sum(axis=1)
    for num_stages in np.unique(stages):
        yield int(num_stages), np.flatnonzero(stages == num_stages)
