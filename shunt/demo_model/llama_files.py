"""A Llama as a directory in Hugging Face layout: config, generation config, safetensors."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import (
    save_file,  # pyright: ignore[reportUnknownVariableType] (its PathLike has no parameter)
)

Weights = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """The sizes that define a Llama."""

    layers: int
    heads: int
    kv_heads: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    context_length: int
    rope_theta: float
    rms_norm_eps: float
    tied: bool
    """The output projection is the token embedding."""

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.heads


@dataclass(frozen=True, slots=True)
class TokenIds:
    """The tokens that generation needs to know by number."""

    bos: int
    eos: int
    pad: int


def write_llama(directory: Path, *, shape: LlamaShape, tokens: TokenIds, weights: Weights) -> None:
    """Write `config.json`, `generation_config.json` and `model.safetensors` (float32).

    Float32 keeps every dequantised value: a Q4_1 value is an fp16 scale times a 4-bit integer plus
    an fp16 minimum, a Q8_0 value an fp16 scale times an 8-bit integer; half precision would round
    both a second time. The config names bfloat16, the type the model was trained in, so an engine
    computes in that unless it is told otherwise.
    """
    _write_json(directory / "config.json", _config(shape, tokens))
    generation = {
        "bos_token_id": tokens.bos,
        "eos_token_id": tokens.eos,
        "pad_token_id": tokens.pad,
    }
    _write_json(directory / "generation_config.json", generation)
    tensors = {name: np.ascontiguousarray(weight) for name, weight in weights.items()}
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def _config(shape: LlamaShape, tokens: TokenIds) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": tokens.bos,
        "dtype": "bfloat16",
        "eos_token_id": tokens.eos,
        "head_dim": shape.head_size,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.context_length,
        "mlp_bias": False,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "pad_token_id": tokens.pad,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": shape.tied,
        "use_cache": True,
        "vocab_size": shape.vocab_size,
    }


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
