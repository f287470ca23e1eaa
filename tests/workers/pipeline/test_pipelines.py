"""Unequal pipelines on real vLLM: the same tokens as one rank, and nothing left of a killed one."""

import os
import signal
import time

import pytest

from tests.workers.pipeline.processes import (
    Told,
    assert_all_gone,
    assert_same,
    holding,
    left_in_shared_memory,
    run,
)

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

NOTICE_LIMIT_S = 2.0
STOPPED_LIMIT_S = 10.0
BUSY_MACHINE = 3.0
"""Factor on both, for a machine that also runs everything else."""
FULL_SHARE = 0.8
"""Of the batches that start when every stage has one; the others fill and empty the pipeline."""


@pytest.mark.parametrize(
    ("tp", "layers"),
    [
        ([1, 2], [4, 2]),
        pytest.param([2, 1], [4, 2], marks=pytest.mark.soak),
        pytest.param([1, 4, 1], [1, 3, 2], marks=pytest.mark.soak),
        pytest.param([1, 1], [4, 2], marks=pytest.mark.soak),
    ],
)
def test_unequal_stages_give_the_tokens_of_one_rank(
    model: str, one_rank: Told, tp: list[int], layers: list[int]
) -> None:
    """And every stage has a batch. With chunks of 32 tokens prefill and decoding share batches."""
    before = left_in_shared_memory()
    told = run({"model": model, "tp": tp, "layers": layers, "nodes": [0] * len(tp)})
    assert_same(one_rank, told)
    if told.batch_starts:
        assert len(told.batch_starts) == len(tp) + 1
        assert told.batch_starts[-1] > FULL_SHARE * sum(told.batch_starts)
    assert left_in_shared_memory() <= before


@pytest.mark.parametrize(
    ("victim", "number", "limit_s"),
    [
        ("rank", signal.SIGKILL, NOTICE_LIMIT_S),
        pytest.param("core", signal.SIGKILL, NOTICE_LIMIT_S, marks=pytest.mark.soak),
        pytest.param("janitor", signal.SIGKILL, NOTICE_LIMIT_S, marks=pytest.mark.soak),
        pytest.param("rank", signal.SIGSTOP, STOPPED_LIMIT_S, marks=pytest.mark.soak),
        pytest.param("core", signal.SIGSTOP, STOPPED_LIMIT_S, marks=pytest.mark.soak),
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


@pytest.mark.soak
def test_a_killed_worker_takes_its_pipeline_along(model: str) -> None:
    with holding(model) as (head, pids):
        head.kill()
        head.wait()
    assert_all_gone(pids)
