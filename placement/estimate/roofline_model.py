"""The calibrated roofline as a `StageModel`: what the planner searches with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from placement.catalogue.constants import Constants, EngineConstants, Rates, rates_of
from placement.catalogue.model_shape import BYTES_16_BIT, ModelShape
from placement.catalogue.offering import SupplyGroup
from placement.estimate.goodput import goodput_share, lost_s_per_interruption
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
    _known_times: dict[tuple[int, int], Times] = field(
        init=False, default_factory=dict[tuple[int, int], Times]
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
        key = (num_stages, concurrency)
        if key not in self._known_times:
            rows = [self._times(i, num_stages, concurrency) for i in range(len(self.unit_list))]
            self._known_times[key] = Times(*np.array(rows).T)
        if cap_concurrency not in self._known_caps:
            rows = [self._caps(i, cap_concurrency) for i in range(len(self.unit_list))]
            self._known_caps[cap_concurrency] = Caps(*np.array(rows).T)
        return StageTable((self._known_times[key],), self._known_caps[cap_concurrency])

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
        lost = (
            lost_s_per_interruption(self.cost, self.workload, concurrency=0.0, prefill_s=0.0)
            + self._prefill_again_s
        )
        return 1.0 / (1.0 + per_hour * lost / 3600.0)

    @property
    def _prefill_again_s(self) -> float:
        """A bound of the second prefill: every sequence a pipeline holds, at a typical stage."""
        return 20.0

    def seconds_per_request(
        self, index: int, role: StageRole, *, num_stages: int, concurrency: float
    ) -> StepTime:
        """Time that one request takes of this stage: its prefill and its share of all its rounds.

        A micro-batch holds b = G / stages sequences. With chunked prefill a step carries b
        decoding sequences and the b s/o prompt tokens that arrive meanwhile, in as many steps as
        the token budget asks for; without, prompts run in steps of their own.
        """
        work = self.workload
        batch = max(1.0, concurrency / num_stages)
        prompt, output = work.mean_input, work.mean_output
        stretch = 1.0 + self.engine.pipeline_stretch * (num_stages - 1)
        if self.engine.chunked_prefill:
            tokens = batch * (1.0 + prompt / output)
            steps = max(1.0, tokens / self.engine.prefill_tokens)
            mixed = Step(
                prompt_tokens=batch * prompt / output / steps,
                prompt_pairs=batch * work.prompt_pairs / output / steps,
                prompts=batch / output / steps,
                sequences=batch / steps,
                context=work.mean_context,
            )
            scale = stretch * steps * output / batch
            return NO_TIME.plus(self._step(index, role, mixed, num_stages), scale)
        together = max(1.0, min(batch, self.engine.prefill_tokens / prompt))
        prefill = Step(
            prompt_tokens=together * prompt,
            prompt_pairs=together * work.prompt_pairs,
            prompts=together,
        )
        decode = Step(sequences=batch, context=work.mean_context)
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

    def _times(self, index: int, num_stages: int, concurrency: int) -> tuple[float, ...]:
        tp = self.unit_list[index].tp

        def seconds(layers: int, first: bool, last: bool) -> float:
            role = StageRole(layers, tp, first=first, last=last)
            return self.seconds_per_request(
                index, role, num_stages=num_stages, concurrency=concurrency
            ).total

        none, one = seconds(0, False, False), seconds(1, False, False)
        return one - none, none, seconds(0, True, False) - none, seconds(0, False, True) - none

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

    def interruption_share(self, per_hour: float) -> float:
        """Goodput share of a pipeline whose nodes are interrupted this often together."""
        lost = (
            lost_s_per_interruption(self.cost, self.workload, concurrency=0.0, prefill_s=0.0)
            + self._prefill_again_s
        )
        return goodput_share(per_hour, lost)


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
