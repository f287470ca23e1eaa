"""Unequal pipelines on real vLLM: the same tokens as one rank, and nothing left of a killed one."""

import signal

import pytest

from tests.workers.pipeline.holding import (
    assert_nothing_left,
    holding,
    left_in_shared_memory,
    strike,
)
from tests.workers.pipeline.processes import Told, assert_same, run

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
        ("head rank 1", signal.SIGKILL, NOTICE_LIMIT_S),
        pytest.param("core", signal.SIGKILL, NOTICE_LIMIT_S, marks=pytest.mark.soak),
        pytest.param("worker", signal.SIGKILL, NOTICE_LIMIT_S, marks=pytest.mark.soak),
        pytest.param("head janitor", signal.SIGKILL, NOTICE_LIMIT_S, marks=pytest.mark.soak),
        pytest.param("head rank 2", signal.SIGSTOP, STOPPED_LIMIT_S, marks=pytest.mark.soak),
        pytest.param("core", signal.SIGSTOP, STOPPED_LIMIT_S, marks=pytest.mark.soak),
        pytest.param("worker", signal.SIGSTOP, STOPPED_LIMIT_S, marks=pytest.mark.soak),
        pytest.param("head janitor", signal.SIGSTOP, STOPPED_LIMIT_S, marks=pytest.mark.soak),
    ],
)
def test_a_lost_process_ends_the_pipeline_and_leaves_nothing(
    model: str, victim: str, number: signal.Signals, limit_s: float
) -> None:
    spec = {"model": model, "tp": [2, 1], "layers": [4, 2], "nodes": [0, 0]}
    with holding(spec) as held:
        assert strike(held, victim, number) < limit_s * BUSY_MACHINE
        assert_nothing_left(held)


@pytest.mark.soak
def test_vllms_own_executor_notices_a_lost_rank_as_soon(model: str) -> None:
    """One host, one TP degree: no class of ours. Shared memory that it leaves has vLLM's names."""
    with holding({"model": model, "tp": [1, 1], "layers": [4, 2], "nodes": [0, 0]}) as held:
        assert strike(held, "head rank 0", signal.SIGKILL) < NOTICE_LIMIT_S * BUSY_MACHINE
        assert_nothing_left(held)
