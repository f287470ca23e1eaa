"""Models of other sizes and kinds, in stages: the tokens of one rank."""

from pathlib import Path
from typing import Any

import pytest

from shunt.demo_model.tiny_llama import tiny_llama
from tests.workers.pipeline.holding import GONE_S
from tests.workers.pipeline.models import quantised_llama, tiny_mixtral
from tests.workers.pipeline.processes import ROOT, assert_same, run, start

pytestmark = [pytest.mark.vllm, pytest.mark.soak, pytest.mark.timeout(1200)]

SMOLLM2 = ROOT / ".cache" / "models" / "SmolLM2-135M-Instruct"
LOOPBACK = {"n-0": "127.0.0.1", "n-1": "127.0.0.1"}


def test_smollm2_in_six_stages_on_two_slots() -> None:
    """30 layers; embedding and output projection are one matrix, on the first and last stage."""
    _same_as_one_rank(str(SMOLLM2), tp=[1] * 6, layers=[5] * 6, nodes=[0, 0, 0, 1, 1, 1])


def test_smollm2_with_three_ranks_before_one() -> None:
    """Nine attention heads, three key-value heads."""
    _same_as_one_rank(str(SMOLLM2), tp=[3, 1], layers=[20, 10], nodes=[0, 0])


def test_tied_embeddings_with_other_heads(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path / "m", layers=5, heads=6, kv_heads=3, hidden=192, tie=True, seed=4)
    _same_as_one_rank(str(model), tp=[1, 3], layers=[1, 4], nodes=[0, 1])


def test_a_mixture_of_experts(tmp_path: Path) -> None:
    _same_as_one_rank(tiny_mixtral(tmp_path / "m"), tp=[2, 1], layers=[3, 1], nodes=[0, 0])


def test_a_quantised_model(tmp_path: Path) -> None:
    """Without TP: a token's activations are quantised by each rank's part of them."""
    _same_as_one_rank(quantised_llama(tmp_path / "m"), tp=[1, 1], layers=[3, 1], nodes=[0, 1])


def _same_as_one_rank(model: str, **stages: Any) -> None:
    spec = {"model": model, "addresses": LOOPBACK, **stages}
    one = run({"model": model, "tp": [1], "layers": [sum(stages["layers"])], "nodes": [0]})
    followers = [
        start("follow", spec | {"node": node}) for node in range(1, max(stages["nodes"]) + 1)
    ]
    told = run(spec)
    for follower in followers:
        assert follower.wait(GONE_S) == 0
        assert follower.stdout is not None
        follower.stdout.close()
    assert_same(one, told)
