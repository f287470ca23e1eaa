"""How many stages a node carries: rows of the master, and GPUs of each row that a column takes.

A stage takes 1, 2, 4, 8... GPUs of one node. Such sizes divide each other, so that stages fit into
n nodes of N GPUs exactly when, for every size t, those of t or more GPUs take no more than
n t floor(N / t): placed largest first, a node that has u GPUs taken (a multiple of t) has room for
floor(N / t) - u / t more. Where N is a power of two, the smallest t says it all; a node of 3 or 6
GPUs needs the larger ones too.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from placement.catalogue.offering import SupplyGroup
from placement.estimate.stage_table import Array, Unit


@dataclass(frozen=True, slots=True)
class Shelf:
    """GPUs of one group that stages of `least_tp` GPUs or more may take, per node."""

    group: int
    least_tp: int
    per_node: int


def shelves_of(groups: Sequence[SupplyGroup], units: Sequence[Unit]) -> tuple[Shelf, ...]:
    """One shelf per group in their order, then those that odd nodes need."""
    whole: list[Shelf] = []
    extra: list[Shelf] = []
    for g, group in enumerate(groups):
        count = group.instance.gpu_count
        tps = sorted({unit.tp for unit in units if unit.group == g}) or [1]
        per_node = count // tps[0] * tps[0]
        whole.append(Shelf(g, tps[0], per_node))
        for tp in tps[1:]:
            if count // tp * tp < per_node:
                per_node = count // tp * tp
                extra.append(Shelf(g, tp, per_node))
    return (*whole, *extra)


def shelf_use(counts: NDArray[np.int64], units: Sequence[Unit], shelves: Sequence[Shelf]) -> Array:
    """GPUs per column and shelf."""
    use = np.zeros((len(counts), len(shelves)))
    for s, shelf in enumerate(shelves):
        for i, unit in enumerate(units):
            if unit.group == shelf.group and unit.tp >= shelf.least_tp:
                use[:, s] += counts[:, i] * unit.tp
    return use


def unit_costs(units: Sequence[Unit], shelves: Sequence[Shelf], worth: Array) -> Array:
    """What a stage of each unit takes, at the worth of a GPU of each shelf."""
    costs = np.zeros(len(units))
    for i, unit in enumerate(units):
        for s, shelf in enumerate(shelves):
            if unit.group == shelf.group and unit.tp >= shelf.least_tp:
                costs[i] += unit.tp * worth[s]
    return costs


def shelf_room(groups: Sequence[SupplyGroup], shelves: Sequence[Shelf]) -> Array:
    """GPUs of each shelf in the whole pool."""
    return np.array([float(groups[s.group].max_nodes * s.per_node) for s in shelves])


def node_worth(shelves: Sequence[Shelf], worth: Array, num_groups: int) -> Array:
    """Worth of a node of each group: of all its shelves together."""
    total = np.zeros(num_groups)
    for s, shelf in enumerate(shelves):
        total[shelf.group] += shelf.per_node * worth[s]
    return total


def nodes_needed(use: Array, shelves: Sequence[Shelf], num_groups: int) -> Array:
    """Whole nodes of each group that so much use of the shelves takes: columns x groups."""
    nodes = np.zeros((len(use), num_groups))
    for s, shelf in enumerate(shelves):
        wanted = np.ceil(use[:, s] / shelf.per_node - 1e-9)
        nodes[:, shelf.group] = np.maximum(nodes[:, shelf.group], wanted)
    return nodes
