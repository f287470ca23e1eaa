"""What a drill in virtual time takes of a job: how much work, and how fast a node."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flows.drill.market import DrillMarket
from placement.answer.plan_builder import answer
from placement.errors import BadInput
from placement.question.planning_input import PlanningInput, make_question
from shunt.dataset.rendering import FAKE_MODEL_LEN, renderer_of
from shunt.drill.simulation import DrillSettings
from shunt.errors import JobError
from shunt.job.job import Job
from shunt.job.sampling import Sampling
from shunt.run.prepare import preflight

FAKE_END_ODDS = 64
"""The fake engine ends a generation at one token in so many (`workers/engine/fake.py`)."""
FAKE_ADMITTED = 1.25
"""It runs all that it is given: so many per sequence of max_num_seqs (`workers/engine/fake.py`)."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Output tokens per second of one node, and in all."""

    node_tokens_per_s: float
    total_tokens: float
    told: tuple[str, ...]


def speed_of(job: Job, *, tokens: float | None, tokens_per_s: float | None, folder: Path) -> Speed:
    """From options, else from the fake engine's settings, else from the job's plan.

    Raises `JobError` naming the option that would tell what is missing.
    """
    told: list[str] = []
    if tokens is None:
        tokens, how = _tokens(job)
        told.append(how)
    if tokens_per_s is None:
        tokens_per_s, how = _tokens_per_s(job, folder)
        told.append(how)
    return Speed(tokens_per_s, tokens, tuple(told))


def settings_of(job: Job, market: DrillMarket, speed: Speed, *, startup_s: float) -> DrillSettings:
    """The job on the market, as the simulation takes it. `startup_s`: launch to first token."""
    return DrillSettings(
        total_tokens=speed.total_tokens,
        nodes=market.nodes,
        tokens_per_s=speed.node_tokens_per_s,
        spot_usd_per_hour=market.prices.spot_usd_per_hour,
        on_demand_usd_per_hour=market.prices.on_demand_usd_per_hour,
        startup_s=startup_s,
        checkpoint_s=job.checkpoint_interval_s,
        request_s=shard_s(job, speed),
        notice_s=market.notice_s,
        unnoticed=market.unnoticed,
    )


def shard_s(job: Job, speed: Speed) -> float:
    """How long a node works on a shard: what is lost of it where nothing is saved between."""
    rows = max(1, preflight(job, renderer_of(job, clock=datetime.now(UTC))).num_good_rows)
    return job.shard_prompts * speed.total_tokens / rows / speed.node_tokens_per_s


def _tokens(job: Job) -> tuple[float, str]:
    report = preflight(job, renderer_of(job, clock=datetime.now(UTC)))
    if not report.num_good_rows:
        raise JobError("the job's input has no good row; nothing to drill")
    if job.model.engine_kind == "fake":
        mean = fake_mean_tokens(job.sampling)
        return report.num_good_rows * mean, f"{mean:.1f} output tokens a row, as the fake engine"
    return float(report.max_output_tokens), "every row runs to its max_tokens; --tokens says better"


def fake_mean_tokens(sampling: Sampling) -> float:
    """Mean length where each token from `min_tokens` on ends with odds of 1 in 64."""
    limit = FAKE_MODEL_LEN if sampling.max_tokens is None else sampling.max_tokens
    if sampling.ignore_eos:
        return float(limit)
    going_on = 1.0 - 1.0 / FAKE_END_ODDS
    free = max(0, limit - sampling.min_tokens)
    return min(sampling.min_tokens, limit) + FAKE_END_ODDS * (1 - going_on**free)


def _tokens_per_s(job: Job, folder: Path) -> tuple[float, str]:
    model = job.model
    if model.engine_kind == "fake" and model.fake_tokens_per_s is not None:
        at_once = int(model.engine.max_num_seqs * FAKE_ADMITTED)
        found = model.fake_tokens_per_s * at_once
        return found, f"{found:g} tokens/s a node: {at_once} at once in the fake engine"
    if job.plan is None:
        raise JobError("how fast is a node? give --tokens-per-s, or a plan section in the job")
    try:
        question = make_question(PlanningInput.model_validate(job.plan), model.path, folder=folder)
        plan = answer(question).plan
    except (BadInput, ValueError) as error:
        raise JobError(f"plan: {error}; or give --tokens-per-s") from error
    found = plan.predicted.output_tokens_per_s / len(plan.nodes)
    return found, f"{found:.0f} tokens/s a node: the job's plan over its {len(plan.nodes)} nodes"
