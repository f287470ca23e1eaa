"""Random models of other kinds than Llama, and a quantised one."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from shunt.demo_model.tiny_llama import tiny_llama

_INT8_MAX = 127


def tiny_mixtral(path: Path) -> str:
    """Four experts, two of them for each token, in four layers."""
    # Heavy, and for this model only.
    import torch
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    tokenizer = tiny_llama(path, layers=1, heads=4, kv_heads=2, hidden=128, tie=False, seed=1)
    config = MixtralConfig(
        vocab_size=json.loads((tokenizer / "config.json").read_text())["vocab_size"],
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=2048,
        initializer_range=0.25,
    )
    (path / "model.safetensors").unlink()
    MixtralForCausalLM(config).save_pretrained(path)
    return str(path)


def quantised_llama(path: Path) -> str:
    """8-bit weights by channel and activations by token, as compressed-tensors stores them."""
    tiny_llama(path, layers=4, heads=4, kv_heads=2, hidden=128, tie=False, seed=2)
    file = path / "model.safetensors"
    tensors: dict[str, np.ndarray] = {}
    for name, weight in load_file(file).items():
        if "_proj." not in name:
            tensors[name] = weight
            continue
        scale = np.abs(weight).max(axis=1, keepdims=True) / _INT8_MAX
        tensors[name] = np.round(weight / scale).astype(np.int8)
        tensors[f"{name}_scale"] = scale.astype(np.float32)
    save_file(tensors, file, metadata={"format": "pt"})
    config = json.loads((path / "config.json").read_text())
    common = {"num_bits": 8, "type": "int", "symmetric": True}
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "ignore": ["lm_head"],
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": common | {"strategy": "channel", "dynamic": False},
                "input_activations": common | {"strategy": "token", "dynamic": True},
            }
        },
    }
    (path / "config.json").write_text(json.dumps(config))
    return str(path)
