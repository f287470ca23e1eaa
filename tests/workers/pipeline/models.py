"""Random models of other kinds than Llama, and a quantised one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from shunt.demo_model.tiny_llama import tiny_llama

_INT8_MAX = 127
_WIDE = 0.25
"""Standard deviation of the weights: flat logits would make every choice a near-tie."""
_GROUP = 32
"""Weights of 4 bits that share a scale."""


def tiny(path: Path, architecture: str, **sizes: Any) -> str:
    """A random model of an architecture of transformers, under its own names of the sizes."""
    # Heavy, and for these models only.
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    tokenizer = tiny_llama(path, layers=1, heads=4, kv_heads=2, hidden=128, tie=False, seed=1)
    (path / "model.safetensors").unlink()
    vocab_size = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    config = AutoConfig.for_model(
        architecture, vocab_size=vocab_size, initializer_range=_WIDE, **sizes
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(path)
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


def gptq_llama(path: Path) -> str:
    """4-bit weights in groups, as GPTQ packs them: eight rows to a number."""
    tiny_llama(path, layers=4, heads=4, kv_heads=2, hidden=256, tie=False, seed=2)
    file = path / "model.safetensors"
    tensors: dict[str, np.ndarray] = {}
    for name, weight in load_file(file).items():
        if "_proj." not in name:
            tensors[name] = weight
            continue
        layer = name.removesuffix(".weight")
        rows = weight.T.astype(np.float32)  # input x output
        groups = rows.reshape(-1, _GROUP, rows.shape[1])
        scales = np.abs(groups).max(axis=1) / 7
        numbers = np.round(groups / scales[:, None]).reshape(rows.shape).astype(np.int64) + 8
        zeros = np.full((len(scales), rows.shape[1]), 7)  # one less than the zero point
        tensors[f"{layer}.qweight"] = _packed(numbers)
        tensors[f"{layer}.qzeros"] = np.ascontiguousarray(_packed(zeros.T).T)
        tensors[f"{layer}.scales"] = scales.astype(np.float16)
        tensors[f"{layer}.g_idx"] = (np.arange(len(rows)) // _GROUP).astype(np.int32)
    save_file(tensors, file, metadata={"format": "pt"})
    config = json.loads((path / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": _GROUP,
        "desc_act": False,
        "sym": True,
    }
    (path / "config.json").write_text(json.dumps(config))
    return str(path)


def _packed(numbers: np.ndarray) -> np.ndarray:
    """Eight rows of 4 bits to one of 32, the first in the lowest bits."""
    parts = numbers.reshape(-1, 8, numbers.shape[1])
    packed = sum(parts[:, at] << (4 * at) for at in range(8))
    return np.asarray(packed).astype(np.uint32).view(np.int32)


def llama_adapter(path: Path, model: str) -> str:
    """A LoRA adapter of rank 8 on the attention of every layer of `model`."""
    config = json.loads((Path(model) / "config.json").read_text())
    hidden = config["hidden_size"]
    head = hidden // config["num_attention_heads"]
    widths = {"q_proj": hidden, "v_proj": head * config["num_key_value_heads"]}
    rng = np.random.default_rng(5)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for name, width in widths.items():
            at = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{at}.lora_A.weight"] = rng.normal(0, 0.3, (8, hidden)).astype(np.float32)
            tensors[f"{at}.lora_B.weight"] = rng.normal(0, 0.3, (width, 8)).astype(np.float32)
    path.mkdir()
    save_file(tensors, path / "adapter_model.safetensors", metadata={"format": "pt"})
    (path / "adapter_config.json").write_text(
        json.dumps(
            {
                "peft_type": "LORA",
                "r": 8,
                "lora_alpha": 16,
                "target_modules": sorted(widths),
                "bias": "none",
                "task_type": "CAUSAL_LM",
            }
        )
    )
    return str(path)
