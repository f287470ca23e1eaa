"""ShuntServe's published throughput estimator, written from its description, as a `StageModel`.

Per layer three operations, each max(ops / F, bytes / B); prefill in micro-batches of
floor(max_len / s) requests, decode in as many micro-batches as stages; throughput =
G / (largest prefill total + largest decode total + fill). Constants: the authors' final effective
ones (benchmarks/data/gpu_effective_constants.csv). Its flaws are kept, also the all-gather of the
head over every prompt token.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from placement.catalogue.model_shape import ModelShape
from placement.estimate.stage_table import Array, Caps, StageTable, Times, Unit

DATA = Path(__file__).parent.parent / "data" / "gpu_effective_constants.csv"
_MEMORY_SHARE = 0.85
_HOP_S, _HOP_BYTES_PER_S = 1e-3, 5e9


@dataclass(frozen=True, slots=True)
class PublishedGpu:
    """Effective constants of one GPU: flop/s, bytes/s, link bytes/s, memory bytes."""

    flops: float
    bandwidth: float
    link: float
    memory: float


def published_gpus() -> dict[str, PublishedGpu]:
    with DATA.open(encoding="utf-8") as file:
        return {
            row["gpu"]: PublishedGpu(
                float(row["eff_fp16_tflops"]) * 1e12,
                float(row["eff_mem_bw_gbs"]) * 1e9,
                float(row["allreduce_link_gbs"]) * 1e9,
                float(row["mem_mb"]) * 1e6,
            )
            for row in csv.DictReader(file)
        }


@dataclass(frozen=True, slots=True)
class PublishedEstimator:
    """One workload of mean lengths on units whose GPU is named in `gpu_of`."""

    shape: ModelShape
    unit_list: tuple[Unit, ...]
    gpu_of: tuple[PublishedGpu, ...]
    prompt: int
    output: int
    max_len: int = 8192
    max_sequences: int = 2048

    @property
    def units(self) -> Sequence[Unit]:
        return self.unit_list

    @property
    def num_layers(self) -> int:
        return self.shape.num_layers

    @property
    def max_concurrency(self) -> int:
        return self.max_sequences

    @property
    def prefill_batch(self) -> int:
        return self.max_len // self.prompt

    def table(self, num_stages: int, concurrency: int, cap_concurrency: int) -> StageTable:
        prefill, decode, caps = [], [], []
        for unit, gpu in zip(self.unit_list, self.gpu_of, strict=True):
            prefill.append(self._prefill(unit.tp, gpu, num_stages))
            decode.append(self._decode(unit.tp, gpu, num_stages, concurrency / num_stages))
            caps.append(self._caps(unit.tp, gpu, cap_concurrency))
        components = Times(*np.array(prefill).T), Times(*np.array(decode).T)
        return StageTable(components, Caps(*np.array(caps).T))

    def prepare(self, num_stages: int, cells: Sequence[tuple[int, int]]) -> None:
        """Tables are quick enough one by one."""

    def throughput(self, num_stages: int, concurrency: Array, maxima: Sequence[Array]) -> Array:
        prefill, decode = maxima  # both per request
        micro_batches = np.minimum(num_stages, concurrency)
        step = np.maximum(
            prefill * self.prefill_batch, decode * concurrency / num_stages / self.output
        )
        fill = (micro_batches - 1) * step / concurrency
        return 1.0 / (prefill + decode + fill)

    def value_factor(self, counts: NDArray[np.int64]) -> Array:
        return np.ones(len(counts))

    def _prefill(self, t: int, gpu: PublishedGpu, num_stages: int) -> tuple[float, ...]:
        """Per request: seconds per layer, fixed (the hop), extra if first, extra if last."""
        m, s, b = self.shape, self.prompt, self.prefill_batch
        h, q, k, i, v = m.hidden, m.query_size, m.kv_size, m.intermediate, m.vocab
        layer = (
            _op(
                gpu,
                (2 * s * h * q + 4 * s * h * k) * b / t,
                2 * (b * s * h + (h * q + 2 * h * k) / t),
            )
            + _op(
                gpu,
                2 * (2 * s * s * q + s * q * q) * b / t,
                2 * (b * s * h + 2 * s * k + q * q) / t,
            )
            + _op(gpu, 6 * s * h * i * b / t, 2 * (b * s * h + 3 * h * i / t + 3 * b * s * i / t))
            + 4 * (t - 1) * b * s * h * 2 / (t * gpu.link)
        )
        head = _op(gpu, 2 * h * v * b / t, 2 * (b * h + h * v / t + b * v / t))
        head += 2 * (t - 1) * b * s * v * 2 / (t * gpu.link)
        hop = (b * s * h * 2 / _HOP_BYTES_PER_S + _HOP_S) if num_stages > 1 else 0.0
        return layer / b, hop / b, 0.0, (head - hop) / b

    def _decode(self, t: int, gpu: PublishedGpu, num_stages: int, b: float) -> tuple[float, ...]:
        """Per request, all output tokens: as for prefill. A stage sees `num_stages` micro-batches
        of b, so that its time per request is the time of one of them / b."""
        m, s, o = self.shape, self.prompt, self.output
        h, q, k, i, v = m.hidden, m.query_size, m.kv_size, m.intermediate, m.vocab
        layer = (
            _op(gpu, 2 * (h * q + 2 * h * k) * b * o / t, 2 * (b * h + (h * q + 2 * h * k) / t) * o)
            + _op(
                gpu,
                (4 * s * o * q + 2 * q * o * (o + 1) + 2 * q * q * o) * b / t,
                2 * (b * h * o + 2 * b * s * k * o + b * k * o * (o + 1) + q * q * o) / t,
            )
            + _op(gpu, 6 * h * i * b * o / t, 2 * (b * h + 3 * h * i / t + 3 * b * i / t) * o)
            + 4 * (t - 1) * b * o * h * 2 / (t * gpu.link)
        )
        head = _op(gpu, 2 * h * v * b * o / t, 2 * (b * h + h * v / t + b * v / t) * o)
        head += 2 * (t - 1) * b * o * v * 2 / (t * gpu.link)
        hop = (b * h * 2 / _HOP_BYTES_PER_S + _HOP_S) * o if num_stages > 1 else 0.0
        return layer / b, hop / b, 0.0, (head - hop) / b

    def _caps(self, t: int, gpu: PublishedGpu, concurrency: int) -> tuple[float, ...]:
        m = self.shape
        layer = 2 * (
            2 * m.hidden * m.query_size + 2 * m.hidden * m.kv_size + 3 * m.hidden * m.intermediate
        )
        tokens = max(concurrency * (self.prompt + self.output), self.max_len)
        cache = 2 * tokens * m.kv_size * 2
        whole = t * gpu.memory * _MEMORY_SHARE - 4 * self.max_len * m.intermediate
        end = 2 * m.vocab * m.hidden

        def cap(extra: float) -> float:
            return math.floor((whole - extra) / (layer + cache))

        return cap(0), cap(end), cap(end), cap(2 * end)


def _op(gpu: PublishedGpu, ops: float, size: float) -> float:
    return max(ops / gpu.flops, size / gpu.bandwidth)
