"""From chosen columns to pipelines: stage order, layers, and GPUs of numbered nodes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from placement.catalogue.offering import Offering
from placement.estimate.memory import kv_bytes_free, kv_tokens, overhead_bytes, weight_bytes
from placement.estimate.roofline_model import RooflineModel
from placement.estimate.stage_time import StageRole, StepTime
from placement.search.pricing import bottleneck
from placement.search.solver import Chosen, Solution


@dataclass(frozen=True, slots=True)
class PlacedStage:
    """One stage with its layers, time per request by cause, and memory per GPU by use (bytes)."""

    unit: int
    role: StageRole
    first_layer: int
    seconds: StepTime
    weight_bytes: float
    kv_bytes: float
    other_bytes: float
    memory_bytes: float
    kv_full: bool
    """One layer more, or a tenth more sequences, would not fit."""
    kv_tokens: float
    """Tokens that the stage's cache holds, all of its free memory taken."""

    @property
    def limit(self) -> str:
        return self.seconds.limit

    @property
    def memory_share(self) -> float:
        return (self.weight_bytes + self.kv_bytes + self.other_bytes) / self.memory_bytes


@dataclass(frozen=True, slots=True)
class PlacedPipeline:
    """Ordered stages, with requests/s before and after interruptions."""

    stages: tuple[PlacedStage, ...]
    concurrency: int
    requests_per_s: float
    goodput_per_s: float


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a stage sits: node of the plan and its first GPU."""

    node: int
    first_gpu: int


@dataclass(frozen=True, slots=True)
class Seating:
    """Nodes bought, in slot order, and for each pipeline the seats of its stages."""

    nodes: tuple[Offering, ...]
    seats: tuple[tuple[Seat, ...], ...]


def place_pipeline(model: RooflineModel, column: Chosen) -> PlacedPipeline:
    """The column's stages in order with the layers that keep its bottleneck smallest."""
    units = [u for u, n in enumerate(column.counts) for _ in range(n)]
    order = _order(model, column, units)
    layers = _balanced_layers(model, order, column.concurrency)
    stages: list[PlacedStage] = []
    start = 0
    for position, (unit, count) in enumerate(zip(order, layers, strict=True)):
        role = StageRole(
            count,
            model.units[unit].tp,
            first=position == 0,
            last=position == len(order) - 1,
        )
        stages.append(_stage(model, unit, role, start, len(order), column.concurrency))
        start += count
    rate = 1.0 / max(stage.seconds.total for stage in stages)
    share = float(model.value_factor(np.array([column.counts], dtype=np.int64))[0])
    return PlacedPipeline(tuple(stages), column.concurrency, rate, rate * share)


def _order(model: RooflineModel, column: Chosen, units: list[int]) -> list[int]:
    """First and last stage where they cost least, like units side by side between them."""
    if len(units) == 1:
        return units
    counts = np.array([column.counts], dtype=np.int64)
    table = model.table(len(units), column.concurrency, column.concurrency)
    limit = float(bottleneck(counts, model.num_layers, table)[0])
    t, caps = table.components[0], table.caps

    def carried(unit: int, extra: float, cap: float) -> float:
        free = (limit - t.fixed[unit] - extra) / t.per_layer[unit]
        return min(float(np.floor(free + 1e-6)), cap)

    best: tuple[float, int, int] | None = None
    for first in sorted(set(units)):
        for last in sorted(set(units)):
            if first == last and units.count(first) < 2:
                continue
            head = carried(first, float(t.first[first]), float(caps.first[first]))
            tail = carried(last, float(t.last[last]), float(caps.last[last]))
            if head < 1 or tail < 1:
                continue
            rest = list(units)
            rest.remove(first)
            rest.remove(last)
            total = head + tail + sum(carried(u, 0.0, float(caps.middle[u])) for u in rest)
            if best is None or total > best[0]:
                best = (total, first, last)
    assert best is not None  # the column was priced as feasible
    assert best[0] >= model.num_layers
    _, first, last = best
    rest = list(units)
    rest.remove(first)
    rest.remove(last)
    middle = sorted(rest, key=lambda u: (u != first, u == last, u))
    return [first, *middle, last]


def _balanced_layers(model: RooflineModel, order: list[int], concurrency: int) -> list[int]:
    """Layers per stage: give each next layer to the stage that would then be the quickest.

    Stage times grow with layers, so that this greedy choice keeps the largest time smallest.
    """
    num_stages = len(order)
    table = model.table(num_stages, concurrency, concurrency)
    t, caps = table.components[0], table.caps
    fixed: list[float] = []
    limit: list[float] = []
    for position, unit in enumerate(order):
        first, last = position == 0, position == num_stages - 1
        extra = (float(t.first[unit]) if first else 0.0) + (float(t.last[unit]) if last else 0.0)
        fixed.append(float(t.fixed[unit]) + extra)
        cap = (
            caps.only
            if first and last
            else caps.first
            if first
            else caps.last
            if last
            else caps.middle
        )
        limit.append(float(cap[unit]))
    layers = [1] * num_stages
    for _ in range(model.num_layers - num_stages):
        options = [
            (fixed[i] + float(t.per_layer[unit]) * (layers[i] + 1), i)
            for i, unit in enumerate(order)
            if layers[i] < limit[i]
        ]
        layers[min(options)[1]] += 1
    return layers


def _stage(
    model: RooflineModel,
    unit: int,
    role: StageRole,
    first_layer: int,
    num_stages: int,
    concurrency: int,
) -> PlacedStage:
    memory = model.groups[model.units[unit].group].instance.gpu.memory_bytes
    kv = model.kv_bytes_per_request(role.tp, float(role.layers), float(concurrency))
    free = kv_bytes_free(model.shape, role, memory_bytes=memory, engine=model.engine)
    layer = model.shape.layer_bytes / role.tp + kv / role.layers
    return PlacedStage(
        unit=unit,
        role=role,
        first_layer=first_layer,
        seconds=model.seconds_per_request(
            unit, role, num_stages=num_stages, concurrency=float(concurrency)
        ),
        weight_bytes=weight_bytes(model.shape, role),
        kv_bytes=kv,
        other_bytes=overhead_bytes(model.shape, role, model.engine),
        memory_bytes=memory,
        kv_full=free - kv < max(layer, 0.1 * kv),
        kv_tokens=kv_tokens(model.shape, role, memory_bytes=memory, engine=model.engine),
    )


def seat_pipelines(
    solution: Solution, pipelines: Sequence[PlacedPipeline], *, whole_nodes: bool = False
) -> Seating:
    """Give every stage its GPUs. Large stages first: sizes that divide each other then always fit.
    With `whole_nodes` one pipeline is seated after the other, so that each fills its own nodes.

    A stage goes to a node that its pipeline already has before another, and pools are filled one
    after the other, so that the loss of a pool or a node touches few pipelines.
    """
    nodes, slots_of = _bought(solution)
    free = [list(range(offering.instance.gpu_count)) for offering in nodes]
    seats: list[list[Seat | None]] = [[None] * len(p.stages) for p in pipelines]
    owners: list[set[int]] = [set() for _ in nodes]
    waiting = sorted(
        (
            (-stage.role.tp, p, s)
            for p, pipeline in enumerate(pipelines)
            for s, stage in enumerate(pipeline.stages)
        ),
    )
    if whole_nodes:
        waiting.sort(key=lambda place: (place[1], place[0], place[2]))
    for negative_tp, p, s in waiting:
        tp = -negative_tp
        group = solution.model.units[pipelines[p].stages[s].unit].group
        able = [n for n in slots_of[group] if len(free[n]) >= tp]
        node = min(able, key=lambda n: (p not in owners[n], bool(owners[n]), len(free[n]), n))
        seats[p][s] = Seat(node, free[node][0])
        del free[node][:tp]
        owners[node].add(p)
    return Seating(nodes, tuple(tuple(x for x in row if x is not None) for row in seats))


def _bought(solution: Solution) -> tuple[tuple[Offering, ...], dict[int, list[int]]]:
    """One entry per node, and the nodes of each group."""
    nodes: list[Offering] = []
    slots_of: dict[int, list[int]] = {g: [] for g in range(len(solution.groups))}
    at = 0
    for g, group in enumerate(solution.groups):
        for offering in group.offerings:
            for _ in range(solution.nodes[at]):
                slots_of[g].append(len(nodes))
                nodes.append(offering)
            at += 1
    return tuple(nodes), slots_of
