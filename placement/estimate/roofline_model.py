"""The calibrated roofline as a `StageModel`: what the planner searches with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from placement.catalogue.constants import Constants, EngineConstants, Rates, rates_of
from placement.catalogue.model_shape import BYTES_16_BIT, ModelShape
from placement.catalogue.offering import SupplyGroup
from placement.estimate.goodput import lost_s_per_interruption
from placement.estimate.memory import kv_bytes_free
from placement.estimate.stage_table import Array, Caps, StageTable, Times, Unit
from placement.estimate.stage_time import NO_TIME, StageRole, Step, StepTime, step_time
from placement.question.interruption import InterruptionCost
from placement.question.workload import Workload

# Room for lengths above the mean: a plan that fills the cache to the mean preempts half the time.
_KV_MARGIN = 1.10


@dataclass(frozen=True)
class RooflineModel:
    """Stage times and caps of every unit for one model, workload and engine."""

    shape: ModelShape
    workload: Workload
    groups: tuple[SupplyGroup, ...]
    constants: Constants
    engine: EngineConstants
    unit_list: tuple[Unit, ...]
    max_sequences: int
    cost: InterruptionCost
    _rates: tuple[Rates, ...] = field(init=False)
    _prefill_layer_s: tuple[float, ...] = field(init=False)
    _known_times: dict[tuple[int, int, int], Times] = field(
        init=False, default_factory=dict[tuple[int, int, int], Times]
    )
    _known_caps: dict[int, Caps] = field(init=False, default_factory=dict[int, Caps])

    def __post_init__(self) -> None:
        rates = tuple(
            rates_of(
                self.groups[unit.group].instance.gpu,
                self.shape.weight_format,
                self.constants,
                self.engine,
            )
            for unit in self.unit_list
        )
        object.__setattr__(self, "_rates", rates)
        alone = tuple(self._layer_prefill_s(i) for i in range(len(self.unit_list)))
        object.__setattr__(self, "_prefill_layer_s", alone)

    @property
    def units(self) -> Sequence[Unit]:
        return self.unit_list

    @property
    def num_layers(self) -> int:
        return self.shape.num_layers

    @property
    def max_concurrency(self) -> int:
        return self.max_sequences

    def table(self, num_stages: int, concurrency: int, cap_concurrency: int) -> StageTable:
        self.prepare(num_stages, [(concurrency, cap_concurrency)])
        key = self._times_key(num_stages, concurrency, cap_concurrency)
        return StageTable((self._known_times[key],), self._known_caps[cap_concurrency])

    def prepare(self, num_stages: int, cells: Sequence[tuple[int, int]]) -> None:
        """Compute the tables of many (concurrency, cap concurrency) at once: it is quicker."""
        keys = {self._times_key(num_stages, high, low) for high, low in cells}
        new = sorted(keys - self._known_times.keys())
        if new:
            found = self._times(num_stages, [key[1] for key in new], [key[2] for key in new])
            for key, row in zip(new, found, strict=True):
                self._known_times[key] = Times(*row)
        for low in {low for _, low in cells} - self._known_caps.keys():
            rows = [self._caps(i, low) for i in range(len(self.unit_list))]
            self._known_caps[low] = Caps(*np.array(rows).T)

    def _times_key(self, num_stages: int, high: int, low: int) -> tuple[int, int, int]:
        """Times of a span of concurrencies depend on its lower end only where a kernel does."""
        return num_stages, high, low if self.engine.many_heads_slowdown != 1.0 else high

    def throughput(self, num_stages: int, concurrency: Array, maxima: Sequence[Array]) -> Array:
        del num_stages, concurrency  # both are in the stage times
        return 1.0 / maxima[0]

    def value_factor(self, counts: NDArray[np.int64]) -> Array:
        rates = np.array(
            [self.groups[u.group].interruptions_per_hour for u in self.unit_list], dtype=float
        )
        gpus = np.array(
            [u.tp / self.groups[u.group].instance.gpu_count for u in self.unit_list], dtype=float
        )
        # A column's nodes, at least one where a group is used at all.
        per_group = np.zeros((len(counts), len(self.groups)))
        for i, unit in enumerate(self.unit_list):
            per_group[:, unit.group] += counts[:, i] * gpus[i]
        node_rates = np.zeros(len(self.groups))
        for i, unit in enumerate(self.unit_list):
            node_rates[unit.group] = rates[i]
        per_hour = np.ceil(per_group - 1e-9) @ node_rates
        return 1.0 / (1.0 + per_hour * self._lost_s(counts) / 3600.0)

    def _lost_s(self, counts: NDArray[np.int64]) -> Array:
        """Pipeline-seconds that an interruption costs, by column: with the prefill of everything
        that was in flight, which takes minutes where many sequences meet slow GPUs."""
        layers_per_s = counts @ (1.0 / np.array(self._prefill_layer_s))
        prefill_s = self.shape.num_layers / np.maximum(layers_per_s, 1e-9)
        down_s = lost_s_per_interruption(self.cost, self.workload, concurrency=0.0, prefill_s=0.0)
        one = lost_s_per_interruption(self.cost, self.workload, concurrency=1.0, prefill_s=1.0)
        return down_s + self._in_flight(counts) * prefill_s * (one - down_s)

    def _in_flight(self, counts: NDArray[np.int64]) -> Array:
        """Sequences that such a pipeline holds: as many as it may, or as its memory has room for
        beside one copy of the weights."""
        gpus = [self.groups[unit.group].instance.gpu for unit in self.unit_list]
        memory = counts @ np.array(
            [unit.tp * gpu.memory_bytes for unit, gpu in zip(self.unit_list, gpus, strict=True)]
        )
        free = np.maximum(0.0, memory - self.shape.layer_bytes * self.shape.num_layers)
        one = self.workload.mean_context * self.shape.num_layers * self.shape.kv_bytes(1)
        return np.minimum(float(self.max_sequences), free / max(one, 1.0))

    def _layer_prefill_s(self, index: int) -> float:
        """Of one layer, for one prompt of mean length alone on this unit."""
        work, tp = self.workload, self.unit_list[index].tp
        prompt = Step(prompt_tokens=work.mean_input, prompt_pairs=work.prompt_pairs, prompts=1.0)

        def seconds(layers: int) -> float:
            role = StageRole(layers, tp, first=False, last=False)
            return float(self._step(index, role, prompt, 1).total)

        return max(seconds(1) - seconds(0), 1e-9)

    def seconds_per_request(
        self,
        index: int,
        role: StageRole,
        *,
        num_stages: int,
        concurrency: float,
        fewest: float | None = None,
    ) -> StepTime:
        """Time that one request takes of this stage: its prefill and its share of all its rounds.

        `fewest`: the concurrency whose kernels are used, so that the time is not above that of any
        concurrency between the two. Both may be arrays.

        A micro-batch holds b = G / stages sequences. With chunked prefill a step carries b
        decoding sequences and the b s/o prompt tokens that arrive meanwhile, in as many steps as
        the token budget asks for; without, prompts run in steps of their own.
        """
        work = self.workload
        batch = _at_least_one(concurrency / num_stages)
        least = None if fewest is None else _at_least_one(fewest / num_stages)
        prompt, output = work.mean_input, work.mean_output
        stretch = 1.0 + self.engine.pipeline_stretch * (num_stages - 1)
        if self.engine.chunked_prefill:
            share = (1.0 + prompt / output) / self.engine.prefill_tokens
            steps = _at_least_one(batch * share)
            if least is not None:
                least /= _at_least_one(least * share)
            mixed = Step(
                prompt_tokens=batch * prompt / output / steps,
                prompt_pairs=batch * work.prompt_pairs / output / steps,
                prompts=batch / output / steps,
                sequences=batch / steps,
                context=work.mean_context,
                fewest_sequences=least,
            )
            scale = stretch * steps * output / batch
            return NO_TIME.plus(self._step(index, role, mixed, num_stages), scale)
        together = _at_least_one(
            cast("float", np.minimum(batch, self.engine.prefill_tokens / prompt))
        )
        prefill = Step(
            prompt_tokens=together * prompt,
            prompt_pairs=together * work.prompt_pairs,
            prompts=together,
        )
        decode = Step(sequences=batch, context=work.mean_context, fewest_sequences=least)
        total = NO_TIME.plus(self._step(index, role, prefill, num_stages), stretch / together)
        return total.plus(self._step(index, role, decode, num_stages), stretch * output / batch)

    def decode_step(
        self, index: int, role: StageRole, *, num_stages: int, sequences: float
    ) -> StepTime:
        """One step of decoding alone on this stage, of this many sequences."""
        step = Step(sequences=sequences, context=self.workload.mean_context)
        return self._step(index, role, step, num_stages)

    def kv_bytes_per_request(self, tp: int, layers: float, concurrency: float) -> float:
        """Cache per GPU for everything in flight: the mean with a margin, or one longest prompt."""
        tokens = max(
            concurrency * self.workload.mean_context * _KV_MARGIN, self.workload.max_context
        )
        return tokens * layers * self.shape.kv_bytes(tp)

    def _step(self, index: int, role: StageRole, step: Step, num_stages: int) -> StepTime:
        time = step_time(self.shape, role, step, rates=self._rates[index], engine=self.engine)
        if num_stages == 1:
            return time
        hop = StepTime(0.0, 0.0, 0.0, 0.0, 0.0, self._hop_s(index, step), 0.0)
        return time.plus(hop)

    def _hop_s(self, index: int, step: Step) -> float:
        """Hidden states to the next stage over this node's own network card.

        Every hop is charged so, also one inside a node: the search need not know the order.
        """
        instance = self.groups[self.unit_list[index].group].instance
        network = instance.network_bytes_per_s * self.constants.network_efficiency
        message = step.tokens * self.shape.hidden * BYTES_16_BIT
        return self.constants.hop_latency_s + message / network

    def _times(self, num_stages: int, high: Sequence[int], low: Sequence[int]) -> Array:
        """Times of every span of concurrencies: spans x (per layer, fixed, first, last) x units."""
        most = cast("float", np.array(high, dtype=np.float64))
        fewest = None if high == low else cast("float", np.array(low, dtype=np.float64))

        def seconds(index: int, layers: int, first: bool, last: bool) -> Array:
            role = StageRole(layers, self.unit_list[index].tp, first=first, last=last)
            time = self.seconds_per_request(
                index, role, num_stages=num_stages, concurrency=most, fewest=fewest
            )
            return np.asarray(time.total, dtype=np.float64)

        table = np.zeros((len(high), 4, len(self.unit_list)))
        for i in range(len(self.unit_list)):
            none = seconds(i, 0, False, False)
            table[:, 0, i] = seconds(i, 1, False, False) - none
            table[:, 1, i] = none
            table[:, 2, i] = seconds(i, 0, True, False) - none
            table[:, 3, i] = seconds(i, 0, False, True) - none
        return table

    def _caps(self, index: int, concurrency: int) -> tuple[float, ...]:
        unit = self.unit_list[index]
        memory = self.groups[unit.group].instance.gpu.memory_bytes

        def cap(first: bool, last: bool) -> float:
            role = StageRole(0, unit.tp, first=first, last=last)
            free = kv_bytes_free(self.shape, role, memory_bytes=memory, engine=self.engine)
            layer = self.shape.layer_bytes / unit.tp + self.kv_bytes_per_request(
                unit.tp, 1.0, concurrency
            )
            return math.floor(free / layer)

        return cap(False, False), cap(True, False), cap(False, True), cap(True, True)


def _at_least_one(number: float) -> float:
    """Of a number, or of each of an array."""
    return cast("float", np.maximum(1.0, number))


def units_of(
    groups: Sequence[SupplyGroup], shape: ModelShape, *, allowed_tp: Sequence[int] | None = None
) -> tuple[Unit, ...]:
    """Every kind of stage the groups can carry: powers of two up to the node's GPUs that divide
    the model's heads."""
    units: list[Unit] = []
    for index, group in enumerate(groups):
        tp = 1
        while tp <= group.instance.gpu_count:
            if shape.splits(tp) and (allowed_tp is None or tp in allowed_tp):
                units.append(Unit(index, tp, f"{group.instance.name}:tp{tp}"))
            tp *= 2
    return tuple(units)
