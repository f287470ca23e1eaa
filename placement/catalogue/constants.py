"""Constants of the estimator: what the data sheet does not say, calibrated on measured runs.

Every figure multiplies or adds to a data-sheet figure. A GPU that was never measured uses the
pooled value alone; a measured one adds its own deviation, shrunk toward the pool by the fit.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from placement.catalogue.hardware import Gpu
from placement.catalogue.model_shape import WeightFormat
from placement.errors import BadInput

_SHIPPED = Path(__file__).parent / "constants.json"

ENGINE = "vllm"
"""The engine that a plan is for, unless the question names another."""


class GpuDeviation(BaseModel):
    """Log deviations of one GPU from the pooled efficiencies (0: as the pool)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    compute: float = 0.0
    decode_compute: float = 0.0
    bandwidth: float = 0.0
    kv_bandwidth: float = 0.0
    attention: float = 0.0
    link: float = 0.0
    host: float = 0.0


class LinkConstants(BaseModel):
    """All-reduce between the GPUs of a node, one message."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    efficiency: float = Field(gt=0)
    """Bus bandwidth reached on large messages / data-sheet bandwidth in one direction."""
    latency_s: float = Field(ge=0)
    """Per all-reduce and doubling of the group: the small-message floor is this x log2(tp)."""


class EngineConstants(BaseModel):
    """What an engine adds to the work itself, and how it schedules."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chunked_prefill: bool = True
    """Prefill shares steps with decode, so that one read of the weights serves both."""
    prefill_tokens: int = Field(default=8192, gt=0)
    """Token budget of one step."""
    host_step_s: float = Field(ge=0)
    host_layer_s: float = Field(ge=0)
    host_sequence_s: float = Field(ge=0)
    host_prompt_s: float = Field(default=0.0, ge=0)
    compute_scale: float = Field(default=1.0, gt=0)
    bandwidth_scale: float = Field(default=1.0, gt=0)
    pipeline_stretch: float = Field(default=0.0, ge=0)
    """Share of extra time per round for each stage beyond the first: uneven micro-batches."""
    head_bytes_exponent: float = Field(default=0.0, ge=0, le=1)
    """0: grouped-query kernels read each KV head once; 1: once for each of its query heads."""
    many_heads_slowdown: float = Field(default=1.0, ge=1)
    """Of reading the cache, once sequences x heads per rank exceed 512: there vLLM's old paged
    attention (`use_v1` in vllm/attention/ops/paged_attn.py) left its split kernel."""
    expert_scale: float = Field(default=1.0, gt=0)
    """Efficiency of expert layers relative to dense ones."""
    kv_memory_share: float = Field(default=0.90, gt=0, le=1)
    """vLLM's gpu_memory_utilization."""
    spread: float = Field(default=0.2, gt=0)
    """Standard deviation of log(measured / predicted) left over by leave-one-group-out."""


class Constants(BaseModel):
    """One calibrated set: pooled efficiencies, deviations by GPU, constants by link and engine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    calibrated_on: str = ""
    compute: float = Field(gt=0)
    """Prefill matrix products: reached / data-sheet flop/s."""
    decode_compute: float = Field(gt=0)
    """Products of small batches, relative to `compute`."""
    bandwidth: float = Field(gt=0)
    kv_bandwidth: float = Field(gt=0)
    """Reading the cache, relative to `bandwidth`."""
    attention: float = Field(gt=0)
    """Prefill attention, relative to `compute`."""
    overlap: float = Field(gt=0)
    """p of (compute^p + bandwidth^p)^(1/p): infinity is the ideal roofline's maximum."""
    hop_latency_s: float = Field(default=1e-3, ge=0)
    """Between stages on two nodes (TCP over the VPC); a tenth of it inside a node."""
    network_efficiency: float = Field(default=0.8, gt=0, le=1)
    links: dict[str, LinkConstants]
    gpus: dict[str, GpuDeviation]
    engines: dict[str, EngineConstants]

    def engine(self, name: str) -> EngineConstants:
        """Constants of this engine. Raises `BadInput` with the names that exist."""
        if name not in self.engines:
            raise BadInput(
                f"no constants for engine {name!r}; there are {', '.join(sorted(self.engines))}. "
                "Measure a few runs and give them to `shunt calibrate`"
            )
        return self.engines[name]


@dataclass(frozen=True, slots=True)
class Rates:
    """Effective rates of one GPU under one engine, for one weight format."""

    prefill_flops: float
    decode_flops: float
    attention_flops: float
    bandwidth: float
    kv_bandwidth: float
    link_bandwidth: float
    link_latency_s: float
    overlap: float
    host_scale: float


def rates_of(
    gpu: Gpu, weights: WeightFormat, constants: Constants, engine: EngineConstants
) -> Rates:
    """The card's effective rates: data sheet x pooled efficiency x its own deviation."""
    own = constants.gpus.get(gpu.name, GpuDeviation())
    link = constants.links.get(gpu.link)
    if link is None:
        raise BadInput(
            f"GPU {gpu.name}: link {gpu.link!r} has no constants; use one of "
            f"{', '.join(sorted(constants.links))}"
        )
    compute = constants.compute * math.exp(own.compute) * engine.compute_scale
    decode = compute * constants.decode_compute * math.exp(own.decode_compute)
    bandwidth = constants.bandwidth * math.exp(own.bandwidth) * engine.bandwidth_scale
    peak = gpu.peak_flops(weights)
    return Rates(
        prefill_flops=peak * compute,
        decode_flops=peak * decode,
        attention_flops=gpu.fp16_flops * compute * constants.attention * math.exp(own.attention),
        bandwidth=gpu.bandwidth * min(1.0, bandwidth),
        kv_bandwidth=gpu.bandwidth
        * min(1.0, bandwidth * constants.kv_bandwidth * math.exp(own.kv_bandwidth)),
        link_bandwidth=gpu.link_bandwidth / 2 * link.efficiency * math.exp(own.link),
        link_latency_s=link.latency_s,
        overlap=constants.overlap,
        host_scale=math.exp(own.host),
    )


def load_constants(path: Path | None = None) -> Constants:
    """The shipped set, or the user's. Raises `BadInput`."""
    file = path or _SHIPPED
    try:
        return Constants.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadInput(f"constants {file}: cannot be read ({error.strerror})") from error
    except json.JSONDecodeError as error:
        raise BadInput(f"constants {file}: not JSON ({error.msg})") from error
    except ValidationError as error:
        raise BadInput(f"constants {file}: {error}") from error
