"""Which models the planner's arithmetic describes, and by which field others are refused.

The shape is that of a decoder of attention and MLP layers. Whatever else a `config.json` says of
its layers changes their weights or their cache, so that it is refused by the field that says so,
rather than planned as if the field were not there.
"""

from typing import cast

from placement.errors import BadInput

# Decoders of attention (grouped, or latent) and gated or plain MLPs or experts, under the names of
# `model_type` that vLLM's registry runs.
_UNDERSTOOD = frozenset(
    {
        *("apertus", "arcee", "baichuan", "bloom", "codegen", "cohere", "cohere2", "deepseek"),
        *("deepseek_v2", "deepseek_v3", "exaone4", "falcon", "gemma", "gemma2", "gemma3"),
        *("gemma3_text", "glm", "glm4", "glm4_moe", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox"),
        *("gpt_oss", "gptj", "granite", "granitemoe", "hunyuan_v1_dense", "internlm2", "internlm3"),
        *("kimi_k2", "llama", "llama4", "llama4_text", "ministral", "mistral", "mistral3"),
        *("mixtral", "mpt", "nemotron", "olmo", "olmo2", "olmo3", "olmoe", "opt", "orion"),
        *("persimmon", "phi", "phi3", "phimoe", "pixtral", "qwen2", "qwen2_5_vl"),
        *("qwen2_5_vl_text", "qwen2_moe", "qwen2_vl", "qwen2_vl_text", "qwen3", "qwen3_moe"),
        *("qwen3_vl", "qwen3_vl_moe", "qwen3_vl_moe_text", "qwen3_vl_text", "seed_oss"),
        *("smollm3", "solar", "stablelm", "starcoder2", "xverse"),
    }
)
# Layers that are no attention with a cache, encoders, and experts in places that are not counted.
_OTHER_LAYERS = (
    *("attn_layer_", "mamba", "ssm_", "state_size", "linear_", "full_attention_interval"),
    *("layers_block_type", "block_types", "hybrid_", "conv_", "kda_", "rwkv", "expert_layer_"),
    *("cross_attention_layers", "attn_type_list", "lru_width", "time_step_", "d_conv"),
    *("moe_num_experts", "num_kv_shared_layers", "hidden_size_per_layer_input"),
)
_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}


def check_understood(fields: dict[str, object], name: str) -> None:
    """Raise `BadInput` with the first field that the planner's shapes do not cover."""
    for field, value in fields.items():
        unset = value in (None, False, 0, [], {}, "")
        if not unset and field.startswith(_OTHER_LAYERS):
            raise BadInput(
                f"model {name}: config.json field {field} ({value!r}) is not understood: the "
                "planner knows attention, MLP and expert layers, and would get the weights or the "
                "cache of others wrong"
            )
    if fields.get("is_encoder_decoder"):
        raise BadInput(f"model {name}: config.json field is_encoder_decoder: it has an encoder")
    kinds = fields.get("layer_types")
    if isinstance(kinds, list):
        other = sorted({str(kind) for kind in cast("list[object]", kinds)} - _ATTENTION)
        if other:
            raise BadInput(
                f"model {name}: config.json field layer_types names {', '.join(other)}; the "
                f"planner knows {', '.join(sorted(_ATTENTION))}"
            )
    kind = fields.get("model_type")
    if kind and str(kind) not in _UNDERSTOOD:
        raise BadInput(
            f"model {name}: config.json field model_type {kind!r} is not understood; the planner "
            f"knows {', '.join(sorted(_UNDERSTOOD))}. A model that is built like one of them can "
            "be planned with its name in a copy of the file"
        )
