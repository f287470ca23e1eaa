"""How long one engine step takes on one stage, and what the time is spent on.

A roofline over the products, plus cache reads, attention, all-reduce, hops and host time. Counts
follow from the shapes alone (see docs/planning.md); rates are calibrated.
"""

import math
from dataclasses import dataclass, fields
from typing import cast

import numpy as np

from placement.catalogue.constants import EngineConstants, Rates
from placement.catalogue.model_shape import BYTES_16_BIT, ModelShape

# 16-bit vectors of the hidden size that one layer reads or writes outside its products: two norms,
# two residual adds, rotary and activation inputs, as vLLM's fused kernels do it.
_HIDDEN_PASSES = 8.0
_MLP_PASSES = 4.0
# vllm/attention/ops/paged_attn.py: num_seqs * num_heads > 512 chose the kernel without splits.
_SPLIT_KERNEL_HEADS = 512


@dataclass(frozen=True, slots=True)
class Step:
    """The tokens of one engine step: whole or partial prompts and decoding sequences.

    Each figure may be an array of as many steps, of which there is then one time each.
    """

    prompt_tokens: float = 0.0
    prompt_pairs: float = 0.0
    """Pairs of tokens that attend to each other in the prompts, causality counted."""
    prompts: float = 0.0
    sequences: float = 0.0
    context: float = 0.0
    """Mean tokens in the cache per decoding sequence."""
    fewest_sequences: float | None = None
    """Sequences that choose the kernel, where that is to be the kernel of a smaller batch."""

    @property
    def tokens(self) -> float:
        return self.prompt_tokens + self.sequences


@dataclass(frozen=True, slots=True)
class StageRole:
    """Where a stage stands and how its layers are split."""

    layers: int
    tp: int
    first: bool = True
    last: bool = True


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of one step by cause. `compute` and `weights` overlap; `total` adds them as such."""

    products: float
    compute_share: float
    """How much of `products` is compute rather than reading weights, 0 to 1."""
    cache: float
    attention: float
    vectors: float
    link: float
    host: float

    @property
    def total(self) -> float:
        return self.products + self.cache + self.attention + self.vectors + self.link + self.host

    def plus(self, other: "StepTime", times: float = 1.0) -> "StepTime":
        """This and `times` x the other, by cause."""
        products = self.products + times * other.products
        compute = self.products * self.compute_share + times * other.products * other.compute_share
        return StepTime(
            products=products,
            compute_share=compute / products if np.any(products) else 0.0,
            cache=self.cache + times * other.cache,
            attention=self.attention + times * other.attention,
            vectors=self.vectors + times * other.vectors,
            link=self.link + times * other.link,
            host=self.host + times * other.host,
        )

    @property
    def limit(self) -> str:
        """The largest cause, in the words that a plan is explained with."""
        causes = {
            "compute": self.products * self.compute_share + self.attention,
            "memory bandwidth": self.products * (1 - self.compute_share)
            + self.cache
            + self.vectors,
            "link between GPUs": self.link,
            "host": self.host,
        }
        return max(causes, key=lambda cause: causes[cause])


NO_TIME = StepTime(*(0.0 for _ in fields(StepTime)))


def step_time(
    shape: ModelShape, role: StageRole, step: Step, *, rates: Rates, engine: EngineConstants
) -> StepTime:
    """Seconds that this step takes on this stage, without the hop to the next one."""
    products, compute_share = _products(shape, role, step, rates=rates, engine=engine)
    layers, tp = role.layers, role.tp
    passes = _HIDDEN_PASSES * shape.hidden + _MLP_PASSES * shape.intermediate / tp
    return StepTime(
        products=products,
        compute_share=compute_share,
        cache=_cache_s(shape, role, step, rates=rates, engine=engine),
        attention=layers
        * step.prompt_pairs
        * shape.prefill_attention_flops
        / tp
        / rates.attention_flops,
        vectors=layers * step.tokens * passes * BYTES_16_BIT / rates.bandwidth,
        link=_all_reduce_s(shape, role, step, rates),
        host=rates.host_scale
        * (
            engine.host_step_s
            + engine.host_layer_s * layers
            + engine.host_sequence_s * step.sequences
            + engine.host_prompt_s * step.prompts
        ),
    )


def _products(
    shape: ModelShape, role: StageRole, step: Step, *, rates: Rates, engine: EngineConstants
) -> tuple[float, float]:
    """Seconds of all matrix products, and the share of compute in them."""
    scale = engine.expert_scale if shape.experts is not None else 1.0
    compute = (
        role.layers
        * 2.0
        * shape.active_layer_weights
        / role.tp
        * (step.prompt_tokens / rates.prefill_flops + step.sequences / rates.decode_flops)
    )
    weights = role.layers * shape.touched_layer_weights(step.tokens) / role.tp
    layers_s, layers_share = _roofline(
        compute / scale,
        weights * shape.weight_bytes_per_number / rates.bandwidth / scale,
        rates.overlap,
    )
    if not role.last:
        return layers_s, layers_share
    # One row per sequence and per finished prompt goes through the head, in 16 bits.
    rows = step.sequences + step.prompts
    head_s, head_share = _roofline(
        rows * 2.0 * shape.vocab * shape.hidden / role.tp / rates.decode_flops,
        shape.embedding_bytes / role.tp / rates.bandwidth,
        rates.overlap,
    )
    total = layers_s + head_s
    return total, (layers_s * layers_share + head_s * head_share) / total


def _roofline(compute: float, weights: float, overlap: float) -> tuple[float, float]:
    """(compute^p + weights^p)^(1/p), and compute's share in it."""
    if np.all(np.equal(compute, 0.0)):
        return weights, 0.0
    ratio = (weights / compute) ** overlap
    return compute * (1.0 + ratio) ** (1.0 / overlap), 1.0 / (1.0 + ratio)


def _cache_s(
    shape: ModelShape, role: StageRole, step: Step, *, rates: Rates, engine: EngineConstants
) -> float:
    """Reading the KV cache of all decoding sequences, once per layer."""
    if np.all(np.equal(step.sequences, 0.0)):
        return 0.0
    attended = shape.attended(step.context)
    per_token = shape.kv_bytes(role.tp)
    if engine.head_bytes_exponent and shape.latent is None:
        per_token *= (shape.num_heads / shape.num_kv_heads) ** engine.head_bytes_exponent
    if engine.many_heads_slowdown != 1.0:
        chosen_by = step.sequences if step.fewest_sequences is None else step.fewest_sequences
        many = np.greater(chosen_by * shape.num_heads / role.tp, _SPLIT_KERNEL_HEADS)
        per_token *= cast("float", np.where(many, engine.many_heads_slowdown, 1.0))
    read = role.layers * step.sequences * attended * per_token / rates.kv_bandwidth
    flops = shape.decode_attention_flops / role.tp
    # A latent is read once for all heads, so that its products, not its bytes, may be the limit.
    work = role.layers * step.sequences * attended * flops / rates.attention_flops
    return cast("float", np.maximum(read, work))


def _all_reduce_s(shape: ModelShape, role: StageRole, step: Step, rates: Rates) -> float:
    """Two all-reduces per layer (after attention, after the MLP); a ring moves 2 (t-1)/t of them.

    The embedding of the first stage adds one of the same size, the head's gather of one row of
    logits per sequence 2 bytes x vocabulary.
    """
    tp = role.tp
    if tp == 1:
        return 0.0
    share = 2.0 * (tp - 1) / tp
    message = step.tokens * shape.hidden * BYTES_16_BIT
    count = 2.0 * role.layers + (1.0 if role.first else 0.0)
    seconds = count * (
        rates.link_latency_s * math.log2(tp) + share * message / rates.link_bandwidth
    )
    if role.last:
        rows = step.sequences + step.prompts
        seconds += share / 2 * rows * shape.vocab * BYTES_16_BIT / rates.link_bandwidth
    return seconds
