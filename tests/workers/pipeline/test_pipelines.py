"""Unequal pipelines on real vLLM: the same tokens as one rank, and nothing left of a killed one."""

import os
import signal
import time

import pytest

from shunt.demo_model.tiny_llama import tiny_llama
from tests.workers.pipeline.processes import (
    assert_all_gone,
    holding,
    left_in_shared_memory,
    tokens_of,
)

pytestmark = [pytest.mark.vllm, pytest.mark.soak, pytest.mark.timeout(600)]

NOTICE_LIMIT_S = 2.0
STOPPED_LIMIT_S = 10.0
BUSY_MACHINE = 3.0
"""Factor on both, for a machine that also runs everything else."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("models") / "tiny"
    return str(tiny_llama(path, layers=6, heads=4, kv_heads=2, hidden=128, tie=False, seed=3))


@pytest.fixture(scope="module")
def one_rank(model: str) -> list[list[int]]:
    return tokens_of({"model": model, "tp": [1], "layers": [6], "nodes": [0]})


@pytest.mark.parametrize(
    ("tp", "layers"), [([2, 1], [4, 2]), ([1, 4, 1], [1, 3, 2]), ([1, 1], [4, 2])]
)
def test_unequal_stages_give_the_tokens_of_one_rank(
    model: str, one_rank: list[list[int]], tp: list[int], layers: list[int]
) -> None:
    before = left_in_shared_memory()
    spec = {"model": model, "tp": tp, "layers": layers, "nodes": [0] * len(tp)}
    assert tokens_of(spec) == one_rank
    assert left_in_shared_memory() <= before


@pytest.mark.parametrize(
    ("victim", "number", "limit_s"),
    [
        ("rank", signal.SIGKILL, NOTICE_LIMIT_S),
        ("core", signal.SIGKILL, NOTICE_LIMIT_S),
        ("janitor", signal.SIGKILL, NOTICE_LIMIT_S),
        ("rank", signal.SIGSTOP, STOPPED_LIMIT_S),
        ("core", signal.SIGSTOP, STOPPED_LIMIT_S),
    ],
)
def test_a_lost_process_ends_the_pipeline_and_leaves_nothing(
    model: str, victim: str, number: signal.Signals, limit_s: float
) -> None:
    with holding(model) as (head, pids):
        os.kill(pids[victim], number)
        since = time.monotonic()
        assert head.stdout is not None
        assert head.stdout.readline() == "died\n"
        assert time.monotonic() - since < limit_s * BUSY_MACHINE
        assert head.wait(30) == 0
    assert_all_gone(pids)


def test_a_killed_worker_takes_its_pipeline_along(model: str) -> None:
    with holding(model) as (head, pids):
        head.kill()
        head.wait()
    assert_all_gone(pids)
