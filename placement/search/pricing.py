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
    """Best throughput per column (0: infeasible), the concurrency that reaches it, a ceiling."""

    throughput: Array
    concurrency: NDArray[np.int64]
    ceiling: Array


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

    A cell is a concurrency and a lower or equal one: the value is optimistic for every concurrency
    between the two.
    """
    columns = np.tile(np.arange(len(counts)), len(cells))
    which = np.repeat(np.arange(len(cells)), len(counts))
    found = values_of_pairs(
        model,
        counts,
        num_stages,
        cells,
        columns,
        which,
        optimistic=optimistic,
        bisections=bisections,
    )
    return found.reshape(len(cells), len(counts))


def values_of_pairs(
    model: StageModel,
    counts: Counts,
    num_stages: int,
    cells: Sequence[tuple[int, int]],
    columns: NDArray[np.intp],
    which: NDArray[np.intp],
    *,
    optimistic: bool = False,
    bisections: int = _BISECTIONS,
) -> Array:
    """Requests/s of pairs of a column (row of `counts`) and a cell (row of `cells`)."""
    model.prepare(num_stages, cells)
    tables = _stacked([model.table(num_stages, high, low) for high, low in cells])
    concurrency = np.array([float(high) for high, _ in cells])
    values = np.zeros(len(columns))
    for start in range(0, len(columns), _ROWS):
        part = slice(start, start + _ROWS)
        rows, cell = counts[columns[part]], which[part]
        values[part] = _values(
            model,
            rows,
            num_stages,
            concurrency[cell],
            _taken(tables, cell),
            optimistic=optimistic,
            bisections=bisections,
        )
    return values


def _values(
    model: StageModel,
    rows: Counts,
    num_stages: int,
    concurrency: Array,
    table: StageTable,
    *,
    optimistic: bool,
    bisections: int,
) -> Array:
    """All pairs of cell and column as rows of one bisection."""
    if len(table.components) == 1:
        time = bottleneck(
            rows, model.num_layers, table, optimistic=optimistic, bisections=bisections
        )
        return _throughput(model, num_stages, concurrency, [time])
    return _two_components(
        model,
        rows,
        num_stages,
        concurrency,
        table,
        optimistic=optimistic,
        bisections=bisections,
    )


def _stacked(tables: Sequence[StageTable]) -> StageTable:
    """One table with a row for each cell."""
    components = tuple(
        Times(
            np.array([t.components[i].per_layer for t in tables]),
            np.array([t.components[i].fixed for t in tables]),
            np.array([t.components[i].first for t in tables]),
            np.array([t.components[i].last for t in tables]),
        )
        for i in range(len(tables[0].components))
    )
    caps = Caps(
        np.array([t.caps.middle for t in tables]),
        np.array([t.caps.first for t in tables]),
        np.array([t.caps.last for t in tables]),
        np.array([t.caps.only for t in tables]),
    )
    return StageTable(components, caps)


def _taken(table: StageTable, which: NDArray[np.intp]) -> StageTable:
    """The rows of these cells."""
    components = tuple(
        Times(t.per_layer[which], t.fixed[which], t.first[which], t.last[which])
        for t in table.components
    )
    caps = table.caps
    return StageTable(
        components,
        Caps(caps.middle[which], caps.first[which], caps.last[which], caps.only[which]),
    )


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


def price(
    model: StageModel,
    counts: Counts,
    *,
    num_stages: int,
    tolerance: float,
    grid_ratio: float = 1.08,
) -> Priced:
    """The best concurrency of each column of `num_stages` stages, and a ceiling close above.

    A grid first; then every cell between its points that may hold more than `tolerance` above the
    best is halved, until none does or no integer is left between its ends.
    """
    grid = concurrency_grid(num_stages, model.max_concurrency, grid_ratio)
    values = values_at(model, counts, num_stages, [(g, g) for g in grid])
    top = np.argmax(values, axis=0)
    best = values[top, np.arange(len(counts))]
    concurrency = np.array(grid, dtype=np.int64)[top]
    ceiling = best.copy()
    wide = [(low, high) for low, high in itertools.pairwise(grid) if high - low > 1]
    low = np.repeat(np.array([c[0] for c in wide], dtype=np.int64), len(counts))
    high = np.repeat(np.array([c[1] for c in wide], dtype=np.int64), len(counts))
    column = np.tile(np.arange(len(counts)), len(wide))
    while len(column):
        above = _of_spans(model, counts, num_stages, column, high, low, optimistic=True)
        doubtful = above > best[column] * (1 + tolerance)
        np.maximum.at(ceiling, column[~doubtful], above[~doubtful])
        column, high, low = column[doubtful], high[doubtful], low[doubtful]
        if not len(column):
            break
        middle = (high + low) // 2
        found = _of_spans(model, counts, num_stages, column, middle, middle, optimistic=False)
        np.maximum.at(best, column, found)
        hit = (found == best[column]) & (found > 0)
        concurrency[column[hit]] = middle[hit]
        column = np.concatenate([column, column])
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
        left = high - low > 1
        column, high, low = column[left], high[left], low[left]
    return Priced(best, concurrency, np.maximum(ceiling, best))


def _of_spans(
    model: StageModel,
    counts: Counts,
    num_stages: int,
    column: NDArray[np.intp],
    high: NDArray[np.int64],
    low: NDArray[np.int64],
    *,
    optimistic: bool,
) -> Array:
    """Values of pairs of a column and a span of concurrencies."""
    spans, which = np.unique(np.stack([high, low], axis=1), axis=0, return_inverse=True)
    cells = [(int(h), int(g)) for h, g in spans]
    which = np.asarray(which, dtype=np.intp).reshape(-1)
    return values_of_pairs(model, counts, num_stages, cells, column, which, optimistic=optimistic)


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
