"""Why the plan is as it is: what limits each stage, and why each offering was used or refused."""

from dataclasses import dataclass

import numpy as np

from placement.answer.plan_builder import Answer
from placement.catalogue.offering import Offering, SupplyGroup
from placement.estimate.roofline_model import RooflineModel
from placement.estimate.stage_time import StepTime
from placement.search.pricing import price
from placement.search.solver import Chosen


@dataclass(frozen=True, slots=True)
class StageReason:
    """Where one stage's time goes, in shares of the total, and what bounds it."""

    pipeline: int
    stage: int
    where: str
    seconds_per_request: float
    bottleneck_share: float
    """This stage's time / the slowest stage's: 1 for the bottleneck."""
    compute: float
    bandwidth: float
    link: float
    host: float
    limit: str


@dataclass(frozen=True, slots=True)
class OfferingReason:
    """One offering: how many nodes are used of how many, and the sentence why."""

    offering: Offering
    used: int
    reason: str


@dataclass(frozen=True, slots=True)
class Runner:
    """A pipeline that was not taken."""

    stages: str
    requests_per_s: float
    usd_per_hour: float


def stage_reasons(answer: Answer) -> list[StageReason]:
    """One line per stage of the plan, in order."""
    reasons: list[StageReason] = []
    for p, pipeline in enumerate(answer.pipelines):
        slowest = max(stage.seconds.total for stage in pipeline.stages)
        for s, stage in enumerate(pipeline.stages):
            unit = answer.solution.model.units[stage.unit]
            compute, bandwidth, link, host = _shares(stage.seconds)
            limit = stage.limit + (", KV full" if stage.kv_full else "")
            reasons.append(
                StageReason(
                    p,
                    s,
                    f"{unit.name} layers {stage.first_layer}-"
                    f"{stage.first_layer + stage.role.layers - 1}",
                    stage.seconds.total,
                    stage.seconds.total / slowest,
                    compute,
                    bandwidth,
                    link,
                    host,
                    limit,
                )
            )
    return reasons


def _shares(time: StepTime) -> tuple[float, float, float, float]:
    total = time.total
    compute = time.products * time.compute_share + time.attention
    bandwidth = time.products * (1 - time.compute_share) + time.cache + time.vectors
    return compute / total, bandwidth / total, time.link / total, time.host / total


def offering_reasons(answer: Answer) -> list[OfferingReason]:
    """Every offering of the question with its use and why."""
    solution = answer.solution
    used: dict[Offering, int] = {}
    at = 0
    for group in solution.groups:
        for offering in group.offerings:
            used[offering] = solution.nodes[at]
            at += 1
    group_of = {o: g for g, group in enumerate(solution.groups) for o in group.offerings}
    reasons: list[OfferingReason] = []
    for offering in answer.question.offerings:
        g = group_of.get(offering)
        count = used.get(offering, 0)
        text = "no nodes to be had (max_nodes 0)" if g is None else _why(answer, g, offering, count)
        reasons.append(OfferingReason(offering, count, text))
    return reasons


def _why(answer: Answer, g: int, offering: Offering, used: int) -> str:
    solution, model = answer.solution, answer.solution.model
    group = solution.groups[g]
    reach = best_alone(model, g)
    worth = solution.gpu_worth[g] * group.instance.gpu_count
    if used:
        text = f"used: a further node would add about {worth:.3g} requests/s"
        if worth > 0:
            text += f" ({offering.usd_per_hour / worth / 3.6:.3g} USD per 1,000 prompts)"
        if used < offering.max_nodes:
            text += f"; the other {offering.max_nodes - used} are not worth their price here"
        return text
    if not any(unit.group == g for unit in model.units):
        return "refused: no TP degree of this node divides the model's heads"
    cheaper = [o for o in group.offerings if o.usd_per_hour < offering.usd_per_hour]
    mine = offering.usd_per_hour
    if cheaper and sum(o.max_nodes for o in cheaper) > 0 and _left(answer, group, cheaper):
        return f"refused: {cheaper[0].name} is the same node for {cheaper[0].usd_per_hour:g} USD/h"
    plan_ratio = solution.requests_per_s / max(solution.usd_per_hour, 1e-9)
    if worth > 0 and mine > 0 and worth / mine < plan_ratio:
        return (
            f"refused: a node would bring {worth:.3g} requests/s for {mine:g} USD/h, "
            f"{worth / mine / plan_ratio:.0%} of what the plan gets for its money"
        )
    if reach is None:
        return "refused: it cannot hold the model alone, and no mix with it beats the plan"
    return (
        f"refused: alone it makes {reach:.3g} requests/s per node, which does not pay or fit "
        "beside the plan's pipelines"
    )


def _left(answer: Answer, group: SupplyGroup, cheaper: list[Offering]) -> bool:
    """Whether the cheaper offerings of the group still had nodes."""
    at = 0
    left = 0
    for other in answer.solution.groups:
        for offering in other.offerings:
            if other is group and offering in cheaper:
                left += offering.max_nodes - answer.solution.nodes[at]
            at += 1
    return left > 0


def best_alone(model: RooflineModel, g: int) -> float | None:
    """Most requests/s per node of the group's own pipelines, or None where it holds none."""
    group = model.groups[g]
    best = 0.0
    for i, unit in enumerate(model.units):
        if unit.group != g:
            continue
        for stages in range(1, min(8, group.max_gpus // unit.tp) + 1):
            best = max(best, _per_node(model, i, stages))
    return best or None


def _per_node(model: RooflineModel, unit: int, stages: int) -> float:
    counts = np.zeros((1, len(model.units)), dtype=np.int64)
    counts[0, unit] = stages
    found = price(model, counts, num_stages=stages, tolerance=0.05, grid_ratio=1.4)
    gpus = stages * model.units[unit].tp
    per_node = model.groups[model.units[unit].group].instance.gpu_count
    return float(found.throughput[0]) * per_node / gpus


def runners_up(answer: Answer) -> list[Runner]:
    """The pipelines that came closest to being taken."""
    return [_runner(answer, column) for column in answer.solution.runners_up]


def _runner(answer: Answer, column: Chosen) -> Runner:
    model = answer.solution.model
    parts = [f"{n}x {model.units[i].name}" for i, n in enumerate(column.counts) if n]
    price = sum(
        n
        * model.units[i].tp
        / model.groups[model.units[i].group].instance.gpu_count
        * model.groups[model.units[i].group].offerings[0].usd_per_hour
        for i, n in enumerate(column.counts)
    )
    return Runner(" | ".join(parts), column.value, price)
