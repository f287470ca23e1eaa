"""A new plan for a changed market, taken only when it pays for the switch.

What runs now is a plan too: its pipelines whose nodes are still offered go on, the others are gone.
The new plan is worth its switch when what it gains until the horizon exceeds what is lost while
nodes start and weights load.
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from placement.answer.layout import place_pipeline
from placement.answer.plan_builder import Answer, build
from placement.catalogue.offering import SupplyGroup, group_offerings
from placement.errors import Infeasible
from placement.estimate.roofline_model import RooflineModel
from placement.question.objective import Kind
from placement.question.question import Question
from placement.search.solver import Chosen, Solution, build_model, solve
from shunt.plan.plan import Pipeline, Plan

# Disk or object store to GPU memory, where the node's card allows: ShuntServe's tensor store
# loaded 20 layers onto g6.12xlarge in 19 to 25 s (1.4 to 1.8 GB/s per node).
_LOAD_BYTES_PER_S = 1.6e9


@dataclass(frozen=True, slots=True)
class Switch:
    """What changing plans costs and brings, in requests until the horizon."""

    kept: int
    """Pipelines that go on untouched."""
    lost_requests: float
    gained_requests: float
    accepted: bool

    @property
    def sentence(self) -> str:
        verb = "accepted" if self.accepted else "refused"
        return (
            f"replan {verb}: {self.kept} pipelines go on, switching loses "
            f"{self.lost_requests:.0f} requests and gains {self.gained_requests:.0f} by the horizon"
        )


def replan_answer(question: Question, running: Plan, *, horizon_s: float) -> Answer:
    """The better of what still runs and a new plan. Raises `Infeasible` where neither exists."""
    groups = group_offerings(question.offerings)
    model = build_model(question, groups)
    remaining = surviving(running, groups)
    kept = _as_solution(question, model, groups, remaining)
    try:
        fresh = solve(question)
    except Infeasible:
        if kept is None:
            raise
        return _noted(build(question, kept, version=running.version + 1), "no new plan is possible")
    if kept is None:
        return _noted(
            build(question, fresh, version=running.version + 1), "nothing of the old plan is left"
        )
    if _misses_deadline(question, kept):
        note = "what runs would miss the deadline"
        return _noted(build(question, fresh, version=running.version + 1), note)
    if not _better(question, fresh, kept):
        same = len(remaining) == len(running.pipelines)
        version = running.version if same else running.version + 1
        return _noted(build(question, kept, version=version), "what runs is still the best plan")
    switch = _switch(question, model, fresh, kept, horizon_s)
    chosen = fresh if switch.accepted else kept
    return _noted(build(question, chosen, version=running.version + 1), switch.sentence)


def surviving(running: Plan, groups: tuple[SupplyGroup, ...]) -> list[Pipeline]:
    """Pipelines whose nodes are all still offered, the fastest first where nodes are short."""
    left = Counter[tuple[str, str, str]]()
    for group in groups:
        for offering in group.offerings:
            key = (offering.instance.name, offering.zone, offering.market.value)
            left[key] += offering.max_nodes
    kept: list[Pipeline] = []
    seated: set[str] = set()
    for pipeline in sorted(running.pipelines, key=lambda p: (-p.predicted_requests_per_s, p.name)):
        slots = sorted({stage.slot for stage in pipeline.stages} - seated)
        needed = Counter(_key(running, slot) for slot in slots)
        if all(left[key] >= count for key, count in needed.items()):
            left.subtract(needed)
            seated.update(slots)
            kept.append(pipeline)
    return kept


def _key(running: Plan, slot: str) -> tuple[str, str, str]:
    node = running.node(slot)
    return node.instance_type, node.zone, node.market


def _as_solution(
    question: Question,
    model: RooflineModel,
    groups: tuple[SupplyGroup, ...],
    pipelines: list[Pipeline],
) -> Solution | None:
    """The running pipelines in the solver's terms, under today's prices and estimator."""
    if not pipelines:
        return None
    chosen = [_chosen(model, groups, pipeline, question) for pipeline in pipelines]
    nodes: list[int] = []
    gpus = np.zeros(len(groups))
    for column in chosen:
        for i, count in enumerate(column.counts):
            gpus[model.units[i].group] += count * model.units[i].tp
    for g, group in enumerate(groups):
        wanted = int(np.ceil(gpus[g] / group.instance.gpu_count - 1e-9))
        for offering in group.offerings:
            taken = min(wanted, offering.max_nodes)
            nodes.append(taken)
            wanted -= taken
    prices = [o.usd_per_hour for group in groups for o in group.offerings]
    rate = sum(column.value for column in chosen)
    price = float(np.dot(prices, nodes))
    value = _value(question, rate, price)
    return Solution(
        model=model,
        groups=groups,
        chosen=tuple(chosen),
        nodes=tuple(nodes),
        requests_per_s=rate,
        usd_per_hour=price,
        value=value,
        bound=value,
        gpu_worth=tuple(0.0 for _ in groups),
        notes=(),
        runners_up=(),
    )


def _chosen(
    model: RooflineModel, groups: tuple[SupplyGroup, ...], pipeline: Pipeline, question: Question
) -> Chosen:
    del question
    counts = [0] * len(model.units)
    by_slot = {stage.slot: stage.slot.rsplit("-", 1)[0] for stage in pipeline.stages}
    for stage in pipeline.stages:
        for i, unit in enumerate(model.units):
            same = groups[unit.group].instance.name == by_slot[stage.slot]
            if same and unit.tp == stage.tp:
                counts[i] += 1
                break
    column = Chosen(tuple(counts), 1, pipeline.max_num_seqs, pipeline.predicted_requests_per_s)
    return replace(column, value=place_pipeline(model, column).goodput_per_s)


def _value(question: Question, rate: float, price: float) -> float:
    match question.objective.kind:
        case Kind.THROUGHPUT | Kind.BUDGET:
            return rate
        case Kind.VALUE:
            return rate / max(price, 1e-9) * 3600.0
        case Kind.COST:
            return price * (question.startup_s + question.workload.num_prompts / rate) / 3600.0


def _misses_deadline(question: Question, kept: Solution) -> bool:
    """Nodes that run need no start: only the work itself counts."""
    deadline_s = question.objective.deadline_s
    if deadline_s is None:
        return False
    return question.workload.num_prompts / kept.requests_per_s > deadline_s


def _better(question: Question, fresh: Solution, kept: Solution) -> bool:
    if question.objective.kind is Kind.COST:
        return fresh.value < kept.value * (1 - 1e-6)
    return fresh.value > kept.value * (1 + 1e-6)


def _switch(
    question: Question, model: RooflineModel, fresh: Solution, kept: Solution, horizon_s: float
) -> Switch:
    """Requests lost while changed pipelines start, against those gained until the horizon."""
    old, new = Counter(_columns(kept)), Counter(_columns(fresh))
    common = old & new
    stopped = dict((old - common).items())
    lost_rate = sum(_rate(kept, column) * n for column, n in stopped.items())
    stage_bytes = model.shape.total_bytes / min((sum(column[0]) for column in new), default=1)
    load_s = stage_bytes / _LOAD_BYTES_PER_S
    down_s = question.startup_s + load_s
    lost = lost_rate * down_s
    gained = (fresh.requests_per_s - kept.requests_per_s) * max(0.0, horizon_s - down_s)
    if question.objective.kind in {Kind.COST, Kind.VALUE}:
        # Money saved, in requests at the old price.
        saved = kept.usd_per_hour / kept.requests_per_s - fresh.usd_per_hour / fresh.requests_per_s
        per_usd = kept.requests_per_s / max(kept.usd_per_hour, 1e-9)
        gained = saved * fresh.requests_per_s * horizon_s * per_usd
    return Switch(sum(common.values()), lost, gained, gained > lost)


Column = tuple[tuple[int, ...], int]


def _columns(solution: Solution) -> list[Column]:
    return [(c.counts, c.concurrency) for c in solution.chosen for _ in range(c.copies)]


def _rate(solution: Solution, column: Column) -> float:
    return next(c.value for c in solution.chosen if (c.counts, c.concurrency) == column)


def _noted(answer: Answer, note: str) -> Answer:
    plan = answer.plan.model_copy(update={"notes": (*answer.plan.notes, note)})
    return replace(answer, plan=plan)
