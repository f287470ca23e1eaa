"""Every plan of a small question, tried one by one, without any of the search's own code.

Pipelines are tried in every order, with every split of the layers and every concurrency; purchases
by putting every multiset of pipelines into real nodes. What is taken from the planner is the
estimator alone: seconds of a stage, bytes of a stage, the share that interruptions leave.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from placement.catalogue.offering import SupplyGroup, group_offerings
from placement.estimate.memory import kv_bytes_free
from placement.estimate.roofline_model import RooflineModel
from placement.estimate.stage_time import StageRole
from placement.question.objective import Kind
from placement.question.question import Question
from placement.search.solver import build_model

Items = tuple[tuple[int, ...], ...]
"""By group: the GPUs of each stage, largest first."""


@dataclass(frozen=True)
class Way:
    """One kind of pipeline and the most that it yields."""

    items: Items
    value: float


@dataclass
class Enumeration:
    """The best plan of a question under its objective."""

    question: Question
    groups: tuple[SupplyGroup, ...] = field(init=False)
    model: RooflineModel = field(init=False)
    _times: dict[tuple[int, int, bool, bool, int, int], float | None] = field(init=False)
    _packed: dict[tuple[int, tuple[int, ...]], int] = field(init=False)

    def __post_init__(self) -> None:
        self.groups = group_offerings(self.question.offerings)
        self.model = build_model(self.question, self.groups)
        self._times = {}
        self._packed = {}

    def best(self) -> float | None:
        """Value in the objective's unit, or None where no plan is allowed."""
        found = [self._worth(nodes, rate) for nodes, rate in self.purchases().items()]
        allowed = [value for value in found if value is not None]
        if not allowed:
            return None
        return min(allowed) if self.question.objective.kind is Kind.COST else max(allowed)

    def purchases(self) -> dict[tuple[int, ...], float]:
        """Most requests/s for every number of nodes by group."""
        limits = self.question.constraints
        rates: dict[tuple[int, ...], float] = {}
        for nodes, rate, pipelines in self._packings(self._ways(), 0):
            enough = pipelines >= max(1, limits.min_replicas)
            if enough and sum(nodes) <= (limits.max_nodes or 1 << 30):
                rates[nodes] = max(rates.get(nodes, 0.0), rate)
        return rates

    def _packings(
        self, ways: list[Way], first: int
    ) -> Iterator[tuple[tuple[int, ...], float, int]]:
        """Nodes by group, requests/s and pipelines of every multiset of pipelines that fits."""

        def grow(at: int, items: Items, own: tuple[int, ...], rate: float, count: int):
            for w in range(at, len(ways)):
                way = ways[w]
                both = tuple(
                    tuple(sorted((*a, *b), reverse=True))
                    for a, b in zip(items, way.items, strict=True)
                )
                if self.question.constraints.whole_nodes:
                    alone = tuple(self._nodes(g, way.items[g]) for g in range(len(self.groups)))
                    nodes = tuple(a + b for a, b in zip(own, alone, strict=True))
                else:
                    nodes = tuple(self._nodes(g, both[g]) for g in range(len(self.groups)))
                if any(n > g.max_nodes for n, g in zip(nodes, self.groups, strict=True)):
                    continue
                yield nodes, rate + way.value, count + 1
                yield from grow(w, both, nodes, rate + way.value, count + 1)

        none = tuple(() for _ in self.groups)
        return grow(first, none, tuple(0 for _ in self.groups), 0.0, 0)

    def _nodes(self, group: int, items: tuple[int, ...]) -> int:
        """Fewest nodes of the group that carry stages of so many GPUs, by trying."""
        key = (group, items)
        if key not in self._packed:
            size = self.groups[group].instance.gpu_count
            self._packed[key] = _fewest_bins(items, size)
        return self._packed[key]

    def _ways(self) -> list[Way]:
        limits = self.question.constraints
        ways: list[Way] = []
        units = range(len(self.model.units))
        for num_stages in range(1, limits.max_stages + 1):
            for chosen in itertools.combinations_with_replacement(units, num_stages):
                tps = {self.model.units[u].tp for u in chosen}
                if limits.uniform_tp and len(tps) > 1:
                    continue
                items = tuple(
                    tuple(
                        sorted(
                            (self.model.units[u].tp for u in chosen if self._group(u) == g),
                            reverse=True,
                        )
                    )
                    for g in range(len(self.groups))
                )
                if not self._carried(items):
                    continue
                value = self._pipeline(chosen)
                if value > 0:
                    ways.append(Way(items, value))
        return ways

    def _group(self, unit: int) -> int:
        return self.model.units[unit].group

    def _carried(self, items: Items) -> bool:
        """Whether the pool has the nodes, all of whose GPUs are taken where nodes go whole."""
        for g, group in enumerate(self.groups):
            nodes = self._nodes(g, items[g])
            if nodes > group.max_nodes:
                return False
            taken = sum(items[g])
            if self.question.constraints.whole_nodes and taken != nodes * group.instance.gpu_count:
                return False
        return True

    def _pipeline(self, chosen: tuple[int, ...]) -> float:
        """Most requests/s of these stages, in any order, after interruptions."""
        num_stages, layers = len(chosen), self.model.num_layers
        best = 0.0
        for order in sorted(set(itertools.permutations(chosen))):
            for cut in itertools.combinations(range(1, layers), num_stages - 1):
                split = [b - a for a, b in itertools.pairwise((0, *cut, layers))]
                for concurrency in range(num_stages, self.model.max_concurrency + 1):
                    slowest = 0.0
                    for i, (unit, count) in enumerate(zip(order, split, strict=True)):
                        ends = (i == 0, i == num_stages - 1)
                        time = self._stage(unit, count, *ends, num_stages, concurrency)
                        if time is None:
                            break
                        slowest = max(slowest, time)
                    else:
                        best = max(best, 1.0 / slowest)
        counts = [chosen.count(u) for u in range(len(self.model.units))]
        return best * float(self.model.value_factor(np.array([counts]))[0])

    def _stage(
        self, unit: int, layers: int, first: bool, last: bool, num_stages: int, concurrency: int
    ) -> float | None:
        """Seconds per request, or None where weights and cache do not fit."""
        key = (unit, layers, first, last, num_stages, concurrency)
        if key not in self._times:
            tp = self.model.units[unit].tp
            role = StageRole(layers, tp, first=first, last=last)
            memory = self.groups[self._group(unit)].instance.gpu.memory_bytes
            free = kv_bytes_free(
                self.model.shape, role, memory_bytes=memory, engine=self.model.engine
            )
            cache = self.model.kv_bytes_per_request(tp, float(layers), float(concurrency))
            time = self.model.seconds_per_request(
                unit, role, num_stages=num_stages, concurrency=float(concurrency)
            )
            self._times[key] = float(time.total) if cache <= free * (1 + 1e-12) else None
        return self._times[key]

    def _worth(self, nodes: tuple[int, ...], rate: float) -> float | None:
        """The objective of so many nodes, or None where its limits forbid them."""
        question, objective = self.question, self.question.objective
        rent = sum(self._rent(g, n) for g, n in enumerate(nodes))
        match objective.kind:
            case Kind.THROUGHPUT:
                return rate
            case Kind.BUDGET:
                return rate if rent <= (objective.usd_per_hour or 0.0) + 1e-9 else None
            case Kind.VALUE:
                return rate / rent * 3600.0
            case Kind.COST:
                seconds = question.startup_s + question.workload.num_prompts / rate
                late = seconds > (objective.deadline_s or 0.0) * (1 + 1e-9)
                return None if late else rent * seconds / 3600.0

    def _rent(self, group: int, nodes: int) -> float:
        prices = [o.usd_per_hour for o in self.groups[group].offerings for _ in range(o.max_nodes)]
        return sum(sorted(prices)[:nodes])


def _fewest_bins(items: tuple[int, ...], size: int) -> int:
    """Fewest bins of this size that hold the items: every item into every bin that has room."""

    def place(left: tuple[int, ...], bins: tuple[int, ...]) -> int:
        if not left:
            return len(bins)
        item, rest = left[0], left[1:]
        best = place(rest, (*bins, size - item))
        for free in sorted(set(bins)):
            if free >= item:
                others = list(bins)
                others.remove(free)
                best = min(best, place(rest, (*others, free - item)))
        return best

    return place(items, ())
