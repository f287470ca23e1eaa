"""What a plan will take and cost, as a range: start-up, steady work, and the drain of the tail."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from placement.answer.layout import PlacedPipeline
from placement.estimate.roofline_model import RooflineModel

# Standard normal quantile of 90 %.
_Z90 = 1.2816
_TAIL_POINTS = 24


@dataclass(frozen=True, slots=True)
class Quantiles:
    p10: float
    p50: float
    p90: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds and requests/s as quantiles of the estimator's own error."""

    requests_per_s: Quantiles
    duration_s: Quantiles
    drain_s: float
    """Of the median duration: from the last prompt's admission to the last token."""


def forecast(
    model: RooflineModel, pipelines: Sequence[PlacedPipeline], *, startup_s: float
) -> Forecast:
    """Time for the workload's prompts, pulled by all pipelines as they have room.

    Steady: prompts / sum of goodputs. When the queue is empty, each pipeline still holds its
    sequences; it makes their remaining tokens at falling concurrency. The spread is the
    leave-one-group-out error of the engine's calibration, log-normal, common to all pipelines.
    """
    rate = sum(pipeline.goodput_per_s for pipeline in pipelines)
    drains = [drain(model, pipeline) for pipeline in pipelines]
    in_flight = sum(d.requests_worth for d in drains)
    steady_s = max(0.0, model.workload.num_prompts - in_flight) / rate
    drain_s = max((d.seconds for d in drains), default=0.0)
    median = steady_s + drain_s
    factor = math.exp(_Z90 * model.engine.spread)
    return Forecast(
        Quantiles(rate / factor, rate, rate * factor),
        Quantiles(startup_s + median / factor, startup_s + median, startup_s + median * factor),
        drain_s,
    )


@dataclass(frozen=True, slots=True)
class Drain:
    """The end of a finite run on one pipeline."""

    seconds: float
    requests_worth: float
    """Prompts' worth of steady work that is done while draining."""


def drain(model: RooflineModel, pipeline: PlacedPipeline) -> Drain:
    """Seconds from the last admission to the last token, by steps over remaining tokens."""
    work = model.workload
    longest = work.max_output
    held = min(float(pipeline.concurrency), float(work.num_prompts))
    edges = [longest * (i / _TAIL_POINTS) ** 1.5 for i in range(_TAIL_POINTS + 1)]
    seconds = 0.0
    for low, high in itertools.pairwise(edges):
        running = max(1.0, held * work.share_still_running((low + high) / 2))
        seconds += (high - low) * round_s(model, pipeline, running)
    return Drain(seconds, held * work.mean_residual_output / work.mean_output)


def round_s(model: RooflineModel, pipeline: PlacedPipeline, running: float) -> float:
    """Seconds of one decode round (a token for every running sequence), nothing being prefilled."""
    num_stages = len(pipeline.stages)
    micro = max(1.0, running / num_stages)
    steps = [
        model.decode_step(stage.unit, stage.role, num_stages=num_stages, sequences=micro).total
        for stage in pipeline.stages
    ]
    num_micro = min(float(num_stages), running)
    stretch = 1.0 + model.engine.pipeline_stretch * (num_stages - 1)
    return max(sum(steps), num_micro * max(steps) * stretch)
