"""Random Llamas for tests of the engine."""

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from shunt.demo_model.tiny_llama import tiny_llama


def make(path: Path, *, tie: bool = True, seed: int = 0) -> Path:
    return tiny_llama(path, layers=2, heads=2, kv_heads=1, hidden=64, tie=tie, seed=seed)


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    one, two, other = (
        make(tmp_path / name, seed=seed) for name, seed in [("a", 0), ("b", 0), ("c", 1)]
    )

    weights = [(model / "model.safetensors").read_bytes() for model in (one, two, other)]
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize("tie", [True, False])
def test_weights_agree_with_the_config(tmp_path: Path, tie: bool) -> None:
    path = make(tmp_path / "tiny", tie=tie)

    config = json.loads((path / "config.json").read_text())
    weights = load_file(path / "model.safetensors")
    assert config["tie_word_embeddings"] is tie
    assert ("lm_head.weight" in weights) is not tie
    assert weights["model.embed_tokens.weight"].shape == (config["vocab_size"], 64)
    assert weights["model.layers.1.self_attn.k_proj.weight"].shape == (32, 64)
    assert (path / "tokenizer.json").exists()


@pytest.mark.parametrize(
    ("hidden", "heads", "kv_heads"),
    [pytest.param(64, 4, 2, id="head size 16"), pytest.param(96, 3, 2, id="uneven groups")],
)
def test_sizes_that_no_engine_runs_are_refused(
    tmp_path: Path, hidden: int, heads: int, kv_heads: int
) -> None:
    with pytest.raises(ValueError, match="multiple of"):
        tiny_llama(
            tmp_path / "tiny",
            layers=1,
            heads=heads,
            kv_heads=kv_heads,
            hidden=hidden,
            tie=True,
            seed=0,
        )
