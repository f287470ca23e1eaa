"""Models of many families: planned right, or refused by the field that is not understood."""

import json
from pathlib import Path

import pytest

from placement.catalogue.known_model import known_shape
from placement.catalogue.model_config import shape_from_config
from placement.errors import BadInput

# Default configs of transformers 5, with the parameters of the model that it builds of each.
CASES = Path(__file__).parents[1] / "cases" / "default_configs.jsonl"
ROWS = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
REFUSED = {
    "jamba": "attn_layer",
    "qwen3_next": "linear_",
    "bert": "model_type",
    "deepseek_v2": "num_experts_per_tok",
    "glm4_moe": "head_dim",
    "gpt_neo": "num_hidden_layers",
    "mpt": "num_hidden_layers",
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["config"]["model_type"])
def test_weights_are_counted_right_or_the_field_is_named(row: dict[str, object]) -> None:
    config = row["config"]
    assert isinstance(config, dict)
    kind = str(config["model_type"])
    if kind in REFUSED:
        with pytest.raises(BadInput, match=REFUSED[kind]):
            shape_from_config(config, name=kind)
        return
    shape = shape_from_config(config, name=kind)
    assert shape.total_weights == pytest.approx(row["parameters"], rel=0.015)


LAYERS = {
    "num_hidden_layers": 62,
    "hidden_size": 5376,
    "num_attention_heads": 32,
    "num_key_value_heads": 16,
    "head_dim": 128,
    "intermediate_size": 21504,
    "vocab_size": 262208,
}


def test_gemma_3_without_layer_types_has_a_window_in_five_layers_of_six() -> None:
    shape = shape_from_config(
        {"model_type": "gemma3_text", **LAYERS, "sliding_window": 1024}, name="gemma"
    )
    assert (shape.window, shape.window_layers) == (1024, 52)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"layer_types": ["full_attention", "linear_attention"]}, "layer_types"),
        ({"mamba_d_state": 16}, "mamba_d_state"),
        ({"is_encoder_decoder": True}, "is_encoder_decoder"),
        ({"model_type": "rwkv"}, "model_type"),
    ],
)
def test_layers_of_other_kinds_are_refused(fields: dict[str, object], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        shape_from_config({"model_type": "llama", **LAYERS, **fields}, name="other")


@pytest.mark.parametrize(
    ("name", "billions"),
    [("gpt-oss-20b", 20.9), ("gpt-oss-120b", 116.8), ("gemma-3-27b-it", 27.0), ("Phi-4", 14.7)],
)
def test_shipped_models_have_their_published_size(name: str, billions: float) -> None:
    assert known_shape(name).total_weights / 1e9 == pytest.approx(billions, rel=0.02)
