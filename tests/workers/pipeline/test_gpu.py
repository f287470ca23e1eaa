"""Unequal stages on GPUs: NCCL groups, model runner V2 and CUDA graphs.

Needs the CUDA build of vLLM and as many NVIDIA GPUs as the case says; some minutes.
"""

import signal
from typing import Any

import pytest

from shunt.run.audit import compare
from tests.workers.pipeline.holding import assert_nothing_left, holding, strike
from tests.workers.pipeline.processes import ROOT, play, run

pytestmark = [pytest.mark.gpu, pytest.mark.vllm, pytest.mark.timeout(1800)]

MODEL = str(ROOT / ".cache" / "models" / "SmolLM2-135M-Instruct")
NEAR_TIE = 0.05
"""In float32 with the matrix units' own rounding (TF32)."""
GPU = {"model": MODEL, "device": "cuda", "dtype": "float32", "budget": 256}


def _needs(num_gpus: int) -> None:
    # Only where the test runs: this file is collected without torch, too.
    torch = pytest.importorskip("torch")
    if torch.cuda.device_count() < num_gpus:
        pytest.skip(f"needs {num_gpus} GPUs")


@pytest.mark.parametrize(
    ("tp", "layers", "nodes"),
    [
        ([1, 1], [20, 10], [0, 1]),
        ([1, 3], [8, 22], [0, 0]),
        ([3, 1], [20, 10], [0, 1]),
        ([1, 3, 1], [5, 20, 5], [0, 0, 1]),
    ],
)
def test_stages_on_gpus_give_the_tokens_of_one(
    tp: list[int], layers: list[int], nodes: list[int]
) -> None:
    _needs(sum(tp))
    spec: dict[str, Any] = GPU | {"tp": tp, "layers": layers, "nodes": nodes}
    spec["addresses"] = {"n-0": "127.0.0.1", "n-1": "127.0.0.1"}
    one = run(GPU | {"tp": [1], "layers": [30], "nodes": [0]})
    followers = [play("follow", spec | {"node": 1})] if max(nodes) else []
    told = run(spec)
    for follower in followers:
        follower.end(60)
    for expected, generation in zip(one.generations, told.generations, strict=True):
        found = compare(expected, generation)
        assert found.same_tokens or (found.choice_gap or 0.0) < NEAR_TIE, found
    assert told.batch_starts[-1] > 0


def test_a_lost_rank_frees_the_gpus() -> None:
    _needs(2)
    spec = GPU | {"tp": [1, 1], "layers": [20, 10], "nodes": [0, 0]}
    with holding(spec) as held:
        strike(held, "head rank 1", signal.SIGKILL)
        assert_nothing_left(held)
    with holding(spec):
        pass  # the next launch finds the memory free
