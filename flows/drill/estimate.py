"""What a drill in virtual time takes of a job: how much work, how fast a node, at what price."""

from dataclasses import dataclass
from pathlib import Path

from flows.drive.drive import renderer_of
from placement.answer.plan_builder import answer
from placement.catalogue.hardware import load_catalogue
from placement.errors import BadInput
from placement.question.planning_input import PlanningInput, make_question, spot_snapshot
from shunt.errors import JobError
from shunt.job.job import Job
from shunt.job.sampling import Sampling
from shunt.run.prepare import preflight

FAKE_END_ODDS = 64
"""The fake engine ends a generation at one token in so many (`workers/engine/fake.py`)."""
FAKE_ADMITTED = 1.25
"""It runs all that a worker admits: so many per sequence of max_num_seqs (`workers/worker.py`)."""
ASSUMED_SPOT_USD, ASSUMED_ON_DEMAND_USD = 0.35, 1.0
"""Where nobody told a price: spot at about a third of on-demand, so that shares can be read."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Output tokens per second of one node, and in all."""

    node_tokens_per_s: float
    total_tokens: float
    told: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prices:
    spot_usd_per_hour: float
    on_demand_usd_per_hour: float
    told: tuple[str, ...] = ()


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


def prices_of(instance_type: str, *, spot: float | None, on_demand: float | None) -> Prices:
    """From options, else from the shipped snapshot, else of no currency but their ratio."""
    known = load_catalogue().instances.get(instance_type)
    told: list[str] = []
    if on_demand is None and known is not None:
        on_demand = known.ondemand_usd_per_hour
    if spot is None and on_demand is not None:
        spot = spot_snapshot().get((instance_type, ""))
    if spot is None or on_demand is None:
        assumed = f"{ASSUMED_SPOT_USD:g} spot and {ASSUMED_ON_DEMAND_USD:g} on demand"
        told.append(f"no prices of {instance_type or 'the nodes'} are known: {assumed} are taken")
        return Prices(ASSUMED_SPOT_USD, ASSUMED_ON_DEMAND_USD, tuple(told))
    told.append(f"prices per node hour: {spot:g} USD spot, {on_demand:g} USD on demand")
    return Prices(spot, on_demand, tuple(told))


def shard_s(job: Job, speed: Speed) -> float:
    """How long a node works on a shard: what is lost of it where nothing is saved between."""
    rows = max(1, preflight_rows(job))
    return job.shard_prompts * speed.total_tokens / rows / speed.node_tokens_per_s


def preflight_rows(job: Job) -> int:
    return preflight(job, renderer_of(job)).num_good_rows


def _tokens(job: Job) -> tuple[float, str]:
    report = preflight(job, renderer_of(job))
    if not report.num_good_rows:
        raise JobError("the job's input has no good row; nothing to drill")
    if job.model.engine_kind == "fake":
        mean = fake_mean_tokens(job.sampling)
        return report.num_good_rows * mean, f"{mean:.1f} output tokens a row, as the fake engine"
    return float(report.max_output_tokens), "every row runs to its max_tokens; --tokens says better"


def fake_mean_tokens(sampling: Sampling) -> float:
    """Mean length where each token from `min_tokens` on ends with odds of 1 in 64."""
    if sampling.ignore_eos:
        return float(sampling.max_tokens)
    going_on = 1.0 - 1.0 / FAKE_END_ODDS
    free = max(0, sampling.max_tokens - sampling.min_tokens)
    return min(sampling.min_tokens, sampling.max_tokens) + FAKE_END_ODDS * (1 - going_on**free)


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
