"""Shapes from config.json: the counts of published models, and errors that name what is missing."""

import json
from pathlib import Path

import pytest

from placement.catalogue.known_model import known_models, known_shape
from placement.catalogue.model_config import read_model_shape, shape_from_config
from placement.catalogue.model_shape import WeightFormat
from placement.errors import BadInput

LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 100,
}


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("Llama-2-7b-hf", 6.74),
        ("Meta-Llama-3-8B", 8.03),
        ("Llama-3.1-70B-Instruct", 70.6),
        ("Llama-3.1-405B-Instruct", 405.9),
        ("Mixtral-8x7B-v0.1", 46.7),
        ("Qwen2-7B", 7.62),
        ("Qwen3-32B", 32.8),
        ("Qwen3-30B-A3B", 30.5),
        ("Qwen3-235B-A22B", 235.1),
        ("DeepSeek-V2-Lite", 15.7),
        ("DeepSeek-V3", 671.0),
        ("Llama-4-Scout-17B-16E", 107.8),
    ],
)
def test_parameters_are_the_published_ones(name: str, billions: float) -> None:
    assert known_shape(name).total_weights / 1e9 == pytest.approx(billions, rel=0.01)


def test_active_parameters_of_mixtures() -> None:
    """A3B and A22B are in the models' names; Mixtral has 12.9B active (its paper)."""
    for name, billions in (
        ("Qwen3-30B-A3B", 3.3),
        ("Qwen3-235B-A22B", 22.2),
        ("Mixtral-8x7B-v0.1", 12.9),
        ("DeepSeek-V3", 37.5),
    ):
        shape = known_shape(name)
        active = shape.num_layers * shape.active_layer_weights + 2 * shape.vocab * shape.hidden
        assert active / 1e9 == pytest.approx(billions, rel=0.03)


def test_cache_of_a_small_llama_by_hand() -> None:
    """2 (K and V) x 2 KV heads x 16 numbers x 2 bytes = 128 bytes per token and layer; on two
    ranks half of it; on four ranks the single head of a rank is replicated."""
    shape = shape_from_config(LLAMA, name="tiny")
    assert [shape.kv_bytes(tp) for tp in (1, 2, 4)] == [128, 64, 64]


def test_cache_of_a_latent_is_the_same_on_every_rank() -> None:
    """DeepSeek-V3: 512 + 64 numbers of 2 bytes."""
    shape = known_shape("DeepSeek-V3")
    assert [shape.kv_bytes(tp) for tp in (1, 8)] == [1152, 1152]


def test_touched_experts() -> None:
    """One token of Mixtral touches 2 experts, very many touch all 8, two touch 8 (1 - 0.75^2)."""
    experts = known_shape("Mixtral-8x7B-v0.1").experts
    assert experts is not None
    assert experts.touched(1) == pytest.approx(2.0)
    assert experts.touched(2) == pytest.approx(3.5)
    assert experts.touched(1000) == pytest.approx(8.0)


@pytest.mark.parametrize(
    ("quantisation", "expected"),
    [
        ({"quant_method": "awq", "bits": 4}, WeightFormat.INT4),
        ({"quant_method": "gptq", "bits": 8}, WeightFormat.INT8),
        ({"quant_method": "fp8"}, WeightFormat.FP8),
        ({"quant_algo": "NVFP4"}, WeightFormat.FP4),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {"weights": {"num_bits": 8, "type": "float"}}},
            },
            WeightFormat.FP8,
        ),
    ],
)
def test_quantised_weights(quantisation: dict[str, object], expected: WeightFormat) -> None:
    shape = shape_from_config({**LLAMA, "quantization_config": quantisation}, name="tiny")
    assert shape.weight_format is expected


def test_sliding_windows_forget() -> None:
    shape = shape_from_config({**LLAMA, "sliding_window": 100}, name="tiny")
    assert shape.attended(1000) == 100
    half = {**LLAMA, "sliding_window": 100, "layer_types": ["sliding_attention", "full_attention"]}
    assert shape_from_config(half, name="tiny").attended(1000) == 550


def test_missing_fields_are_named() -> None:
    broken = {k: v for k, v in LLAMA.items() if k not in {"hidden_size", "vocab_size"}}
    with pytest.raises(BadInput, match="lacks hidden_size, vocab_size"):
        shape_from_config(broken, name="tiny")
    with pytest.raises(BadInput, match="lacks intermediate_size"):
        shape_from_config({k: v for k, v in LLAMA.items() if k != "intermediate_size"}, name="t")
    with pytest.raises(BadInput, match="num_experts_per_tok"):
        shape_from_config({**LLAMA, "num_local_experts": 8}, name="tiny")
    with pytest.raises(BadInput, match="hidden_size"):
        shape_from_config({**LLAMA, "hidden_size": -64}, name="tiny")


def test_files_that_are_no_config(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        read_model_shape(tmp_path / "nothing.json")
    (tmp_path / "config.json").write_text("{ not json")
    with pytest.raises(BadInput, match="not JSON"):
        read_model_shape(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert read_model_shape(tmp_path).num_layers == 2


def test_every_shipped_shape_reads() -> None:
    assert len([known_shape(name) for name in known_models()]) >= 20
    with pytest.raises(BadInput, match="unknown model"):
        known_shape("gpt-9")
