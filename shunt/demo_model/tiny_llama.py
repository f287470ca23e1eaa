"""Random Llamas of any shape with SmolLM2's tokenizer: what a test of the engine needs."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shunt.demo_model.gguf_llama import read_tokenizer
from shunt.demo_model.llama_files import LlamaShape, TokenIds, write_llama
from shunt.demo_model.smollm2 import smollm2_gguf
from shunt.demo_model.tokenizer_files import Tokenizer, write_tokenizer

CONTEXT_LENGTH = 2048
HEAD_SIZE_MULTIPLE = 32
"""The smallest head size of vLLM's CPU attention (`CPUAttentionBackend`, vLLM 0.32)."""
WEIGHT_SCALE = 3.0
"""Wider than a trained model's initialisation: flat logits would make greedy choices near-ties,
which differ between batch sizes, and every generation the same token over and over."""


def tiny_llama(
    path: Path, *, layers: int, heads: int, kv_heads: int, hidden: int, tie: bool, seed: int
) -> Path:
    """Write a random Llama into the new directory `path` and return it.

    Equal arguments give equal bytes. Raises ValueError for sizes that do not divide.
    """
    if hidden % (heads * HEAD_SIZE_MULTIPLE) or heads % kv_heads:
        raise ValueError(
            f"hidden={hidden}, heads={heads}, kv_heads={kv_heads}: hidden / heads must be a "
            f"multiple of {HEAD_SIZE_MULTIPLE}, and heads a multiple of kv_heads"
        )
    tokenizer = _smollm2_tokenizer()
    shape = LlamaShape(
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        vocab_size=len(tokenizer.tokens),
        context_length=CONTEXT_LENGTH,
        rope_theta=10_000.0,
        rms_norm_eps=1e-5,
        tied=tie,
    )
    path.mkdir(parents=True)
    write_tokenizer(tokenizer, path)
    write_llama(
        path,
        shape=shape,
        tokens=TokenIds(tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id),
        weights=dict(_random_weights(shape, np.random.default_rng(seed))),
    )
    return path


@cache
def _smollm2_tokenizer() -> Tokenizer:
    """Read once per process: 98,000 strings out of a GGUF file take 2 s."""
    return read_tokenizer(smollm2_gguf())


def _random_weights(
    shape: LlamaShape, rng: np.random.Generator
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for name, size in _tensor_shapes(shape):
        if len(size) == 1:
            yield name, np.ones(size, dtype=np.float32)
        else:
            deviation = WEIGHT_SCALE / np.sqrt(np.float32(size[-1]))
            yield name, rng.standard_normal(size, dtype=np.float32) * deviation


def _tensor_shapes(shape: LlamaShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, inner = shape.hidden_size, shape.intermediate_size
    query, key_value = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    yield "model.embed_tokens.weight", (shape.vocab_size, hidden)
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (hidden,)
        yield prefix + "self_attn.q_proj.weight", (query, hidden)
        yield prefix + "self_attn.k_proj.weight", (key_value, hidden)
        yield prefix + "self_attn.v_proj.weight", (key_value, hidden)
        yield prefix + "self_attn.o_proj.weight", (hidden, query)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
        yield prefix + "mlp.gate_proj.weight", (inner, hidden)
        yield prefix + "mlp.up_proj.weight", (inner, hidden)
        yield prefix + "mlp.down_proj.weight", (hidden, inner)
    yield "model.norm.weight", (hidden,)
    if not shape.tied:
        yield "lm_head.weight", (shape.vocab_size, hidden)
