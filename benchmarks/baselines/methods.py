"""How others choose pipelines, written from their descriptions, under any `StageModel`.

Each returns pipelines as lists of `GivenStage`; what they are worth is decided by the caller's
model. A pool is the GPUs of each group (TP inside a node is up to the method).
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.baselines.evaluation import GivenStage, given_value_at, largest_concurrency
from placement.catalogue.offering import SupplyGroup
from placement.estimate.stage_table import StageModel

Pipeline = list[GivenStage]


@dataclass(frozen=True, slots=True)
class Bench:
    """A model and a pool."""

    model: StageModel
    groups: tuple[SupplyGroup, ...]

    def unit(self, group: int, tp: int) -> int:
        """Index of the unit of this group and TP degree."""
        for index, unit in enumerate(self.model.units):
            if unit.group == group and unit.tp == tp:
                return index
        raise KeyError((group, tp))

    def node_unit(self, group: int) -> int:
        """The unit of a whole node, TP = its GPUs."""
        return self.unit(group, self.groups[group].instance.gpu_count)

    def value(self, pipeline: Pipeline) -> float:
        """Requests/s at the largest concurrency that fits: stage times never grow with it."""
        return given_value_at(self.model, pipeline, largest_concurrency(self.model, pipeline))

    def fits(self, pipeline: Pipeline) -> bool:
        return largest_concurrency(self.model, pipeline) >= len(pipeline)


def equal_layers(num_layers: int, parts: int) -> list[int]:
    """vLLM's split: as equal as can be, the larger ones first."""
    return [num_layers // parts + (1 if i < num_layers % parts else 0) for i in range(parts)]


def uniform_vllm(bench: Bench) -> list[Pipeline]:
    """One kind of pipeline per type, stock vLLM: TP = node, as many nodes as it takes with equal
    layers; as many replicas as the nodes give, the last nodes idle."""
    pipelines: list[Pipeline] = []
    for g, group in enumerate(bench.groups):
        best: list[Pipeline] = []
        best_value = 0.0
        for stages in range(1, group.max_nodes + 1):
            unit = bench.node_unit(g)
            pipeline = [GivenStage(unit, n) for n in equal_layers(bench.model.num_layers, stages)]
            copies = group.max_nodes // stages
            value = copies * bench.value(pipeline)
            if value > best_value:
                best, best_value = [pipeline] * copies, value
        pipelines += best
    return pipelines


def alpaserve_style(bench: Bench) -> list[Pipeline]:
    """AlpaServe on unequal clusters: groups of equal devices, and per group the split into stages
    that keeps the slowest smallest (its DP; stages of a group are equal, so each layer is moved
    while that helps)."""
    pipelines: list[Pipeline] = []
    for pipeline in uniform_vllm(bench):
        pipelines.append(_balanced(bench, pipeline))
    return pipelines


def _balanced(bench: Bench, pipeline: Pipeline) -> Pipeline:
    best, best_value = pipeline, bench.value(pipeline)
    improved = True
    while improved:
        improved = False
        for i in range(len(best)):
            for j in range(len(best)):
                if i == j or best[i].layers < 2:
                    continue
                moved = list(best)
                moved[i] = GivenStage(moved[i].unit, moved[i].layers - 1)
                moved[j] = GivenStage(moved[j].unit, moved[j].layers + 1)
                value = bench.value(moved)
                if value > best_value * (1 + 1e-9):
                    best, best_value, improved = moved, value, True
    return best


def shuntserve_style(bench: Bench, *, beam: int = 3, max_stages: int = 13) -> list[Pipeline]:
    """ShuntServe: TP = node; a beam DP over layers keyed by nodes used, partial pipelines scored
    as if complete by throughput per price; the best pipeline is taken, its nodes removed, again."""
    left = [group.max_nodes for group in bench.groups]
    pipelines: list[Pipeline] = []
    while True:
        found = _beam_pipeline(bench, left, beam, max_stages)
        if found is None:
            return pipelines
        pipelines.append(found)
        for stage in found:
            left[bench.model.units[stage.unit].group] -= 1


def _beam_pipeline(bench: Bench, left: list[int], beam: int, max_stages: int) -> Pipeline | None:
    """The pipeline with most throughput per price. As in its evaluation, layers of the nodes are
    searched in proportion to speed rather than one by one, so that Python can do it."""
    best: Pipeline | None = None
    best_score = 0.0
    frontier: list[tuple[int, ...]] = [()]
    for _ in range(max_stages):
        scored: list[tuple[float, tuple[int, ...], Pipeline]] = []
        seen: set[tuple[int, ...]] = set()
        for nodes in frontier:
            for g in range(len(left)):
                grown = tuple(sorted((*nodes, g)))
                if grown in seen or grown.count(g) > left[g]:
                    continue
                seen.add(grown)
                pipeline = _spread_layers(bench, grown)
                price = sum(bench.groups[n].offerings[0].usd_per_hour for n in grown)
                value = bench.value(pipeline) if pipeline else 0.0
                scored.append((value / price, grown, pipeline))
        scored.sort(key=lambda s: (-s[0], s[1]))
        if scored and scored[0][0] > best_score:
            best_score, _, best = scored[0]
        # Nothing fits yet: keep the groups with most memory; afterwards the best `beam`.
        frontier = [s[1] for s in scored[: beam if scored and scored[0][0] > 0 else 40]]
        if not frontier:
            break
    return best


def _spread_layers(bench: Bench, nodes: tuple[int, ...]) -> Pipeline:
    """Layers in proportion to speed, within memory, then balanced."""
    units = [bench.node_unit(g) for g in nodes]
    layers = bench.model.num_layers
    table = bench.model.table(len(units), len(units) * 16, len(units))
    speed = [1.0 / sum(float(t.per_layer[u]) for t in table.components) for u in units]
    caps = [float(table.caps.middle[u]) - 1 for u in units]
    if sum(max(c, 0.0) for c in caps) < layers or layers < len(units):
        return []
    share = [1] * len(units)
    for _ in range(layers - len(units)):
        able = [i for i in range(len(units)) if share[i] < caps[i]]
        if not able:
            return []
        share[min(able, key=lambda i: (share[i] + 1) / speed[i])] += 1
    pipeline = [GivenStage(u, n) for u, n in zip(units, share, strict=True)]
    return _balanced(bench, pipeline) if bench.fits(pipeline) else pipeline


def hexgen_style(
    bench: Bench, rng: random.Random, *, population: int = 24, generations: int = 60
) -> list[Pipeline]:
    """HexGen: a genetic search over how GPUs are grouped into pipelines and stages (TP per stage
    inside a node); layers in proportion to speed. Mutation moves, splits or merges TP groups."""

    def random_plan() -> list[list[int]]:
        units: list[int] = []
        for g, group in enumerate(bench.groups):
            for _ in range(group.max_nodes):
                gpus = group.instance.gpu_count
                tp = rng.choice([t for t in (1, 2, 4, 8) if t <= gpus])
                units += [bench.unit(g, tp)] * (gpus // tp)
        rng.shuffle(units)
        return _cut(units, rng.randint(1, 4), rng)

    def worth(plan: list[list[int]]) -> float:
        return sum(bench.value(p) for p in _placed(bench, plan))

    people = sorted(
        ((worth(p), i, p) for i, p in enumerate(random_plan() for _ in range(population))),
        key=lambda x: -x[0],
    )
    for _ in range(generations):
        parent = rng.choice(people[: population // 3])[2]
        child = _mutated(bench, parent, rng)
        people.append((worth(child), 0, child))
        people = sorted(people, key=lambda x: -x[0])[:population]
    return _placed(bench, people[0][2])


def _cut(units: list[int], parts: int, rng: random.Random) -> list[list[int]]:
    plan: list[list[int]] = [[] for _ in range(parts)]
    for unit in units:
        rng.choice(plan).append(unit)
    return [p for p in plan if p]


def _mutated(bench: Bench, plan: list[list[int]], rng: random.Random) -> list[list[int]]:
    """Move one stage to another pipeline, or split or merge TP groups of one kind."""
    changed = [list(p) for p in plan]
    source = rng.randrange(len(changed))
    index = rng.randrange(len(changed[source]))
    unit = bench.model.units[changed[source][index]]
    match rng.choice(["move", "split", "merge"]):
        case "move":
            moved = changed[source].pop(index)
            target = rng.randrange(len(changed) + 1)
            if target == len(changed):
                changed.append([])
            changed[target].append(moved)
        case "split" if unit.tp > 1:
            half = bench.unit(unit.group, unit.tp // 2)
            changed[source][index : index + 1] = [half, half]
        case _:
            twin = changed[source][index]
            wider = unit.tp * 2 <= bench.groups[unit.group].instance.gpu_count
            if wider and changed[source].count(twin) >= 2:
                changed[source].remove(twin)
                changed[source].remove(twin)
                changed[source].append(bench.unit(unit.group, unit.tp * 2))
    return [p for p in changed if p]


def _placed(bench: Bench, plan: list[list[int]]) -> list[Pipeline]:
    """Layers for each pipeline's units, in proportion to speed; pipelines that do not fit drop."""
    placed: list[Pipeline] = []
    for units in plan:
        layers = bench.model.num_layers
        if len(units) > layers:
            continue
        table = bench.model.table(len(units), len(units) * 16, len(units))
        speed = [1.0 / sum(float(t.per_layer[u]) for t in table.components) for u in units]
        caps = [float(table.caps.middle[u]) - 1 for u in units]
        share = [1] * len(units)
        for _ in range(layers - len(units)):
            able = [i for i in range(len(units)) if share[i] < caps[i]]
            if not able:
                break
            share[min(able, key=lambda i: (share[i] + 1) / speed[i])] += 1
        if sum(share) == layers:
            placed.append([GivenStage(u, n) for u, n in zip(units, share, strict=True)])
    return placed


METHODS: dict[str, Callable[[Bench], Sequence[Pipeline]]] = {
    "uniform vLLM per type": uniform_vllm,
    "AlpaServe-style": alpaserve_style,
    "ShuntServe-style beam DP": shuntserve_style,
    "HexGen-style genetic": lambda bench: hexgen_style(bench, random.Random(7)),
}
