"""The knapsack over layers: the cheapest stages that carry the model, for every bottleneck.

Dynamic programming over (stages, layers), all bottlenecks of a grid at once.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from placement.estimate.stage_table import Array, StageTable
from placement.search.pricing import Counts

_EDGE = 1e-9
_TIME_SPAN = 12.0
"""Bottlenecks up to this many times the quickest one are searched."""


@dataclass(frozen=True, slots=True)
class Layers:
    """Layers that each unit carries in each role, per bottleneck of a grid: units x times."""

    times: Array
    middle: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    only: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cell:
    """Columns of so many stages with a concurrency between two values, over a span of bottlenecks
    (None: from the quickest imaginable one upward)."""

    num_stages: int
    high: int
    low: int
    time_ratio: float
    span: tuple[float, float] | None
    allowed: NDArray[np.intp]
    depth: int

    def split(self, quickest: float, slowest: float) -> "list[Cell]":
        """Halves by concurrency (where there is more than one), over a finer grid of times."""
        finer = replace(
            self,
            time_ratio=math.sqrt(self.time_ratio),
            span=(quickest, slowest),
            depth=self.depth + 1,
        )
        middle = round(math.sqrt(self.high * self.low))
        if not self.low < middle < self.high:
            return [finer]
        return [replace(finer, high=middle), replace(finer, low=middle)]


@dataclass(frozen=True, slots=True)
class Found:
    """Cheapest stages per bottleneck of one (stages, concurrency) cell."""

    num_stages: int
    times: Array
    cost: Array
    counts: Counts


def layers_in(table: StageTable, num_layers: int, cell: Cell) -> Layers | None:
    """Layers per unit and bottleneck, or None where the model cannot fit at this concurrency."""
    t, caps, allowed = table.components[0], table.caps, cell.allowed
    widest = np.max(np.maximum(caps.middle, caps.only)[allowed])
    if widest * cell.num_stages < num_layers:
        return None
    if cell.span is None:
        # The quickest bottleneck: the model spread evenly over the quickest stages.
        even = t.per_layer * num_layers / cell.num_stages + t.fixed
        quickest = float(np.min(even[allowed])) * 0.98
        span = (quickest, quickest * _TIME_SPAN)
    else:
        span = cell.span
    steps = math.ceil(math.log(span[1] / span[0]) / math.log(cell.time_ratio) - 1e-6)
    times: Array = span[0] * np.power(cell.time_ratio, np.arange(steps + 1, dtype=float))

    def carried(extra: Array, cap: Array) -> NDArray[np.int64]:
        free = (times[None, :] - (t.fixed + extra)[:, None]) / t.per_layer[:, None]
        whole = np.minimum(np.floor(free + _EDGE), cap[:, None])
        return np.clip(whole, 0, num_layers).astype(np.int64)

    none = np.zeros_like(t.fixed)
    return Layers(
        times,
        carried(none, caps.middle),
        carried(t.first, caps.first),
        carried(t.last, caps.last),
        carried(t.first + t.last, caps.only),
    )


def undominated(layers: Layers, cost: Array, allowed: NDArray[np.intp]) -> NDArray[np.intp]:
    """Units for which no cheaper one carries as much in every role at every bottleneck."""
    order = allowed[np.argsort(cost[allowed], kind="stable")]
    profile = np.concatenate([layers.middle, layers.first, layers.last], axis=1)
    kept: list[int] = []
    for unit in order:
        if not profile[unit].any() and not layers.only[unit].any():
            continue
        if any(np.all(profile[other] >= profile[unit]) for other in kept):
            continue
        kept.append(int(unit))
    return np.array(kept, dtype=np.intp)


def cheapest_stages(
    layers: Layers,
    cost: Array,
    kept: NDArray[np.intp],
    num_stages: int,
    num_layers: int,
    *,
    ceiling: bool,
) -> Found:
    """Cheapest multiset of exactly `num_stages` stages that carries the model, per bottleneck."""
    num_times = len(layers.times)
    counts = np.zeros((num_times, len(cost)), dtype=np.int64)
    if num_stages == 1:
        able = layers.only >= num_layers
        price = np.where(able, cost[:, None], np.inf)
        best = np.argmin(price, axis=0)
        counts[np.arange(num_times), best] = 1
        return Found(1, layers.times, price[best, np.arange(num_times)], counts)
    # need[j]: cheapest way to carry at least j layers with the stages placed so far.
    start = np.full((num_times, num_layers + 1), np.inf)
    start[:, 0] = 0.0
    states, choices = [start], list[NDArray[np.intp]]()
    for stage in range(num_stages):
        role = layers.middle
        if stage == num_stages - 2:
            role = layers.first
        elif stage == num_stages - 1:
            role = layers.last
        state, choice = _place(states[-1], role, cost, kept)
        states.append(state)
        choices.append(choice)
    total = states[-1][:, num_layers]
    if not ceiling:
        _trace(counts, choices, layers, num_layers)
    return Found(num_stages, layers.times, total, counts)


def _place(
    state: Array, carried: NDArray[np.int64], cost: Array, kept: NDArray[np.intp]
) -> tuple[Array, NDArray[np.intp]]:
    """Place one more stage: new[t, j] = min over units u of state[t, j - carried(u, t)] + cost(u).

    A unit that carries nothing at a bottleneck may not stand there.
    """
    num_times, width = state.shape
    columns = np.reshape(np.arange(width, dtype=np.intp), (1, width))
    best = np.full_like(state, np.inf)
    choice = np.zeros(state.shape, dtype=np.intp)
    for unit in kept:
        shift = carried[unit][:, None]
        reached = np.take_along_axis(state, np.maximum(columns - shift, 0), axis=1) + cost[unit]
        better = (reached < best) & (shift > 0)
        np.copyto(best, reached, where=better)
        np.copyto(choice, unit, where=better)
    assert num_times == len(best)
    return best, choice


def _trace(
    counts: Counts,
    choices: list[NDArray[np.intp]],
    layers: Layers,
    num_layers: int,
) -> None:
    """Fill in the units of the cheapest columns, from the last stage back to the first placed."""
    rows = np.arange(len(counts))
    need = np.full(len(counts), num_layers)
    last = len(choices) - 1
    for stage in range(last, -1, -1):
        unit = choices[stage][rows, need]
        counts[rows, unit] += 1
        role = (
            layers.last if stage == last else layers.first if stage == last - 1 else layers.middle
        )
        need = np.maximum(need - role[unit, rows], 0)
