"""The value of a pipeline that is given stage by stage, under any `StageModel`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from placement.estimate.stage_table import StageModel


@dataclass(frozen=True, slots=True)
class GivenStage:
    """Index of the unit and its layers."""

    unit: int
    layers: int


def largest_concurrency(model: StageModel, stages: Sequence[GivenStage]) -> int:
    """Most sequences that fit on every stage, or 0."""
    low, high = 0, model.max_concurrency
    while low < high:
        middle = (low + high + 1) // 2
        if middle >= len(stages) and _fits(model, stages, middle):
            low = middle
        else:
            high = middle - 1
    return low if low >= len(stages) else 0


def given_value_at(model: StageModel, stages: Sequence[GivenStage], concurrency: int) -> float:
    """Requests/s of these stages with so many sequences in flight; 0 where they do not fit."""
    if concurrency < len(stages) or not _fits(model, stages, concurrency):
        return 0.0
    table = model.table(len(stages), concurrency, concurrency)
    maxima: list[np.ndarray] = []
    for times in table.components:
        seconds = [
            times.per_layer[s.unit] * s.layers
            + times.fixed[s.unit]
            + (times.first[s.unit] if i == 0 else 0.0)
            + (times.last[s.unit] if i == len(stages) - 1 else 0.0)
            for i, s in enumerate(stages)
        ]
        maxima.append(np.array([max(seconds)]))
    return float(model.throughput(len(stages), np.array([float(concurrency)]), maxima)[0])


def _fits(model: StageModel, stages: Sequence[GivenStage], concurrency: int) -> bool:
    caps = model.table(len(stages), concurrency, concurrency).caps
    for i, s in enumerate(stages):
        first, last = i == 0, i == len(stages) - 1
        cap = (
            caps.only
            if first and last
            else caps.first
            if first
            else caps.last
            if last
            else caps.middle
        )
        if cap[s.unit] < s.layers:
            return False
    return True
