"""Models of other sizes and kinds, in stages: the tokens of one rank."""

from pathlib import Path
from typing import Any

import pytest

from shunt.demo_model.tiny_llama import tiny_llama
from tests.workers.pipeline.holding import GONE_S
from tests.workers.pipeline.models import gptq_llama, llama_adapter, quantised_llama, tiny
from tests.workers.pipeline.processes import ROOT, Told, assert_same, play, run

pytestmark = [pytest.mark.vllm, pytest.mark.soak, pytest.mark.timeout(1200)]

SMOLLM2 = ROOT / ".cache" / "models" / "SmolLM2-135M-Instruct"
LOOPBACK = {f"n-{node}": "127.0.0.1" for node in range(3)}


def test_smollm2_in_six_stages_on_two_slots() -> None:
    """30 layers; embedding and output projection are one matrix, on the first and last stage."""
    _same_as_one_rank(str(SMOLLM2), tp=[1] * 6, layers=[5] * 6, nodes=[0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize("nodes", [[0, 0], [0, 1]])
def test_smollm2_with_three_ranks_before_one(nodes: list[int]) -> None:
    """Nine attention heads, three key-value heads."""
    _same_as_one_rank(str(SMOLLM2), tp=[3, 1], layers=[20, 10], nodes=nodes)


@pytest.mark.parametrize(
    ("tp", "layers", "nodes", "heads", "kv_heads", "tie"),
    [
        ([1, 3], [1, 4], [0, 1], 6, 3, True),
        ([1, 1, 2], [2, 1, 2], [0, 0, 0], 6, 2, True),
        ([2, 2, 1], [2, 2, 1], [0, 1, 2], 4, 4, False),
        ([2, 1], [1, 4], [0, 1], 14, 2, False),
        ([5, 1], [3, 2], [0, 1], 15, 5, True),
        ([4, 1], [3, 2], [0, 0], 4, 1, False),
    ],
)
def test_other_heads_and_layouts(
    tmp_path: Path,
    tp: list[int],
    layers: list[int],
    nodes: list[int],
    heads: int,
    kv_heads: int,
    tie: bool,
) -> None:
    model = tiny_llama(
        tmp_path / "m", layers=5, heads=heads, kv_heads=kv_heads, hidden=32 * heads, tie=tie, seed=4
    )
    _same_as_one_rank(str(model), tp=tp, layers=layers, nodes=nodes)


ATTENTION = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "qwen2": ATTENTION | {"tie_word_embeddings": True},
    "qwen3": ATTENTION | {"head_dim": 64},
    "gemma2": ATTENTION | {"head_dim": 32, "sliding_window": 32},
    "phi3": ATTENTION | {"pad_token_id": 0},
    "gpt2": {"n_embd": 128, "n_layer": 4, "n_head": 4, "n_positions": 2048},
    "opt": ATTENTION | {"ffn_dim": 256, "word_embed_proj_dim": 128},
    "mixtral": ATTENTION | {"num_local_experts": 4},
    "qwen2_moe": ATTENTION
    | {
        "moe_intermediate_size": 64,
        "shared_expert_intermediate_size": 128,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    },
    "qwen3_moe": ATTENTION
    | {"head_dim": 32, "moe_intermediate_size": 64, "num_experts": 4, "num_experts_per_tok": 2},
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_architectures(tmp_path: Path, architecture: str) -> None:
    """Biases, norms of heads, tied embeddings, learned positions, experts of one rank's part."""
    model = tiny(tmp_path / "m", architecture, **ARCHITECTURES[architecture])
    _same_as_one_rank(model, tp=[2, 1], layers=[3, 1], nodes=[0, 0])


def test_a_quantised_model(tmp_path: Path) -> None:
    """Without TP: a token's activations are quantised by each rank's part of them."""
    _same_as_one_rank(quantised_llama(tmp_path / "m"), tp=[1, 1], layers=[3, 1], nodes=[0, 1])


def test_a_model_of_gptq(tmp_path: Path) -> None:
    """In bfloat16: the kernel knows no float32, and rounds alike only where TP is the same."""
    model = gptq_llama(tmp_path / "m")
    _same_as_one_rank(model, tp=[1, 1], layers=[3, 1], nodes=[0, 1], dtype="bfloat16")


def test_an_adapter(model: str, one_rank: Told, tmp_path: Path) -> None:
    """Of LoRA: each stage takes its layers' part, each rank its heads'."""
    adapters = {"a": llama_adapter(tmp_path / "a", model)}
    told = _same_as_one_rank(model, tp=[2, 1], layers=[4, 2], nodes=[0, 1], adapters=adapters)
    assert [g.token_ids for g in told.generations] != [g.token_ids for g in one_rank.generations]


def _same_as_one_rank(model: str, **stages: Any) -> Told:
    spec = {"model": model, "addresses": LOOPBACK, **stages}
    one = run(spec | {"tp": [1], "layers": [sum(stages["layers"])], "nodes": [0]})
    followers = [
        play("follow", spec | {"node": node}) for node in range(1, max(stages["nodes"]) + 1)
    ]
    told = run(spec)
    for follower in followers:
        follower.end(GONE_S)
    assert_same(one, told)
    return told
