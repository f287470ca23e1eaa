"""Reading a Hugging Face `config.json` into a `ModelShape`."""

import json
from pathlib import Path
from typing import cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from placement.catalogue.model_kind import check_understood
from placement.catalogue.model_shape import Experts, LatentAttention, ModelShape, WeightFormat
from placement.errors import BadInput

# Two matrices in the MLP (up and down) instead of the gated three.
_UNGATED = {
    *("gpt2", "opt", "gpt_neox", "falcon", "phi", "bloom", "gptj", "starcoder2", "mpt"),
    *("gpt_bigcode", "nemotron", "persimmon", "codegen", "gpt_neo", "arcee", "apertus"),
}
# Layers from one with full attention to the next, where neither layer_types nor the pattern says.
_WINDOW_PATTERN = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4}
_LINEAR = {8: WeightFormat.INT8, 4: WeightFormat.INT4}


class _Quantisation(BaseModel):
    """The parts of `quantization_config` that decide bytes: AWQ, GPTQ, fp8, compressed-tensors,
    ModelOpt."""

    model_config = ConfigDict(extra="ignore")

    quant_method: str = ""
    bits: int | None = None
    w_bit: int | None = None
    quant_algo: str | None = None
    kv_cache_quant_algo: str | None = None
    config_groups: dict[str, object] | None = None
    load_in_4bit: bool = False
    load_in_8bit: bool = False


class _HuggingFaceConfig(BaseModel):
    """The fields of `config.json` that the planner reads; the others do not concern it."""

    model_config = ConfigDict(extra="ignore")

    model_type: str = ""
    num_hidden_layers: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    num_key_value_heads: int | None = Field(default=None, gt=0)
    head_dim: int | None = Field(default=None, gt=0)
    intermediate_size: int | None = Field(default=None, gt=0)
    ffn_hidden_size: int | None = Field(default=None, gt=0)
    vocab_size: int = Field(gt=0)
    tie_word_embeddings: bool | None = None
    max_position_embeddings: int | None = Field(default=None, gt=0)
    rope_scaling: dict[str, object] | None = None
    sliding_window: int | None = None
    use_sliding_window: bool = True
    layer_types: list[str] | None = None
    attention_chunk_size: int | None = None
    max_window_layers: int | None = None

    kv_lora_rank: int | None = None
    q_lora_rank: int | None = None
    qk_rope_head_dim: int | None = None
    qk_nope_head_dim: int | None = None
    v_head_dim: int | None = None

    num_local_experts: int | None = None
    num_experts: int | None = None
    n_routed_experts: int | None = None
    num_experts_per_tok: int | None = None
    num_experts_per_token: int | None = None
    experts_per_token: int | None = None
    multi_query: bool = False
    num_kv_heads: int | None = Field(default=None, gt=0)
    new_decoder_architecture: bool = False
    sliding_window_pattern: int | None = Field(default=None, gt=0)
    moe_intermediate_size: int | None = None
    intermediate_size_mlp: int | None = None
    shared_expert_intermediate_size: int | None = None
    n_shared_experts: int | None = None
    first_k_dense_replace: int = 0
    decoder_sparse_step: int = 1
    interleave_moe_layer_step: int = 1
    moe_layer_freq: int | list[int] = 1
    mlp_only_layers: list[int] = Field(default_factory=list[int])

    quantization_config: _Quantisation | None = None


# Older architectures say the same under other names.
_RENAMED = {
    "n_layer": "num_hidden_layers",
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings",
}
# `tie_word_embeddings` is left out of config.json where it has the class's default; these default
# to tied, the rest of what we read to untied (transformers' PretrainedConfig says True, and every
# untied model therefore writes false).
_TIED = {"gpt2", "gemma", "gemma2", "gemma3", "gemma3_text", "opt", "falcon"}
_REQUIRED = ("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")


def read_model_shape(path: Path, *, kv_cache_dtype: str = "auto") -> ModelShape:
    """The shape of the model at `path`: a `config.json` or the directory that holds one.

    `kv_cache_dtype` is vLLM's: `auto` keeps 16 bits unless the checkpoint says otherwise, `fp8`
    and its variants keep 8. Raises `BadInput`.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(
            f"model config {file}: cannot be read ({error.strerror}); give the path of a "
            "config.json or of the directory that holds it"
        ) from error
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(
            f"model config {file}: not JSON (line {error.lineno}: {error.msg})"
        ) from error
    if not isinstance(raw, dict):
        raise BadInput(f"model config {file}: expected a JSON object")
    name = file.parent.name if file.name == "config.json" else file.stem
    return shape_from_config(
        cast("dict[str, object]", raw), name=name or "model", kv_cache_dtype=kv_cache_dtype
    )


def shape_from_config(
    raw: dict[str, object], *, name: str, kv_cache_dtype: str = "auto"
) -> ModelShape:
    """The shape that a parsed `config.json` describes. Raises `BadInput` naming missing fields."""
    fields = dict(raw)
    nested = fields.get("text_config")
    if isinstance(nested, dict) and "num_hidden_layers" not in fields:
        inner = cast("dict[str, object]", nested)
        fields = {**{k: v for k, v in fields.items() if k == "quantization_config"}, **inner}
    for old, new in _RENAMED.items():
        if old in fields and new not in fields:
            fields[new] = fields[old]
    check_understood({"model_type": raw.get("model_type"), **fields}, name)
    missing = [field for field in _REQUIRED if fields.get(field) is None]
    if missing:
        raise BadInput(
            f"model {name}: config.json lacks {', '.join(missing)}; the planner needs "
            f"{', '.join(_REQUIRED)}"
        )
    try:
        config = _HuggingFaceConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadInput(
            f"model {name}: config.json field {where}: {first['msg']} (got {first['input']!r})"
        ) from error
    return _shape(config, name=name, kv_cache_dtype=kv_cache_dtype)


def _shape(config: _HuggingFaceConfig, *, name: str, kv_cache_dtype: str) -> ModelShape:
    heads = config.num_attention_heads
    if config.head_dim is None and config.kv_lora_rank is None and config.hidden_size % heads:
        raise BadInput(
            f"model {name}: hidden_size {config.hidden_size} is not a multiple of "
            f"num_attention_heads {heads}; give head_dim"
        )
    experts = _experts(config, name)
    window_layers = _window_layers(config)
    return ModelShape(
        name=name,
        num_layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        num_heads=heads,
        num_kv_heads=_kv_heads(config),
        head_dim=config.head_dim or config.hidden_size // heads,
        intermediate=_dense_intermediate(config, experts, name),
        mlp_matrices=2 if config.model_type in _UNGATED else 3,
        vocab=config.vocab_size,
        tied_embeddings=_tied(config),
        max_position=_positions(config),
        weight_format=_weight_format(config.quantization_config, name),
        kv_bytes_per_number=_kv_bytes(config.quantization_config, kv_cache_dtype),
        latent=_latent(config, name),
        experts=experts,
        window=config.sliding_window if window_layers else None,
        window_layers=window_layers,
    )


def _positions(config: _HuggingFaceConfig) -> int:
    """Longest context; where the file does not say, there is no limit that is known."""
    if config.max_position_embeddings is None:
        return 1 << 30
    scaling = config.rope_scaling or {}
    factor = scaling.get("factor")
    # Llama 3's figure is the scaled one already.
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind in ("yarn", "linear", "dynamic") and isinstance(factor, int | float):
        return round(config.max_position_embeddings * max(1.0, float(factor)))
    return config.max_position_embeddings


def _kv_heads(config: _HuggingFaceConfig) -> int:
    """Falcon and GPT BigCode say with `multi_query` that all heads share one."""
    if config.num_key_value_heads is not None:
        return config.num_key_value_heads
    if config.multi_query and not config.new_decoder_architecture:
        return 1
    return config.num_kv_heads or config.num_attention_heads


def _tied(config: _HuggingFaceConfig) -> bool:
    if config.tie_word_embeddings is not None:
        return config.tie_word_embeddings
    return config.model_type in {
        "gpt2",
        "gemma",
        "gemma2",
        "gemma3",
        "gemma3_text",
        "opt",
        "falcon",
    }


def _dense_intermediate(config: _HuggingFaceConfig, experts: Experts | None, name: str) -> int:
    """Width of a dense layer's MLP; GPT-2 leaves it out and means four times the hidden size."""
    size = config.intermediate_size_mlp or config.intermediate_size or config.ffn_hidden_size
    if size is not None:
        return size
    if config.model_type in _UNGATED:
        return 4 * config.hidden_size
    if experts is not None and experts.num_layers == config.num_hidden_layers:
        return experts.intermediate
    raise BadInput(f"model {name}: config.json lacks intermediate_size")


def _latent(config: _HuggingFaceConfig, name: str) -> LatentAttention | None:
    if config.kv_lora_rank is None:
        return None
    rope, nope, value = config.qk_rope_head_dim, config.qk_nope_head_dim, config.v_head_dim
    if rope is None or nope is None or value is None:
        raise BadInput(
            f"model {name}: kv_lora_rank is set, so config.json also needs qk_rope_head_dim, "
            "qk_nope_head_dim and v_head_dim"
        )
    return LatentAttention(config.kv_lora_rank, rope, nope, value, config.q_lora_rank)


def _experts(config: _HuggingFaceConfig, name: str) -> Experts | None:
    count = config.num_local_experts or config.n_routed_experts or config.num_experts
    if not count or count == 1:
        return None
    per_token = (
        config.num_experts_per_tok or config.num_experts_per_token or config.experts_per_token
    )
    width = config.moe_intermediate_size or config.intermediate_size
    if not per_token or not width:
        raise BadInput(
            f"model {name}: it has {count} experts, so config.json also needs num_experts_per_tok "
            "and moe_intermediate_size (or intermediate_size)"
        )
    if per_token > count:
        raise BadInput(f"model {name}: num_experts_per_tok {per_token} exceeds {count} experts")
    shared = config.shared_expert_intermediate_size or (config.n_shared_experts or 0) * width
    if config.model_type.startswith("llama4"):
        shared = width  # Llama 4 always adds one shared expert and does not write it down
    return Experts(count, per_token, width, shared, _expert_layers(config))


def _expert_layers(config: _HuggingFaceConfig) -> int:
    layers = config.num_hidden_layers
    if isinstance(config.moe_layer_freq, list):
        return sum(1 for flag in config.moe_layer_freq if flag)
    step = max(config.decoder_sparse_step, config.interleave_moe_layer_step, config.moe_layer_freq)
    dense = set(config.mlp_only_layers) | set(range(config.first_k_dense_replace))
    return sum(1 for i in range(layers) if i not in dense and (i + 1) % step == 0)


def _window_layers(config: _HuggingFaceConfig) -> int:
    if not config.sliding_window or not config.use_sliding_window:
        return 0
    if config.layer_types is not None:
        return sum(1 for kind in config.layer_types if kind == "sliding_attention")
    pattern = config.sliding_window_pattern or _WINDOW_PATTERN.get(config.model_type)
    if pattern is not None:  # every so many layers one attends to everything
        return config.num_hidden_layers - config.num_hidden_layers // pattern
    if config.max_window_layers is not None:
        return max(0, config.num_hidden_layers - config.max_window_layers)
    return config.num_hidden_layers


def _weight_format(quantisation: _Quantisation | None, name: str) -> WeightFormat:
    if quantisation is None:
        return WeightFormat.BF16
    method = quantisation.quant_method.lower()
    algorithm = (quantisation.quant_algo or "").lower()
    if method in {"fp8", "fbgemm_fp8"} or "fp8" in algorithm:
        return WeightFormat.FP8
    if "fp4" in algorithm or method in {"mxfp4", "nvfp4"}:
        return WeightFormat.FP4
    if quantisation.load_in_4bit:
        return WeightFormat.INT4
    if quantisation.load_in_8bit:
        return WeightFormat.INT8
    if quantisation.config_groups is not None:
        return _compressed_tensors(quantisation.config_groups, name)
    bits = quantisation.bits or quantisation.w_bit
    if bits is None and method in {"awq", "gptq"}:
        bits = 4
    if bits in _LINEAR:
        return _LINEAR[bits]
    raise BadInput(
        f"model {name}: quantization_config with quant_method {method!r} and bits {bits} is not "
        "known; supported: fp8, int8, int4 (awq, gptq), fp4, compressed-tensors"
    )


def _compressed_tensors(groups: dict[str, object], name: str) -> WeightFormat:
    for group in groups.values():
        weights = cast("dict[str, object]", group).get("weights")
        if not isinstance(weights, dict):
            continue
        scheme = cast("dict[str, object]", weights)
        bits, kind = scheme.get("num_bits"), scheme.get("type")
        if bits == 8:
            return WeightFormat.FP8 if kind == "float" else WeightFormat.INT8
        if bits == 4:
            return WeightFormat.FP4 if kind == "float" else WeightFormat.INT4
    raise BadInput(f"model {name}: compressed-tensors config_groups name no weights of 4 or 8 bits")


def _kv_bytes(quantisation: _Quantisation | None, kv_cache_dtype: str) -> float:
    if kv_cache_dtype.startswith("fp8") or kv_cache_dtype == "int8":
        return 1.0
    if kv_cache_dtype not in {"auto", "bfloat16", "float16", "bf16", "fp16"}:
        raise BadInput(f"kv_cache_dtype {kv_cache_dtype!r}: write auto, bfloat16 or fp8")
    checkpoint = (quantisation.kv_cache_quant_algo or "") if quantisation else ""
    return 1.0 if kv_cache_dtype == "auto" and checkpoint.lower() == "fp8" else 2.0
