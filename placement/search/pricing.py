"""What a pipeline is worth: the best layers and concurrency for a given multiset of stages.

For one concurrency, stage times are affine in layers, so that the smallest reachable bottleneck is
found by bisection: at a bottleneck T each stage carries as many layers as T and its memory allow,
and T is reachable when they add up to the model. All columns are bisected at once.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from placement.estimate.stage_table import Array, Caps, StageModel, StageTable, Times

Counts = NDArray[np.int64]

_BISECTIONS = 26
_EDGE = 1e-9  # keeps floor() from losing a layer to rounding
# Points at which the first of two components is held while the second is bisected.
_SWEEP = 25
_SWEEP_WIDTH = 1.8
# Rows that are bisected together: small enough for the cache, large enough to hide numpy's calls.
_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Priced:
    """Best throughput per column (0: infeasible) and the concurrency that reaches it."""

    throughput: Array
    concurrency: NDArray[np.int64]


def bottleneck(
    counts: Counts,
    num_layers: int,
    table: StageTable,
    *,
    component: int = -1,
    optimistic: bool = False,
    bisections: int = _BISECTIONS,
) -> Array:
    """Smallest reachable maximum of one component's stage times per column; inf: infeasible.

    The last bisection leaves an interval: its upper end can be reached, its lower end (returned
    where `optimistic`) can not be beaten.
    """
    times = table.components[component]
    present = counts > 0
    if counts.sum(axis=1).max(initial=1) == 1:
        return _single(counts, num_layers, table, times)
    widest = times.per_layer * num_layers + times.fixed + times.first + times.last
    high: Array = np.max(np.where(present, widest, 0.0), axis=1)
    low: Array = np.zeros(len(counts))
    ok = _reachable(counts, present, num_layers, table, times, high)
    for _ in range(bisections):
        middle: Array = (low + high) / 2
        yes = _reachable(counts, present, num_layers, table, times, middle)
        high = np.where(yes, middle, high)
        low = np.where(yes, low, middle)
    return np.where(ok, low if optimistic else high, np.inf)


def _single(counts: Counts, num_layers: int, table: StageTable, times: Times) -> Array:
    whole = times.per_layer * num_layers + times.fixed + times.first + times.last
    unit = np.argmax(counts > 0, axis=1)
    only = np.broadcast_to(table.caps.only, counts.shape)
    fits = only[np.arange(len(counts)), unit] >= num_layers
    taken = np.broadcast_to(whole, counts.shape)[np.arange(len(counts)), unit]
    return np.where(fits, taken, np.inf)


def _reachable(
    counts: Counts,
    present: NDArray[np.bool_],
    num_layers: int,
    table: StageTable,
    times: Times,
    limit: Array,
) -> NDArray[np.bool_]:
    """Whether the stages can carry all layers with no stage time above `limit`."""
    column = limit[:, None]
    layer, caps = times.per_layer, table.caps
    middle = np.minimum(np.floor((column - times.fixed) / layer + _EDGE), caps.middle)
    first = np.minimum(np.floor((column - times.fixed - times.first) / layer + _EDGE), caps.first)
    last = np.minimum(np.floor((column - times.fixed - times.last) / layer + _EDGE), caps.last)
    everyone = ~np.any(present & (middle < 1), axis=1)
    lost = _smallest_loss(
        np.where(present & (first >= 1), middle - first, np.inf),
        np.where(present & (last >= 1), middle - last, np.inf),
        counts,
    )
    carried = np.sum(np.where(present, counts * middle, 0.0), axis=1)
    return everyone & (carried - lost >= num_layers)


def _smallest_loss(first: Array, last: Array, counts: Counts) -> Array:
    """Fewest layers lost by naming a first and a last stage, which are not the same one."""
    rows = np.arange(len(counts))
    f1, l1 = np.argmin(first, axis=1), np.argmin(last, axis=1)
    best_f, best_l = first[rows, f1], last[rows, l1]
    clash = (f1 == l1) & (counts[rows, f1] < 2)
    if not clash.any():
        return best_f + best_l
    second_f, second_l = first.copy(), last.copy()
    second_f[rows, f1], second_l[rows, l1] = np.inf, np.inf
    other = np.minimum(best_f + second_l.min(axis=1), second_f.min(axis=1) + best_l)
    return np.where(clash, other, best_f + best_l)


def values_at(
    model: StageModel,
    counts: Counts,
    num_stages: int,
    cells: Sequence[tuple[int, int]],
    *,
    optimistic: bool = False,
    bisections: int = _BISECTIONS,
) -> Array:
    """Requests/s of columns of `num_stages` stages: cells x columns; 0 where it does not fit.

    A cell is a concurrency and the (lower or equal) one whose memory caps hold: the value is
    optimistic for every concurrency between the two.
    """
    size = max(1, _ROWS // max(1, len(counts)))
    parts = [
        _cell_values(
            model,
            counts,
            num_stages,
            cells[start : start + size],
            optimistic=optimistic,
            bisections=bisections,
        )
        for start in range(0, len(cells), size)
    ]
    return np.concatenate(parts)


def _cell_values(
    model: StageModel,
    counts: Counts,
    num_stages: int,
    cells: Sequence[tuple[int, int]],
    *,
    optimistic: bool,
    bisections: int,
) -> Array:
    """All pairs of cell and column as rows of one bisection."""
    table = _stacked([model.table(num_stages, high, low) for high, low in cells], len(counts))
    rows = np.tile(counts, (len(cells), 1))
    concurrency = np.repeat(np.array([high for high, _ in cells], dtype=float), len(counts))
    if len(table.components) == 1:
        time = bottleneck(
            rows, model.num_layers, table, optimistic=optimistic, bisections=bisections
        )
        value = _throughput(model, num_stages, concurrency, [time])
    else:
        value = _two_components(
            model,
            rows,
            num_stages,
            concurrency,
            table,
            optimistic=optimistic,
            bisections=bisections,
        )
    return value.reshape(len(cells), len(counts))


def _stacked(tables: Sequence[StageTable], num_columns: int) -> StageTable:
    """One table with a row for each pair of cell and column."""

    def rows(arrays: Sequence[Array]) -> Array:
        return np.repeat(np.array(arrays), num_columns, axis=0)

    components = tuple(
        Times(
            rows([t.components[i].per_layer for t in tables]),
            rows([t.components[i].fixed for t in tables]),
            rows([t.components[i].first for t in tables]),
            rows([t.components[i].last for t in tables]),
        )
        for i in range(len(tables[0].components))
    )
    caps = Caps(
        rows([t.caps.middle for t in tables]),
        rows([t.caps.first for t in tables]),
        rows([t.caps.last for t in tables]),
        rows([t.caps.only for t in tables]),
    )
    return StageTable(components, caps)


def _two_components(
    model: StageModel,
    counts: Counts,
    num_stages: int,
    concurrency: Array,
    table: StageTable,
    *,
    optimistic: bool,
    bisections: int,
) -> Array:
    """Hold the first component within a limit, bisect the second; the limit is swept.

    The optimistic value of an interval of limits is the first component at its lower end with the
    second at its upper end; beyond the sweep it is the second without any limit.
    """

    def second_at(limit: Array) -> Array:
        return bottleneck(
            counts,
            model.num_layers,
            capped(table, limit),
            component=1,
            optimistic=optimistic,
            bisections=bisections,
        )

    alone = bottleneck(
        counts, model.num_layers, table, component=0, optimistic=optimistic, bisections=bisections
    )
    finite = np.isfinite(alone)
    # The bisection's lower end times its relative width reaches its upper end.
    base = np.where(finite, alone, 0.0)
    reach = 1.0 + 4.0 ** (1 - bisections / 2) + 1e-9
    edges = np.geomspace(1.0, _SWEEP_WIDTH, _SWEEP if bisections > 20 else _SWEEP // 3)
    best = np.zeros(len(counts))
    for low, high in itertools.pairwise(edges):
        second = second_at(base * high * reach)
        first = alone * (low if optimistic else high * reach)
        best = np.maximum(best, _throughput(model, num_stages, concurrency, [first, second]))
    if optimistic:
        second = second_at(np.where(finite, np.inf, 0.0))
        tail = [alone * edges[-1], second]
        return np.maximum(best, _throughput(model, num_stages, concurrency, tail))
    exact = [alone * reach, second_at(base * reach)]
    return np.maximum(best, _throughput(model, num_stages, concurrency, exact))


def capped(table: StageTable, limit: Array) -> StageTable:
    """The table with caps per column, lowered so that the first component stays within `limit`."""
    t, caps = table.components[0], table.caps
    column = limit[:, None]

    def cap(extra: Array, old: Array) -> Array:
        return np.minimum(old, np.floor((column - t.fixed - extra) / t.per_layer + _EDGE))

    none = np.zeros_like(t.fixed)
    return replace(
        table,
        caps=replace(
            caps,
            middle=cap(none, caps.middle),
            first=cap(t.first, caps.first),
            last=cap(t.last, caps.last),
            only=cap(t.first + t.last, caps.only),
        ),
    )


def _throughput(
    model: StageModel, num_stages: int, concurrency: Array, maxima: Sequence[Array]
) -> Array:
    finite = np.isfinite(maxima[-1]) & np.isfinite(maxima[0])
    safe = [np.where(finite, m, 1.0) for m in maxima]
    return np.where(finite, model.throughput(num_stages, concurrency, safe), 0.0)


def concurrency_grid(num_stages: int, largest: int, ratio: float) -> list[int]:
    """Integers from the stage count to the largest concurrency, growing by `ratio`."""
    grid = [num_stages]
    while grid[-1] < largest:
        grid.append(min(largest, max(grid[-1] + 1, round(grid[-1] * ratio))))
    return grid


def price(model: StageModel, counts: Counts, grid: Sequence[int], *, num_stages: int) -> Priced:
    """The best of the grid's concurrencies for each column of `num_stages` stages."""
    values = values_at(model, counts, num_stages, [(g, g) for g in grid])
    best = np.argmax(values, axis=0)
    return Priced(values[best, np.arange(len(counts))], np.array(grid, dtype=np.int64)[best])


def price_ceiling(
    model: StageModel,
    counts: Counts,
    grid: Sequence[int],
    *,
    num_stages: int,
    bisections: int = _BISECTIONS,
) -> Array:
    """No concurrency between the grid's ends gives a column more than this."""
    cells = [(high, low) for low, high in itertools.pairwise(grid)]
    values = values_at(
        model,
        counts,
        num_stages,
        cells or [(grid[0], grid[0])],
        optimistic=True,
        bisections=bisections,
    )
    return values.max(axis=0)
