"""Measured runs of real engines, and the same runs under the estimator."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from placement.catalogue.constants import Constants, EngineConstants, rates_of
from placement.catalogue.hardware import Catalogue, Gpu, positive, rows_of
from placement.catalogue.model_shape import ModelShape
from placement.errors import BadInput
from placement.estimate.memory import kv_tokens
from placement.estimate.stage_time import StageRole, Step, step_time

_BLOCK_GUARD = 1.02  # partly filled blocks and the rounding of the pool, vLLM's 16-token blocks


class Mode(StrEnum):
    """How the load was given."""

    STATIC = "static batch"
    """One batch at a time: latency is prefill of all, then every decode step."""
    CLOSED = "closed loop"
    """That many requests always in flight."""
    OFFLINE = "offline"
    """All at once; as many run as fit."""


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One row: a setting and the requests/s that were measured (None: only to be predicted)."""

    row_id: str
    source: str
    engine: str
    shape: ModelShape
    gpu: Gpu
    tp: int
    pp: int
    input_tokens: float
    output_tokens: float
    concurrency: float
    mode: Mode
    requests_per_s: float | None


def read_runs(
    file: Path,
    *,
    catalogue: Catalogue,
    shape_of: Callable[[str, str], ModelShape],
    engine_of: Callable[[str, str, str], str],
) -> list[MeasuredRun]:
    """Rows of a CSV with the columns of benchmarks/data/measured_throughput.csv.

    `shape_of(model, weight_dtype)` and `engine_of(engine, version, gpu)` name the shape and the
    constants to use. Raises `BadInput` with the line of the first row that cannot be read.
    """
    return [
        _run(where, row, catalogue=catalogue, shape_of=shape_of, engine_of=engine_of)
        for where, row in rows_of(file)
    ]


def _run(
    where: str,
    row: dict[str, str],
    *,
    catalogue: Catalogue,
    shape_of: Callable[[str, str], ModelShape],
    engine_of: Callable[[str, str, str], str],
) -> MeasuredRun:
    mode = _mode(where, row.get("mode", ""))
    concurrency = row.get("concurrency", "")
    if not concurrency.replace(".", "", 1).isdigit():
        concurrency = row.get("num_requests", "") or "inf"
    return MeasuredRun(
        row_id=row.get("row_id", where),
        source=row.get("source", "").split(" ")[0],
        engine=engine_of(row.get("engine", ""), row.get("engine_version", ""), row.get("gpu", "")),
        shape=shape_of(row.get("model", ""), row.get("weight_dtype", "")),
        gpu=catalogue.gpu(row.get("gpu", "")),
        tp=int(positive(where, row, "tp", optional=True) or 1),
        pp=int(positive(where, row, "pp", optional=True) or 1),
        input_tokens=positive(where, row, "input_len"),
        output_tokens=positive(where, row, "output_len"),
        concurrency=float(concurrency),
        mode=mode,
        requests_per_s=positive(where, row, "req_s", optional=True) or None,
    )


# Constants by engine version, as the version is written in measured rows. Anything newer is the
# engine that plans are for.
_PROFILES = (
    ("tensorrt-llm", "2024", "trtllm-2024"),
    ("tensorrt-llm", "0.21", "trtllm-0.21"),
    ("tensorrt-llm", "", "trtllm-1.0"),
    ("vllm", "v0", "vllm-0.8-v0"),
    ("vllm", "0.6", "vllm-0.6"),
    ("vllm", "2024", "vllm-2024"),
    ("vllm", "", "vllm"),
)


def engine_profile(engine: str, version: str, gpu: str) -> str:
    """Name of the constants for a row's engine, version and card. Raises `BadInput`."""
    for name, part, profile in _PROFILES:
        if engine.lower() == name and part in version.lower():
            rocm = profile == "vllm-2024" and gpu.lower().startswith("mi")
            return f"{profile}-rocm" if rocm else profile
    raise BadInput(f"engine {engine!r}: measured rows may be of vLLM or TensorRT-LLM")


def _mode(where: str, text: str) -> Mode:
    for mode in Mode:
        if text.startswith(mode.value):
            return mode
    raise BadInput(f"{where}: mode {text!r}; write one of {', '.join(Mode)}")


def predict(run: MeasuredRun, constants: Constants) -> float:
    """Requests/s of the setting, or 0.0 where the model does not fit."""
    engine = constants.engine(run.engine)
    if run.mode is Mode.STATIC:
        return _static_batch(run, constants, engine)
    return _steady(run, constants, engine)


def _stages(run: MeasuredRun) -> list[StageRole]:
    layers, pp = run.shape.num_layers, run.pp
    sizes = [layers // pp + (1 if i < layers % pp else 0) for i in range(pp)]
    return [StageRole(size, run.tp, first=i == 0, last=i == pp - 1) for i, size in enumerate(sizes)]


def _capacity(run: MeasuredRun, stages: list[StageRole], engine: EngineConstants) -> float:
    """Sequences of mean length that the cache holds on the tightest stage."""
    tokens = min(
        kv_tokens(run.shape, role, memory_bytes=run.gpu.memory_bytes, engine=engine)
        for role in stages
    )
    mean = run.input_tokens + run.output_tokens / 2
    return tokens / (mean * _BLOCK_GUARD)


def _round_s(
    run: MeasuredRun,
    stages: list[StageRole],
    batch: float,
    constants: Constants,
    engine: EngineConstants,
) -> tuple[float, float, float, float]:
    """One decode step and one request's prefill: bottleneck stage and sum of all stages."""
    rates = rates_of(run.gpu, run.shape.weight_format, constants, engine)
    decode = Step(sequences=batch, context=run.input_tokens + run.output_tokens / 2)
    hop = constants.hop_latency_s / 10 if run.pp > 1 else 0.0
    steps = [
        step_time(run.shape, role, decode, rates=rates, engine=engine).total + hop
        for role in stages
    ]
    prefills = [
        _prefill_s(run, role, batch, constants=constants, engine=engine) + hop for role in stages
    ]
    return max(steps), sum(steps), max(prefills), sum(prefills)


def _prefill_s(
    run: MeasuredRun,
    role: StageRole,
    batch: float,
    *,
    constants: Constants,
    engine: EngineConstants,
) -> float:
    """Seconds per prompt on this stage: prompts are prefilled together up to the budget."""
    rates = rates_of(run.gpu, run.shape.weight_format, constants, engine)
    together = max(1.0, min(batch, engine.prefill_tokens / run.input_tokens))
    step = Step(
        prompt_tokens=together * run.input_tokens,
        prompt_pairs=together * run.input_tokens**2 / 2,
        prompts=together,
    )
    return step_time(run.shape, role, step, rates=rates, engine=engine).total / together


def _static_batch(run: MeasuredRun, constants: Constants, engine: EngineConstants) -> float:
    """batch / latency. Sequences beyond the cache's capacity wait for their turn."""
    stages = _stages(run)
    capacity = _capacity(run, stages, engine)
    if capacity <= 0:
        return 0.0
    running = max(1.0, min(run.concurrency, capacity))
    micro = max(1.0, running / run.pp)
    slowest, whole, prefill, prefill_whole = _round_s(run, stages, micro, constants, engine)
    num_micro = min(float(run.pp), running)
    stretch = 1.0 + engine.pipeline_stretch * (run.pp - 1)
    per_round = max(whole, num_micro * slowest * stretch)
    prefill_s = max(prefill_whole, run.concurrency * prefill)
    latency = prefill_s + run.output_tokens * run.concurrency / running * per_round
    return run.concurrency / latency


def _steady(run: MeasuredRun, constants: Constants, engine: EngineConstants) -> float:
    """Throughput with a constant number in flight; the drain of a finite run is added."""
    stages = _stages(run)
    capacity = _capacity(run, stages, engine)
    if capacity < 1:
        return 0.0
    running = min(run.concurrency, capacity)
    if math.isinf(running):
        return 0.0
    micro = max(1.0, running / run.pp)
    num_micro = min(float(run.pp), running)
    slowest, whole, prefill, prefill_whole = _round_s(run, stages, micro, constants, engine)
    stretch = 1.0 + engine.pipeline_stretch * (run.pp - 1)
    per_round = max(whole, num_micro * slowest * stretch)
    share = num_micro / run.pp
    prefill_request = prefill * stretch * share + prefill_whole * (1.0 - share)
    if num_micro < run.pp:
        prefill_request = max(prefill_request, prefill_whole / num_micro)
    return 1.0 / (prefill_request + run.output_tokens * per_round / running)
