"""The knapsack over layers where a pipeline may take only certain sets of stages of each group:
whole nodes, or no more stages than a small pool carries.

A bundle is all that a pipeline takes of one group. Dynamic programming over the groups, one bundle
of each, keeps the cheapest way to carry so many layers in so many stages. All stages are counted
as middle ones; what a first and a last one lose at least is added to the layers to be carried, so
that the price is never above the right one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from placement.estimate.stage_table import Array
from placement.search.knapsack import Found, Layers


@dataclass(frozen=True, slots=True)
class Bundle:
    """Stages by unit, all of one group."""

    counts: NDArray[np.int64]
    num_stages: int


def cheapest_bundles(
    layers: Layers,
    cost: Array,
    groups: Sequence[Sequence[Bundle]],
    num_stages: int,
    num_layers: int,
    *,
    ceiling: bool,
) -> Found:
    """Cheapest pipeline of exactly `num_stages` stages per bottleneck, of one bundle per group."""
    num_times = len(layers.times)
    lost = _least_loss(layers) if num_stages > 1 else np.zeros(num_times, dtype=np.int64)
    role = layers.only if num_stages == 1 else layers.middle
    width = num_layers + int(lost.max()) + 1
    state = np.full((num_stages + 1, num_times, width), np.inf)
    state[0, :, 0] = 0.0
    columns = np.arange(width, dtype=np.intp).reshape(1, 1, width)
    choices: list[NDArray[np.int16]] = []
    kept = [_undominated(group, role, cost, num_stages) for group in groups]
    for group in kept:
        best, choice = state.copy(), np.full(state.shape, -1, dtype=np.int16)
        for b, bundle in enumerate(group):
            carried = _carried(bundle, role)
            at = np.maximum(columns - np.maximum(carried, 0).reshape(1, -1, 1), 0)
            part = state[: num_stages + 1 - bundle.num_stages]
            reached = np.take_along_axis(part, np.broadcast_to(at, part.shape), axis=2)
            reached = reached + float(bundle.counts @ cost)
            reached[:, carried < 0] = np.inf
            better = reached < best[bundle.num_stages :]
            np.copyto(best[bundle.num_stages :], reached, where=better)
            np.copyto(choice[bundle.num_stages :], np.int16(b), where=better)
        state = best
        choices.append(choice)
    rows = np.arange(num_times)
    need = num_layers + lost
    counts = np.zeros((num_times, len(cost)), dtype=np.int64)
    total = state[num_stages, rows, need]
    if not ceiling:
        left = np.full(num_times, num_stages)
        for group, choice in zip(reversed(kept), reversed(choices), strict=True):
            taken = choice[left, rows, need]
            for b, bundle in enumerate(group):
                mine = taken == b
                counts[mine] += bundle.counts
                left[mine] -= bundle.num_stages
                need[mine] = np.maximum(need[mine] - _carried(bundle, role)[mine], 0)
    return Found(num_stages, layers.times, total, counts)


def _least_loss(layers: Layers) -> NDArray[np.int64]:
    """Layers that the first and the last stage carry fewer than middle ones, at least."""
    far = 1 << 20
    first = np.where(layers.first > 0, layers.middle - layers.first, far).min(axis=0)
    last = np.where(layers.last > 0, layers.middle - layers.last, far).min(axis=0)
    lost = first + last
    return np.where(lost < far, lost, 0)


def _carried(bundle: Bundle, role: NDArray[np.int64]) -> NDArray[np.int64]:
    """Layers per bottleneck; -1 where one of the stages carries none."""
    used = np.flatnonzero(bundle.counts)
    total = bundle.counts[used] @ role[used]
    return np.where((role[used] > 0).all(axis=0), total, -1)


def _undominated(
    group: Sequence[Bundle], role: NDArray[np.int64], cost: Array, most: int
) -> list[Bundle]:
    """Bundles for which no cheaper one of as many stages carries as much at every bottleneck."""
    ranked = sorted(
        (bundle for bundle in group if 0 < bundle.num_stages <= most),
        key=lambda bundle: float(bundle.counts @ cost),
    )
    kept: list[tuple[Bundle, NDArray[np.int64]]] = []
    for bundle in ranked:
        profile = _carried(bundle, role)
        if (profile <= 0).all():
            continue
        if not any(
            other.num_stages == bundle.num_stages and np.all(carried >= profile)
            for other, carried in kept
        ):
            kept.append((bundle, profile))
    return [bundle for bundle, _ in kept]
