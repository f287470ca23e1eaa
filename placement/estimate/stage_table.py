"""Stage times and layer caps of every kind of stage, as small arrays that the search works on.

The seam between search and estimator: whatever can give a `StageTable` for a number of stages and
a concurrency can be searched (the calibrated roofline here, ShuntServe's published estimator in
the benchmarks).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Unit:
    """A kind of stage: so many GPUs of one node of a supply group, under tensor parallelism."""

    group: int
    tp: int
    name: str


@dataclass(frozen=True, slots=True)
class Times:
    """One component of a stage's time: `per_layer` x layers + `fixed` (+ role extras), per unit."""

    per_layer: Array
    fixed: Array
    first: Array
    last: Array


@dataclass(frozen=True, slots=True)
class Caps:
    """Most layers that fit, per unit, in each role; negative where not even the extras fit."""

    middle: Array
    first: Array
    last: Array
    only: Array


@dataclass(frozen=True, slots=True)
class StageTable:
    """Times by component (each component's maximum over the stages counts) and caps."""

    components: tuple[Times, ...]
    caps: Caps


class StageModel(Protocol):
    """An estimator as the search sees it.

    `table(k, high, low)`: stage times and memory caps that are not worse than those of any
    concurrency between the two, which is what the bounds are made of; with `high` equal to `low`
    they are those of that concurrency. Caps do not grow with concurrency, so that `low` has the
    best; times mostly fall, so that `high` has, where nothing that grows is counted at `low`.
    """

    @property
    def units(self) -> Sequence[Unit]: ...

    @property
    def num_layers(self) -> int: ...

    @property
    def max_concurrency(self) -> int: ...

    def table(self, num_stages: int, concurrency: int, cap_concurrency: int) -> StageTable: ...

    def prepare(self, num_stages: int, cells: Sequence[tuple[int, int]]) -> None:
        """Make the tables of many (high, low) ready at once, where that is quicker."""
        ...

    def throughput(self, num_stages: int, concurrency: Array, maxima: Sequence[Array]) -> Array:
        """Requests/s from the largest stage time of each component; falls as any of them grows."""
        ...

    def value_factor(self, counts: NDArray[np.int64]) -> Array:
        """Share of the throughput that is kept under interruption, per column (rows of counts)."""
        ...
