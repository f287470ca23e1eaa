"""What stages need and have, from files and the machine, before anything starts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from workers.engine.config import KV_CACHE_SPACE, EngineConfig
from workers.pipeline.checks import PipelineRefused
from workers.pipeline.memory import StageNeeds, cache_tokens, check_fit, stage_needs
from workers.pipeline.stage_map import StageMap

STAGES = StageMap(tp=(2, 1), layers=(2, 1), nodes=(0, 0))
HIDDEN, VOCAB = 8, 10


def model(path: Path, *, tied: bool) -> EngineConfig:
    """Three layers of one 8 x 8 matrix each; 4 heads, 2 of them key-value heads, of 2 numbers."""
    fields = {
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_size": HIDDEN,
        "tie_word_embeddings": tied,
    }
    (path / "config.json").write_text(json.dumps(fields))
    tensors: dict[str, Any] = {
        f"model.layers.{i}.w.weight": np.zeros((HIDDEN, HIDDEN), "f4") for i in range(3)
    }
    tensors["model.embed_tokens.weight"] = np.zeros((VOCAB, HIDDEN), "f4")
    tensors["model.norm.weight"] = np.zeros(HIDDEN, "f4")
    if not tied:
        tensors["lm_head.weight"] = np.zeros((VOCAB, HIDDEN), "f4")
    save_file(tensors, path / "model.safetensors")
    return EngineConfig(model_path=str(path), dtype="float32", max_model_len=16)


@pytest.mark.parametrize("tied", [True, False])
def test_weights_and_cache_of_each_stage(tmp_path: Path, tied: bool) -> None:
    """Layer: 64 numbers; embedding and head: 80 each; norm: 8. Cache: 2 x layers x 4 numbers."""
    config = model(tmp_path, tied=tied)
    expected = StageNeeds(
        weights=(4 * (2 * 64 + 80), 4 * (64 + 80 + 8)), cache_per_token=(4 * 16, 4 * 8)
    )
    assert stage_needs(config, STAGES) == expected
    half = stage_needs(replace(config, dtype="bfloat16"), STAGES)
    assert half == StageNeeds(
        weights=(expected.weights[0] // 2, expected.weights[1] // 2), cache_per_token=(32, 16)
    )


def test_key_value_heads_are_repeated_where_tp_exceeds_them(tmp_path: Path) -> None:
    config = model(tmp_path, tied=True)
    assert stage_needs(config, replace(STAGES, tp=(4, 1))).cache_per_token == (4 * 32, 4 * 8)


def test_latent_attention_is_kept_whole_by_every_rank(tmp_path: Path) -> None:
    config = model(tmp_path, tied=True)
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text()) | {"kv_lora_rank": 5, "qk_rope_head_dim": 1}
    path.write_text(json.dumps(fields))
    assert stage_needs(config, STAGES).cache_per_token == (2 * 6 * 2 * 4, 1 * 6 * 1 * 4)


def test_the_smallest_stage_decides_how_many_tokens_are_held(tmp_path: Path) -> None:
    """Both of stage 0's ranks hold 32 bytes of a token, and so does the one of stage 1."""
    config = model(tmp_path, tied=True)
    assert cache_tokens(config, STAGES, bytes_per_rank=320) == 10
    assert cache_tokens(config, replace(STAGES, tp=(1, 1)), bytes_per_rank=320) == 5


def test_a_stage_that_does_not_fit_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = model(tmp_path, tied=True)
    monkeypatch.setenv(KV_CACHE_SPACE, "0")
    check_fit(config, STAGES, device="cpu")
    monkeypatch.setenv(KV_CACHE_SPACE, "100000")
    with pytest.raises(PipelineRefused, match="stage 0 has no memory left: 416 bytes of weights"):
        check_fit(config, STAGES, device="cpu")
